"""A run folder says what was asked and what came out, reads back, and is extended but never overwritten."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import pytest
from conftest import comparison, table_cohort

from fusionbench import Cohort, Leaderboard, Store, Study, open_study, run
from fusionbench.comparing import KNOWN
from fusionbench.errors import StoreError, UsageError
from fusionbench.metrics import METRICS
from fusionbench.runs import Run, begin_run, join_run, read_run, write_run


def make(study: Study, folder: Path, store: Path) -> Run:
    joined = join_run(study, folder)
    begin_run(joined, folder)
    result = Run.of(run(joined, Store(store)), folder.name)
    write_run(result, folder, {"leaderboard.csv": Leaderboard.of(result).to_csv()})
    return result


@pytest.fixture
def folder(study: Study, tmp_path: Path) -> Path:
    make(study, tmp_path / "run", tmp_path / "store")
    return tmp_path / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_have_the_documented_columns(folder: Path) -> None:
    assert list(rows(folder / "predictions.csv")[0]) == [
        "experiment", "method", "repeat", "fold", "subject", "label", "p_HGG", "p_LGG", "notes",
    ]  # fmt: skip
    assert list(rows(folder / "ranking.csv")[0]) == [
        "experiment", "repeat", "fold", "rank", "modality", "score", "inner_scores", "probabilities",
    ]  # fmt: skip
    assert list(rows(folder / "folds.csv")[0]) == ["repeat", "fold", "subject", "label"]
    columns = list(rows(folder / "leaderboard.csv")[0])
    assert columns[:4] == ["method", "experiment", "marks", "failed"]
    assert columns[4:7] == ["rank_low", "rank_high", "tied_with"]
    assert columns[7:23] == [f"{metric}_{end}" for metric in KNOWN for end in ("low", "high")]
    assert columns[23:] == [f"{metric}_{part}" for metric in METRICS for part in ("mean", "std")]


def test_every_method_predicts_every_subject_once_on_the_fold_that_tests_it(folder: Path) -> None:
    tested = {row["subject"]: row["fold"] for row in rows(folder / "folds.csv")}
    for method in ("a", "b", "c", "ensemble", "guidance"):
        mine = [row for row in rows(folder / "predictions.csv") if row["method"] == method]
        assert {row["subject"]: row["fold"] for row in mine} == tested
        assert len(mine) == len(tested)
        assert all(float(r["p_HGG"]) + float(r["p_LGG"]) == pytest.approx(1, abs=1e-12) for r in mine)


def test_the_leaderboard_is_the_mean_and_sample_std_of_the_folds_of_the_predictions(folder: Path) -> None:
    from sklearn.metrics import roc_auc_score

    predictions = [row for row in rows(folder / "predictions.csv") if row["method"] == "guidance"]
    scores = []
    for fold in ("0", "1"):
        mine = [row for row in predictions if row["fold"] == fold]
        scores.append(roc_auc_score([r["label"] == "LGG" for r in mine], [float(r["p_LGG"]) for r in mine]))
    (row,) = [row for row in rows(folder / "leaderboard.csv") if row["method"] == "guidance"]
    assert float(row["roc_auc_mean"]) == pytest.approx(statistics.fmean(scores), abs=1e-12)
    assert float(row["roc_auc_std"]) == pytest.approx(statistics.stdev(scores), abs=1e-12)


def test_a_run_reads_back_as_it_was(folder: Path, study: Study, tmp_path: Path) -> None:
    written = make(study, folder, tmp_path / "store")
    assert Leaderboard.of(read_run(folder)).to_csv() == Leaderboard.of(written).to_csv()
    assert read_run(folder).ranking == written.ranking


def test_run_json_says_what_it_was_made_with_and_nothing_of_the_host(folder: Path) -> None:
    import getpass
    import socket

    text = (folder / "run.json").read_text()
    facts = json.loads(text)
    assert facts["cohort"]["positive_class"] == "LGG"
    assert facts["seeds"] == {"seed": 0, "fold_seed": 0}
    assert {"torch", "python", "fusionbench"} <= facts["versions"].keys()
    assert all(len(plugin["sha256"]) == 64 for plugin in facts["plugins"])
    fits = facts["fits"].values()
    assert all(fit["parameters"] > 0 and fit["seconds"] > 0 and fit["peak_memory_bytes"] > 0 for fit in fits)
    for name in (str(Path.home()), socket.gethostname(), str(folder.parent)):
        assert name not in text
    assert getpass.getuser() not in facts["machine"].values()


def test_another_fusion_extends_the_run(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    before = {r["method"] for r in rows(folder / "leaderboard.csv")}
    more = open_study(comparison(fusion=["logistic"], baselines=[]), cohort=cohort)
    make(more, folder, tmp_path / "store")
    assert {r["method"] for r in rows(folder / "leaderboard.csv")} == {*before, "logistic"}
    fits = [fit for fit in read_run(folder).facts["fits"].values() if fit["fusion"] == "logistic"]
    assert [fit["parameters"] for fit in fits] == [13, 13]  # a coefficient for each of 3 x 4 features, an intercept


def test_another_experiment_is_refused_with_the_difference(folder: Path, cohort: Cohort) -> None:
    other = open_study(comparison(seed=7, options={"guidance": {"fuse_init": "mean"}}), cohort=cohort)
    with pytest.raises(
        StoreError, match=r"another experiment \(options.guidance.fuse_init: primary -> mean.*seed: 0 -> 7"
    ):
        join_run(other, folder)


def test_other_data_are_refused(folder: Path) -> None:
    with pytest.raises(StoreError, match="made from other data"):
        join_run(open_study(comparison(), cohort=table_cohort(seed=1)), folder)


def test_a_folder_of_something_else_is_not_touched(study: Study, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="no run folder"):
        join_run(study, tmp_path / "mine")
    with pytest.raises(UsageError, match="holds no finished run"):
        read_run(tmp_path / "mine")


def test_runs_on_the_same_folds_join_and_on_others_are_refused(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    same = tmp_path / "same"
    make(open_study(comparison(fusion=["logistic"], baselines=["unimodal"]), cohort=cohort), same, tmp_path / "store")
    board = Leaderboard.read(folder, same)
    assert sorted(row.method for row in board.rows) == ["a", "b", "c", "ensemble", "guidance", "logistic"]
    other = tmp_path / "other"
    moved = comparison(fusion=["logistic"], baselines=[], protocol={"fold_seed": 1})
    make(open_study(moved, cohort=cohort), other, tmp_path / "store")
    with pytest.raises(UsageError, match="run and other have different folds"):
        Leaderboard.read(folder, other)


def test_the_same_label_for_two_experiments_is_told_apart(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    seeded = tmp_path / "seed1"
    make(open_study(comparison(seed=1, baselines=[]), cohort=cohort), seeded, tmp_path / "store")
    methods = [row.method for row in Leaderboard.read(folder, seeded).rows]
    assert "guidance (run)" in methods
    assert "guidance (seed1)" in methods


def test_selection_on_the_test_folds_is_marked_in_every_form(cohort: Cohort, tmp_path: Path) -> None:
    asked = comparison(protocol={"ranking": {"ranker": "outer"}})
    make(open_study(asked, cohort=cohort), tmp_path / "outer", tmp_path / "store")
    board = Leaderboard.read(tmp_path / "outer")
    mark = "selection saw the test folds"
    assert {row.method: row.marks for row in board.rows}["guidance"] == (mark,)
    assert all(mark in text for text in (board.to_csv(), board.to_markdown(), board.to_json()))
    assert mark not in {row.method: row.marks for row in board.rows}["a"]


def test_joining_runs_keeps_the_mark_whichever_comes_first(cohort: Cohort, tmp_path: Path) -> None:
    for ranker in ("fixed", "outer"):
        asked = comparison(protocol={"ranking": {"ranker": ranker}}, modalities=["a", "b"], baselines=[])
        make(open_study(asked, cohort=cohort), tmp_path / ranker, tmp_path / "store")
    for names in (("fixed", "outer"), ("outer", "fixed")):
        board = Leaderboard.read(*(tmp_path / name for name in names))
        assert any("selection saw the test folds" in note for note in board.notes())
    assert Leaderboard.read(tmp_path / "outer").ranked_by == "outer: mean roc_auc on the test folds"
    assert Leaderboard.read(tmp_path / "fixed").orders() == []


def test_a_failed_method_stands_last_with_its_reason(folder: Path) -> None:
    facts = json.loads((folder / "run.json").read_text())
    facts["methods"]["guidance"]["failed"] = "KeyError: x"
    (folder / "run.json").write_text(json.dumps(facts))
    last = Leaderboard.read(folder).rows[-1]
    assert (last.method, last.failed) == ("guidance", "KeyError: x")
    assert math.isnan(last.mean("roc_auc"))
    assert Leaderboard.read(folder).cells(last)[0] == "failed"
    assert "guidance failed: KeyError: x" in Leaderboard.read(folder).notes()


def test_notes_name_the_positive_class_what_is_synthetic_and_too_few_folds(folder: Path) -> None:
    from dataclasses import replace

    board = Leaderboard.read(folder)
    notes = "\n".join(board.notes())
    assert "positive class LGG; 36 subjects (24 HGG, 12 LGG)" in notes
    assert "too few folds to separate methods: use --repeats" in notes
    assert "synthetic" not in notes
    assert "synthetic data" in "\n".join(replace(board, cohort={**board.cohort, "synthetic": True}).notes())
