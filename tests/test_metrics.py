"""Metrics are the published definitions, say NaN where they are not defined, and reproduce the paper's tables."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from fusionbench.errors import UsageError
from fusionbench.leaderboard import Row
from fusionbench.metrics import METRICS, decide, metric
from fusionbench.predictions import Predictions

CLASSES = ("HGG", "LGG")
Sizes = tuple[int, ...]


def predictions(labels: list[int], rows: NDArray[np.float64], classes: tuple[str, ...] = CLASSES) -> Predictions:
    ids = tuple(f"s{n:04d}" for n in range(len(labels)))
    return Predictions(ids, tuple(classes[label] for label in labels), classes, rows)


def binary(labels: list[int], of_lgg: list[float]) -> Predictions:
    """Predictions from 1 for LGG and 0 for HGG, and the probability of LGG."""
    return predictions(labels, np.stack([1 - np.array(of_lgg), np.array(of_lgg)], 1))


def counted(true_positives: int, positives: int, true_negatives: int, negatives: int) -> Predictions:
    """A fold in which so many LGG and HGG are found."""
    found = [0.9] * true_positives + [0.2] * (positives - true_positives)
    kept = [0.1] * true_negatives + [0.6] * (negatives - true_negatives)
    return binary([1] * positives + [0] * negatives, found + kept)


def randomly(classes: int, seed: int = 0, subjects: int = 90) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, subjects)
    rows = random.dirichlet(np.ones(classes), subjects) + 0.3 * np.eye(classes)[targets]
    return targets, rows / rows.sum(1, keepdims=True)


def score(name: str, targets: NDArray[np.int64], rows: NDArray[np.float64], positive: int = 1) -> float:
    classes = ("HGG", "LGG", "healthy", "other")[: rows.shape[1]]
    return metric(name)(predictions(targets.tolist(), rows, classes), classes[positive])


# The paper's tables, LGG positive, from the counts of three folds


@pytest.mark.parametrize(
    ("found", "kept", "expected"),
    [
        ((17, 20, 21), (64, 54, 57), {"accuracy": (0.8175, 0.037), "sensitivity": (0.773, 0.083),
                                      "specificity": (0.833, 0.073), "balanced_accuracy": (0.803, 0.021)}),
        ((25, 25, 25), (70, 65, 69), {"accuracy": (0.979, 0.028), "sensitivity": (1.0, 0.0),
                                      "specificity": (0.971, 0.038), "balanced_accuracy": (0.986, 0.019)}),
        ((15, 15, 17), (60, 64, 62), {"accuracy": (0.818, 0.024), "sensitivity": (0.627, 0.046),
                                      "specificity": (0.886, 0.029), "balanced_accuracy": (0.756, 0.027)}),
        ((19, 19, 20), (49, 58, 49), {"accuracy": (0.751, 0.052), "sensitivity": (0.773, 0.023),
                                      "specificity": (0.743, 0.074), "balanced_accuracy": (0.758, 0.033)}),
        ((19, 20, 25), (66, 65, 70), {"accuracy": (0.930, 0.061), "sensitivity": (0.853, 0.129),
                                      "specificity": (0.957, 0.038), "balanced_accuracy": (0.905, 0.082)}),
    ],
    ids=["T2", "Ours", "T1", "AGG", "MMD-VAE"],
)  # fmt: skip
def test_counts_of_three_folds_give_the_mean_and_sample_deviation_that_the_paper_prints(
    found: Sizes, kept: Sizes, expected: dict[str, tuple[float, float]]
) -> None:
    folds = [counted(tp, 25, tn, 70) for tp, tn in zip(found, kept, strict=True)]
    scores = {name: tuple(metric(name)(fold, "LGG") for fold in folds) for name in expected}
    row = Row("method", "key", scores)
    for name, (mean, deviation) in expected.items():
        assert row.mean(name) == pytest.approx(mean, abs=5.01e-4), name
        assert row.std(name) == pytest.approx(deviation, abs=5.01e-4), name
        assert statistics.pstdev(scores[name]) < row.std(name) or deviation == 0


def test_the_accuracy_of_the_first_vector_is_exact() -> None:
    accuracies = [metric("accuracy")(counted(tp, 25, tn, 70), "LGG") for tp, tn in ((17, 64), (20, 54), (21, 57))]
    assert statistics.fmean(accuracies) == pytest.approx(233 / 285)
    assert statistics.stdev(accuracies) == pytest.approx(0.0370, abs=5e-5)


def test_balanced_accuracy_is_the_mean_of_sensitivity_and_specificity_and_no_auc() -> None:
    fold = counted(17, 25, 64, 70)
    assert metric("balanced_accuracy")(fold, "LGG") == pytest.approx((17 / 25 + 64 / 70) / 2)
    assert metric("roc_auc")(fold, "LGG") != pytest.approx(metric("balanced_accuracy")(fold, "LGG"))


def test_the_positive_class_swaps_sensitivity_and_specificity_and_leaves_the_auc() -> None:
    fold = counted(17, 25, 64, 70)
    assert metric("sensitivity")(fold, "HGG") == metric("specificity")(fold, "LGG") == 64 / 70
    assert metric("specificity")(fold, "HGG") == metric("sensitivity")(fold, "LGG") == 17 / 25
    for name in ("roc_auc", "balanced_accuracy", "accuracy", "brier", "ece"):
        assert metric(name)(fold, "HGG") == pytest.approx(metric(name)(fold, "LGG")), name


# Against scikit-learn


@pytest.mark.parametrize("seed", range(5))
def test_binary_metrics_agree_with_scikit_learn(seed: int) -> None:
    targets, rows = randomly(2, seed)
    decided, of_positive = rows.argmax(1), rows[:, 1]
    expected = {
        "roc_auc": reference.roc_auc_score(targets, of_positive),
        "average_precision": reference.average_precision_score(targets, of_positive),
        "brier": reference.brier_score_loss(targets, of_positive),
        "accuracy": reference.accuracy_score(targets, decided),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, decided),
        "sensitivity": reference.recall_score(targets, decided, pos_label=1),
        "specificity": reference.recall_score(targets, decided, pos_label=0),
    }
    assert {name: score(name, targets, rows) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive", [0, 1, 2])
def test_metrics_of_three_classes_agree_with_scikit_learn_whatever_is_called_positive(seed: int, positive: int) -> None:
    targets, rows = randomly(3, seed)
    decided, hits = rows.argmax(1), np.eye(3, dtype=int)[targets]
    rest = [reference.recall_score(targets != k, decided != k) for k in range(3)]
    expected = {
        "roc_auc": reference.roc_auc_score(targets, rows, multi_class="ovr", average="macro"),
        "average_precision": reference.average_precision_score(hits, rows, average="macro"),
        "brier": ((rows - hits) ** 2).sum() / len(targets),
        "accuracy": reference.accuracy_score(targets, decided),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, decided),
        "sensitivity": reference.recall_score(targets, decided, average="macro"),
        "specificity": np.mean(rest),
    }
    assert {name: score(name, targets, rows, positive) for name in expected} == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
@settings(deadline=None, max_examples=60, database=None)
def test_the_auc_is_the_share_of_pairs_in_the_right_order_ties_counting_half(rows: list[tuple[bool, int]]) -> None:
    labels, of_lgg = [int(label) for label, _ in rows], [value / 4 for _, value in rows]
    pairs = [(p, n) for p, y in zip(of_lgg, labels, strict=True) if y
             for n, x in zip(of_lgg, labels, strict=True) if not x]  # fmt: skip
    found = metric("roc_auc")(binary(labels, of_lgg), "LGG")
    if not pairs:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs))


# Where a metric is not defined


@pytest.mark.parametrize("label", [0, 1], ids=CLASSES)
@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy"])
def test_a_fold_of_one_class_has_no_score(name: str, label: int) -> None:
    assert math.isnan(metric(name)(binary([label] * 4, [0.2, 0.4, 0.6, 0.8]), "LGG"))


def test_a_class_without_subjects_has_no_recall() -> None:
    assert math.isnan(metric("sensitivity")(binary([0, 0], [0.2, 0.8]), "LGG"))
    assert math.isnan(metric("specificity")(binary([1, 1], [0.2, 0.8]), "LGG"))


def test_the_recall_of_the_only_class_of_a_fold_is_defined() -> None:
    assert metric("sensitivity")(binary([1, 1], [0.2, 0.8]), "LGG") == 0.5
    assert metric("specificity")(binary([0, 0], [0.2, 0.8]), "LGG") == 0.5


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy", "sensitivity"])
def test_a_fold_that_lacks_one_of_three_classes_has_no_macro_score(name: str) -> None:
    targets, rows = randomly(3)
    some = targets != 2
    assert math.isnan(score(name, targets[some], rows[some]))


@pytest.mark.parametrize("name", ["accuracy", "brier", "ece"])
def test_metrics_that_one_class_is_enough_for_are_numbers(name: str) -> None:
    assert math.isfinite(metric(name)(binary([1, 1, 1], [0.2, 0.6, 0.8]), "LGG"))


def test_a_row_with_an_undefined_fold_has_no_mean_and_no_deviation() -> None:
    row = Row("method", "key", {"roc_auc": (0.8, math.nan, 0.9)})
    assert math.isnan(row.mean("roc_auc"))
    assert math.isnan(row.std("roc_auc"))


# Decisions and calibration


@pytest.mark.parametrize("positive", [0, 1])
def test_a_probability_of_exactly_half_counts_as_positive(positive: int) -> None:
    assert decide(np.array([[0.5, 0.5]]), positive).tolist() == [positive]
    assert score("sensitivity", np.array([positive, 1 - positive]), np.full((2, 2), 0.5), positive) == 1


@given(st.floats(0, 1))
@settings(deadline=None, max_examples=60, database=None)
def test_two_classes_are_decided_by_the_probability_of_the_positive_one(of_lgg: float) -> None:
    assert decide(np.array([[1 - of_lgg, of_lgg]]), 1).tolist() == [int(of_lgg >= 0.5)]


def test_more_classes_are_decided_by_the_largest_probability() -> None:
    assert decide(np.array([[0.4, 0.35, 0.25], [0.3, 0.3, 0.4]]), 1).tolist() == [0, 2]


def test_the_calibration_error_of_a_hand_made_example() -> None:
    # One bin holds .92 right and .94 wrong, another .62 and .64, both right: |.5 - .93| / 2 + |1 - .63| / 2.
    found = metric("ece")(binary([1, 0, 1, 0], [0.92, 0.94, 0.62, 0.36]), "LGG")
    assert found == pytest.approx((0.43 + 0.37) / 2)


def test_certain_and_right_is_perfectly_calibrated_and_certain_and_wrong_not_at_all() -> None:
    assert metric("ece")(binary([1, 0], [1.0, 0.0]), "LGG") == 0
    assert metric("ece")(binary([1, 0], [0.0, 1.0]), "LGG") == 1


def test_the_brier_score_of_a_hand_made_example() -> None:
    assert metric("brier")(binary([1, 0], [0.8, 0.3]), "LGG") == pytest.approx((0.04 + 0.09) / 2)


# Facts


def test_only_errors_are_better_when_lower() -> None:
    assert {name for name, one in METRICS.items() if not one.higher_is_better} == {"brier", "ece"}


def test_metrics_that_need_probabilities_say_so() -> None:
    needing = {name for name, one in METRICS.items() if one.needs_probabilities}
    assert needing == {"roc_auc", "average_precision", "brier", "ece"}
    targets, rows = randomly(2)
    rounded = np.eye(2)[decide(rows, 1)]
    for name in METRICS:
        assert (score(name, targets, rows) != pytest.approx(score(name, targets, rounded))) == (name in needing), name


@pytest.mark.parametrize("name", METRICS)
def test_better_predictions_score_better_in_the_direction_that_the_metric_names(name: str) -> None:
    good, bad = counted(24, 25, 68, 70), counted(10, 25, 30, 70)
    gain = metric(name)(good, "LGG") - metric(name)(bad, "LGG")
    assert (gain > 0) == METRICS[name].higher_is_better


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_the_subjects_does_not_matter(name: str) -> None:
    targets, rows = randomly(3)
    order = np.random.default_rng(1).permutation(len(targets))
    assert score(name, targets[order], rows[order]) == pytest.approx(score(name, targets, rows))


def test_an_unknown_metric_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(
        UsageError, match=r"^no metric 'roc_acu': did you mean 'roc_auc'\?.*balanced_accuracy"
    ) as caught:
        metric("roc_acu")
    assert "\n" not in str(caught.value)
