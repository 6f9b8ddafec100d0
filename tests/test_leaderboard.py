"""Every method has its row and its name; the terminal shows both, and how certain the order of modalities is."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import comparison, write_tables
from made_runs import FIRST, made_run, write_made

from fusionbench import Cohort, Leaderboard, Run, open_study
from fusionbench.csvtext import csv_rows
from fusionbench.errors import UsageError
from fusionbench_cli import render, render_next
from fusionbench_cli.app import main

NUMBER = r"\d\.\d{3} ± \d\.\d{3}"


def methods(*runs: Run) -> list[str]:
    return sorted(row.method for row in Leaderboard.of(*runs).rows)


def failed(why: str, fits: list[str]) -> dict[str, object]:
    return {"failed": why, "fits": fits}


# Every method has a row


@pytest.mark.parametrize("fits", [[], ["", ""], ["shared-0", ""]], ids=["none", "undecided", "some"])
def test_methods_that_failed_before_they_had_fits_each_have_a_row(fits: list[str]) -> None:
    run = made_run(repeats=1, told={name: failed("no memory", fits) for name in ("guidance", "ensemble")})
    assert methods(run) == ["ensemble", "guidance", FIRST]


@pytest.mark.parametrize("fits", [[], [f"guidance-{fold}" for fold in range(3)]], ids=["none", "all"])
def test_a_method_that_failed_in_one_run_has_its_row_beside_the_other(fits: list[str]) -> None:
    fine = made_run("fine", repeats=1)
    broken = made_run("broken", repeats=1, told={"guidance": failed("KeyError", fits)})
    assert methods(fine, broken) == ["ensemble", "guidance (broken)", "guidance (fine)", FIRST]
    other = made_run("other", repeats=1, told={"guidance": failed("OSError", [])})
    notes = Leaderboard.of(broken, other).notes()
    assert {"guidance (broken) failed: KeyError", "guidance (other) failed: OSError"} <= set(notes)


def test_a_failed_method_of_a_run_that_is_named_twice_has_one_row() -> None:
    broken = made_run("broken", repeats=1, told={"guidance": failed("KeyError", [])})
    assert methods(broken, broken) == ["ensemble", "guidance", FIRST]


def test_the_same_fits_under_two_names_are_one_row_that_has_both() -> None:
    run = made_run(repeats=1)
    run.facts["methods"]["mine"] = run.facts["methods"]["ensemble"]
    assert methods(run) == ["ensemble", "guidance", FIRST]
    assert "ensemble: also called mine: the same fits" in Leaderboard.of(run).notes()


def test_runs_are_named_by_as_much_of_their_path_as_tells_them_apart(tmp_path: Path) -> None:
    places = [tmp_path / "mine" / "runs" / "a", tmp_path / "yours" / "runs" / "a", tmp_path / "b"]
    for number, place in enumerate(places):
        fits = [f"{number}-{fold}" for fold in range(3)]
        write_made(made_run(repeats=1, told={"guidance": {"fits": fits}}), place)
    board = Leaderboard.read(*places)
    found = {row.method for row in board.rows}
    assert {"guidance (mine/runs/a)", "guidance (yours/runs/a)", "guidance (b)"} < found
    assert len(found) == len(board.rows) == 5


def test_two_rows_of_one_name_are_refused() -> None:
    first = made_run("same", repeats=1)
    second = made_run("same", repeats=1, told={"guidance": {"fits": ["x", "y", "z"]}})
    with pytest.raises(UsageError, match=r"^two methods would be called 'guidance \(same\)': give each run, [^\n]*$"):
        Leaderboard.of(first, second)


def test_a_name_that_a_spreadsheet_would_calculate_is_written_as_it_is() -> None:
    run = made_run(repeats=1, methods={"=1+1": 3.0, "-x": 1.0})
    assert [line["method"] for line in csv_rows(Leaderboard.of(run).to_csv())] == ["=1+1", "-x"]


# What is said of several methods


SAW = "selection saw the test folds"


def marked(*methods: str) -> Run:
    return made_run(repeats=1, told={name: {"saw_test_folds": True} for name in methods})


def test_a_mark_is_noted_once_with_the_methods_that_have_it() -> None:
    notes = Leaderboard.of(marked("guidance", "ensemble")).notes()
    assert [note for note in notes if SAW in note] == [f"* ensemble, guidance: {SAW}"]
    assert f"* all rows: {SAW}" in Leaderboard.of(marked("guidance", "ensemble", FIRST)).notes()


def test_a_row_with_a_mark_has_a_sign_where_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    board = Leaderboard.of(marked("guidance"))
    assert r"| guidance\* |" in board.to_markdown()
    assert rf"- \* guidance: {SAW}" in board.to_markdown()
    assert "| ensemble |" in board.to_markdown()
    text = shown(marked("guidance"), capsys)
    assert re.search(r"^guidance\* ", text, re.MULTILINE)
    assert re.search(r"^ensemble ", text, re.MULTILINE)
    assert {line["method"] for line in csv_rows(board.to_csv())} == {"guidance", "ensemble", FIRST}


def test_methods_that_failed_for_one_reason_are_told_in_one_line() -> None:
    run = made_run(repeats=1, told={name: failed("no memory", []) for name in ("guidance", "ensemble")})
    assert "ensemble, guidance failed: no memory" in Leaderboard.of(run).notes()


# The terminal


def shown(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    render.leaderboard(Leaderboard.of(run))
    return capsys.readouterr().out


def test_few_orders_are_shown_fold_by_fold_and_many_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    few, many = shown(made_run(repeats=2), capsys), shown(made_run(repeats=4), capsys)
    assert len(re.findall(r"^\d +\d +t", few, re.MULTILINE)) == 6
    assert not re.findall(r"^\d +\d +t", many, re.MULTILINE)
    for text in (few, many):
        assert text.startswith("Modality ranking, nested: mean roc_auc on inner folds")


def test_the_summary_of_orders_has_first_places_w_and_the_probability_of_each_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(made_run(repeats=4), capsys)  # t2 was first in 1 of 12, at P .75; else t1ce was
    assert re.search(r"^modality +came first +mean rank +P\(1\) +P\(2\)$", text, re.MULTILINE)
    assert re.search(r"^t1ce +11 of 12 +1\.08 +0\.71 +0\.29$", text, re.MULTILINE)
    assert re.search(r"^t2 +1 of 12 +1\.92 +0\.29 +0\.71$", text, re.MULTILINE)
    assert "Kendall's W 0.69 over 12 orders" in text  # 12 * 50 / (12^2 * (2^3 - 2))


def test_rankings_without_probabilities_and_of_other_modalities_are_summed_up_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = made_run(repeats=1)
    names = {"t1ce": "flair", "t2": "t1"}
    others = [replace(r, experiment="e", modality=names[r.modality], probabilities=()) for r in run.ranking]
    text = shown(replace(run, ranking=(*run.ranking, *others)), capsys)
    assert text.count("Kendall's W") == 2
    assert len(re.findall(r"P\(1\)", text)) == 1
    assert re.search(r"^flair +2 of 3 +1\.33$", text, re.MULTILINE)


def test_what_was_not_ranked_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(replace(made_run(repeats=1), ranking=()), capsys).startswith("Leaderboard\n")


@pytest.mark.parametrize("repeats", [1, 4], ids=["every metric", "with ranks"])
def test_long_names_are_folded_and_no_number_is(repeats: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"guidance-with-everything-that-can-be-set-in-a-variant-{n} (runs/of-a-long-study)" for n in (1, 2)]
    run = made_run(repeats=repeats, methods={names[0]: 3.0, names[1]: 2.0, "short": 1.0})
    text = shown(replace(run, ranking=()), capsys)
    table = text[: text.index("\n  positive class")].splitlines()[2:]
    assert max(map(len, table)) <= render.NARROW
    assert [len(re.findall(NUMBER, line)) for line in table if "±" in line] == [5 if repeats == 1 else 4] * 3
    width = re.search(rf" *(\d+(-\d+)?)? *{NUMBER}", table[0])
    assert width is not None
    folded = "".join(line[: width.start()].replace(" ", "") for line in table)
    assert folded == "".join(name.replace(" ", "") for name in [*names, "short"])


def test_in_a_narrow_terminal_the_accuracy_goes_and_the_names_stay() -> None:
    board = Leaderboard.of(made_run(repeats=1))
    assert "accuracy" in board.narrow_columns(100)
    assert board.narrow_columns(80) == ("roc_auc", "balanced_accuracy", "sensitivity", "specificity")


def test_after_a_run_of_which_nothing_is_left_the_next_step_is_to_mend_it(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(comparison(), cohort=cohort)
    render_next.steps_after_failure(Path("my run"), Path("store"), study, ["unimodal", "guidance", "unimodal"])
    said = capsys.readouterr().out
    assert "Next: fusionbench run --config 'my run'/experiment.toml --out 'my run' --store store\n" in said
    assert "these failed: guidance, unimodal" in said
    assert "report" not in said


def test_a_run_of_which_every_method_failed_does_not_advertise_its_report(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = write_tables(tmp_path / "tables", cohort)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    words = ["run", "--cohort", "table", "--data", str(tables), "--fusion", "unimodal", "--baselines", "none"]
    words += ["--folds", "2", "--jobs", "1", "--out", str(tmp_path / "run"), "--set", "recipe.learning_rate=1e38"]
    monkeypatch.setattr(sys, "argv", ["fusionbench", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().out
    assert stopped.value.code == 1
    assert len(re.findall(r"^  all rows failed: ", said, re.MULTILINE)) == 1
    assert f"Next: fusionbench run --config {tmp_path}/run/experiment.toml --out {tmp_path}/run\n" in said
    assert "fusionbench report" not in said
