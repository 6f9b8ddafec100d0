"""Runs and zones have one thing in common: a grey level, and an extent over which it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.family import entropy
from fusionbench_plugins.extractors.radiomics.region import Levels, Values


@dataclass(frozen=True)
class Extents:
    """The matrix r_ij of how many runs or zones of grey level i have extent j, by its entries other than 0."""

    level: Values
    """i of each entry, (M,)."""
    extent: Values
    """j of each entry, (M,)."""
    count: Values
    """r_ij of each entry, (M,)."""
    voxels: int
    """What the extents add up to."""

    @cached_property
    def share(self) -> Values:
        """r_ij / N_s, (M,): the probability of each entry."""
        return np.divide(self.count, np.sum(self.count))

    def mean(self, values: Values) -> float:
        """The mean over all runs or zones of a value per entry."""
        return float(values @ self.share)

    def variance(self, values: Values) -> float:
        """The variance over all runs or zones of a value per entry."""
        return self.mean((values - self.mean(values)) ** 2)

    def unevenness(self, values: Values) -> float:
        """The sum over the different values of the squared share of each."""
        _, which = np.unique(values, return_inverse=True)
        return float(np.sum(np.bincount(which, self.share) ** 2))


def counted(levels: Levels, extents: Levels, voxels: int) -> Extents:
    """Runs or zones, one by one with grey level and extent, as a matrix."""
    size = int(extents.max()) + 1
    codes, counts = np.unique(levels * size + extents, return_counts=True)
    level, extent = np.divmod(codes, size)
    return Extents(level.astype(np.float64), extent.astype(np.float64), counts.astype(np.float64), voxels)


FORMULAS: Final[Mapping[str, Callable[[Extents], float]]] = {
    "short": lambda r: r.mean(r.extent**-2.0),
    "long": lambda r: r.mean(r.extent**2),
    "low": lambda r: r.mean(r.level**-2.0),
    "high": lambda r: r.mean(r.level**2),
    "short-low": lambda r: r.mean((r.extent * r.level) ** -2.0),
    "short-high": lambda r: r.mean((r.level / r.extent) ** 2),
    "long-low": lambda r: r.mean((r.extent / r.level) ** 2),
    "long-high": lambda r: r.mean((r.extent * r.level) ** 2),
    "level-non-uniformity": lambda r: r.unevenness(r.level) * r.count.sum(),
    "level-non-uniformity-normalised": lambda r: r.unevenness(r.level),
    "extent-non-uniformity": lambda r: r.unevenness(r.extent) * r.count.sum(),
    "extent-non-uniformity-normalised": lambda r: r.unevenness(r.extent),
    "percentage": lambda r: r.count.sum() / r.voxels,
    "level-variance": lambda r: r.variance(r.level),
    "extent-variance": lambda r: r.variance(r.extent),
    "entropy": lambda r: entropy(r.share),
}
"""The formulas that both families share; each gives them its own names."""
