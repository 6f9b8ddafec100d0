"""The grey level co-occurrence matrix: which grey levels are neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.family import Family, Feature, entropy, half_of_neighbours
from fusionbench_plugins.extractors.radiomics.region import Levels, Region, Values


@dataclass(frozen=True)
class Cooccurrence:
    """The probability p_ij that a voxel of grey level i has a neighbour of grey level j; symmetric."""

    joint: Values
    """(N_g, N_g)."""

    @cached_property
    def level(self) -> Values:
        """The grey levels 1 to N_g, (N_g,)."""
        return np.arange(1.0, len(self.joint) + 1)

    @cached_property
    def difference(self) -> Values:
        """i - j, (N_g, N_g)."""
        return np.subtract.outer(self.level, self.level, dtype=np.float64)

    @cached_property
    def product(self) -> Values:
        """i j, (N_g, N_g)."""
        return np.multiply.outer(self.level, self.level, dtype=np.float64)

    @cached_property
    def margin(self) -> Values:
        """p_i, (N_g,): of rows and of columns, which are the same."""
        margin: Values = self.joint.sum(1)
        return margin

    @cached_property
    def of_difference(self) -> Values:
        """The probability of each |i - j|, from 0 on, (N_g,)."""
        return weighed(np.abs(self.difference), self.joint)

    @cached_property
    def of_sum(self) -> Values:
        """The probability of each i + j, from 0 on, (2 N_g + 1,)."""
        return weighed(self.level[:, None] + self.level, self.joint)

    @cached_property
    def mean(self) -> float:
        """The mean grey level."""
        return float(self.level @ self.margin)

    @cached_property
    def variance(self) -> float:
        """The variance of the grey level."""
        return float((self.level - self.mean) ** 2 @ self.margin)

    def cluster(self, order: int) -> float:
        """The mean of i + j - 2 mean to a power."""
        return float(np.sum((self.level[:, None] + self.level - 2 * self.mean) ** order * self.joint))

    def correlation(self) -> float:
        """Of i and j; 1 for a single grey level, each being the other."""
        covariance = np.sum(self.product * self.joint) - self.mean**2
        return float(covariance / self.variance) if np.count_nonzero(self.margin) > 1 else 1.0

    def information_1(self) -> float:
        """(HXY - HXY1) / HX; 0 for a single grey level, which tells nothing."""
        whole = entropy(self.margin)
        # HXY1 = - sum p_ij log2(p_i p_j) = 2 HX, for the margins of p_ij are p_i.
        return (entropy(self.joint) - 2 * whole) / whole if np.count_nonzero(self.margin) > 1 else 0.0

    def information_2(self) -> float:
        """sqrt(1 - exp(-2 (HXY2 - HXY))), with entropies in bits as IBSI has them."""
        # HXY2 = - sum p_i p_j log2(p_i p_j) = 2 HX; it is HXY at least, but for rounding.
        gain = max(0.0, 2 * entropy(self.margin) - entropy(self.joint))
        return float(np.sqrt(1 - np.exp(-2 * gain)))


def weighed(places: Values, weights: Values) -> Values:
    """The sum of the weights at each whole number from 0 on."""
    return np.bincount(places.astype(np.intp).ravel(), weights.ravel()).astype(np.float64)


def measure(region: Region) -> Cooccurrence:
    """The matrix of all 13 directions together, at distance 1, counted both ways (IBSI IAZD).

    Where no voxel has a neighbour, as in a single one, each counts as its own.
    """
    size = region.bins + 1
    counts = sum(_pairs(region.levels, direction, size) for direction in half_of_neighbours())
    inside = np.reshape(counts, (size, size))[1:, 1:]  # level 0 is outside
    if not inside.any():
        inside = np.diag(np.bincount(region.inside, minlength=size)[1:])
    both = inside + inside.T
    return Cooccurrence(both / both.sum())


def _pairs(levels: Levels, direction: Levels, size: int) -> Levels:
    """How often level i is followed by level j in that direction, (size * size,) by i * size + j."""
    here = tuple(slice(max(0, -step), min(0, -step) or None) for step in direction)
    there = tuple(slice(max(0, step), min(0, step) or None) for step in direction)
    return np.bincount((levels[here] * size + levels[there]).ravel(), minlength=size * size)


def _off_diagonal(p: Cooccurrence) -> Values:
    """p_ij / (i - j)^2 where i and j differ, each pair once."""
    upper = np.triu_indices(len(p.joint), 1)
    return 2 * p.joint[upper] / p.difference[upper] ** 2


def _mean(p: Values) -> float:
    return float(np.arange(p.size) @ p)


def _variance(p: Values) -> float:
    return float((np.arange(p.size) - _mean(p)) ** 2 @ p)


GLCM: Final = Family(
    "glcm",
    measure,
    {
        "joint-maximum": Feature("GYBY", lambda p: p.joint.max()),
        "joint-average": Feature("60VM", lambda p: p.mean),
        "joint-variance": Feature("UR99", lambda p: p.variance),
        "joint-entropy": Feature("TU9B", lambda p: entropy(p.joint)),
        "difference-average": Feature("TF7R", lambda p: _mean(p.of_difference)),
        "difference-variance": Feature("D3YU", lambda p: _variance(p.of_difference)),
        "difference-entropy": Feature("NTRS", lambda p: entropy(p.of_difference)),
        "sum-average": Feature("ZGXS", lambda p: _mean(p.of_sum)),
        "sum-variance": Feature("OEEB", lambda p: _variance(p.of_sum)),
        "sum-entropy": Feature("P6QZ", lambda p: entropy(p.of_sum)),
        "angular-second-moment": Feature("8ZQL", lambda p: np.sum(p.joint**2)),
        "contrast": Feature("ACUI", lambda p: np.sum(p.difference**2 * p.joint)),
        "dissimilarity": Feature("8S9J", lambda p: np.sum(np.abs(p.difference) * p.joint)),
        "inverse-difference": Feature("IB1Z", lambda p: np.sum(p.joint / (1 + np.abs(p.difference)))),
        "normalised-inverse-difference": Feature(
            "NDRX", lambda p: np.sum(p.joint / (1 + np.abs(p.difference) / p.level.size))
        ),
        "inverse-difference-moment": Feature("WF0Z", lambda p: np.sum(p.joint / (1 + p.difference**2))),
        "normalised-inverse-difference-moment": Feature(
            "1QCO", lambda p: np.sum(p.joint / (1 + (p.difference / p.level.size) ** 2))
        ),
        "inverse-variance": Feature("E8JP", lambda p: np.sum(_off_diagonal(p))),
        "correlation": Feature("NI2N", lambda p: p.correlation()),
        "autocorrelation": Feature("QWB0", lambda p: np.sum(p.product * p.joint)),
        "cluster-tendency": Feature("DG8W", lambda p: p.cluster(2)),
        "cluster-shade": Feature("7NFM", lambda p: p.cluster(3)),
        "cluster-prominence": Feature("AE86", lambda p: p.cluster(4)),
        "information-correlation-1": Feature("R8DG", lambda p: p.information_1()),
        "information-correlation-2": Feature("JN9H", lambda p: p.information_2()),
    },
)
