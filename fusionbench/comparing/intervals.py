"""Intervals: of a share by Wilson, of any metric by drawing patients again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusionbench.comparing.weighted import WEIGHTED, Counts
from fusionbench.metrics import Metric, decide
from fusionbench.predictions import Predictions

LEVEL = 0.95
"""The share of cohorts whose interval is meant to hold the truth."""
DRAWS = 2000
"""How often patients are drawn again."""
CONDITIONAL = "conditional on the fitted models"
"""Said of whatever knows that patients vary and not that training does: it is too sure of itself."""
SEVERAL = 200
"""Below this many draws with a score a percentile is not worth printing."""
ROUNDING = 1e-12
"""Draws that differ by less differ in the order of a sum."""


@dataclass(frozen=True)
class Interval:
    """Two ends in the units of the metric, and how they were found; NaN where the method knows nothing."""

    low: float
    high: float
    method: str

    @property
    def half_width(self) -> float:
        """Half the distance of the ends: what stands behind a ±."""
        return (self.high - self.low) / 2


def wilson(share: float, number: int, level: float = LEVEL) -> Interval:
    """Of a share of so many patients (Wilson 1927); it holds at 0 and 1, where share ± error would be a point.

    A share of decisions over several repeats need not be a whole number of patients: the patients are what is counted.
    NaN if there are none.

    >>> perfect = wilson(1.0, 75)
    >>> round(perfect.low, 3), perfect.high
    (0.951, 1.0)
    """
    from scipy.special import ndtri

    if not number or math.isnan(share):
        return Interval(math.nan, math.nan, "Wilson")
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * number)) / (1 + z2 / number)
    reach = math.sqrt(z2 * (share * (1 - share) / number + z2 / (4 * number**2))) / (1 + z2 / number)
    return Interval(0.0 if share == 0 else centre - reach, 1.0 if share == 1 else centre + reach, "Wilson")


def shares(
    parts: Sequence[Predictions], positive_class: str, groups: Mapping[str, str] | None = None
) -> dict[str, Interval]:
    """Wilson intervals of accuracy and, of two classes, sensitivity and specificity, over all parts together.

    `groups` is subject -> patient, where that differs: a patient with several subjects counts once.
    """
    first = parts[0]
    positive = first.classes.index(positive_class)
    ids = [id for part in parts for id in part.ids]
    targets = np.concatenate([part.targets for part in parts])
    right = targets == np.concatenate([decide(part.probabilities, positive) for part in parts])
    asked = {"accuracy": np.ones(len(ids), bool)}
    if len(first.classes) == 2:
        asked |= {"sensitivity": targets == positive, "specificity": targets != positive}
    return {
        name: wilson(
            float(right[those].mean()) if those.any() else math.nan,
            len({_patient(id, groups) for id, asked_of in zip(ids, those, strict=True) if asked_of}),
        )
        for name, those in asked.items()
    }


@dataclass(frozen=True, eq=False)
class Resample:
    """Patients drawn again, with replacement and within their class: one set of draws for every method.

    Paired by construction: two methods scored on one resample see the same patients in each draw.
    """

    column: Mapping[str, int]
    """Subject -> its column in the counts."""
    counts: Counts
    """(draws, N): how often each subject is in each draw."""

    @classmethod
    def of(
        cls,
        parts: Sequence[Predictions],
        groups: Mapping[str, str] | None = None,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Resample:
        """Draws of the patients that these predictions are about; `groups` is subject -> patient, where it differs.

        All subjects of a patient are drawn together. A patient whose subjects differ in class is a stratum with others
        of the same classes.
        """
        labels = {id: label for part in parts for id, label in zip(part.ids, part.labels, strict=True)}
        subjects = sorted(labels)
        classes: dict[str, set[str]] = {}
        for id in subjects:
            classes.setdefault(_patient(id, groups), set()).add(labels[id])
        strata: dict[tuple[str, ...], list[str]] = {}
        for patient in sorted(classes):
            strata.setdefault(tuple(sorted(classes[patient])), []).append(patient)
        random = np.random.default_rng(seed)
        times: dict[str, Counts] = {}
        for _, patients in sorted(strata.items()):
            drawn = random.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=draws)
            times |= dict(zip(patients, drawn.T.astype(np.float64), strict=True))
        counts = np.stack([times[_patient(id, groups)] for id in subjects], axis=1)
        return cls({id: number for number, id in enumerate(subjects)}, counts)

    def scores(self, parts: Sequence[Predictions], metric: Metric, positive_class: str) -> Counts:
        """(draws,) the mean of the metric over the parts, such as test folds.

        A part that lost a class in a draw, as small folds do, is left out of that draw. One that has no score whoever
        is drawn makes every draw NaN.
        """
        scores = np.stack([self._of(part, metric, positive_class) for part in parts])
        known = ~np.isnan(scores)
        if not known.any(1).all():
            return np.full(scores.shape[1], math.nan)
        mean: Counts = np.full(scores.shape[1], math.nan)
        np.divide(np.where(known, scores, 0).sum(0), known.sum(0), out=mean, where=known.any(0))
        return mean

    def _of(self, part: Predictions, metric: Metric, positive_class: str) -> Counts:
        positive, counts = part.classes.index(positive_class), self.counts[:, [self.column[id] for id in part.ids]]
        targets, rows = part.targets, np.arange(len(part.ids))
        if weighted := WEIGHTED.get(metric.function):
            return weighted(targets, part.probabilities, positive, counts)
        drawn = (np.repeat(rows, times) for times in counts.astype(int))
        return np.array([metric.function(targets[d], part.probabilities[d], positive) if len(d) else math.nan
                         for d in drawn])  # fmt: skip


def bootstrap(scores: Counts, level: float = LEVEL) -> Interval:
    """The percentile interval of drawn scores (draws,), without those that are NaN.

    NaN if all are equal but for rounding, as at a perfect score, since drawing again finds no error that was never
    made; also if fewer than 200 have a score.
    """
    method = f"patient bootstrap, {CONDITIONAL}"
    known = scores[~np.isnan(scores)]
    if len(known) < SEVERAL or np.ptp(known) < ROUNDING:
        return Interval(math.nan, math.nan, method)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), method)


def _patient(id: str, groups: Mapping[str, str] | None) -> str:
    return (groups or {}).get(id) or id
