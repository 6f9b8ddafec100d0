"""The losses of the fits that are tested go into the run folder and come back; a real run makes a report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import comparison, table_cohort

from fusionbench import Store, open_study, run
from fusionbench.histories import Epoch, history_csv, read_history
from fusionbench.report import Sources, document, to_html
from fusionbench.report.costs import cost
from fusionbench.runs import Run, begin_run, read_run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained; nobody changes it."""
    place = tmp_path_factory.mktemp("history")
    study = open_study(comparison(), cohort=table_cohort())
    begin_run(study, place / "run")
    write_run(Run.of(run(study, Store(place / "store").open()), "run"), place / "run")
    return place / "run"


def test_a_history_reads_back_to_the_last_bit() -> None:
    epochs = (Epoch("a,b", 0, 1, "fit", 0, 0.1 + 0.2), Epoch("a,b", 0, 1, "fit", 1, 1e-300))
    assert history_csv(epochs).startswith("method,repeat,fold,stage,epoch,loss\n")
    assert read_history(history_csv(epochs)) == epochs


def test_every_epoch_of_every_fit_that_is_tested(folder: Path) -> None:
    history = read_run(folder).history
    assert {(e.method, e.fold) for e in history} == {(m, f) for m in ("a", "b", "c", "guidance") for f in (0, 1)}
    assert [e.epoch for e in history if (e.method, e.fold) == ("a", 0)] == [0, 1, 2]
    assert all(e.loss > 0 for e in history)
    assert history == tuple(sorted(history, key=lambda e: (e.method, e.repeat, e.fold)))


def test_an_older_folder_has_none(folder: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(folder, tmp_path / "older"))
    (older / "history.csv").unlink()
    assert read_run(older).history == ()


def test_a_run_tells_what_predicting_took_and_what_a_fit_was_built_on(folder: Path) -> None:
    facts = read_run(folder).facts
    fits = {method: [facts["fits"][key] for key in told["fits"]] for method, told in facts["methods"].items()}
    assert all(0 < fit["predict_seconds"] <= fit["seconds"] for several in fits.values() for fit in several)
    assert all(fit["test_subjects"] == fit["training_subjects"] == 18 for fit in fits["guidance"])
    assert len(fits["ensemble"][0]["parents"]) == 3
    assert set(fits["guidance"][0]["parents"]) <= set(facts["fits"])
    assert fits["a"][0]["parents"] == []


def test_a_real_run_makes_a_report(folder: Path) -> None:
    sources = Sources.read(folder)
    text = to_html(document(sources))
    assert "Too few folds to separate methods: 2 fold scores each" in text
    assert all(f">{method}<" in text for method in ("a", "b", "c", "ensemble", "guidance"))
    guidance = next(row for row in sources.board.rows if row.method == "guidance")
    assert cost(sources, guidance).seconds_with_parents > cost(sources, guidance).seconds > 0
