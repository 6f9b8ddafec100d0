"""Predictions made elsewhere stand in the same table, on the same folds, and say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import comparison, table_cohort
from made_runs import made_run, write_made

from fusionbench import Leaderboard, Run, Store, open_study, run
from fusionbench.errors import UsageError
from fusionbench.imported import with_imported
from fusionbench.rows import REUSED

Rows = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    asked = comparison(fusion=["logistic"], baselines=[], protocol={"folds": 2, "repeats": 2})
    study = open_study(asked, cohort=table_cohort())
    return Run.of(run(study, Store(tmp_path_factory.mktemp("store")).open()))


def copied(done: Run, *, places: bool = True) -> Rows:
    """What the logistic regression says, as a stranger would write it down."""
    found: Rows = []
    for r in done.results:
        assert r.predictions is not None
        for id, (hgg, lgg) in zip(r.predictions.ids, r.predictions.probabilities.tolist(), strict=True):
            found.append((*((r.repeat, r.fold) if places else ()), id, hgg, lgg))
    return found


def write(path: Path, header: str, rows: Rows) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return path


def test_a_copy_of_a_method_has_its_scores_and_is_marked(done: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "theirs.csv", "repeat,fold,subject,p_HGG,p_LGG", copied(done))
    board = {row.method: row for row in Leaderboard.of(with_imported(done, "theirs", file)).rows}
    assert board["theirs"].scores["roc_auc"] == board["logistic"].scores["roc_auc"]
    assert board["theirs"].scores["brier"] == pytest.approx(board["logistic"].scores["brier"])
    assert board["theirs"].marks[0].startswith("imported")
    assert not board["logistic"].marks


def test_one_probability_of_two_classes_is_enough_and_stands_for_every_repeat(done: Run, tmp_path: Path) -> None:
    rows = [(s.id, 0.9 if s.label == "LGG" else 0.2) for s in table_cohort().subjects]
    file = write(tmp_path / "theirs.csv", "subject,p_LGG", list(rows))
    board = {row.method: row for row in Leaderboard.of(with_imported(done, "theirs", file)).rows}
    assert board["theirs"].scores["roc_auc"] == (1.0,) * 4
    assert board["theirs"].scores["brier"] == pytest.approx([(24 * 0.04 + 12 * 0.01) / 36] * 4, abs=0.01)


def test_a_prediction_that_stands_in_several_repeats_is_marked_wherever_the_table_is(done: Run, tmp_path: Path) -> None:
    once = {row[0]: row for row in copied(done, places=False)}
    file = write(tmp_path / "once.csv", "subject,p_HGG,p_LGG", list(once.values()))
    own = write(tmp_path / "own.csv", "repeat,fold,subject,p_HGG,p_LGG", copied(done))
    by_fold = write(
        tmp_path / "by_fold.csv", "fold,subject,p_HGG,p_LGG", [(n, *r) for r in once.values() for n in (0, 1)]
    )
    run = with_imported(with_imported(with_imported(done, "once", file), "own", own), "by fold", by_fold)
    board = Leaderboard.of(run)
    marked = [row.method for row in board.rows if REUSED in row.marks]
    assert sorted(marked) == ["by fold", "once"]
    assert f"* by fold, once: {REUSED}" in board.notes()
    assert all(REUSED in text for text in (board.to_csv(), board.to_json()))


def test_one_prediction_is_enough_for_one_repeat(done: Run, tmp_path: Path) -> None:
    first = replace(done, results=tuple(result for result in done.results if result.repeat == 0))
    rows = copied(first, places=False)
    board = Leaderboard.of(with_imported(first, "once", write(tmp_path / "x.csv", "subject,p_HGG,p_LGG", rows)))
    assert not any(REUSED in row.marks for row in board.rows)


def test_the_same_predictions_under_two_names_are_two_rows(done: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "theirs.csv", "repeat,fold,subject,p_HGG,p_LGG", copied(done))
    both = Leaderboard.of(with_imported(with_imported(done, "theirs", file), "the same", file))
    assert sorted(row.method for row in both.rows) == ["logistic", "the same", "theirs"]


def test_a_name_that_any_run_has_is_refused(tmp_path: Path) -> None:
    folders = [write_made(made_run(repeats=1, methods={name: 1.0}), tmp_path / name) for name in ("first", "second")]
    with pytest.raises(
        UsageError, match=r"^x\.csv: second has a method 'second' already; import it under another name$"
    ):
        Leaderboard.read(*folders, imported={"second": tmp_path / "x.csv"})


@pytest.mark.parametrize(
    ("header", "change", "says"),
    [
        ("subject,p_HGG,p_LGG", lambda rows: rows[1:], "says nothing of 's"),
        ("subject,p_HGG,p_LGG", lambda rows: [*rows, rows[0]], "is predicted twice in the same fold"),
        ("subject,p_HGG,p_LGG", lambda rows: [(rows[0][0], 0.5, 0.6), *rows[1:]], "line 2: the probabilities add up"),
        ("subject,p_HGG,p_LGG", lambda rows: [(rows[0][0], 1.5, -0.5), *rows[1:]], "is no probability from 0 to 1"),
        ("subject,p_HGG,p_LGG", lambda rows: [(rows[0][0], "high", 0), *rows[1:]], "is no probability from 0 to 1"),
        ("subject,p_HGG,p_LGG", lambda rows: [(rows[0][0], "1_0e-1", "0.0"), *rows[1:]], "is no probability from 0"),
        ("subject,p_HGG,p_LGG", lambda rows: [(*rows[0], 1), *rows[1:]], "has 4 cells on line 2 and 3 columns"),
        ("subject,p_HGG,p_HGG", lambda rows: rows, "has two columns 'p_HGG': rename one"),
        ("subject,p_HGG,p_LGG", lambda rows: [("x" * 140_000, 0, 1), *rows], "cannot be read as CSV, line 2"),
        ("id,p_HGG,p_LGG", lambda rows: rows, "needs the columns subject, p_HGG, p_LGG; it has id, p_HGG, p_LGG"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_stand_beside_is_refused_in_one_line(done, tmp_path, header, change, says) -> None:
    once = {row[0]: row for row in copied(done, places=False)}
    file = write(tmp_path / "theirs.csv", header, change(list(once.values())))
    with pytest.raises(UsageError) as refused:
        with_imported(done, "theirs", file)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rows_about_others_are_left_out_and_noted(done: Run, tmp_path: Path) -> None:
    strange = [("", "", "stranger", 0.5, 0.5), (7, 0, "s00", 0.5, 0.5)]
    file = write(tmp_path / "theirs.csv", "repeat,fold,subject,p_HGG,p_LGG", [*copied(done), *strange])
    told = "theirs: left out 2 rows of theirs.csv on whom no fold tests, such as 'stranger'"
    assert told in Leaderboard.of(with_imported(done, "theirs", file)).notes()
    clean = write(tmp_path / "clean.csv", "repeat,fold,subject,p_HGG,p_LGG", copied(done))
    assert not any("left out" in note for note in Leaderboard.of(with_imported(done, "theirs", clean)).notes())


def test_a_taken_name_and_a_missing_file_are_refused(done: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has a method 'logistic' already"):
        with_imported(done, "logistic", tmp_path / "theirs.csv")
    with pytest.raises(UsageError, match=r"cannot read theirs\.csv"):
        with_imported(done, "theirs", tmp_path / "theirs.csv")


def test_with_ten_folds_the_table_says_who_is_tied(store: Store) -> None:
    asked = comparison(
        fusion=["logistic"], baselines=["unimodal"], protocol={"folds": 5, "repeats": 2}, recipe={"epochs": 8}
    )
    board = Leaderboard.of(Run.of(run(open_study(asked, cohort=table_cohort(60, informative=4.0)), store)))
    assert board.ranked() == ["rank"]
    rows = {row.method: row for row in board.rows}
    assert board.standings["c"].rank_high == 4
    assert board.standings["c"].rank_low > 1
    assert "c" not in board.standings[board.rows[0].method].tied_with
    assert any(note.startswith(f"tied with {board.rows[0].method} in roc_auc: ") for note in board.notes())
    assert "accuracy" not in board.narrow_columns()
    assert (
        board.to_csv()
        .splitlines()[0]
        .startswith("method,experiment,marks,failed,rank_low,rank_high,tied_with,roc_auc_low")
    )
    assert board.ranked(rows["c"]) == [board.standings["c"].ranks]
