"""Calibration is that of other programs, its parts add up, and what is well calibrated is said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score

from fusionbench import Predictions
from fusionbench.comparing import calibration, reliability, wilson
from fusionbench.metrics import metric

CLASSES = ("HGG", "LGG")


def predicted(hits: NDArray[np.bool_], p: NDArray[np.float64]) -> Predictions:
    ids = tuple(f"s{n:05d}" for n in range(len(p)))
    return Predictions(ids, tuple(CLASSES[int(hit)] for hit in hits), CLASSES, np.stack([1 - p, p], 1))


def honest(number: int, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Outcomes that happen as often as is said."""
    random = np.random.default_rng(seed)
    p = random.uniform(0.02, 0.98, number)
    return random.uniform(size=number) < p, p


def test_intercept_and_slope_are_those_of_statsmodels() -> None:
    n = np.arange(40)
    p = np.clip(0.5 + 0.45 * np.sin(n * 1.7), 0.02, 0.98)
    hits = (n * 7) % 10 / 10 < p * 0.6 + 0.15
    found = calibration(predicted(hits, p), "LGG")
    # statsmodels 0.15, GLM of the binomial family: on ones with the log odds as offset, and on ones and log odds
    assert found.intercept == pytest.approx(0.11387105, abs=1e-8)
    assert found.slope == pytest.approx(0.5123722, abs=1e-7)


def test_honest_probabilities_are_found_honest() -> None:
    found = calibration(predicted(*honest(20000)), "LGG")
    assert found.intercept == pytest.approx(0, abs=0.05)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.miscalibration < 0.002
    assert found.ece < 0.02
    assert found.predicted == pytest.approx(found.observed, abs=0.01)
    assert all(bin.interval.low - 0.02 < bin.predicted < bin.interval.high + 0.02 for bin in found.curve)


def test_overconfidence_lowers_the_slope_and_saying_too_much_the_intercept() -> None:
    hits, p = honest(5000)
    odds = np.log(p / (1 - p))
    bold = calibration(predicted(hits, 1 / (1 + np.exp(-3 * odds))), "LGG")
    assert bold.slope == pytest.approx(1 / 3, abs=0.03)
    loud = calibration(predicted(hits, 1 / (1 + np.exp(-odds - 1.0))), "LGG")
    assert loud.intercept == pytest.approx(-1, abs=0.1)
    assert loud.slope == pytest.approx(1, abs=0.06)
    for found in (bold, loud):
        assert found.miscalibration > 0.01
        assert found.discrimination == pytest.approx(calibration(predicted(hits, p), "LGG").discrimination)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_the_brier_score_add_up_and_the_rest_is_metrics(seed: int) -> None:
    hits, p = honest(60, seed)
    part = predicted(hits, np.round(p, 1) ** 1.5)
    found = calibration(part, "LGG")
    assert found.miscalibration - found.discrimination + found.uncertainty == pytest.approx(found.brier)
    assert found.miscalibration >= 0
    assert found.discrimination >= 0
    assert found.brier == pytest.approx(metric("brier")(part, "LGG"))
    assert found.ece == pytest.approx(metric("ece")(part, "LGG"))
    assert found.average_precision == pytest.approx(average_precision_score(hits, part.probabilities[:, 1]))


def test_knowing_nothing_but_the_prevalence_has_no_miscalibration_and_no_discrimination() -> None:
    hits = np.arange(20) < 5
    found = calibration(predicted(hits, np.full(20, 0.25)), "LGG")
    assert found.brier == found.uncertainty == 0.25 * 0.75
    assert (found.miscalibration, found.discrimination) == pytest.approx((0, 0))
    assert found.intercept == pytest.approx(0)
    assert math.isnan(found.slope)
    assert found.average_precision == found.observed


def test_the_curve_is_that_of_scikit_learn_with_counts_and_intervals() -> None:
    hits, p = honest(200)
    curve = reliability(hits, p, bins=8)
    observed, predicted_ = calibration_curve(hits, p, n_bins=8)
    assert [bin.observed for bin in curve] == pytest.approx(observed)
    assert [bin.predicted for bin in curve] == pytest.approx(predicted_)
    assert sum(bin.count for bin in curve) == 200
    assert all(bin.low <= bin.predicted <= bin.high for bin in curve)
    assert all(bin.interval == wilson(bin.observed, bin.count) for bin in curve)


def test_empty_bins_are_left_out_and_certainty_is_in_the_last() -> None:
    curve = reliability(np.array([False, True, True]), np.array([0.05, 1.0, 0.95]))
    assert [(bin.low, bin.high, bin.count) for bin in curve] == [(0.0, 0.1, 1), (0.9, 1.0, 2)]


def test_separated_classes_have_no_slope_and_one_class_neither_slope_nor_intercept() -> None:
    separated = calibration(predicted(np.array([False, False, True, True]), np.array([0.0, 0.2, 0.8, 1.0])), "LGG")
    assert math.isnan(separated.slope)
    assert math.isfinite(separated.intercept)
    one = calibration(predicted(np.array([True, True]), np.array([0.4, 0.8])), "LGG")
    assert math.isnan(one.slope)
    assert math.isnan(one.intercept)
    assert math.isnan(one.average_precision)


def test_one_class_of_three_is_taken_against_the_rest() -> None:
    hits, p = honest(80)
    labels = tuple("x" if hit else "yz"[n % 2] for n, hit in enumerate(hits))
    rows = np.stack([p, 0.3 * (1 - p), 0.7 * (1 - p)], 1)
    several = Predictions(tuple(f"s{n:05d}" for n in range(80)), labels, ("x", "y", "z"), rows)
    found, expected = calibration(several, "x"), calibration(predicted(hits, p), "LGG")
    assert (found.slope, found.brier) == pytest.approx((expected.slope, expected.brier))
