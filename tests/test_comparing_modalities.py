"""How certain an order of modalities is, and what each contributes: textbook values, axioms, and no false certainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, combinations, permutations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

from fusionbench import Evidence, Predictions
from fusionbench.comparing import agreement, rank_probabilities, shapley
from fusionbench.errors import UsageError
from fusionbench.metrics import metric
from fusionbench_plugins.rankers.solo import Nested

CLASSES = ("HGG", "LGG")
NAMES = ("t1ce", "t2", "flair", "t1")
AUC = metric("roc_auc")
Worth = Callable[[frozenset[str]], float]


def tried(gain: float, seed: int, number: int = 60, prefix: str = "s") -> Predictions:
    """What a modality's models say of 20 LGG and 40 HGG."""
    labels = np.arange(number) % 3 == 0
    p = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(size=number) - gain * labels))
    ids = tuple(f"{prefix}{n:03d}" for n in range(number))
    return Predictions(ids, tuple(CLASSES[int(y)] for y in labels), CLASSES, np.stack([1 - p, p], 1))


# Agreement of orders


@pytest.mark.parametrize("seed", range(4))
def test_kendalls_w_is_friedmans_statistic_on_another_scale(seed: int) -> None:
    random = np.random.default_rng(seed)
    orders = [[NAMES[n] for n in random.permutation(4)] for _ in range(6)]
    ranks = [[order.index(name) for order in orders] for name in NAMES]
    assert agreement(orders).kendall_w == pytest.approx(friedmanchisquare(*ranks).statistic / (6 * 3))


def test_the_ends_of_kendalls_w() -> None:
    assert agreement([NAMES] * 5).kendall_w == 1.0
    assert agreement(list(permutations(NAMES))).kendall_w == 0.0
    assert math.isnan(agreement([NAMES]).kendall_w)
    assert math.isnan(agreement([["t1"], ["t1"]]).kendall_w)


def test_first_places_and_mean_ranks_are_counted_best_first() -> None:
    found = agreement([["t2", "t1ce", "t1"], ["t1ce", "t2", "t1"], ["t1ce", "t1", "t2"]])
    assert (found.orders, dict(found.first)) == (3, {"t1ce": 2, "t2": 1, "t1": 0})
    assert dict(found.mean_rank) == pytest.approx({"t1ce": 4 / 3, "t2": 2, "t1": 8 / 3})
    assert list(found.first) == list(found.mean_rank) == ["t1ce", "t2", "t1"]


def test_orders_of_other_modalities_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^orders of t1, t2 and of flair, t1 cannot be compared$"):
        agreement([["t1", "t2"], ["t1", "flair"]])


# P(rank)


def test_the_probabilities_of_places_are_those_of_drawn_patients() -> None:
    found = rank_probabilities(
        {"t2": [tried(0.4, 1)], "t1ce": [tried(3.0, 2)], "t1": [tried(0.4, 3)]}, AUC, "LGG", draws=500
    )
    assert list(found) == ["t2", "t1ce", "t1"]
    assert found["t1ce"] == (1.0, 0.0, 0.0)
    for place in zip(*found.values(), strict=True):
        assert sum(place) == pytest.approx(1)
    assert 0.05 < found["t2"][1] < 0.95


def test_equal_modalities_are_not_ordered_with_certainty_and_a_ranking_orders_them_all_the_same() -> None:
    certain = []
    for cohort in range(20):
        parts = {name: [tried(1.0, 100 * cohort + n)] for n, name in enumerate(NAMES)}
        evidence = [Evidence(name, (AUC(p, "LGG"),), p) for name, (p,) in parts.items()]
        first = Nested().order(evidence)[0]
        certain.append(rank_probabilities(parts, AUC, "LGG", draws=200)[first][0])
    assert 0.4 < fmean(certain) < 0.85


