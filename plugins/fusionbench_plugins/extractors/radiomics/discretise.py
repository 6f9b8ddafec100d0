"""Grey values as grey levels 1, 2, 3 ..., which texture needs."""

from __future__ import annotations

from typing import Final

import numpy as np

from fusionbench import CohortError
from fusionbench_plugins.extractors.radiomics.region import Levels, Values

MOST: Final = 1000
"""Grey levels at most: a co-occurrence matrix has the square of that."""


def fixed_bin_number(values: Values, bins: int) -> tuple[Levels, int]:
    """The range of the values in that many equal bins. One value alone is in the middle bin.

    >>> fixed_bin_number(np.array([1.0, 3.0, 4.0, 6.0]), 6)
    (array([1, 3, 4, 6]), 6)
    """
    low, high = values.min(), values.max()
    if low == high:  # IBSI leaves it open; mirp takes the middle too
        return np.full(values.shape, (bins + 1) // 2, dtype=np.intp), bins
    levels = np.floor(bins * (values - low) / (high - low)) + 1
    return np.minimum(levels, bins).astype(np.intp), bins


def fixed_bin_size(values: Values, width: float) -> tuple[Levels, int]:
    """Bins of that width from the lowest value on, and how many there are.

    CohortError if there would be more than 1000.

    >>> fixed_bin_size(np.array([0.0, 0.9, 1.0, 2.5]), 1.0)
    (array([1, 1, 2, 3]), 3)
    """
    levels = np.floor((values - values.min()) / width) + 1
    bins = levels.max()
    if not bins <= MOST:
        raise CohortError(
            f"radiomics: bin_width {width:g} makes {bins:g} grey levels of {values.min():g} to {values.max():g}; "
            f"{MOST} are the most: take a larger one"
        )
    return levels.astype(np.intp), int(bins)
