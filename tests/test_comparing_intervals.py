"""Intervals agree with published values and with definitions written out, and claim nothing where nothing varies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from fusionbench import Predictions
from fusionbench.comparing import KNOWN, AreaUnderCurve, Interval, Resample, bootstrap, delong_p, shares, wilson
from fusionbench.comparing.delong import placements
from fusionbench.comparing.intervals import CONDITIONAL
from fusionbench.comparing.weighted import WEIGHTED
from fusionbench.metrics import METRICS, metric

CLASSES = ("HGG", "LGG")
AUC = metric("roc_auc")


def predicted(labels: Sequence[int], of_lgg: Sequence[float], prefix: str = "s") -> Predictions:
    ids = tuple(f"{prefix}{n:03d}" for n in range(len(labels)))
    rows = np.stack([1 - np.array(of_lgg), np.array(of_lgg)], 1)
    return Predictions(ids, tuple(CLASSES[label] for label in labels), CLASSES, rows)


def tried(seed: int, gain: float = 1.2, positives: int = 25, negatives: int = 70, prefix: str = "s") -> Predictions:
    """Predictions on 25 LGG and 70 HGG by default, in a tenth of which two are tied at least."""
    random = np.random.default_rng(seed)
    labels = [1] * positives + [0] * negatives
    odds = random.normal(size=len(labels)) + gain * np.array(labels)
    return predicted(labels, np.round(1 / (1 + np.exp(-odds)), 2), prefix)


def both(seed: int) -> tuple[Predictions, Predictions]:
    """Two methods on the same patients, correlated as two methods are."""
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [25, 70])
    shared = random.normal(size=95)
    odds = [shared + 0.7 * random.normal(size=95) + gain * labels for gain in (1.5, 1.0)]
    a, b = (predicted(labels, 1 / (1 + np.exp(-one))) for one in odds)
    return a, b


def some(part: Predictions, rows: Sequence[int]) -> Predictions:
    ids, labels = (tuple(values[row] for row in rows) for values in (part.ids, part.labels))
    return Predictions(ids, labels, part.classes, part.probabilities[list(rows)])


# Wilson


@pytest.mark.parametrize(
    ("hits", "number", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombe(hits: int, number: int, low: float, high: float) -> None:
    found = wilson(hits / number, number)  # Newcombe, Statist. Med. 17 (1998) 857-872, table I, method 3
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)


@given(st.integers(1, 400), st.data())
@settings(deadline=None, max_examples=60, database=None)
def test_wilson_intervals_agree_with_scipy(number: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, number))
    expected = binomtest(hits, number).proportion_ci(method="wilson")
    found = wilson(hits / number, number)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= hits / number <= found.high <= 1


def test_a_sensitivity_of_one_is_no_certainty_and_of_nobody_is_nothing() -> None:
    assert wilson(1.0, 75).low == pytest.approx(0.9513, abs=5e-5)
    assert wilson(1.0, 75).high == 1.0
    assert wilson(0.0, 75).low == 0.0
    assert math.isnan(wilson(math.nan, 0).low)


def test_shares_are_of_patients_however_often_each_was_tested() -> None:
    fold = predicted([1] * 25 + [0] * 70, [0.9] * 17 + [0.2] * 8 + [0.1] * 64 + [0.6] * 6)
    expected = {"sensitivity": wilson(17 / 25, 25), "specificity": wilson(64 / 70, 70), "accuracy": wilson(81 / 95, 95)}
    assert shares([fold], "LGG") == expected
    assert shares([fold] * 10, "LGG") == expected
    pairs = {id: id[:3] for id in fold.ids}  # ten subjects to a patient: s00, s01 and s02 have the LGG
    assert shares([fold], "LGG", pairs)["sensitivity"] == wilson(17 / 25, 3)


def test_a_share_of_more_than_two_classes_is_that_of_right_decisions_only() -> None:
    rows = np.eye(3)[[0, 1, 2, 2]]
    several = Predictions(("a", "b", "c", "d"), ("x", "y", "z", "x"), ("x", "y", "z"), rows)
    assert shares([several], "x") == {"accuracy": wilson(0.75, 4)}


# The bootstrap


@pytest.mark.parametrize("groups", [None, {f"s{n:03d}": f"p{n // 2}" for n in range(95)}], ids=["subjects", "patients"])
@pytest.mark.parametrize("name", METRICS)
def test_the_score_of_a_draw_is_the_metric_of_the_patients_drawn(name: str, groups: dict[str, str] | None) -> None:
    part = tried(1)
    resample = Resample.of([part], groups, draws=20)
    found = resample.scores([part], metric(name), "LGG")
    for score, counts in zip(found, resample.counts, strict=True):
        drawn = np.repeat(np.arange(95), counts.astype(int))
        targets, rows = part.targets[drawn], part.probabilities[drawn]
        expected = metric(name).function(targets, rows, 1)
        if name == "roc_auc":
            assert expected == roc_auc_score(targets, rows[:, 1])
        if name == "average_precision":
            assert expected == average_precision_score(targets, rows[:, 1])
        assert score == pytest.approx(expected)


@pytest.mark.parametrize("name", KNOWN)
def test_scores_of_draws_are_those_of_the_metric_where_a_class_may_be_lost(name: str) -> None:
    random = np.random.default_rng(0)
    for classes in (("x", "y"), ("x", "y", "z")):
        rows = random.dirichlet(np.ones(len(classes)), 12)
        targets = np.arange(12) % len(classes)
        counts = np.array([random.multinomial(4, np.full(12, 1 / 12)) for _ in range(60)], dtype=float)
        found = WEIGHTED[metric(name).function](targets, rows, 1, counts)
        drawn = [np.repeat(np.arange(12), times.astype(int)) for times in counts]
        expected = [metric(name).function(targets[d], rows[d], 1) for d in drawn]
        assert found == pytest.approx(np.array(expected), nan_ok=True)
        assert np.isnan(expected).any() == (name not in ("accuracy", "brier", "ece"))


@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_have_no_bootstrap_interval_of_any_metric(name: str) -> None:
    part = predicted([1] * 25 + [0] * 70, [1.0] * 25 + [0.0] * 70)
    found = bootstrap(Resample.of([part]).scores([part], metric(name), "LGG"))
    assert math.isnan(found.low)


def test_draws_that_differ_by_rounding_alone_have_no_interval() -> None:
    assert math.isnan(bootstrap(np.array([1.0, 1.0 - 2**-53] * 500)).low)
    assert bootstrap(np.array([1.0, 1.0 - 1e-9] * 500)).low < 1


def test_drawing_with_three_classes_scores_the_macro_mean() -> None:
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(3), 60)
    ids = tuple(f"s{n:02d}" for n in range(60))
    part = Predictions(ids, tuple("xyz"[n % 3] for n in range(60)), ("x", "y", "z"), rows)
    resample = Resample.of([part], draws=10)
    for score, counts in zip(resample.scores([part], AUC, "x"), resample.counts, strict=True):
        drawn = np.repeat(np.arange(60), counts.astype(int))
        assert score == pytest.approx(roc_auc_score(part.targets[drawn], rows[drawn], multi_class="ovr"))


def test_patients_are_drawn_whole_within_their_class_as_often_as_there_are() -> None:
    part = tried(0)
    by_class = Resample.of([part], draws=200)
    lgg = np.array([part.labels[part.ids.index(id)] == "LGG" for id in by_class.column])
    assert set(by_class.counts[:, lgg].sum(1)) == {25}
    assert set(by_class.counts[:, ~lgg].sum(1)) == {70}
    assert by_class.counts[:, 0].std() > 0
    patient = {id: f"p{int(id[1:]) // 5}" for id in part.ids}
    whole = Resample.of([part], patient, draws=200)
    for n in range(19):
        assert (np.ptp(whole.counts[:, 5 * n : 5 * n + 5], axis=1) == 0).all()


def test_a_seed_gives_the_same_draws_and_another_seed_others() -> None:
    part = tried(0)
    assert (Resample.of([part], seed=1).counts == Resample.of([part], seed=1).counts).all()
    assert (Resample.of([part], seed=1).counts != Resample.of([part], seed=2).counts).any()
    shuffled = some(part, np.random.default_rng(0).permutation(95).tolist())
    assert (Resample.of([part]).counts == Resample.of([shuffled]).counts).all()


def test_the_bootstrap_interval_is_about_as_wide_as_delongs() -> None:
    part = tried(2)
    found = bootstrap(Resample.of([part]).scores([part], AUC, "LGG"))
    expected = AreaUnderCurve.of([part], "LGG").interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.015)
    assert CONDITIONAL in found.method
    assert CONDITIONAL in expected.method


def test_patients_with_several_subjects_widen_the_interval() -> None:
    part = tried(3)
    copies = [predicted(part.targets, part.probabilities[:, 1], prefix) for prefix in "abcd"]
    everyone = Predictions.joined(copies, CLASSES)
    patients = {id: id[1:] for id in everyone.ids}
    apart, together, once = (
        bootstrap(Resample.of([p], groups).scores([p], AUC, "LGG")).half_width
        for p, groups in ((everyone, None), (everyone, patients), (part, None))
    )
    assert together == pytest.approx(once, rel=0.1)
    assert apart < 0.6 * once


def test_a_perfect_score_has_no_interval_and_says_nothing_false() -> None:
    part = predicted([1] * 10 + [0] * 10, [0.9] * 10 + [0.1] * 10)
    for found in (
        bootstrap(Resample.of([part]).scores([part], AUC, "LGG")),
        AreaUnderCurve.of([part], "LGG").interval(),
    ):
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_a_small_fold_that_loses_a_class_in_a_draw_is_left_out_of_that_draw_only() -> None:
    small, large = tried(0, positives=2, negatives=6, prefix="a"), tried(1, prefix="b")
    resample = Resample.of([small, large], draws=300)
    found = resample.scores([small, large], AUC, "LGG")
    lost = np.isnan(resample.scores([small], AUC, "LGG"))
    assert 0 < lost.sum() < 300
    assert not np.isnan(found).any()
    assert found[lost] == pytest.approx(resample.scores([large], AUC, "LGG")[lost])


def test_a_fold_of_one_class_has_no_score_in_any_draw() -> None:
    parts = [tried(0), predicted([1, 1], [0.2, 0.8])]
    assert np.isnan(Resample.of(parts, draws=20).scores(parts, AUC, "LGG")).all()


def test_draws_without_a_score_are_left_out_and_too_few_give_no_interval() -> None:
    scores = np.concatenate([np.linspace(0, 1, 201), np.full(100, math.nan)])
    found = bootstrap(scores)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))
    assert math.isnan(bootstrap(scores[2:]).low)


def test_the_half_width_is_half_of_it() -> None:
    assert Interval(0.8, 0.9, "").half_width == pytest.approx(0.05)


# DeLong


def by_hand(parts: Sequence[Predictions]) -> tuple[list[float], np.ndarray]:
    """AUCs and their covariance, with every pair of subjects looked at: DeLong et al. 1988, equations 4 to 6."""
    values, tens, ones = [], [], []
    for part in parts:
        x, y = ([p for p, t in zip(part.probabilities[:, 1], part.targets, strict=True) if t == k] for k in (1, 0))
        psi = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]
        values.append(sum(map(sum, psi)) / len(x) / len(y))
        tens.append([sum(row) / len(y) for row in psi])
        ones.append([sum(row[j] for row in psi) / len(x) for j in range(len(y))])
    return values, np.cov(tens) / len(tens[0]) + np.cov(ones) / len(ones[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_fast_delong_is_the_slow_one(seed: int) -> None:
    parts = both(seed) if seed % 2 else (tried(seed), tried(seed, gain=0.5))  # the latter with ties
    values, covariance = by_hand(parts)
    a, b = (AreaUnderCurve.of([part], "LGG") for part in parts)
    assert [a.value, b.value] == pytest.approx(values)
    assert [[x.covariance(y) for y in (a, b)] for x in (a, b)] == pytest.approx(covariance)
    assert a.value == pytest.approx(AUC(parts[0], "LGG"))
    z = (values[0] - values[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert delong_p(a, b) == pytest.approx(2 * norm.sf(abs(z)))
    assert a.interval().half_width == pytest.approx(1.959964 * math.sqrt(covariance[0, 0]), rel=1e-6)
    assert a.correlation(b) == pytest.approx(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))


def test_the_order_of_the_subjects_and_a_monotone_change_of_scores_do_not_matter() -> None:
    part, other = both(0)
    shuffled = some(part, np.random.default_rng(0).permutation(95).tolist())
    squared = predicted(part.targets, part.probabilities[:, 1] ** 2)
    first, second = AreaUnderCurve.of([part], "LGG"), AreaUnderCurve.of([other], "LGG")
    for same in (shuffled, squared):
        area = AreaUnderCurve.of([same], "LGG")
        assert area.covariance(area) == pytest.approx(first.covariance(first))
        assert delong_p(area, second) == pytest.approx(delong_p(first, second))
        assert delong_p(area, second) == pytest.approx(delong_p(second, area))


def test_the_mean_of_disjoint_folds_has_the_variances_of_the_folds() -> None:
    folds = [tried(seed, prefix=f"f{seed}-") for seed in range(3)]
    whole = AreaUnderCurve.of(folds, "LGG")
    apart = [AreaUnderCurve.of([fold], "LGG") for fold in folds]
    assert whole.value == pytest.approx(np.mean([fold.value for fold in apart]))
    assert whole.covariance(whole) == pytest.approx(sum(fold.covariance(fold) for fold in apart) / 9)


def test_a_repeat_that_says_the_same_adds_no_certainty() -> None:
    part = tried(5)
    once, often = AreaUnderCurve.of([part], "LGG"), AreaUnderCurve.of([part] * 10, "LGG")
    assert often.value == pytest.approx(once.value)
    assert often.covariance(often) == pytest.approx(once.covariance(once))


def test_copies_of_a_patient_add_no_certainty_if_it_is_known_that_they_are() -> None:
    part = tried(6)
    copies = Predictions.joined([predicted(part.targets, part.probabilities[:, 1], p) for p in "ab"], CLASSES)
    once, told = AreaUnderCurve.of([part], "LGG"), AreaUnderCurve.of([copies], "LGG", {id: id[1:] for id in copies.ids})
    unknown = AreaUnderCurve.of([copies], "LGG")
    assert told.covariance(told) == pytest.approx(once.covariance(once))
    assert unknown.covariance(unknown) < 0.55 * once.covariance(once)


def test_the_variance_is_that_of_new_cohorts() -> None:
    found = [AreaUnderCurve.of([tried(seed, positives=40, negatives=60)], "LGG") for seed in range(400)]
    truth = np.var([area.value for area in found])
    assert np.mean([area.covariance(area) for area in found]) == pytest.approx(truth, rel=0.15)


def test_what_is_not_defined_is_nan() -> None:
    one_class, good = predicted([1, 1, 1], [0.2, 0.5, 0.6]), tried(0)
    for area in (AreaUnderCurve.of([one_class], "LGG"), AreaUnderCurve.of([good, one_class], "LGG")):
        assert math.isnan(area.value)
        assert math.isnan(area.interval().low)
        assert math.isnan(delong_p(area, AreaUnderCurve.of([good], "LGG")))
    alone = AreaUnderCurve.of([predicted([1, 0, 0], [0.5, 0.6, 0.1])], "LGG")  # one patient does not vary
    assert alone.value == 0.5
    assert math.isnan(alone.interval().low)


def test_the_same_predictions_do_not_differ() -> None:
    a = AreaUnderCurve.of([tried(0)], "LGG")
    assert delong_p(a, AreaUnderCurve.of([tried(0)], "LGG")) == 1.0
    assert a.correlation(a) == pytest.approx(1.0)


def test_placements_of_a_hand_made_example() -> None:
    hits = np.array([True, True, False, False, False])
    below, above = placements(hits, np.array([0.9, 0.4, 0.4, 0.1, 0.8]))
    assert below == pytest.approx([1.0, 0.5])
    assert above == pytest.approx([0.75, 1.0, 0.5])