def test_inner_folds_are_scored_apart_as_the_ranking_does() -> None:
    def shifted(part: Predictions, by: float) -> Predictions:
        odds = np.log(part.probabilities[:, 1] / part.probabilities[:, 0]) + by
        p = 1 / (1 + np.exp(-odds))
        return Predictions(part.ids, part.labels, CLASSES, np.stack([1 - p, p], 1))

    # t1ce is better in either fold, but its two models are on scales of their own, so pooled it looks worse.
    t1ce = [shifted(tried(2.0, 1, prefix="a"), 4.0), shifted(tried(2.0, 2, prefix="b"), -4.0)]
    t2 = [tried(1.0, 3, prefix="a"), tried(1.0, 4, prefix="b")]
    apart = rank_probabilities({"t1ce": t1ce, "t2": t2}, AUC, "LGG", draws=200)
    pooled = {name: [Predictions.joined(parts, CLASSES)] for name, parts in (("t1ce", t1ce), ("t2", t2))}
    assert apart["t1ce"][0] > 0.9
    assert rank_probabilities(pooled, AUC, "LGG", draws=200)["t1ce"][0] < 0.5


def test_ties_keep_the_typed_order_and_no_score_comes_last() -> None:
    same, nothing = [tried(1.0, 0)], [tried(1.0, 0)]
    assert rank_probabilities({"b": same, "a": same}, AUC, "LGG", draws=50) == {"b": (1.0, 0.0), "a": (0.0, 1.0)}
    rows = np.full_like(nothing[0].probabilities, math.nan)
    unknown = [Predictions(nothing[0].ids, nothing[0].labels, CLASSES, rows)]
    assert rank_probabilities({"b": unknown, "a": same}, metric("brier"), "LGG", draws=50)["a"] == (1.0, 0.0)


def test_of_a_metric_that_is_better_when_lower_the_lowest_comes_first() -> None:
    parts = {"bad": [tried(-2.0, 1)], "good": [tried(3.0, 2)]}
    assert rank_probabilities(parts, metric("brier"), "LGG", draws=50)["good"] == (1.0, 0.0)


def test_modalities_on_other_subjects_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^t2 was tried on other subjects than t1"):
        rank_probabilities({"t1": [tried(1, 0)], "t2": [tried(1, 0, prefix="x")]}, AUC, "LGG")


# Shapley values


def scored(names: str, worth: Worth) -> dict[frozenset[str], float]:
    sets = chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))
    return {frozenset(some): worth(frozenset(some)) for some in sets}


def by_orders(scores: dict[frozenset[str], float], names: str) -> dict[str, float]:
    """The definition: the mean gain over all orders in which one may arrive."""
    gains: dict[str, list[float]] = {name: [] for name in names}
    for order in permutations(names):
        for n, name in enumerate(order):
            gains[name].append(scores[frozenset(order[: n + 1])] - scores[frozenset(order[:n])])
    return {name: fmean(values) for name, values in gains.items()}


@given(st.lists(st.floats(0, 1), min_size=16, max_size=16))
@settings(deadline=None, max_examples=40, database=None)
def test_the_values_are_the_mean_gains_over_all_orders_and_add_up(numbers: list[float]) -> None:
    drawn = iter(numbers)
    scores = scored("abcd", lambda _: next(drawn))
    found = shapley(scores)
    assert found == pytest.approx(by_orders(scores, "abcd"), abs=1e-12)
    assert sum(found.values()) == pytest.approx(scores[frozenset("abcd")] - scores[frozenset()], abs=1e-12)


def test_the_glove_game() -> None:
    # One has a left glove, two a right one; a pair is worth 1: the textbook's 2/3, 1/6, 1/6.
    found = shapley(scored("lrs", lambda some: float("l" in some and len(some) > 1)))
    assert found == pytest.approx({"l": 2 / 3, "r": 1 / 6, "s": 1 / 6})


def test_who_changes_nothing_gains_nothing_and_equals_gain_the_same() -> None:
    found = shapley(scored("abc", lambda some: 0.5 + 0.4 * bool(some & {"a", "b"})))
    assert found["c"] == 0
    assert found["a"] == pytest.approx(found["b"]) == pytest.approx(0.2)


def test_of_one_modality_the_value_is_its_gain_and_of_none_there_is_none() -> None:
    assert shapley({frozenset(): 0.5, frozenset({"t1ce"}): 0.9}) == {"t1ce": pytest.approx(0.4)}
    assert shapley({frozenset(): 0.5}) == {}


def test_a_set_without_a_score_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"^no score of no modality, t1\+t2: score every set of t1, t2, the empty too$"
    ):
        shapley({frozenset({"t1"}): 0.5, frozenset({"t2"}): 0.5})
