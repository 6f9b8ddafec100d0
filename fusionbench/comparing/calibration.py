"""Calibration: whether of those to whom .7 is given seven in ten are positive, and what the Brier score is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench.comparing.intervals import Interval, wilson
from fusionbench.metrics import average_precision, brier, expected_calibration_error
from fusionbench.predictions import Predictions

BINS = 10
CERTAIN = 1e-6
"""Probabilities are kept this far from 0 and 1 where their log odds are needed."""
STEPS = 50
"""Newton's method needs under ten unless the classes are separated, and then it never ends."""

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """The subjects whose probability lies in [low, high), the last bin closed; a point of the reliability curve."""

    low: float
    high: float
    count: int
    predicted: float
    """Their mean probability."""
    observed: float
    """The share of them that is positive."""
    interval: Interval
    """Wilson's, of the share observed."""


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of one class can be taken at their word."""

    observed: float
    """The prevalence: also the average precision of knowing nothing."""
    predicted: float
    """The mean probability; calibration in the large is that it equals the prevalence."""
    intercept: float
    """What must be added to all log odds to make the two equal: 0 is right, below 0 the class is given too often."""
    slope: float
    """Of log odds against outcomes: 1 is right, below 1 is overconfident; NaN where the classes are separated."""
    brier: float
    """miscalibration - discrimination + uncertainty, exactly."""
    miscalibration: float
    """What the best monotone recalibration would take off the Brier score; optimistic on few subjects."""
    discrimination: float
    """How much better it would then be than the prevalence."""
    uncertainty: float
    """The Brier score of the prevalence."""
    ece: float
    average_precision: float
    curve: tuple[Bin, ...]
    """The bins that are not empty."""


def calibration(predictions: Predictions, positive_class: str, bins: int = BINS) -> Calibration:
    """Of one class against the rest, on predictions of different subjects: one repeat's test folds, say.

    The parts of the Brier score are those of Dimitriadis, Gneiting and Jordan (PNAS 118, 2021), by isotonic
    regression: no bins decide them. What needs both classes is NaN if one is missing.
    """
    positive = predictions.classes.index(positive_class)
    hits, probabilities = predictions.targets == positive, predictions.probabilities[:, positive]
    targets, both = hits.astype(np.int64), np.stack([1 - probabilities, probabilities], 1)
    observed, score = float(hits.mean()), brier(targets, both, 1)
    recalibrated = float(((_isotonic(hits, probabilities) - hits) ** 2).mean())
    intercept, slope = _recalibration(hits, probabilities)
    return Calibration(
        observed=observed,
        predicted=float(probabilities.mean()),
        intercept=intercept,
        slope=slope,
        brier=score,
        miscalibration=score - recalibrated,
        discrimination=observed * (1 - observed) - recalibrated,
        uncertainty=observed * (1 - observed),
        ece=expected_calibration_error(targets, both, 1),
        average_precision=average_precision(targets, both, 1),
        curve=tuple(reliability(hits, probabilities, bins)),
    )


def reliability(hits: Hits, probabilities: Floats, bins: int = BINS) -> list[Bin]:
    """The reliability curve of (N,) outcomes and probabilities in bins of equal width, without the empty ones."""
    number = np.minimum((probabilities * bins).astype(int), bins - 1)
    curve = []
    for b in np.unique(number).tolist():
        inside = number == b
        count, observed = int(inside.sum()), float(hits[inside].mean())
        predicted = float(probabilities[inside].mean())
        curve.append(Bin(b / bins, (b + 1) / bins, count, predicted, observed, wilson(observed, count)))
    return curve


def _isotonic(hits: Hits, probabilities: Floats) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    fitted: Floats = IsotonicRegression().fit_transform(probabilities, hits.astype(float))
    return fitted


def _recalibration(hits: Hits, probabilities: Floats) -> tuple[float, float]:
    """(intercept at slope 1, slope), by logistic regression of the outcomes on the log odds."""
    if hits.all() or not hits.any():
        return math.nan, math.nan
    kept = np.clip(probabilities, CERTAIN, 1 - CERTAIN)
    odds, ones = np.log(kept / (1 - kept)), np.ones(len(kept))
    (intercept,) = _logistic(ones[:, None], hits, odds)
    slope = math.nan if np.ptp(odds) == 0 else _logistic(np.stack([ones, odds], 1), hits, np.zeros(len(kept)))[1]
    return float(intercept), float(slope)


def _logistic(columns: Floats, hits: Hits, offset: Floats) -> Floats:
    """The coefficients (C,) of a logistic regression on columns (N, C) with an offset (N,); NaN if there are none."""
    found = np.zeros(columns.shape[1])
    for _ in range(STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(columns @ found + offset, -500, 500)))
        information = columns.T @ (columns * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(information) > 1 / np.finfo(float).eps:
            break
        step = np.linalg.solve(information, columns.T @ (hits - fitted))
        found += step
        if np.abs(step).max() < 1e-10:
            return found
    return np.full(len(found), math.nan)
