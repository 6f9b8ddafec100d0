"""Intensity-based statistics, on grey values as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.family import Family, Feature
from fusionbench_plugins.extractors.radiomics.region import LARGEST, Region, Values, mean_and_deviation


@dataclass(frozen=True)
class Intensities:
    """Grey values with what several formulas need of them."""

    values: Values
    mean: float
    deviation: float
    low: float
    """The 10th percentile; then come the quartiles, and the 90th percentile."""
    first: float
    median: float
    third: float
    high: float

    def moment(self, order: int) -> float:
        """The mean of the standardised values to a power; 0 if all values are equal."""
        if self.deviation == 0:
            return 0.0
        return float(np.mean(((self.values - self.mean) / self.deviation) ** order))

    def mean_distance(self, centre: float) -> float:
        """The mean distance of the values from a centre."""
        return float(np.mean(np.abs(self.values - centre)))

    def robust_distance(self) -> float:
        """The mean distance from their mean of the values from the 10th to the 90th percentile; 0 if there are none."""
        kept = self.values[(self.values >= self.low) & (self.values <= self.high)]
        return float(np.mean(np.abs(kept - kept.mean()))) if kept.size else 0.0


def measure(region: Region) -> Intensities:
    """Mean, deviation and percentiles."""
    percentiles = (float(value) for value in np.percentile(region.values, (10, 25, 50, 75, 90)))
    return Intensities(region.values, *mean_and_deviation(region.values), *percentiles)


def _share(part: float, whole: float) -> float:
    """0 where it is not defined, or next to that."""
    share = part / whole if whole else 0.0
    return share if abs(share) <= LARGEST else 0.0


INTENSITY: Final = Family(
    "intensity",
    measure,
    {
        "mean": Feature("Q4LE", lambda x: x.mean),
        "variance": Feature("ECT3", lambda x: x.deviation**2),
        "skewness": Feature("KE2A", lambda x: x.moment(3)),
        "excess-kurtosis": Feature("IPH6", lambda x: x.moment(4) - 3 if x.deviation else 0.0),
        "median": Feature("Y12H", lambda x: x.median),
        "minimum": Feature("1GSF", lambda x: x.values.min()),
        "percentile-10": Feature("QG58", lambda x: x.low),
        "percentile-90": Feature("8DWT", lambda x: x.high),
        "maximum": Feature("84IY", lambda x: x.values.max()),
        "interquartile-range": Feature("SALO", lambda x: x.third - x.first),
        "range": Feature("2OJQ", lambda x: np.ptp(x.values)),
        "mean-absolute-deviation": Feature("4FUA", lambda x: x.mean_distance(x.mean)),
        "robust-mean-absolute-deviation": Feature("1128", lambda x: x.robust_distance()),
        "median-absolute-deviation": Feature("N72L", lambda x: x.mean_distance(x.median)),
        "coefficient-of-variation": Feature("7TET", lambda x: _share(x.deviation, x.mean)),
        "quartile-coefficient-of-dispersion": Feature("9S40", lambda x: _share(x.third - x.first, x.third + x.first)),
        "energy": Feature("N8CA", lambda x: np.sum(x.values**2)),
        "root-mean-square": Feature("5ZWQ", lambda x: np.sqrt(np.mean(x.values**2))),
    },
)
NEEDS_ZERO: Final = frozenset({"intensity-coefficient-of-variation", "intensity-quartile-coefficient-of-dispersion"})
"""Features that divide by a grey value, so that they mean nothing where 0 is arbitrary."""
