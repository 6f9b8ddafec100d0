"""What is claimed of methods: only what a corrected test separates, whoever asks, and nothing from few folds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from itertools import combinations, permutations

import numpy as np
import pytest

from fusionbench import Predictions, Subject
from fusionbench.comparing import (
    ENOUGH_SCORES,
    KNOWN,
    TOO_FEW,
    AreaUnderCurve,
    Difference,
    Findings,
    compare,
    delong_p,
    smallest_difference,
    standings,
    wilson,
)
from fusionbench.comparing.findings import SINGLE, Place, size_ratio
from fusionbench.errors import UsageError
from fusionbench.folds import draw_splits
from fusionbench.metrics import metric

CLASSES = ("HGG", "LGG")
SUBJECTS = tuple(Subject(f"s{n:03d}", "LGG" if n < 40 else "HGG") for n in range(100))
Folds = dict[Place, Predictions]


def drawn(repeats: int = 2, folds: int = 5) -> dict[Place, tuple[str, ...]]:
    """Who is tested where."""
    splits = {repeat: draw_splits(SUBJECTS, folds, seed=repeat) for repeat in range(repeats)}
    return {(repeat, n): split.test for repeat, several in splits.items() for n, split in enumerate(several)}


def predicted(gains: Mapping[str, float], repeats: int = 2, folds: int = 5, seed: int = 0) -> dict[str, Folds]:
    """Methods that are right by so much more, tested on drawn folds; what is hard for one is hard for all."""
    random = np.random.default_rng(seed)
    label = {subject.id: subject.label for subject in SUBJECTS}
    hard = dict(zip(label, random.normal(size=len(label)), strict=True))
    found: dict[str, Folds] = {name: {} for name in gains}
    for place, ids in drawn(repeats, folds).items():
        lgg = np.array([label[id] == "LGG" for id in ids])
        for name, gain in gains.items():
            odds = np.array([hard[id] for id in ids]) + 0.7 * random.normal(size=len(ids)) + gain * (lgg - 0.5)
            p = 1 / (1 + np.exp(-odds))
            labels = tuple(label[id] for id in ids)
            found[name][place] = Predictions(ids, labels, CLASSES, np.stack([1 - p, p], 1))
    return found


GAINS = {"bad": 0.2, "good": 2.6, "fair": 1.1, "twin": 2.6}


@pytest.fixture(scope="module")
def ten() -> Findings:
    return compare(predicted(GAINS), "LGG", draws=500)


@pytest.fixture(scope="module")
def five() -> Findings:
    return compare(predicted(GAINS, repeats=1), "LGG", draws=500)


def test_scores_and_means_are_those_of_the_leaderboard_best_first(ten: Findings) -> None:
    methods = predicted(GAINS)
    for estimate in ten.estimates:
        scores = [metric("roc_auc")(part, "LGG") for _, part in sorted(methods[estimate.method].items())]
        assert list(estimate.scores) == scores
        assert estimate.mean == statistics.fmean(scores)
        assert estimate.delong.low < estimate.bootstrap.low + 0.03 < estimate.mean < estimate.bootstrap.high
    assert [estimate.method for estimate in ten.estimates[2:]] == ["fair", "bad"]
    assert [(p.a, p.b) for p in ten.pairs] == list(combinations([e.method for e in ten.estimates], 2))


def test_every_number_of_a_pair_is_that_of_its_own_test(ten: Findings) -> None:
    methods = predicted(GAINS)
    scores = {estimate.method: estimate.scores for estimate in ten.estimates}
    for pair in ten.pairs:
        difference = Difference.of(scores[pair.a], scores[pair.b], ratio=20 / 80)
        assert pair.difference == pytest.approx(difference.mean)
        assert (pair.p, pair.low, pair.high) == pytest.approx((difference.p, *difference.interval()))
        assert (pair.better, pair.equal, pair.worse) == pytest.approx(difference.posterior())
        areas = (AreaUnderCurve.of(list(methods[name].values()), "LGG") for name in (pair.a, pair.b))
        assert pair.delong_p == pytest.approx(delong_p(*areas))
        assert pair.p <= pair.p_holm <= 1


def test_far_methods_are_separated_and_twins_are_tied(ten: Findings) -> None:
    assert not ten.too_few
    standing = {one.method: one for one in ten.standings}
    assert standing["good"].tied_with == ("twin",)
    assert standing["twin"].tied_with == ("good",)
    assert (standing["good"].ranks, standing["twin"].ranks) == ("1-2", "1-2")
    assert (standing["fair"].ranks, standing["bad"].ranks) == ("3", "4")
    assert ten.notes()[0].startswith("5 of 6 pairs of methods differ in roc_auc (Nadeau-Bengio")


def test_below_ten_fold_scores_everybody_is_tied_and_nothing_is_tested(five: Findings) -> None:
    assert ENOUGH_SCORES == 10
    assert five.too_few
    assert five.notes()[0] == TOO_FEW
    assert {one.ranks for one in five.standings} == {"1-4"}
    assert all(len(one.tied_with) == 3 for one in five.standings)
    for pair in five.pairs:
        unknown = (pair.low, pair.high, pair.p, pair.p_holm, pair.better, pair.equal, pair.worse)
        assert all(map(math.isnan, unknown))
        assert math.isfinite(pair.difference)
        assert math.isfinite(pair.delong_p)
        assert not pair.separated


def test_what_can_be_shown_comes_from_the_folds_or_from_the_patients(ten: Findings, five: Findings) -> None:
    scores = {estimate.method: estimate.scores for estimate in ten.estimates}
    deviation = statistics.median(
        statistics.stdev(x - y for x, y in zip(a, b, strict=True)) for a, b in combinations(scores.values(), 2)
    )
    assert ten.detectable.one_pair == pytest.approx(smallest_difference(deviation, 10, 0.25))
    assert ten.detectable.all_pairs == pytest.approx(smallest_difference(deviation, 10, 0.25, alpha=0.05 / 6))
    assert 0 < five.detectable.one_pair < five.detectable.all_pairs
    assert "patients alone" in five.notes()[1]
    assert ten.detectable.half_width == statistics.median(estimate.bootstrap.half_width for estimate in ten.estimates)


def test_of_a_metric_that_is_better_when_lower_the_lowest_wins() -> None:
    methods = predicted({"good": 2.6, "bad": 0.2})
    found = compare(methods, "LGG", score="brier", draws=200)
    (pair,) = found.pairs
    assert (pair.a, pair.b) == ("good", "bad")
    assert pair.difference < 0
    assert pair.better > 0.95 > pair.worse
    assert [one.ranks for one in found.standings] == ["1", "2"]
    assert math.isnan(pair.delong_p)
    assert "ROC" not in " ".join(found.notes())


def test_the_order_in_which_methods_and_folds_are_given_does_not_matter(ten: Findings) -> None:
    methods = predicted(GAINS)
    turned = {name: dict(reversed(methods[name].items())) for name in reversed(methods)}
    assert compare(turned, "LGG", draws=500) == ten


def test_one_method_is_described_and_compared_with_nobody() -> None:
    found = compare(predicted({"alone": 1.0}), "LGG", draws=200)
    assert found.pairs == ()
    assert [one.ranks for one in found.standings] == ["1"]
    assert len(found.notes()) == 1
    assert found.estimates[0].intervals["sensitivity"].low < 1


def test_identical_methods_are_tied() -> None:
    methods = predicted({"a": 1.0})
    (pair,) = compare(methods | {"b": methods["a"]}, "LGG", draws=200).pairs
    assert (pair.p_holm, pair.equal, pair.delong_p) == (1.0, 1.0, 1.0)


def test_a_fold_without_a_score_claims_nothing_and_stops_nobody() -> None:
    methods = predicted({"a": 2.6, "b": 0.1})
    for folds in methods.values():
        part = folds[0, 0]
        folds[0, 0] = Predictions(part.ids, ("HGG",) * len(part.ids), CLASSES, part.probabilities)
    found = compare(methods, "LGG", draws=200)
    assert math.isnan(found.estimates[0].mean)
    assert found.estimates[0].method == "a"  # by the folds pooled
    assert found.untested == "roc_auc is not defined on every test fold: no test can separate methods by it"
    assert math.isnan(found.estimates[0].intervals["sensitivity"].low)
    assert found.estimates[0].intervals["accuracy"].low > 0
    assert not any(pair.separated for pair in found.pairs)
    assert {one.ranks for one in found.standings} == {"1-2"}


def test_three_classes_have_no_delong_and_everything_else() -> None:
    random = np.random.default_rng(0)
    classes = ("x", "y", "z")
    label = {subject.id: classes[n % 3] for n, subject in enumerate(SUBJECTS)}
    methods: dict[str, Folds] = {"good": {}, "bad": {}}
    for name, gain in (("good", 0.4), ("bad", 0.0)):
        for place, ids in drawn().items():
            labels = tuple(label[id] for id in ids)
            rows = random.dirichlet(np.ones(3), len(labels)) + gain * np.eye(3)[[classes.index(c) for c in labels]]
            methods[name][place] = Predictions(ids, labels, classes, rows / rows.sum(1, keepdims=True))
    found = compare(methods, "x", draws=200)
    assert [one.ranks for one in found.standings] == ["1", "2"]
    assert math.isnan(found.pairs[0].delong_p)
    assert set(found.estimates[0].intervals) == set(KNOWN)
    wilson_of = {name for name, interval in found.estimates[0].intervals.items() if interval.method == "Wilson"}
    assert wilson_of == {"accuracy"}
    assert found.estimates[0].bootstrap.low > found.estimates[1].bootstrap.high


def test_patients_with_several_subjects_count_once() -> None:
    methods = predicted({"a": 1.0, "b": 0.5})
    patients = {subject.id: f"p{int(subject.id[1:]) // 2}" for subject in SUBJECTS}
    apart, together = (compare(methods, "LGG", groups=groups, draws=200) for groups in (None, patients))
    for one, other in zip(apart.estimates, together.estimates, strict=True):
        assert one.mean == other.mean
        assert one.delong != other.delong
        assert one.bootstrap != other.bootstrap
        assert other.intervals["sensitivity"].half_width > one.intervals["sensitivity"].half_width
    assert together.estimates[0].intervals["specificity"].low < wilson(1.0, 30).low


# What cannot be compared


def test_methods_on_other_folds_are_refused_in_one_line() -> None:
    methods = predicted({"a": 1.0, "b": 0.5})
    other = predicted({"b": 0.5}, repeats=1)
    with pytest.raises(UsageError, match=r"^b and a were not tested on the same subjects.*--fold-seed$"):
        compare({"a": methods["a"]} | other, "LGG")
    swapped = {**methods["b"], (0, 0): methods["b"][0, 1], (0, 1): methods["b"][0, 0]}
    with pytest.raises(UsageError, match="not paired"):
        compare({"a": methods["a"], "b": swapped}, "LGG")


def test_nothing_is_refused() -> None:
    for nothing in ({}, {"a": {}}):
        with pytest.raises(UsageError, match="nothing to compare"):
            compare(nothing, "LGG")


def test_the_ratio_of_sizes_is_taken_from_the_folds() -> None:
    (folds,) = predicted({"a": 1.0}, repeats=3, folds=4).values()
    assert size_ratio(list(folds), list(folds.values())) == pytest.approx(1 / 3)
    uneven = [Predictions(("x",) * n, ("LGG",) * n, CLASSES, np.zeros((n, 2))) for n in (10, 30)]
    assert size_ratio([(0, 0), (0, 1)], uneven) == pytest.approx((10 / 30 + 30 / 10) / 2)
    with pytest.raises(UsageError, match="repeat 0 has one fold"):
        size_ratio([(0, 0)], uneven[:1])
    assert size_ratio([(0, 0)], uneven[:1], subjects=50) == pytest.approx(10 / 40)


def test_a_single_test_part_is_described_and_says_what_it_cannot_tell() -> None:
    methods = {name: {(0, 0): folds[0, 0]} for name, folds in predicted({"a": 2.6, "b": 0.1}).items()}
    found = compare(methods, "LGG", subjects=len(SUBJECTS), draws=400)
    assert found.untested == SINGLE
    assert SINGLE in found.notes()
    assert TOO_FEW not in found.notes()
    assert {one.ranks for one in found.standings} == {"1-2"}
    assert found.pairs[0].delong_p < 0.05
    assert all(interval.low < interval.high for interval in found.estimates[1].intervals.values())


# Standings


def test_places_are_those_of_every_order_that_the_differences_allow() -> None:
    for better in ({("a", "c"), ("a", "d"), ("b", "d")}, set(), {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")}):
        allowed = [o for o in permutations("abcd") if all(o.index(x) < o.index(y) for x, y in better)]
        for one in standings("abcd", better):
            places = [order.index(one.method) + 1 for order in allowed]
            assert one.rank_low >= 1
            assert min(places) >= one.rank_low
            assert max(places) <= one.rank_high
            if better in ({("a", "c"), ("a", "d"), ("b", "d")}, set()):
                assert (min(places), max(places)) == (one.rank_low, one.rank_high)


def test_tied_is_no_equivalence() -> None:
    a, b, c = standings("abc", {("a", "c")})
    assert (a.tied_with, b.tied_with, c.tied_with) == (("b",), ("a", "c"), ("b",))


def test_a_circle_of_differences_still_has_places() -> None:
    assert {one.ranks for one in standings("abc", {("a", "b"), ("b", "c"), ("c", "a")})} == {"2"}
