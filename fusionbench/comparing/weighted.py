"""Metrics of subjects that count several times, for many drawings of them at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fusionbench.metrics import (
    Function,
    Probabilities,
    Targets,
    accuracy,
    average_precision,
    balanced_accuracy,
    brier,
    decide,
    expected_calibration_error,
    roc_auc,
    sensitivity,
    specificity,
)

ECE_BINS = 10
"""Those of the metric."""
Counts = NDArray[np.float64]
"""(draws, N): how often each subject is in each draw."""
Weighted = Callable[[Targets, Probabilities, int, Counts], Counts]
"""Targets (N,), probabilities (N, K), the number of the positive class, counts (draws, N) -> scores (draws,)."""


def _roc_auc(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    """The share of pairs in the right order, each pair as often as its two subjects were drawn."""
    aucs = []
    for k in _classes(probabilities, positive):
        hits, scores = targets == k, probabilities[:, k]
        above = scores[hits][:, None] - scores[~hits]
        right = (above > 0) + 0.5 * (above == 0)  # (positives, negatives)
        pairs = counts[:, hits].sum(1) * counts[:, ~hits].sum(1)
        aucs.append(_divided(((counts[:, hits] @ right) * counts[:, ~hits]).sum(1), pairs))
    return _over(aucs)


def _accuracy(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    return _share(decide(probabilities, positive) == targets, np.full(len(targets), True), counts)


def _balanced_accuracy(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    found = decide(probabilities, positive)
    return _over([_share(found == k, targets == k, counts) for k in range(probabilities.shape[1])])


def _sensitivity(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    found = decide(probabilities, positive)
    return _over([_share(found == k, targets == k, counts) for k in _classes(probabilities, positive)])


def _specificity(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    found = decide(probabilities, positive)
    return _over([_share(found != k, targets != k, counts) for k in _classes(probabilities, positive)])


def _average_precision(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    """The precision at every threshold, each as heavy as the recall it adds."""
    areas = []
    for k in _classes(probabilities, positive):
        order = np.argsort(-probabilities[:, k], kind="stable")
        hits, scores, times = targets[order] == k, probabilities[order, k], counts[:, order]
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # ties are one threshold
        found, given = (times * hits).cumsum(1)[:, last], times.cumsum(1)[:, last]
        added = np.diff(found, prepend=0, axis=1)
        precision = np.divide(found, given, out=np.zeros_like(found), where=given > 0)
        area = _divided((precision * added).sum(1), found[:, -1])
        areas.append(np.where(times[:, ~hits].any(1), area, math.nan))  # without a negative there is nothing to tell
    return _over(areas)


def _calibration_error(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    confidence = probabilities.max(1)
    gaps = (decide(probabilities, positive) == targets) - confidence
    bin_of = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    inside = [bin_of == number for number in np.unique(bin_of)]
    return _divided(sum(np.abs(counts[:, those] @ gaps[those]) for those in inside), counts.sum(1))


def _brier(targets: Targets, probabilities: Probabilities, positive: int, counts: Counts) -> Counts:
    errors = (probabilities - np.eye(probabilities.shape[1])[targets]) ** 2  # (N, K)
    each = errors[:, positive] if probabilities.shape[1] == 2 else errors.sum(1)
    return _divided(counts @ each, counts.sum(1))


WEIGHTED: Mapping[Function, Weighted] = {
    roc_auc: _roc_auc,
    accuracy: _accuracy,
    balanced_accuracy: _balanced_accuracy,
    sensitivity: _sensitivity,
    specificity: _specificity,
    average_precision: _average_precision,
    brier: _brier,
    expected_calibration_error: _calibration_error,
}
"""The function of a metric -> the same of weighted subjects; NaN where a draw has nobody that it needs."""


def _classes(probabilities: Probabilities, positive: int) -> list[int]:
    return [positive] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))


def _share(hits: NDArray[np.bool_], those: NDArray[np.bool_], counts: Counts) -> Counts:
    """(draws,) the share of those drawn that is hit."""
    return _divided(counts[:, hits & those].sum(1), counts[:, those].sum(1))


def _divided(part: Counts, whole: Counts) -> Counts:
    shares: Counts = np.full(len(whole), math.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _over(scores: list[Counts]) -> Counts:
    """(draws,) the mean over classes."""
    mean: Counts = np.mean(scores, axis=0)
    return mean
