"""Tests over the folds of a (repeated) cross-validation, whose scores are not independent.

Folds share training subjects, so the variance of a mean difference over J fold scores is not S^2 / J. Nadeau and Bengio
(Machine Learning 52, 2003) put (1/J + n_test/n_training) S^2 in its place; the Bayesian test of Corani and Benavoli
(Machine Learning 100, 2015) has the same variance, with a correlation of n_test/n between folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusionbench.comparing.intervals import LEVEL

ROPE = 0.01
"""Two methods that differ by no more are practically equal."""


@dataclass(frozen=True)
class Difference:
    """The mean of a paired difference over fold scores, and the Student-t that says how well it is known."""

    mean: float
    deviation: float
    """The sample standard deviation over the folds (ddof = 1); NaN for one fold, or if a score is NaN."""
    folds: int
    ratio: float
    """n_test / n_training."""

    @classmethod
    def of(cls, a: Sequence[float], b: Sequence[float], ratio: float) -> Difference:
        """Of a minus b, scores on the same folds in the same order; `ratio` is n_test / n_training."""
        values = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), deviation, len(values), ratio)

    @property
    def error(self) -> float:
        """The corrected standard error of the mean."""
        return self.deviation * math.sqrt(1 / self.folds + self.ratio)

    @property
    def p(self) -> float:
        """Two-sided, of Nadeau and Bengio's corrected resampled t-test; 1 if every difference is nought."""
        from scipy.special import stdtr

        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stdtr(self.folds - 1, -abs(self.mean) / self.error)) if self.error > 0 else math.nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The ends of the interval that belongs to the test; NaN where the deviation is."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.folds - 1, (1 + level) / 2)) * self.error if self.error >= 0 else math.nan
        return self.mean - reach, self.mean + reach

    def posterior(self, rope: float = ROPE) -> tuple[float, float, float]:
        """P(above rope), P(within), P(below -rope) of the true difference: the Bayesian correlated t-test."""
        from scipy.special import stdtr

        if math.isnan(self.error):
            return math.nan, math.nan, math.nan
        if self.error == 0:
            return float(self.mean > rope), float(abs(self.mean) <= rope), float(self.mean < -rope)
        above = float(stdtr(self.folds - 1, (self.mean - rope) / self.error))
        below = float(stdtr(self.folds - 1, (-rope - self.mean) / self.error))
        return above, 1 - above - below, below


def holm(ps: Sequence[float]) -> list[float]:
    """P-values adjusted for there being several (Holm 1979), in the order given; NaN stays and is not counted.

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    adjusted, highest = list(ps), 0.0
    for step, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - step)))
        adjusted[index] = highest
    return adjusted
