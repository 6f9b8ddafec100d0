"""What the tumour is made of, voxel by voxel: necrosis, enhancing tumour, solid tumour, oedema.

Compartments are thresholds on the density, from the middle outwards, roughened so that they are not concentric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, Shape, smooth_field
from fusionbench_plugins.cohorts.glioma_phantom.pathology import Pathology

NECROSIS, OEDEMA, SOLID, ENHANCING = 1, 2, 3, 4
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Texture:
    """Random fields (X, Y, Z) that roughen the compartments; they know no grade."""

    rough: Field
    patches: Field


def draw_texture(shape: Shape, spacing: float, rng: np.random.Generator) -> Texture:
    """Irregular borders and the places where patches enhance."""
    return Texture(smooth_field(shape, spacing, 16.0, rng), smooth_field(shape, spacing, 16.0, rng))


def compartments(density: Field, voxels: int, pathology: Pathology, texture: Texture) -> Labels:
    """NECROSIS, OEDEMA, SOLID, ENHANCING or 0 for each voxel (X, Y, Z); `voxels` of them are tumour.

    Which voxels are tumour depends on the density alone, so it is the same for every pathology.
    """
    labels = np.zeros(density.shape, dtype=np.uint8)
    tumour = _most(density, voxels, density > 0)
    labels[tumour] = OEDEMA
    # The log odds of the density grow evenly with depth, where the density itself is flat.
    odds = np.log(np.clip(density, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(density, 1e-6, 1 - 1e-6))
    depth = odds + np.float32(0.5) * texture.rough
    size = round(pathology.core * voxels)
    core = _most(depth, size, tumour)
    labels[core] = SOLID
    necrosis = _most(depth, round(pathology.necrosis * size), core)
    labels[necrosis] = NECROSIS
    where = depth if pathology.ring else texture.patches
    labels[_most(where, round(pathology.enhancing * size), core & ~necrosis)] = ENHANCING
    return labels


def brats_labels(labels: Labels) -> Labels:
    """The labels of BraTS: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing."""
    return np.where(labels == SOLID, np.uint8(NECROSIS), labels)


def _most(score: Field, count: int, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The `count` voxels of the highest score among some; ties go to the first."""
    candidates = np.flatnonzero(among)
    best = candidates[np.argsort(-score.ravel()[candidates], kind="stable")[:count]]
    chosen = np.zeros(score.shape, dtype=np.bool_)
    chosen.ravel()[best] = True
    return chosen
