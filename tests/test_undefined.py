"""Where a test fold lacks a class nothing is made up: blanks, null, a note that names the fold, and an order."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import made_run, write_made

from fusionbench import Leaderboard, Predictions
from fusionbench.comparing import pooled_score, undefined
from fusionbench.csvtext import csv_rows, csv_text, number, strict_rows
from fusionbench.jsontext import json_text
from fusionbench.metrics import metric
from fusionbench.report import Sources, document, to_csv, to_html, to_json, to_markdown
from fusionbench.runs import Ranked, Result, Run, read_run, write_run
from fusionbench.subsets import Subsets

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"aardvark": 0.1, "guidance": 3.0, "ensemble": 1.5}
"""The worst comes first by name."""


def lopsided(*, folds: int = 3, only: int | None = None) -> Run:
    """Fold 0, of the site north, tests nobody of class LGG; of `only` one fold was tested."""
    run = made_run(methods=METHODS, repeats=1, folds=folds)
    run.facts["folds"]["sites"] = {"0": "north", "1": "west", "2": "east"}
    kept = [r for r in run.results if only in (None, r.fold)]
    return replace(run, results=tuple(_without_lgg(r) if r.fold == 0 and only is None else r for r in kept))


def _without_lgg(result: Result) -> Result:
    part = result.predictions
    assert part is not None
    return replace(result, predictions=part.of({id for id, y in zip(part.ids, part.labels, strict=True) if y == "HGG"}))


def test_the_note_names_the_fold_its_site_the_class_and_the_scores() -> None:
    notes = Leaderboard.of(lopsided()).notes()
    lost = "roc_auc, balanced_accuracy, sensitivity"
    assert f"nobody of class LGG in fold 0 (site north): not defined there, so without a mean: {lost}" in notes
    assert "roc_auc is not defined on every test fold: no test can separate methods by it" in notes


def test_methods_come_in_the_order_of_the_folds_pooled_which_a_note_says() -> None:
    run = lopsided()
    board = Leaderboard.of(run)
    assert [row.method for row in board.rows] == ["guidance", "ensemble", "aardvark"]
    parts = [r.predictions for r in run.results if r.method == "guidance" and r.predictions]
    expected = metric("roc_auc")(Predictions.joined(parts, ("HGG", "LGG")), "LGG")
    assert pooled_score(board.rows[0].tested, metric("roc_auc"), "LGG") == pytest.approx(expected)
    (note,) = [note for note in board.notes() if note.startswith("in the order of roc_auc")]
    assert f"guidance {expected:.3f}, ensemble " in note
    assert not any(note.startswith("in the order") for note in Leaderboard.of(made_run(methods=METHODS)).notes())


def test_several_folds_of_a_kind_share_a_line() -> None:
    part = Predictions(("a",), ("HGG",), ("HGG", "LGG"), made_run().results[0].predictions.probabilities[:1])  # type: ignore[union-attr]
    (note,) = undefined({(0, 0): part, (1, 0): part}, "LGG", ["sensitivity", "accuracy"])
    assert note.startswith("nobody of class LGG in repeat 0, fold 0; repeat 1, fold 0: ")
    assert note.endswith("mean: sensitivity")


def test_tables_have_blanks_and_never_a_mean_over_fewer_folds() -> None:
    board = Leaderboard.of(lopsided())
    assert board.cells(board.rows[0])[:2] == ["", ""]
    assert board.cells(board.rows[0])[2]
    for text in (board.to_csv(), board.to_markdown()):
        assert "nan" not in text.replace("guidance", "")
    (first, *_) = csv_rows(board.to_csv())
    assert (first["roc_auc_mean"], first["roc_auc_low"], first["sensitivity_high"]) == ("", "", "")
    assert number(first["accuracy_low"]) < number(first["accuracy_mean"])


def test_json_is_json_and_has_null() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    told = json.loads(Leaderboard.of(lopsided()).to_json(), parse_constant=refuse)
    assert told["rows"][0]["scores"]["roc_auc"][0] is None
    assert told["rows"][0]["intervals"]["roc_auc"]["low"] is None
    assert told["rows"][0]["intervals"]["accuracy"]["low"] > 0
    assert json.loads(json_text({"a": (math.inf, math.nan, 0.1)})) == {"a": [None, None, 0.1]}


def test_a_report_of_such_a_run_says_why_and_has_no_nan(tmp_path: Path) -> None:
    sources = Sources.read(write_made(lopsided(), tmp_path / "made"))
    report = document(sources)
    assert "ROC-AUC is not defined on every test fold, so no test can" in to_markdown(report)
    assert "nobody of class LGG in fold 0 (site north)" in to_markdown(report)
    for text in (to_html(report), to_markdown(report), to_csv(sources)):
        assert ">nan<" not in text
        assert '"nan"' not in text
        assert " nan " not in text
        assert ",nan," not in text
    json.loads(to_json(sources, report))


def test_a_report_of_a_single_test_part_says_what_it_cannot_tell(tmp_path: Path) -> None:
    sources = Sources.read(write_made(lopsided(only=1), tmp_path / "made"))
    text = to_markdown(document(sources))
    assert "There is a single test part, so no test over folds can separate methods." in text
    assert "20 subjects were tested, 40 only trained on" in text
    assert "repeat the cross-validation" not in text.lower()
    assert "--repeats" not in "".join(sources.board.notes())
    assert "scores of the one test fold; decisions at .5" in sources.board.notes()
    assert "nan" not in "".join("".join(sources.board.cells(row)) for row in sources.board.rows)


def test_a_ranking_without_a_score_is_written_empty_and_read_again(tmp_path: Path) -> None:
    run = replace(made_run(), ranking=(Ranked("e", 0, 0, 1, "t1", math.nan, ()),))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "experiment.toml").touch()
    write_run(run, tmp_path / "made")
    assert "nan" not in (tmp_path / "made" / "ranking.csv").read_text()
    assert math.isnan(read_run(tmp_path / "made").ranking[0].score)
    former = (tmp_path / "made" / "ranking.csv").read_text().replace("t1,,", "t1,nan,")
    (tmp_path / "made" / "ranking.csv").write_text(former)
    assert math.isnan(read_run(tmp_path / "made").ranking[0].score)


def test_every_json_of_the_core_and_the_commands_refuses_nan() -> None:
    lax = []
    for file in [*(ROOT / "fusionbench").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            dumps = ast.unparse(call.func) in ("json.dumps", "json.dump")
            if dumps and not any(k.arg == "allow_nan" and ast.unparse(k.value) == "False" for k in call.keywords):
                lax.append(f"{file.name}:{call.lineno}")
    assert not lax


# Text and back


def test_nan_is_an_empty_cell_and_an_empty_cell_nan() -> None:
    text = csv_text(["a", "b"], [[math.nan, 0.1]])
    assert text == "a,b\n,0.1\n"
    assert math.isnan(number(csv_rows(text)[0]["a"]))
    with pytest.raises(ValueError, match="'1_0' is no number"):
        number("1_0")


def test_strict_rows_know_their_lines_and_forgive_empty_ends() -> None:
    assert strict_rows('a,b,,\n"x\ny",1,,\n\nz\n') == [
        (2, {"a": "x\ny", "b": "1", "": ""}),
        (5, {"a": "z", "b": "", "": ""}),
    ]
    assert strict_rows("") == []


# Sets of modalities


def test_small_sets_of_modalities_stand_together_in_every_form() -> None:
    lacking = {"s000": ["t1ce"], "s001": ["t2"], "s003": ["t2"]}
    run = made_run(methods=METHODS, cohort={"lacking": lacking})
    found = Subsets.of(run)
    assert [line.has for line in found.lines] == ["t1ce+t2", "others (2 sets)"] * 3
    assert found.lines[1].counts == {"HGG": 1, "LGG": 2}
    assert csv_rows(found.to_csv())[1]["n_LGG"] == "2"
    assert json.loads(found.to_json())["rows"][1]["has"] == "others (2 sets)"
    assert "| others (2 sets) | 1 HGG, 2 LGG |" in found.to_markdown()
    assert "others: sets with fewer than 2 subjects of a class, together" in found.to_markdown()


def test_a_small_set_alone_keeps_its_name_and_its_blanks() -> None:
    found = Subsets.of(made_run(methods=METHODS, cohort={"lacking": {"s000": ["t1ce"]}}))
    assert [line.has for line in found.lines[:2]] == ["t1ce+t2", "t2"]
    assert list(found.rows())[1][3:5] == ["", ""]
    assert csv_rows(found.to_csv())[1]["roc_auc"] == ""
    assert json.loads(found.to_json())["rows"][1]["scores"]["roc_auc"] is None
    assert not any("others" in note for note in found.notes())
