"""A family of features: what is measured of a region once, and the formulas on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusionbench_plugins.extractors.radiomics.region import Region, Values


class Feature(NamedTuple):
    """One feature: its code in the IBSI reference manual, and its formula on what its family measures."""

    code: str
    formula: Callable[[Any], Any]


@dataclass(frozen=True)
class Family:
    """Features that are computed from the same measurement of a region."""

    name: str
    measure: Callable[[Region], Any]
    features: Mapping[str, Feature]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its features: `glcm-joint-entropy`."""
        return tuple(f"{self.name}-{feature}" for feature in self.features)

    def row(self, region: Region) -> dict[str, float]:
        """The value of each feature, by name."""
        measured = self.measure(region)
        values = (float(feature.formula(measured)) for feature in self.features.values())
        return dict(zip(self.names, values, strict=True))


def entropy(probabilities: Values) -> float:
    """- sum p log2 p, in bits, over the probabilities other than 0."""
    occurring = probabilities[probabilities > 0]
    return float(-np.sum(occurring * np.log2(occurring)))


def half_of_neighbours() -> NDArray[np.intp]:
    """13 of the 26 directions to a neighbour, (13, 3): one of each pair of opposites, the first step forward."""
    every = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    return every[14:]
