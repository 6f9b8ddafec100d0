"""Published scores are data: they fit together where the paper's do, and stand beside ours only where they may."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest

from fusionbench import Leaderboard
from fusionbench.errors import UsageError
from fusionbench.leaderboard import Row
from fusionbench.metrics import METRICS
from fusionbench.published import DATASETS, Score, every_score, published

ALL = ("t1ce", "t2", "flair", "t1")
OURS = {"AUC": "balanced_accuracy"}
NOT_THE_MEAN = {("V", "DA_RMC"), ("VII", "DA_RMC")}
"""Rows whose printed AUC is not the mean of their printed sensitivity and specificity."""
IMPOSSIBLE = {("brats2019", "Ensemble"), ("brats2019", "Ours")}
"""Data set and method with a deviation of specificity that no three numbers up to 1 have."""


def methods() -> dict[tuple[str, str, str], dict[str, Score]]:
    """(data set, table, method) -> metric as printed -> its score."""
    found: dict[tuple[str, str, str], dict[str, Score]] = {}
    for score in every_score():
        found.setdefault((score.dataset, score.table, score.method), {})[score.metric] = score
    return found


# The numbers


def test_each_line_is_a_score_of_a_known_data_set_metric_and_modality() -> None:
    assert len(every_score()) == 60
    for score in every_score():
        assert score.dataset in DATASETS
        assert 0 <= score.mean <= 1
        assert score.std is None or 0 <= score.std <= 0.5
        assert score.our_metric == OURS.get(score.metric, score.metric)
        assert score.our_metric in METRICS
        assert score.modalities <= set(ALL)
        assert "2401.09029" in score.source


def test_no_number_is_there_twice() -> None:
    lines = [(s.dataset, s.table, s.method, s.metric) for s in every_score()]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(("where", "row"), methods().items(), ids=lambda value: " ".join(value))
def test_what_is_printed_as_auc_is_balanced_accuracy_but_for_two_rows(
    where: tuple[str, str, str], row: dict[str, Score]
) -> None:
    if not {"AUC", "sensitivity", "specificity"} <= row.keys():
        return
    gap = abs((row["sensitivity"].mean + row["specificity"].mean) / 2 - row["AUC"].mean)
    exception = where[1:] in NOT_THE_MEAN
    assert (gap <= 0.0015) is not exception
    assert ("not the mean" in row["AUC"].note) is exception


def test_how_many_rows_that_was() -> None:
    whole = [where for where, row in methods().items() if {"AUC", "sensitivity", "specificity"} <= row.keys()]
    assert len(whole) == 11


@pytest.mark.parametrize(
    ("method", "found", "kept"),
    [
        ("T2", (17, 20, 21), (64, 54, 57)),
        ("T1", (15, 15, 17), (60, 64, 62)),
        ("AGG", (19, 19, 20), (49, 58, 49)),
        ("MMD-VAE", (19, 20, 25), (66, 65, 70)),
        ("Ours", (25, 25, 25), (70, 65, 69)),
    ],
)
def test_counts_of_three_folds_give_these_rows(method: str, found: tuple[int, ...], kept: tuple[int, ...]) -> None:
    """Up to one in the last digit: some of the paper's numbers are cut off rather than rounded."""
    (row,) = [row for (name, _, printed), row in methods().items() if (name, printed) == ("brats2018", method)]
    counted = {
        "sensitivity": [n / 25 for n in found],
        "specificity": [n / 70 for n in kept],
        "accuracy": [(a + b) / 95 for a, b in zip(found, kept, strict=True)],
        "AUC": [(a / 25 + b / 70) / 2 for a, b in zip(found, kept, strict=True)],
    }
    for metric, scores in counted.items():
        assert row[metric].mean == pytest.approx(sum(scores) / 3, abs=1.3e-3)
        assert row[metric].std == pytest.approx(stdev(scores), abs=1.3e-3)


def test_a_computed_number_says_so_and_names_its_counts() -> None:
    derived = [score for score in every_score() if "derived" in score.note]
    assert {score.method for score in derived} == {"T1ce", "T1", "AGG", "MMD-VAE", "Ours"}
    assert all(" of " in score.note for score in derived)


