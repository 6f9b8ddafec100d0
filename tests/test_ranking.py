"""Rankers order modalities by what they may look at, and looking at the test folds is what inflates a score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import pytest

from fusionbench import Evidence, Fold, Ground, Predictions, Ranker, Split, Subject
from fusionbench.folds import draw_splits
from fusionbench.metrics import metric
from fusionbench_plugins.rankers.solo import Fixed, Nested, Outer

NOTHING = Predictions((), (), ("HGG", "LGG"), np.zeros((0, 2)))
NAMES = ("t1ce", "t2", "flair", "t1")


def evidence(higher_is_better: bool = True, **scores: tuple[float, ...]) -> list[Evidence]:
    return [Evidence(name, values, NOTHING, higher_is_better) for name, values in scores.items()]


@pytest.mark.parametrize("ranker", [Nested(), Outer()], ids=["nested", "outer"])
def test_modalities_are_ordered_by_descending_mean_score(ranker: Ranker) -> None:
    found = ranker.order(evidence(t2=(0.6, 0.8), t1ce=(0.9, 0.9), t1=(0.5, 0.6), flair=(0.9, 0.7)))
    assert found == ("t1ce", "flair", "t2", "t1")


def test_the_typed_order_stays_whatever_the_scores() -> None:
    assert Fixed().order(evidence(t2=(0.1,), t1ce=(0.9,), t1=(0.5,))) == ("t2", "t1ce", "t1")
    assert Fixed().order(evidence(t2=(), t1ce=())) == ("t2", "t1ce")


@pytest.mark.parametrize("typed", list(itertools.permutations(("t1ce", "t2", "flair"))), ids="-".join)
def test_ties_keep_the_order_in_which_they_were_typed(typed: tuple[str, ...]) -> None:
    assert Nested().order(evidence(**dict.fromkeys(typed, (0.5, 0.7)))) == typed
    assert Nested().order(evidence(best=(0.9, 0.9), **dict.fromkeys(typed, (0.5, 0.7)))) == ("best", *typed)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_modality_without_a_score_comes_last(higher_is_better: bool) -> None:
    found = Nested().order(evidence(higher_is_better, t2=(0.9, math.nan), t1ce=(0.1, 0.1), t1=(0.8, 0.8)))
    assert found[-1] == "t2"
    assert Nested().order(evidence(higher_is_better, t2=(), t1ce=(0.0,))) == ("t1ce", "t2")


def test_several_modalities_without_a_score_keep_the_typed_order() -> None:
    assert Nested().order(evidence(c=(math.nan,), a=(math.nan,), b=(0.1,))) == ("b", "c", "a")


def test_of_a_metric_that_is_better_when_lower_the_smallest_comes_first() -> None:
    brier = metric("brier")
    assert not brier.higher_is_better
    found = Nested().order(evidence(brier.higher_is_better, t2=(0.2, 0.3), t1ce=(0.1, 0.1), t1=(0.4, 0.0)))
    assert found == ("t1ce", "t1", "t2")


def test_the_mean_score_is_that_over_the_splits() -> None:
    (one,) = evidence(t1ce=(0.5, 0.6, 1.0))
    assert one.mean == pytest.approx(0.7)


def ground() -> Ground:
    training, test = tuple("abcdef"), tuple("gh")
    inner = tuple(
        Split(tuple(s for s in training if s not in part), part) for part in (("a", "b"), ("c", "d"), ("e", "f"))
    )
    outer = (Fold(0, 0, Split(training, test)), Fold(0, 1, Split(tuple("cdefgh"), tuple("ab"))))
    return Ground(lambda: inner, outer)


def subjects_of(splits: tuple[Split, ...]) -> set[str]:
    return {subject for split in splits for subject in (*split.training, *split.test)}


def test_nested_asks_for_the_inner_splits_and_never_for_a_test_subject() -> None:
    assert Nested().splits(ground()) == ground().inner
    assert not subjects_of(Nested().splits(ground())) & {"g", "h"}
    assert not Nested.saw_test


def test_nested_by_holdout_asks_for_the_first_inner_split_only() -> None:
    assert Nested(holdout=True).splits(ground()) == ground().inner[:1]


def test_outer_asks_for_the_outer_folds_and_says_that_it_saw_the_test_subjects() -> None:
    assert Outer().splits(ground()) == tuple(fold.split for fold in ground().outer)
    assert Outer.saw_test


def test_fixed_asks_for_nothing() -> None:
    assert Fixed().splits(ground()) == ()
    assert not Fixed.saw_test


# The leak that nesting closes


def simulated_cohorts(number: int) -> Iterator[tuple[float, float, float]]:
    """Four modalities that know nothing: the AUC that is reported of the primary by `outer`, by `nested`, unpicked.

    At the size of BraTS2018, 75 LGG and 210 HGG, in 3 folds with 2 inner folds each; every score is a random number.
    """
    subjects = [Subject(f"s{n:03d}", "LGG" if n < 75 else "HGG") for n in range(285)]
    label = {subject.id: subject.label for subject in subjects}
    folds = tuple(Fold(0, number, split) for number, split in enumerate(draw_splits(subjects, 3, seed=0)))
    grounds = [
        Ground(partial(draw_splits, [s for s in subjects if s.id in fold.split.training], 2, seed=fold.number), folds)
        for fold in folds
    ]
    random = np.random.default_rng(0)
    for _ in range(number):
        guesses = {name: dict(zip(label, random.normal(size=285), strict=True)) for name in NAMES}

        @cache
        def auc(name: str, split: Split, guesses: dict[str, dict[str, float]] = guesses) -> float:
            of_lgg = 1 / (1 + np.exp(-np.array([guesses[name][id] for id in split.test])))
            rows = np.stack([1 - of_lgg, of_lgg], 1)
            found = Predictions(split.test, tuple(label[id] for id in split.test), ("HGG", "LGG"), rows)
            return metric("roc_auc")(found, "LGG")

        def reported(ranker: Ranker, fold: Fold, auc: Callable[[str, Split], float] = auc) -> float:
            splits = ranker.splits(grounds[fold.number])
            tried = [Evidence(name, tuple(auc(name, split) for split in splits), NOTHING) for name in NAMES]
            return auc(ranker.order(tried)[0], fold.split)

        by_outer, by_nested, unpicked = (
            float(np.mean([reported(ranker, fold) for fold in folds])) for ranker in (Outer(), Nested(), Fixed())
        )
        yield by_outer, by_nested, unpicked


def test_on_null_data_nested_ranking_is_unbiased_and_ranking_by_the_test_folds_is_not() -> None:
    outer, nested, unpicked = np.array(list(simulated_cohorts(200))).mean(0) - 0.5  # no modality knows anything
    assert abs(unpicked) < 0.01
    assert abs(nested) < 0.01
    assert outer > 0.02
