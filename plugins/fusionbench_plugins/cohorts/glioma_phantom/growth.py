"""Where the tumour is: Fisher-KPP growth through white matter (fast) and grey matter (slow), never into fluid.

dc/dt = div(D grad c) + rho c (1 - c), c the cell density over what the tissue can hold. Nothing here knows the grade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench_plugins.cohorts.glioma_phantom.anatomy import CORNER, Anatomy
from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, smooth_field

WHITE_OVER_GREY = 5.0
"""Glioma cells move five times as fast in white matter (Swanson et al., Cell Prolif 2000)."""
VISIBLE = 0.16
"""The density from which T2 and FLAIR show the tumour (Harpold et al., J Neuropathol Exp Neurol 2007)."""
DIFFUSION_NUMBER = 0.15
"""D dt / h^2. Above 1/6 the explicit scheme in three dimensions amplifies the shortest wave: a checkerboard."""
MOST_GROWTH = 0.5
"""rho dt. Below 1 the density never overshoots 1."""
MOST_STEPS = 5000

VOLUME_MEDIAN, VOLUME_DEVIATION, VOLUME_RANGE = 70.0, 0.5, (15.0, 200.0)
"""Of the whole tumour, in cubic centimetres, log-normal: the order of what BraTS shows, in both grades alike."""


@dataclass(frozen=True)
class Tumour:
    """Where a tumour starts, how large it gets and how diffuse its front is: the same draws for every grade."""

    volume: float
    """In cubic centimetres."""
    front: float
    """sqrt(D / rho) in white matter, in mm."""
    seeds: NDArray[np.int64]
    """Voxels, (number of seeds, 3)."""
    vigour: Field
    """rho over its mean, (X, Y, Z)."""


def draw_volume(rng: np.random.Generator) -> float:
    """The volume of a tumour in cubic centimetres. It takes no grade: neither can be told by size."""
    return float(np.clip(VOLUME_MEDIAN * np.exp(VOLUME_DEVIATION * rng.standard_normal()), *VOLUME_RANGE))


def draw_tumour(anatomy: Anatomy, rng: np.random.Generator) -> Tumour:
    """A tumour that starts in the white matter of the cerebrum."""
    vigour = np.exp(0.4 * smooth_field(anatomy.shape, anatomy.spacing, 20.0, rng))
    return Tumour(draw_volume(rng), float(rng.uniform(3.0, 6.0)), _draw_seeds(anatomy, rng), vigour.astype(np.float32))


def grow(anatomy: Anatomy, tumour: Tumour) -> Field:
    """The density (X, Y, Z), in [0, 1], once the visible part has reached the tumour's volume."""
    dt = min(DIFFUSION_NUMBER, MOST_GROWTH * (tumour.front / anatomy.spacing) ** 2)  # in units of h^2 / D
    faces = [np.float32(dt) * face for face in _faces(_diffusivity(anatomy))]
    proliferation = np.float32(dt * (anatomy.spacing / tumour.front) ** 2) * tumour.vigour * _habitable(anatomy)
    np.minimum(proliferation, 2 * MOST_GROWTH, out=proliferation)
    density = _first_cells(anatomy, tumour)
    wanted = tumour.volume / anatomy.voxel_volume
    for _ in range(MOST_STEPS):
        if np.count_nonzero(density > VISIBLE) >= wanted:
            break
        density = step(density, faces, proliferation)
    return density


def step(density: Field, faces: list[Field], proliferation: Field) -> Field:
    """One explicit step: what flows through the faces between voxels, and what is born."""
    change = proliferation * density * (1 - density)
    for axis, face in enumerate(faces):
        flow = np.diff(density, axis=axis) * face
        lower, upper = _both_sides(axis)
        change[lower] += flow
        change[upper] -= flow
    return density + change


def _both_sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    lower, upper = [slice(None)] * 3, [slice(None)] * 3
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    return tuple(lower), tuple(upper)


def _habitable(anatomy: Anatomy) -> NDArray[np.bool_]:
    return anatomy.brain & (anatomy.fluid < 0.5)


def _diffusivity(anatomy: Anatomy) -> Field:
    """D over that of white matter; 0 in fluid and outside the brain."""
    diffusivity: Field = (anatomy.white + anatomy.grey / np.float32(WHITE_OVER_GREY)) * _habitable(anatomy)
    return diffusivity


def _faces(diffusivity: Field) -> list[Field]:
    """D at the faces between neighbours along each axis: the harmonic mean, so that fluid lets nothing through."""
    faces = []
    for axis in range(3):
        lower, upper = (diffusivity[side] for side in _both_sides(axis))
        faces.append(2 * lower * upper / np.maximum(lower + upper, np.float32(1e-6)))
    return faces


def _draw_seeds(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.int64]:
    """One to three voxels of white matter within 15 mm, above the level of the cerebellum."""
    white = np.argwhere(anatomy.white > 0.6)
    cerebrum = white[CORNER[2] + (white[:, 2] + 0.5) * anatomy.spacing > 0]
    first = cerebrum[rng.integers(len(cerebrum))]
    near = cerebrum[np.linalg.norm((cerebrum - first) * anatomy.spacing, axis=1) <= 15.0]
    more = near[rng.integers(len(near), size=rng.integers(0, 3))]
    return np.vstack([first[None], more])


def _first_cells(anatomy: Anatomy, tumour: Tumour) -> Field:
    """A few millimetres of dense tumour about each seed."""
    indices = np.indices(anatomy.shape).reshape(3, -1).T.astype(np.float32)
    distance = np.min([((indices - seed) ** 2).sum(axis=1) for seed in tumour.seeds], axis=0) * anatomy.spacing**2
    density = np.exp(-distance / (2 * 4.0**2)).reshape(anatomy.shape).astype(np.float32)
    cells: Field = density * _habitable(anatomy)
    return cells