def test_deviations_that_cannot_be_are_noted() -> None:
    """Three numbers up to 1 deviate most where two are 1: by root 3 times the distance of the mean from 1."""
    for score in every_score():
        largest = 3**0.5 * (1 - score.mean + 0.0005)
        impossible = score.std is not None and score.std - 0.0005 > largest
        assert impossible is ((score.dataset, score.method) in IMPOSSIBLE and score.metric == "specificity")
        assert ("impossible" in score.note) is impossible


def test_where_two_tables_differ_the_first_counts() -> None:
    printed = published("brats2018")
    assert printed.of("unimodal", ("t1ce",), "dual")["accuracy"].mean == 0.940
    assert printed.of("guidance", ("t1ce",), "dual")["accuracy"].mean == 0.944
    assert printed.of("unimodal", ("t1ce",), "none")["balanced_accuracy"].mean == 0.917


def test_the_order_of_the_modalities_does_not_matter_but_what_they_are_does() -> None:
    printed = published("brats2018")
    assert printed.of("guidance", reversed(ALL), "dual") == printed.of("guidance", ALL, "dual") != {}
    assert printed.of("guidance", ("t1ce", "t1"), "dual")["balanced_accuracy"].mean == 0.954
    assert printed.of("guidance", ("t2", "t1"), "dual") == {}
    assert printed.of("guidance", ALL, "none") == {}
    assert printed.of("guidance", ALL, "dual", ["rmc"]) == printed.of("guidance", ALL, "dual")
    assert printed.of("guidance", ALL, "dual", ["mlp"]) == {}
    assert printed.of("guidance", ALL, "dual", ["r3d-18", "rmc"]) == {}
    assert printed.of("agg", ALL, "") == printed.of("agg", ALL, "", []) != {}


def test_an_unknown_data_set_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'brats-2018': did you mean 'brats2018'\\? There are brats2018, brats2019"):
        published("brats-2018")


# Beside ours


def board(*, synthetic: bool = False, classes: dict[str, int] | None = None) -> Leaderboard:
    def row(method: str, fusion: str, modalities: tuple[str, ...], attention: str, failed: str = "") -> Row:
        scores: dict[str, tuple[float, ...]] = {} if failed else dict.fromkeys(METRICS, (0.5, 0.6, 0.7))
        return Row(method, "key", scores, failed, fusion=fusion, modalities=modalities, attention=attention)

    rows = (
        row("guidance", "guidance", ALL, "dual"),
        row("t1ce", "unimodal", ("t1ce",), "none"),
        row("plain-pixel", "pixel", ALL, "none"),
        row("gated", "gated", ALL, "none"),
        row("agg", "agg", ALL, "dual", failed="no memory"),
    )
    counts = classes or {"HGG": 210, "LGG": 75}
    told = {"name": "mine", "subjects": sum(counts.values()), "classes": counts, "positive_class": "LGG"}
    return Leaderboard(rows, {**told, "synthetic": synthetic, "notes": []}, 3, ())


def test_without_published_scores_nothing_changes() -> None:
    assert "published" not in board().to_csv() + board().to_markdown() + board().to_json()
    assert board().narrow_columns() == board().columns()


def test_the_published_value_stands_behind_the_right_metric_in_csv() -> None:
    text = board().beside(published("brats2018")).to_csv()
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    header = text.partition("\n")[0].split(",")
    place = header.index("balanced_accuracy_std")
    assert header[place + 1 : place + 3] == ["published_balanced_accuracy_mean", "published_balanced_accuracy_std"]
    assert "published_roc_auc_mean" not in header
    ours = rows["guidance"]
    assert (ours["published_balanced_accuracy_mean"], ours["published_balanced_accuracy_std"]) == ("0.985", "0.019")
    pixel = rows["plain-pixel"]
    assert (pixel["published_balanced_accuracy_mean"], pixel["published_balanced_accuracy_std"]) == ("0.886", "")
    assert rows["gated"]["published_balanced_accuracy_mean"] == ""
    assert rows["t1ce"]["published_accuracy_mean"] == "0.926"


def test_markdown_has_a_column_for_each_metric_that_was_printed() -> None:
    lines = board().beside(published("brats2018")).to_markdown().splitlines()
    assert lines[0].startswith("| method | roc_auc | balanced_accuracy | published balanced_accuracy | accuracy |")
    assert "| guidance | 0.600 ± 0.100 | 0.600 ± 0.100 | 0.985 ± 0.019 |" in lines[2]
    assert lines[4].split("|")[4].strip() == "0.886"
    assert lines[6].split("|")[2].strip() == "failed"
    assert lines[6].split("|")[4].strip() == "0.758 ± 0.033"
    assert {line.count("|") for line in lines if line.startswith("|")} == {11}


