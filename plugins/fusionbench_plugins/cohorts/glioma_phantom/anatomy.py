"""The brain of one subject: the ICBM152 atlas on the grid of the cohort, warped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, Shape, smooth_field

CORNER = (-96.0, -138.0, -64.0)
"""The lower corner of the field of view in MNI millimetres; like BraTS it ends within the brain stem."""
EXTENT = (192.0, 240.0, 152.0)
"""The field of view in mm; 48 x 60 x 38 voxels at 4 mm."""
ATLAS_ORIGIN = (-98.0, -134.0, -72.0)
"""The MNI millimetres of the first voxel of the templates at 1 mm."""
SCALE_DEVIATION = 0.03
"""Brain sizes after the affine registration to an atlas that BraTS applies differ by a few per cent."""
WARP_DEVIATION = 3.0  # mm
WARP_KNOTS = 40.0  # mm; the gradient of the warp stays well below 1, so it never folds
POINT_SPREAD = 0.3
"""Deviation of the smoothing, in voxels, before sampling: that of a box one voxel wide is 1 / sqrt(12) = 0.29."""


@dataclass(frozen=True)
class Atlas:
    """ICBM152 2009a at 1 mm, (197, 233, 189), smoothed to what a voxel of some size can resolve."""

    inside: Field
    """1 within the brain."""
    grey: Field
    white: Field


@dataclass(frozen=True)
class Anatomy:
    """The share of white matter, grey matter and fluid in each voxel (X, Y, Z), and which voxels are brain."""

    white: Field
    grey: Field
    fluid: Field
    brain: NDArray[np.bool_]
    spacing: float

    @property
    def shape(self) -> Shape:
        """The number of voxels along X, Y, Z."""
        x, y, z = self.white.shape
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """In cubic centimetres."""
        return self.spacing**3 / 1000


def grid(spacing: float) -> Shape:
    """The number of voxels along X, Y, Z.

    >>> grid(4.0)
    (48, 60, 38)
    """
    x, y, z = (round(extent / spacing) for extent in EXTENT)
    return x, y, z


def affine(spacing: float) -> NDArray[np.float64]:
    """From voxel to MNI millimetres, RAS."""
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = np.asarray(CORNER) + spacing / 2
    return matrix


def load_atlas(spacing: float) -> Atlas:
    """The maps that the nilearn wheel carries, for voxels of that size; no download."""
    from nilearn import datasets  # 1.5 s: only when a cohort is written

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    template, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    inside = (template > 0).astype(np.float32)
    return Atlas(*(ndimage.gaussian_filter(volume, POINT_SPREAD * spacing) for volume in (inside, grey, white)))


def warped_anatomy(atlas: Atlas, spacing: float, rng: np.random.Generator) -> Anatomy:
    """The atlas at the places where a smooth random warp sends the voxels of the grid."""
    places = _warped_places(spacing, rng)
    inside, grey, white = (
        ndimage.map_coordinates(volume, places, order=1, output=np.float32)
        for volume in (atlas.inside, atlas.grey, atlas.white)
    )
    brain = inside > 0.5
    grey, white = (np.clip(part / np.maximum(inside, 0.5), 0, 1) * brain for part in (grey, white))
    fluid = np.clip(brain - grey - white, 0, 1)
    return Anatomy(white, grey, fluid, brain, spacing)


def _warped_places(spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where each voxel is looked up in the 1 mm atlas: (3, X, Y, Z)."""
    shape = grid(spacing)
    scale = 1 + SCALE_DEVIATION * np.clip(rng.standard_normal(3), -2, 2)
    millimetres = affine(spacing)[:3, 3].reshape(3, 1, 1, 1) + np.indices(shape) * spacing
    centre = (np.asarray(CORNER) + np.asarray(EXTENT) / 2).reshape(3, 1, 1, 1)
    warp = np.stack([smooth_field(shape, spacing, WARP_KNOTS, rng) for _ in range(3)]) * WARP_DEVIATION
    places: NDArray[np.float64] = centre + (millimetres - centre) * scale.reshape(3, 1, 1, 1) + warp
    places -= np.asarray(ATLAS_ORIGIN).reshape(3, 1, 1, 1)
    return places
