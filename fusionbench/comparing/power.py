"""What a cohort can show at all: the smallest difference that would be found, and how well one score is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.05
"""A difference is real if its p-value, adjusted for the number of pairs, is below this."""
POWER = 0.8
"""How often a difference is to be found that is there."""


@dataclass(frozen=True)
class Detectable:
    """The smallest differences found with 80 % power at a level of .05, of the median pair, in units of the metric."""

    one_pair: float
    """If one pair is compared, named beforehand."""
    all_pairs: float
    """If all pairs shown are compared: at .05 / pairs, where Holm's method begins."""
    half_width: float
    """Of the 95 % interval of one method by patient bootstrap, the median over methods."""
    source: str


def smallest_difference(
    deviation: float, folds: int, ratio: float, alpha: float = ALPHA, power: float = POWER
) -> float:
    """What the corrected resampled t-test finds with that power, if the differences of J folds have that deviation.

    `ratio` is n_test / n_training. The corrected statistic is taken for a noncentral t. NaN for fewer than two folds.
    """
    from scipy.special import nctdtrinc, stdtrit

    if folds < 2 or not deviation >= 0:
        return math.nan
    noncentrality = nctdtrinc(folds - 1, 1 - power, stdtrit(folds - 1, 1 - alpha / 2))
    return float(noncentrality) * deviation * math.sqrt(1 / folds + ratio)


def smallest_auc_difference(
    auc: float, positives: int, negatives: int, correlation: float = 0.0, alpha: float = ALPHA, power: float = POWER
) -> float:
    """What a test of two AUCs finds on so many patients of each class, both near `auc` and correlated like that.

    Where there are too few folds to see how differences vary. It knows nothing of the error of training, so the truth
    is larger; without the correlation, as of two methods on the same patients, it is smaller.
    """
    from scipy.special import ndtri

    reach = float(ndtri(1 - alpha / 2) + ndtri(power))
    return reach * hanley_mcneil(auc, positives, negatives) * math.sqrt(2 * (1 - correlation))


def hanley_mcneil(auc: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC from its value and the patients of each class (Hanley and McNeil, Radiology 1982).

    It supposes exponential scores; on normal ones it is too large if the positives are the fewer, by a fifth at 75 of
    285. NaN at an AUC of 0 or 1, where it says nought, and without patients of both classes.
    """
    if not 0 < auc < 1 or min(positives, negatives) < 1:
        return math.nan
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    ) / (positives * negatives)
    return math.sqrt(variance)