def test_json_has_what_was_printed_with_its_table_and_note() -> None:
    rows = {r["method"]: r for r in json.loads(board().beside(published("brats2018")).to_json())["rows"]}
    (accuracy,) = [score for score in rows["t1ce"]["published"] if score["metric"] == "accuracy"]
    assert (accuracy["mean"], accuracy["table"]) == (0.926, "III; V; VIII")
    assert "which give 0.909" in accuracy["note"]
    (pixel,) = rows["plain-pixel"]["published"]
    assert pixel["std"] is None
    assert rows["gated"]["published"] == []


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (board(), "published on 285 subjects (210 HGG, 75 LGG), here as many: comparable on the same data only"),
        (board(classes={"HGG": 9, "LGG": 6}), "here others: comparable on the same data only"),
        (board(synthetic=True), "synthetic data here: the published column is not comparable at all"),
    ],
    ids=["as many", "others", "synthetic"],
)
def test_notes_say_what_the_column_is_and_whether_it_can_be_compared(made: Leaderboard, says: str) -> None:
    notes = "\n".join(made.beside(published("brats2018")).notes())
    assert says in notes
    assert "what is printed there as AUC is balanced accuracy at .5" in notes
    assert "brats2019 largely contains brats2018" in notes
    assert "published agg: deviation derived from counts" in notes
    assert ("comparable on the same data" in notes) is not made.cohort["synthetic"]


def test_a_table_of_other_methods_says_that_nothing_is_known() -> None:
    others = replace(board(), rows=board().rows[3:4]).beside(published("brats2019"))
    assert "nothing is known to be published about these methods" in others.notes()


def test_the_terminal_has_ours_and_theirs_within_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from fusionbench_cli import render

    render.leaderboard(board().beside(published("brats2018")))
    title, header, *rows = capsys.readouterr().out.splitlines()[:7]
    assert title == "Leaderboard"
    assert header.split() == ["method", "roc_auc", "balanced_accuracy", "published", "sensitivity", "specificity"]
    assert rows[0].split()[:10] == ["guidance", *["0.600", "±", "0.100"] * 2, "0.985", "±", "0.019"]
    assert max(map(len, [header, *rows])) <= 100


# The command


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of tables called t1ce, t2 and t1."""
    from conftest import comparison, table_cohort

    from fusionbench import Cohort, Modality, Store, Subject, open_study, run
    from fusionbench.runs import Run, begin_run, write_run

    plain = table_cohort()
    names = dict(zip(("a", "b", "c"), ("t1ce", "t2", "t1"), strict=True))
    cohort = Cohort(
        name="toys",
        classes=plain.classes,
        positive_class="LGG",
        modalities=tuple(Modality(names[m.name], m.kind, m.channels) for m in plain.modalities),
        subjects=tuple(
            Subject(s.id, s.label, features={names[name]: row for name, row in s.features.items()})
            for s in plain.subjects
        ),
    )
    study = open_study(comparison(fusion=["ensemble"], baselines=["unimodal"], recipe={"epochs": 1}), cohort=cohort)
    begin_run(study, tmp_path / "run")
    result = Run.of(run(study, Store(tmp_path / "store")), "run")
    for told in result.facts["methods"].values():
        told["backbones"] = ["rmc"]  # so that what is printed of it is about these quick perceptrons
    write_run(result, tmp_path / "run")
    return tmp_path / "run"


def test_the_command_shows_the_column_without_torch_and_refuses_a_wrong_name(run_folder: Path) -> None:
    code = "import sys; from fusionbench_cli.app import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"

    def leaderboard(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-c", code, "leaderboard", str(run_folder), *arguments]
        return subprocess.run(asked, capture_output=True, text=True, check=False)

    shown = leaderboard("--published", "brats2018")
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("t1ce ")]
    assert "0.917 ± 0.061" in line
    assert "t2" in shown.stdout
    assert json.loads(leaderboard("--published", "brats2018", "--format", "json").stdout)["rows"][0]["published"]
    wrong = leaderboard("--published", "brats-2018")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no published scores for 'brats-2018': did you mean 'brats2018'?" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
