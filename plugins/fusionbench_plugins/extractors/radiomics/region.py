"""What lies inside an outline, ready to be measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fusionbench import CohortError

Values = NDArray[np.float64]
Levels = NDArray[np.intp]
Spacing = tuple[float, float, float]
LARGEST: Final = 1e15
"""Of grey values beyond it, the sum of squares would not fit into single precision, in which strategies compute."""


@dataclass(frozen=True)
class Region:
    """The inside of an outline, cropped to its box."""

    mask: NDArray[np.bool_]
    """(D, H, W): which voxels are inside."""
    values: Values
    """(N,): the grey values of the voxels inside, in the order of the mask."""
    levels: Levels
    """(D, H, W): the discretised grey values from 1 on; 0 outside."""
    bins: int
    """The number of grey levels that there can be, N_g."""
    spacing: Spacing
    """Millimetres per voxel along D, H, W."""

    @property
    def inside(self) -> Levels:
        """The grey levels of the voxels inside, (N,)."""
        return self.levels[self.mask]


@dataclass(frozen=True)
class Preparation:
    """How a region is made of an image: what happens to its grey values, and how they become levels."""

    standardise: bool
    discretise: Callable[[Values], tuple[Levels, int]]

    def region(self, image: Values, mask: NDArray[np.bool_], spacing: Spacing) -> Region:
        """The region inside a mask. CohortError for grey values that are no numbers to compute with."""
        box = bounding_box(mask)
        inside = mask[box]
        values = image[box][inside]
        _require_numbers(values, "inside the outline")
        if self.standardise:
            values = standardised(values, image)
        levels = np.zeros(inside.shape, dtype=np.intp)
        levels[inside], bins = self.discretise(values)
        return Region(inside, values, levels, bins, spacing)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask."""
    axes = range(mask.ndim)
    found = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(where[0], where[-1] + 1) for where in found)


def standardised(values: Values, image: Values) -> Values:
    """Grey values in deviations from the mean of the image's voxels other than 0.

    Those are the brain where the skull was stripped. An image of one grey value gives zeros.
    """
    brain = image[image != 0]
    _require_numbers(brain, "of the image")
    centre, deviation = mean_and_deviation(brain)
    result: Values = (values - centre) / deviation if deviation else np.zeros_like(values)
    return result


def mean_and_deviation(values: Values) -> tuple[float, float]:
    """Of grey values; the deviation is exactly 0 where all are equal, which rounding would make 1e-17."""
    if not values.size:
        return 0.0, 0.0
    if values.min() == values.max():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.std())


def _require_numbers(values: Values, where: str) -> None:
    broken = int(np.count_nonzero(~(np.abs(values) <= LARGEST)))
    if broken:
        raise CohortError(
            f"radiomics: {broken} of {values.size} grey values {where} are not finite, or beyond {LARGEST:g}: "
            "mend the image"
        )
