"""A run does every fit once, in any number of processes, and one failure takes one method down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import comparison
from torch import Tensor

import fusionbench
from fusionbench import Cohort, FusionStrategy, Leaderboard, Parts, Store, Study, load_registry, open_study, run
from fusionbench.engine import Event, Failed, Finished, Planned, forecast
from fusionbench.runs import Run, begin_run, write_run
from fusionbench.training import Progress
from fusionbench_cli.render import Live


class Unlucky(FusionStrategy):
    """Raises in its forward pass."""

    name = "unlucky"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.branch = parts.branch(parts.modalities[0])

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        raise KeyError("no such luck")


def tables(outcome: Run, folder: Path, study: Study) -> dict[str, bytes]:
    folder.mkdir()
    begin_run(study, folder)
    write_run(outcome, folder, {"leaderboard.csv": Leaderboard.of(outcome).to_csv()})
    names = ("predictions.csv", "ranking.csv", "leaderboard.csv", "folds.csv", "experiment.toml")
    return {name: (folder / name).read_bytes() for name in names}


def test_processes_sharing_and_a_second_run_change_no_byte(study: Study, tmp_path: Path) -> None:
    serial = Run.of(run(study, Store(tmp_path / "serial")))
    parallel = Run.of(run(study, Store(tmp_path / "parallel"), jobs=2))
    events: list[Event] = []
    again = Run.of(run(study, Store(tmp_path / "serial"), listener=events.append))
    expected = tables(serial, tmp_path / "a", study)
    assert tables(parallel, tmp_path / "b", study) == expected
    assert tables(again, tmp_path / "c", study) == expected
    assert not [event for event in events if isinstance(event, Finished | Progress)]


def test_without_sharing_the_predictions_are_the_same(cohort: Cohort, tmp_path: Path) -> None:
    together = run(open_study(comparison(), cohort=cohort), Store(tmp_path / "together"))
    for label, changes in {
        "a": {"fusion": ["unimodal"], "baselines": [], "modalities": ["a"]},
        "ensemble": {"fusion": ["ensemble"], "baselines": []},
        "guidance": {"fusion": ["guidance"], "baselines": []},
    }.items():
        alone = run(open_study(comparison(**changes), cohort=cohort), Store(tmp_path / label))
        one, other = ({(r.method, r.fold): r.predictions for r in Run.of(o).results} for o in (together, alone))
        for where, predictions in other.items():
            assert predictions is not None
            assert np.array_equal(predictions.probabilities, one[where].probabilities)  # type: ignore[union-attr]


def test_each_distinct_fit_is_trained_once(study: Study, store: Store) -> None:
    events: list[Event] = []
    outcome = run(study, store, listener=events.append)
    finished = [event.job.key for event in events if isinstance(event, Finished)]
    assert len(finished) == len(set(finished)) == len(outcome.plan.jobs) == 2 * (3 + 1 + 1 + 6)
    assert sum(isinstance(event, Planned) for event in events) == 2  # before, and when the ranking was known


@pytest.mark.parametrize("baselines", [[], ["unimodal", "ensemble"]], ids=["parents of its own", "shared parents"])
def test_a_forecast_counts_the_fits_that_are_then_done(cohort: Cohort, store: Store, baselines: list[str]) -> None:
    study = open_study(comparison(baselines=baselines), cohort=cohort)
    before, events = forecast(study, store), list[Event]()
    outcome = run(study, store, listener=events.append)
    assert (before.fits, before.stored) == (len(outcome.plan.jobs), 0)
    assert before.undecided == (2 if baselines else 4)  # guidance of each fold, and the model of its primary
    plans = [event.plan for event in events if isinstance(event, Planned)]
    assert len({len(plan.jobs) + len(plan.waiting) for plan in plans}) == 1
    assert len({sum(job.fit.work for job in (*plan.jobs, *plan.waiting)) for plan in plans}) == 1
    after = forecast(study, store)
    assert (after.fits, after.undecided, after.stored) == (before.fits, 0, before.fits)


def test_work_told_by_progress_adds_up_to_the_work_planned(study: Study, store: Store) -> None:
    events: list[Event] = []
    outcome = run(study, store, listener=events.append)
    told = sum(event.work for event in events if isinstance(event, Progress))
    tests = sum(len(job.fit.split.test) for job in outcome.plan.jobs)
    assert told + tests == sum(job.fit.work for job in outcome.plan.jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_strategy_fails_alone_with_its_reason(cohort: Cohort, tmp_path: Path, jobs: int) -> None:
    registry = load_registry().with_classes("tests", fusion=[Unlucky])
    study = open_study(comparison(fusion=["guidance", "unlucky"]), cohort=cohort, registry=registry)
    events: list[Event] = []
    outcome = run(study, Store(tmp_path), jobs=jobs, listener=events.append)
    result = Run.of(outcome)
    assert sum(isinstance(event, Failed) for event in events) == 2
    assert "KeyError: 'no such luck' (test_engine.py:" in result.facts["methods"]["unlucky"]["failed"]
    (failed, *_) = [event for event in events if isinstance(event, Failed)]
    kept = Store(tmp_path).traceback(failed.job.key).read_text()
    assert kept.startswith("Traceback (most recent call last):")
    assert kept.rstrip().endswith("KeyError: 'no such luck'")
    others = [r for r in result.results if r.method != "unlucky"]
    assert len(others) == 2 * 5
    assert all(r.predictions for r in others)


def test_a_failed_fit_is_not_counted_as_done(cohort: Cohort, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    registry = load_registry().with_classes("tests", fusion=[Unlucky])
    asked = comparison(fusion=["unlucky"], baselines=["unimodal"], modalities=["a"], protocol={"refit": True})
    study = open_study(asked, cohort=cohort, registry=registry)
    with Live(study) as live:
        run(study, store, listener=live)
    *_, done, last = capsys.readouterr().out.splitlines()
    assert last.startswith("The first traceback: ")
    assert "no such luck" in Path(last.removeprefix("The first traceback: ")).read_text()
    assert done.startswith("1 fit done, 1 failed in 0:")


def test_a_traceback_is_that_of_the_last_attempt(cohort: Cohort, store: Store) -> None:
    study = open_study(comparison(fusion=["unimodal"], modalities=["a"], recipe={"learning_rate": 1e30}), cohort=cohort)
    (key, *_) = [job.key for job in fusionbench.plan(study).jobs]
    store.keep_traceback(key, "of an earlier attempt")
    events: list[Event] = []
    run(study, store, listener=events.append)
    failed = [event for event in events if isinstance(event, Failed)]
    assert failed
    assert all(event.traceback is None for event in failed)
    assert not store.traceback(key).exists()


def test_what_needs_a_failed_fit_fails_with_its_reason(cohort: Cohort, store: Store) -> None:
    class Child(Unlucky):
        """Builds on the unlucky one."""

        name = "child"

        @classmethod
        def parents(cls, modalities: tuple[str, ...]):  # type: ignore[no-untyped-def]
            from fusionbench import Parent

            return (Parent("base", "unlucky", modalities, "weights"),)

    registry = load_registry().with_classes("tests", fusion=[Unlucky, Child])
    asked = comparison(fusion=["child"], baselines=["unimodal"])
    outcome = run(open_study(asked, cohort=cohort, registry=registry), store)
    assert "no such luck" in Run.of(outcome).facts["methods"]["child"]["failed"]
