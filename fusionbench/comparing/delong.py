"""DeLong: the variance of a ROC-AUC and the test of two on the same patients, without drawing anything.

Each positive subject has a placement, the share of negative ones below it, and each negative one the share of positive
ones above it; the AUC is the mean of either, and its variance is what the placements vary by (DeLong, DeLong and
Clarke-Pearson, Biometrics 44, 1988). Midranks give all of them in O(N log N) (Sun and Xu, IEEE Signal Process. Lett.
21, 2014). A mean over test folds, perhaps repeated, is the sum of what each patient contributes to it (LeDell, Petersen
and van der Laan, Electron. J. Stat. 9, 2015); on one fold of one subject per patient that is DeLong to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench.comparing.intervals import CONDITIONAL, LEVEL, Interval
from fusionbench.predictions import Predictions

METHOD = f"DeLong, {CONDITIONAL}"


@dataclass(frozen=True)
class AreaUnderCurve:
    """A ROC-AUC, the mean over some parts, and how far each patient moves it."""

    value: float
    """NaN if a part has one class only."""
    influence: Mapping[str, float]
    """Patient -> contribution; the sum of their squares is the variance. Empty where that is not defined."""

    @classmethod
    def of(
        cls, parts: Sequence[Predictions], positive_class: str, groups: Mapping[str, str] | None = None
    ) -> AreaUnderCurve:
        """Of two classes, as the mean over parts; `groups` is subject -> patient, where it differs.

        A patient who is in several parts, as in repeats, or has several subjects is one source of error, not many.
        """
        influence: dict[str, float] = {}
        values = []
        for part in parts:
            positive = part.classes.index(positive_class)
            hits, scores = part.targets == positive, part.probabilities[:, positive]
            if hits.all() or not hits.any():
                return cls(math.nan, {})
            values.append(float(placements(hits, scores)[0].mean()))
            for those, placed in zip((hits, ~hits), placements(hits, scores), strict=True):
                patients = [(groups or {}).get(part.ids[row]) or part.ids[row] for row in np.flatnonzero(those)]
                number = len(set(patients))
                scale = math.sqrt(number / (number - 1)) / len(placed) / len(parts) if number > 1 else math.nan
                for patient, place in zip(patients, placed.tolist(), strict=True):
                    influence[patient] = influence.get(patient, 0.0) + (place - values[-1]) * scale
        return cls(math.fsum(values) / len(values), influence)

    def covariance(self, other: AreaUnderCurve) -> float:
        """With another AUC on the same patients; the variance if it is the same one. NaN where it is not defined."""
        if not self.influence or not other.influence:
            return math.nan
        return math.fsum(moved * other.influence[patient] for patient, moved in self.influence.items())

    def correlation(self, other: AreaUnderCurve) -> float:
        """With another AUC on the same patients; NaN where one has no variance."""
        product = self.covariance(self) * other.covariance(other)
        return self.covariance(other) / math.sqrt(product) if product > 0 else math.nan

    def interval(self, level: float = LEVEL) -> Interval:
        """The normal interval, cut at 0 and 1; NaN at a perfect AUC, where nothing varies and nothing is known."""
        from scipy.special import ndtri

        variance = self.covariance(self)
        if not variance > 0:
            return Interval(math.nan, math.nan, METHOD)
        reach = float(ndtri((1 + level) / 2)) * math.sqrt(variance)
        return Interval(max(self.value - reach, 0.0), min(self.value + reach, 1.0), METHOD)


def delong_p(a: AreaUnderCurve, b: AreaUnderCurve) -> float:
    """The two-sided p-value that two methods have the same AUC on these patients, their fitted models given."""
    from scipy.special import ndtr

    if not a.influence or not b.influence:
        return math.nan
    variance = math.fsum((moved - b.influence[patient]) ** 2 for patient, moved in a.influence.items())
    if not variance > 0:
        return 1.0 if variance == 0 and a.value == b.value else math.nan
    return float(2 * ndtr(-abs(a.value - b.value) / math.sqrt(variance)))


def placements(hits: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(positives,) shares of negatives below each, (negatives,) shares of positives above each; ties count half."""
    from scipy.stats import rankdata

    positives, negatives = scores[hits], scores[~hits]
    ranks = rankdata(scores)
    below = (ranks[hits] - rankdata(positives)) / len(negatives)
    above = 1 - (ranks[~hits] - rankdata(negatives)) / len(positives)
    return below, above
