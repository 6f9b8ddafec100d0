"""An ablation: every subset of the secondaries, the primary always there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import comparison, table_cohort

from fusionbench import Cohort, Leaderboard, Run, Store, Study, open_study, run
from fusionbench.ablation import ablation, most_frequent_primary, subsets
from fusionbench.errors import UsageError

NAMES = ("a", "b", "c")


@pytest.fixture
def ablated(cohort: Cohort) -> Study:
    return open_study(ablation(comparison(baselines=[]), NAMES, "a"), cohort=cohort)


def test_there_is_a_row_for_each_subset_of_the_secondaries(ablated: Study) -> None:
    assert [row.label for row in ablated.experiments] == ["a", "a + b", "a + c", "a + b + c"]
    assert [row.modalities for row in ablated.experiments] == subsets(NAMES, "a")
    assert {row.fusion for row in ablated.experiments} == {"guidance"}


def test_the_primary_comes_first_and_the_ranking_orders_the_others(ablated: Study, store: Store) -> None:
    decisions = run(ablated, store).decisions
    assert {decision.order[0] for decision in decisions} == {"a"}
    full = [decision for decision in decisions if len(decision.order) == 3]
    for decision in full:
        means = {one.modality: one.mean for one in decision.evidence}
        assert means[decision.order[1]] >= means[decision.order[2]]


def test_the_subset_without_secondaries_predicts_what_the_primary_does_alone(cohort: Cohort, store: Store) -> None:
    alone = run(open_study(comparison(fusion=["unimodal"], baselines=[]), cohort=cohort), store)
    ablated = run(open_study(ablation(comparison(baselines=[]), NAMES, "a"), cohort=cohort), store)
    wanted = {row.fold.number: alone.known[row.key] for row in alone.plan.rows if row.experiment.label == "a"}
    found = {row.fold.number: ablated.known[row.key] for row in ablated.plan.rows if row.experiment.label == "a"}
    for number, predictions in wanted.items():
        assert (found[number].probabilities == predictions.probabilities).all()


def test_the_rows_share_the_fits_that_rank(ablated: Study, cohort: Cohort, store: Store) -> None:
    solo = 3 * 2 * 2  # modalities, outer folds, inner folds
    guidance, first_stage = 4 * 2, 2
    assert len(run(ablated, store).plan.jobs) == solo + first_stage + guidance


def test_the_most_frequent_primary_is_found_and_its_choice_is_marked(cohort: Cohort, store: Store) -> None:
    outcome = run(open_study(comparison(), cohort=cohort), store)
    assert most_frequent_primary(outcome.decisions) == "a"
    marked = open_study(ablation(comparison(baselines=[]), NAMES, "a", given=False), cohort=cohort)
    board = Leaderboard.of(Run.of(run(marked, store)))
    marks = {row.method: row.marks for row in board.rows}
    assert marks["a + b"] == ("selection saw the test folds",)
    assert marks["a"] == ("selection saw the test folds",)
    assert "primary a most frequent" in board.ranked_by


def test_a_given_primary_is_not_marked(ablated: Study, store: Store) -> None:
    board = Leaderboard.of(Run.of(run(ablated, store)))
    assert not any(row.marks for row in board.rows)
    assert "primary a given" in board.ranked_by


def test_without_evidence_there_is_no_most_frequent_primary(cohort: Cohort, store: Store) -> None:
    fixed = comparison(protocol={"folds": 2, "ranking": {"ranker": "fixed"}})
    with pytest.raises(UsageError, match="say which is always there with --primary"):
        most_frequent_primary(run(open_study(fixed, cohort=cohort), store).decisions)


def test_what_cannot_be_taken_apart_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one strategy"):
        ablation(comparison(fusion=["guidance", "ensemble"]), NAMES, "a")
    with pytest.raises(UsageError, match="512 subsets"):
        ablation(comparison(), [f"m{n}" for n in range(10)], "m0")
    with pytest.raises(UsageError, match="'d' is not compared"):
        open_study(ablation(comparison(), NAMES, "d"), cohort=table_cohort())
