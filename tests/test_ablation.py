"""An ablation: every subset of the secondaries, the primary always there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import comparison, write_tables

from fusionbench import Cohort, Leaderboard, Modality, Run, Store, Study, Subject, open_study, run
from fusionbench.ablation import ablation, check_ablation, most_frequent_primary, subsets
from fusionbench.errors import UsageError
from fusionbench_cli.app import main

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


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"fusion": ["guidance", "ensemble"]}, True, "one strategy"),
        ({"fusion": ["unimodal"]}, True, "one strategy for several modalities"),
        ({"fusion": ["pixel"]}, False, "pixel ranks no modalities: say which is always there with --primary"),
        ({"protocol": {"ranking": {"ranker": "fixed"}}}, False, "fixed ranks on no evidence: say which"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_before_anything_trains(
    changes: dict[str, object], given: bool, message: str, cohort: Cohort
) -> None:
    study = open_study(comparison(baselines=[], **changes), cohort=cohort)
    with pytest.raises(UsageError, match=message):
        check_ablation(study, given=given)


def test_too_many_subsets_are_refused() -> None:
    names = tuple(f"m{n}" for n in range(10))
    subjects = tuple(
        Subject(f"s{n}", ("HGG", "LGG")[n % 2], features=dict.fromkeys(names, (float(n),))) for n in range(12)
    )
    many = Cohort("many", ("HGG", "LGG"), "LGG", tuple(Modality(name, "table", 1) for name in names), subjects)
    with pytest.raises(UsageError, match="512 subsets"):
        check_ablation(open_study(comparison(baselines=[]), cohort=many), given=True)


def test_a_primary_that_is_not_there_is_refused(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match="'d' is not compared"):
        open_study(ablation(comparison(baselines=[]), NAMES, "d"), cohort=cohort)


def test_a_dry_run_without_a_primary_trains_nothing(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tables(tmp_path / "tables", cohort)
    monkeypatch.setattr(
        "sys.argv",
        ["fusionbench", "ablate", "--cohort", "table", "--data", str(folder), "--dry-run", "--home", str(tmp_path)],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "The primary, and with it the subsets, are known after this" in capsys.readouterr().out
    assert not list(tmp_path.rglob("job.json"))
