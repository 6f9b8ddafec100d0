"""Metrics: pure functions of predictions, with the facts that a table needs to know about each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench.errors import UsageError, nearest
from fusionbench.predictions import Predictions

Targets = NDArray[np.int64]
Probabilities = NDArray[np.float64]
Function = Callable[[Targets, Probabilities, int], float]


@dataclass(frozen=True)
class Metric:
    """A score of targets (N,), probabilities (N, K) and the number of the positive class."""

    name: str
    function: Function
    higher_is_better: bool
    needs_probabilities: bool
    summary: str

    def __call__(self, predictions: Predictions, positive_class: str) -> float:
        """The score, NaN where it is not defined (a fold of one class has no ROC-AUC)."""
        positive = predictions.classes.index(positive_class)
        return self.function(predictions.targets, predictions.probabilities, positive)


def decide(probabilities: Probabilities, positive: int) -> Targets:
    """The predicted classes: the positive one from .5 on if there are two, the most probable if there are more."""
    if probabilities.shape[1] == 2:
        return np.where(probabilities[:, positive] >= 0.5, positive, 1 - positive)
    most_probable: Targets = probabilities.argmax(1)
    return most_probable


def roc_auc(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """Area under the ROC curve from probabilities; the macro mean of one-versus-rest for more than two classes."""
    from sklearn.metrics import roc_auc_score

    return _over_classes(lambda y, k: _of_both(roc_auc_score, y, probabilities[:, k]), targets, probabilities, positive)


def average_precision(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """Area under the precision-recall curve as a step function."""
    from sklearn.metrics import average_precision_score as area

    return _over_classes(lambda y, k: _of_both(area, y, probabilities[:, k]), targets, probabilities, positive)


def accuracy(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """The share of subjects whose class is predicted."""
    return float((decide(probabilities, positive) == targets).mean())


def sensitivity(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """The share of the positive class that is found."""
    found = decide(probabilities, positive)
    return _over_classes(lambda y, k: _share(found[y] == k), targets, probabilities, positive)


def specificity(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """The share of the other classes that is not taken for the positive one."""
    found = decide(probabilities, positive)
    return _over_classes(lambda y, k: _share(found[~y] != k), targets, probabilities, positive)


def balanced_accuracy(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """The mean recall of the classes; with two, (sensitivity + specificity) / 2 at .5. NaN if a class is absent."""
    found = decide(probabilities, positive)
    return float(np.mean([_share(found[targets == k] == k) for k in range(probabilities.shape[1])]))


def brier(targets: Targets, probabilities: Probabilities, positive: int) -> float:
    """The mean squared error of the probabilities; of the positive class's if there are two classes."""
    hits = np.eye(probabilities.shape[1])[targets]
    if probabilities.shape[1] == 2:
        return float(((probabilities - hits)[:, positive] ** 2).mean())
    return float(((probabilities - hits) ** 2).sum(1).mean())


def expected_calibration_error(targets: Targets, probabilities: Probabilities, positive: int, bins: int = 10) -> float:
    """The mean distance of confidence and accuracy over ten equal bins of confidence."""
    confidence = probabilities.max(1)
    right = decide(probabilities, positive) == targets
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[bin_of == b].mean() - confidence[bin_of == b].mean()) * (bin_of == b).mean() for b in set(bin_of)]
    return float(sum(gaps))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", roc_auc, True, True, "area under the ROC curve, from probabilities"),
        Metric("balanced_accuracy", balanced_accuracy, True, False, "mean recall of the classes at .5"),
        Metric("accuracy", accuracy, True, False, "share of right decisions at .5"),
        Metric("sensitivity", sensitivity, True, False, "share of the positive class found at .5"),
        Metric("specificity", specificity, True, False, "share of the other class kept apart at .5"),
        Metric("average_precision", average_precision, True, True, "area under the precision-recall curve"),
        Metric("brier", brier, False, True, "mean squared error of the probabilities"),
        Metric("ece", expected_calibration_error, False, True, "expected calibration error, ten bins"),
    )
}


def metric(name: str) -> Metric:
    """The metric of that name; UsageError says which there are."""
    if name not in METRICS:
        raise UsageError(f"no metric {name!r}: {nearest(name, METRICS)}")
    return METRICS[name]


def _over_classes(
    score: Callable[[NDArray[np.bool_], int], float], targets: Targets, probabilities: Probabilities, positive: int
) -> float:
    """The score of the positive class, or the mean over all classes if there are more."""
    classes = [positive] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))
    return float(np.mean([score(targets == k, k) for k in classes]))


def _of_both(score: Callable[..., float], hits: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """A score that compares two groups; NaN if one of them is empty."""
    return math.nan if hits.all() or not hits.any() else float(score(hits, probabilities))


def _share(hits: NDArray[np.bool_]) -> float:
    """The share that is true; NaN of nothing."""
    return float(hits.mean()) if len(hits) else math.nan
