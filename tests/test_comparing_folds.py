"""Tests over folds: the formulas by hand, the values of other programs, and what a plain t-test would have claimed."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from sklearn.model_selection import RepeatedStratifiedKFold

from fusionbench.comparing import (
    Difference,
    holm,
    smallest_auc_difference,
    smallest_difference,
)
from fusionbench.comparing.delong import AreaUnderCurve, placements
from fusionbench.comparing.power import hanley_mcneil
from fusionbench.predictions import Predictions

GAINS = [0.02, 0.05, -0.01, 0.03, 0.04, 0.0, 0.06, 0.01, 0.02, 0.03]
"""Ten differences of two repeats of five folds: n_test / n_training is a quarter."""
BEFORE = [0.8] * 10
AFTER = [0.8 + gain for gain in GAINS]


# Nadeau and Bengio


def test_the_corrected_t_is_the_formula_by_hand() -> None:
    found = Difference.of(AFTER, BEFORE, ratio=0.25)
    error = math.sqrt((1 / 10 + 1 / 4) * statistics.variance(GAINS))
    assert found.mean == pytest.approx(0.025)
    assert found.error == pytest.approx(error)
    assert found.p == pytest.approx(2 * student.sf(0.025 / error, df=9))
    assert found.interval() == pytest.approx(tuple(0.025 + side * student.ppf(0.975, 9) * error for side in (-1, 1)))


def test_without_the_correction_it_is_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    plain = ttest_rel(AFTER, BEFORE)
    found = Difference.of(AFTER, BEFORE, ratio=0.0)
    assert found.p == pytest.approx(plain.pvalue)
    assert found.interval() == pytest.approx(tuple(plain.confidence_interval()))
    assert Difference.of(AFTER, BEFORE, ratio=0.25).p > 3 * found.p


def test_turning_the_pair_around_turns_the_sign() -> None:
    one, other = Difference.of(AFTER, BEFORE, 0.25), Difference.of(BEFORE, AFTER, 0.25)
    assert one.p == pytest.approx(other.p)
    assert one.posterior() == pytest.approx(other.posterior()[::-1])
    assert one.interval() == pytest.approx(tuple(-end for end in other.interval()[::-1]))


def test_equal_scores_do_not_differ_and_a_missing_score_says_nothing() -> None:
    same = Difference.of(BEFORE, BEFORE, 0.25)
    assert (same.p, same.interval(), same.posterior()) == (1.0, (0.0, 0.0), (0.0, 1.0, 0.0))
    for unknown in (Difference.of([*AFTER[:9], math.nan], BEFORE, 0.25), Difference.of([0.9], [0.8], 0.25)):
        assert math.isnan(unknown.p)
        assert all(map(math.isnan, (*unknown.interval(), *unknown.posterior())))


def repeated_scores(cohorts: int) -> np.ndarray:
    """(cohorts, 2, 50): the ROC-AUC on 10 times 5 folds of two methods that are equally good, each on its features."""
    labels = np.repeat([True, False], 30)
    folds = list(RepeatedStratifiedKFold(n_splits=5, n_repeats=10, random_state=0).split(labels, labels))
    random = np.random.default_rng(0)
    scores = np.empty((cohorts, 2, len(folds)))
    for cohort in range(cohorts):
        for method in range(2):
            features = random.normal(size=(60, 6)) + 0.35 * labels[:, None]
            for number, (training, test) in enumerate(folds):
                seen, known = features[training], labels[training]
                direction = seen[known].mean(0) - seen[~known].mean(0)
                scores[cohort, method, number] = placements(labels[test], features[test] @ direction)[0].mean()
    return scores


def test_of_equal_methods_the_corrected_test_separates_few_and_a_plain_t_test_most() -> None:
    corrected, plain = claimed(repeated_scores(100))
    assert corrected < 0.18  # .09 of 1,000 cohorts, and three standard errors
    assert plain > 0.45


def claimed(scores: np.ndarray, level: float = 0.05) -> list[float]:
    """Of pairs of equal methods the share that the corrected t-test and a plain one separate at a level."""
    return [float(np.mean([Difference.of(a, b, ratio).p < level for a, b in scores])) for ratio in (1 / 4, 0.0)]


# Several pairs


def test_holm_agrees_with_statsmodels() -> None:
    # statsmodels 0.15: multipletests([.01, .04, .03, .005, .6, .013], method="holm")
    assert holm([0.01, 0.04, 0.03, 0.005, 0.6, 0.013]) == pytest.approx([0.05, 0.09, 0.09, 0.03, 0.6, 0.052])


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(deadline=None, max_examples=80, database=None)
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(ps: list[float]) -> None:
    found = holm(ps)
    assert all(p <= q <= min(1, len(ps) * p) + 1e-12 for p, q in zip(ps, found, strict=True))
    assert all(found[i] <= found[j] for i in range(len(ps)) for j in range(len(ps)) if ps[i] < ps[j])


def test_a_pair_without_a_test_counts_for_nothing() -> None:
    found = holm([0.01, math.nan, 0.04])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.04)


# The Bayesian test


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        (0.01, (0.8633556369821681, 0.12488780995684146, 0.011756553060990438)),
        (0.03, (0.35318752400910775, 0.6457846996154558, 0.0010277763754363844)),
    ],
)
def test_the_posterior_is_that_of_baycomp(rope: float, expected: tuple[float, float, float]) -> None:
    # baycomp 1.0.3: two_on_single(AFTER, BEFORE, rope=rope, runs=2)
    assert Difference.of(AFTER, BEFORE, 0.25).posterior(rope) == pytest.approx(expected, rel=1e-9)


def test_without_a_rope_the_posterior_is_the_test() -> None:
    found = Difference.of(AFTER, BEFORE, 0.25)
    above, equal, below = found.posterior(rope=0.0)
    assert below == pytest.approx(found.p / 2)
    assert equal == pytest.approx(0.0, abs=1e-12)
    assert above + below == pytest.approx(1.0)


# What can be shown


@pytest.mark.parametrize(
    ("folds", "alpha", "power", "effect"),
    [
        (10, 0.05, 0.8, 0.9960019107624178),
        (50, 0.05, 0.8, 0.4041829997377859),
        (50, 0.05 / 78, 0.9, 0.7063614059136633),
    ],
)
def test_without_the_correction_the_smallest_difference_is_that_of_a_paired_t_test(
    folds: int, alpha: float, power: float, effect: float
) -> None:
    # statsmodels 0.15: TTestPower().solve_power(nobs=folds, alpha=alpha, power=power)
    assert smallest_difference(0.02, folds, 0.0, alpha, power) == pytest.approx(0.02 * effect, rel=1e-5)


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(0)
    shift = smallest_difference(1.0, 50, ratio=0.25)
    # Folds correlated as the correction supposes: n_test / n = .2, of which one part of the noise is shared.
    noise = math.sqrt(0.2) * random.normal(size=(2000, 1)) + math.sqrt(0.8) * random.normal(size=(2000, 50))
    # Their deviation inside a run is sqrt(.8), as it is observed.
    runs = (Difference.of(run, np.zeros(50), 0.25).p < 0.05 for run in noise + shift * math.sqrt(0.8))
    assert np.mean(list(runs)) == pytest.approx(0.8, abs=0.03)


def test_more_folds_do_not_help_beyond_what_the_patients_can_show() -> None:
    assert smallest_difference(0.05, 1000, 0.25) > 2.8 * 0.05 * math.sqrt(0.25)
    assert math.isnan(smallest_difference(math.nan, 10, 0.25))
    assert math.isnan(smallest_difference(0.05, 1, 0.25))


def test_the_standard_error_of_hanley_and_mcneil_by_hand() -> None:
    q1, q2 = 0.893 / 1.107, 2 * 0.893**2 / 1.893  # the example of Radiology 143 (1982): 51 abnormal, 58 normal
    variance = (0.893 * 0.107 + 50 * (q1 - 0.893**2) + 57 * (q2 - 0.893**2)) / (51 * 58)
    assert hanley_mcneil(0.893, 51, 58) == pytest.approx(math.sqrt(variance))
    assert hanley_mcneil(0.893, 51, 58) == pytest.approx(0.0325, abs=1e-4)


def test_what_patients_alone_can_show_shrinks_with_correlation_and_with_their_number() -> None:
    apart = smallest_auc_difference(0.85, 75, 210)
    assert apart == pytest.approx((1.959964 + 0.841621) * math.sqrt(2) * hanley_mcneil(0.85, 75, 210), rel=1e-5)
    assert smallest_auc_difference(0.85, 75, 210, correlation=0.75) == pytest.approx(apart / 2)
    assert smallest_auc_difference(0.85, 300, 840) == pytest.approx(apart / 2, rel=0.01)


@pytest.mark.parametrize("auc", [0.0, 1.0, math.nan])
def test_at_a_perfect_auc_the_formula_knows_nothing(auc: float) -> None:
    assert math.isnan(hanley_mcneil(auc, 20, 20))
    assert math.isnan(hanley_mcneil(0.8, 0, 20))


def test_the_formula_agrees_with_delong_where_scores_are_as_it_supposes() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [750, 2100])
    scores = random.exponential(np.where(labels, 6.0, 1.0))  # an AUC of 6/7
    p = scores / (1 + scores)
    ids, names = tuple(f"s{n:04d}" for n in range(2850)), tuple(("HGG", "LGG")[label] for label in labels)
    area = AreaUnderCurve.of([Predictions(ids, names, ("HGG", "LGG"), np.stack([1 - p, p], 1))], "LGG")
    expected = math.sqrt(area.covariance(area))
    assert hanley_mcneil(area.value, 750, 2100) == pytest.approx(expected, rel=0.05)
