"""Three classes from data to leaderboard, folded by site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import comparison, table_cohort
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fusionbench import Cohort, Leaderboard, Run, Store, open_study, run

CLASSES = ("II", "III", "IV")


def graded(subjects: int = 45) -> Cohort:
    """The toy cohort with three grades, at three sites, each feature of `a` rising with the grade."""
    cohort = table_cohort(subjects, informative=0)
    grades = [n // 3 % 3 for n in range(subjects)]
    graded = [
        replace(
            s,
            label=CLASSES[grade],
            site=f"site-{n % 3}",
            features={
                name: tuple(np.array(row) + (2 * grade if name == "a" else 0)) for name, row in s.features.items()
            },
        )
        for n, (s, grade) in enumerate(zip(cohort.subjects, grades, strict=True))
    ]
    return replace(cohort, classes=CLASSES, positive_class="IV", subjects=tuple(graded))


@pytest.fixture
def result(store: Store) -> Run:
    asked = comparison(
        fusion=["guidance", "decision", "logistic", "feature", "pixel"],
        baselines=["unimodal", "ensemble"],
        protocol={"folds_by": "site", "inner_folds": 2},
    )
    return Run.of(run(open_study(asked, cohort=graded()), store))


def test_every_method_grades_and_the_scores_are_scikit_learns(result: Run) -> None:
    assert {len(r.predictions.ids) for r in result.results if r.predictions} == {15}
    assert not any(r.failed for r in result.results)
    board = {row.method: row for row in Leaderboard.of(result).rows}
    assert board["logistic"].mean("roc_auc") > 0.9
    assert board["c"].mean("roc_auc") < 0.7
    for fold, found in enumerate([r.predictions for r in result.results if r.method == "logistic"]):
        assert found is not None
        expected = roc_auc_score(found.targets, found.probabilities, multi_class="ovr", average="macro")
        assert board["logistic"].scores["roc_auc"][fold] == pytest.approx(expected)
        guessed = found.probabilities.argmax(1)
        assert board["logistic"].scores["balanced_accuracy"][fold] == pytest.approx(
            balanced_accuracy_score(found.targets, guessed)
        )


def test_a_fold_is_a_site(result: Run) -> None:
    cohort = graded()
    for r in result.results:
        assert r.predictions is not None
        assert {cohort.subject(id).site for id in r.predictions.ids} == {f"site-{r.fold}"}
