"""predict, evaluate, fit and export, as a user meets them."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import table_cohort, write_tables

from fusionbench import Cohort
from fusionbench_cli.app import main

QUICK = ["--set", "recipe.epochs=1", "--set", "protocol.inner_folds=2", "--set", "protocol.folds=2", "--jobs", "1"]


class Done:
    """What a command said, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Done:
    monkeypatch.setattr(sys, "argv", ["fusionbench", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    return Done(int(stopped.value.code or 0), said.out, said.err)


def renamed(cohort: Cohort) -> Cohort:
    return replace(cohort, subjects=tuple(replace(subject, id=f"new{subject.id}") for subject in cohort.subjects))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a run `r` of guidance and what comes along, a refit `final`, and what the first said."""
    folder = tmp_path_factory.mktemp("use")
    write_tables(folder / "tables", table_cohort())
    write_tables(folder / "other", renamed(table_cohort(12, seed=9)))
    write_tables(folder / "bare", renamed(table_cohort(5, seed=7)))
    (folder / "bare" / "labels.csv").unlink()
    data = ["--cohort", "table", "--data", "tables"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FUSIONBENCH_HOME", str(folder / "home"))
        patch.setattr(sys, "argv", ["fusionbench", "run", *data, "--fusion", "guidance", "--out", "r", *QUICK])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert not stopped.value.code
    return folder


@pytest.fixture(autouse=True)
def in_place(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(shared / "home"))
    monkeypatch.setenv("COLUMNS", "100")


def test_predict_prints_a_table_and_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.csv"
    done = call(["predict", "r", "--data", "bare", "--out", str(out)], monkeypatch, capsys)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^guidance +news00 +(HGG|LGG) +\d\.\d{3} ± \d\.\d{3} +2", done.out, re.MULTILINE)
    assert "not for clinical use" in done.out
    rows = list(csv.DictReader(out.open(newline="")))
    assert list(rows[0]) == [
        "method", "subject", "label", "p_HGG", "p_LGG", "std_HGG", "std_LGG", "fits", "predicted", "refused", "notes",
    ]  # fmt: skip
    assert {row["method"] for row in rows} == {"a", "b", "c", "ensemble", "logistic", "guidance"}
    assert len(rows) == 6 * 5
    assert {row["label"] for row in rows} == {""}


def test_formats_go_to_standard_output_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", "r", "--data", "bare", "--method", "guidance", "--method", "a"]
    told = json.loads(call([*asked, "--format", "json"], monkeypatch, capsys).out)
    rows = list(csv.DictReader(call([*asked, "--format", "csv"], monkeypatch, capsys).out.splitlines()))
    assert [line["method"] for line in told["predictions"]] == [row["method"] for row in rows]
    assert [line["probabilities"]["LGG"] for line in told["predictions"]] == [float(row["p_LGG"]) for row in rows]
    assert {row["method"] for row in rows} == {"guidance", "a"}


def test_evaluate_scores_another_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "r", "--data", "other", "--method", "a", "--out", str(tmp_path / "scores.json")]
    done = call(asked, monkeypatch, capsys)
    assert done.code == 0, done.err
    assert re.search(r"^a +accuracy +12 +\d\.\d{3} +\d\.\d{3} to \d\.\d{3} +\d\.\d{3} ± \d\.\d{3}", done.out, re.M)
    assert "12 subjects (8 HGG, 4 LGG); decisions at .5" in done.out
    assert json.loads((tmp_path / "scores.json").read_text())["classes"] == {"HGG": 8, "LGG": 4}


def test_its_own_subjects_are_known_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = call(["predict", "r", "--data", "tables", "--method", "a"], monkeypatch, capsys)
    assert "WARNING: 36 subjects have the data of training subjects" in done.out


def test_after_a_run_the_printed_command_predicts(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--cohort", "table", "--data", "tables", "--fusion", "logistic", "--baselines", "none"]
    done = call(["run", *data, "--out", "with space", "--store", "own store", *QUICK], monkeypatch, capsys)
    line = next(line.strip() for line in done.out.splitlines() if "fusionbench predict" in line)
    assert line == "fusionbench predict 'with space' --data NEW --store 'own store'"
    again = call([word.replace("NEW", "bare") for word in shlex.split(line)[1:]], monkeypatch, capsys)
    assert again.code == 0, again.err
    assert "--store" not in call(["run", *data, "--out", "plain", *QUICK], monkeypatch, capsys).out


def test_fit_export_and_predict_without_the_store(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--home", str(tmp_path / "home")]
    asked = ["fit", "--config", "r/experiment.toml", "--fusion", "guidance", "--out", str(tmp_path / "final"), *own]
    done = call([*asked, "--jobs", "1"], monkeypatch, capsys)
    assert done.code == 0, done.err
    assert "all to train on, none to test" in done.out
    assert "Leaderboard" not in done.out
    assert "Methods: guidance\n" in done.out
    assert f"Next: fusionbench predict {tmp_path / 'final'} --data NEW --store {tmp_path}/home/store" in done.out
    refused = call(["leaderboard", str(tmp_path / "final")], monkeypatch, capsys)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "`fusionbench predict final --data NEW` is what it is for" in refused.err
    before = call(["predict", str(tmp_path / "final"), "--data", "bare", "--format", "csv", *own], monkeypatch, capsys)
    exported = call(["export", str(tmp_path / "final"), "--out", str(tmp_path / "m"), *own], monkeypatch, capsys)
    assert exported.out.startswith("1 fits in ")
    shutil.rmtree(tmp_path / "home")
    shutil.rmtree(tmp_path / "final")
    after = call(["predict", str(tmp_path / "m"), "--data", "bare", "--format", "csv", *own], monkeypatch, capsys)
    assert (after.code, after.out) == (0, before.out)
    assert len(after.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "tables", "--data", "bare"], "tables holds no finished run"),
        (["predict", "r"], "--data"),
        (["predict", "r", "--data", "nowhere"], "there is nothing at nowhere"),
        (["predict", "r", "--data", "bare", "--method", "guidence"], "did you mean 'guidance'"),
        (["predict", "r", "--data", "bare", "--cohort", "tabel"], "no cohort 'tabel': did you mean 'table'"),
        (["predict", "r", "--data", "bare", "--set", "recipe.batch_size=1"], "only table.OPTION can be set"),
        (["predict", "r", "--data", "bare", "--set", "table.idd=x"], "did you mean 'id'"),
        (["predict", "r", "--data", "bare", "--device", "cuda:9"], "no device 'cuda:9'"),
        (["predict", "r", "--data", "bare", "--out", "new.xlsx"], "ends in .csv or .json"),
        (["predict", "r", "--data", "bare", "--out", "r/run.json/x.csv"], "cannot write"),
        (["predict", "r", "--data", "bare", "--format", "md"], "--format"),
        (["predict", "r", "--data", "bare", "--store", "elsewhere"], "there is no fit"),
        (["evaluate", "r", "--data", "bare"], "every subject needs a label of the run's classes"),
        (["fit", "--cohort", "table", "--data", "tables", "--fusion", "guidance", "--ranking", "outer"], "has none"),
        (["fit", "--cohort", "table", "--data", "tables"], "no fusion strategy"),
        (["export", "r", "--out", "tables"], "tables exists: choose another folder"),
        (["export", "r", "--out", "m", "--method", "x"], "no method 'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("fusionbench.using.inference.load_fit", lambda *_: pytest.fail("a model was loaded"))
    done = call(arguments, monkeypatch, capsys)
    assert done.code == 2, done.out
    assert says in done.err
    assert done.err.count("\n") == 1
