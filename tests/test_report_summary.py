"""The summary in words says what the findings say, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import made_run, made_sources, predictions_csv, write_made

from fusionbench.comparing import Detectable, Estimate, Findings, Interval, Pair, standings
from fusionbench.report import Sources, document, to_html
from fusionbench.report.checklist import NOT_STATED, checked
from fusionbench.report.reproduce import commands
from fusionbench.report.summary import _leaders, brief, result, verdict

UNKNOWN = Interval(math.nan, math.nan, "")


def findings(means: Mapping[str, float], separated: set[tuple[str, str]], p: float = 0.01) -> Findings:
    """Findings of twelve folds with these means, in which exactly these pairs differ, at this adjusted p."""
    names = list(means)
    estimates = tuple(Estimate(m, (mean,) * 12, mean, UNKNOWN, UNKNOWN, {}) for m, mean in means.items())
    pairs = tuple(
        Pair(a, b, means[a] - means[b], 0.0, 0.0, 0.0, p if (a, b) in separated else 0.9, 0, 0, 0, 0)
        for n, a in enumerate(names)
        for b in names[n + 1 :]
    )
    return Findings("roc_auc", 12, estimates, pairs, standings(names, separated), Detectable(0.1, 0.2, 0.1, ""))


def test_two_are_tied_and_both_beat_the_third() -> None:
    found = findings({"guidance": 0.87, "feature": 0.86, "t1ce": 0.80}, {("guidance", "t1ce"), ("feature", "t1ce")})
    assert _leaders(found) == [
        "guidance and feature are tied (mean ROC-AUC 0.860 to 0.870): the corrected test does not tell them apart.",
        "Both beat t1ce by 0.060 to 0.070.",
    ]


def test_one_is_best() -> None:
    assert _leaders(findings({"a": 0.9, "b": 0.8}, {("a", "b")})) == [
        "a is best (mean ROC-AUC 0.900).",
        "It beats b by 0.100.",
    ]


@pytest.mark.parametrize(("p", "told"), [(0.019, "."), (0.0412, ", narrowly (p = 0.041 after Holm).")])
def test_a_p_value_near_the_line_is_narrow(p: float, told: str) -> None:
    found = findings({"a": 0.9, "b": 0.8}, {("a", "b")}, p)
    assert _leaders(found)[1] == f"It beats b by 0.100{told}"
    assert verdict(found.pairs[0]) == ("separated, narrowly" if "narrowly" in told else "separated")


def test_of_several_pairs_the_narrow_ones_are_counted() -> None:
    found = findings({"a": 0.9, "b": 0.8, "c": 0.7}, {("a", "b"), ("a", "c")})
    pairs = tuple(replace(pair, p_holm=0.03) if pair.b == "b" else pair for pair in found.pairs)
    assert _leaders(replace(found, pairs=pairs))[1] == (
        "It beats b and c by 0.100 to 0.200, 1 of 2 pairs narrowly (p up to 0.030 after Holm)."
    )


def test_what_is_not_separated_is_not_called_equal() -> None:
    (pair,) = findings({"a": 0.9, "b": 0.8}, set()).pairs
    assert verdict(pair) == "the corrected test does not tell them apart"


def test_all_are_tied() -> None:
    (said,) = _leaders(findings({"a": 0.9, "b": 0.8, "c": 0.7}, set()))
    assert said == "All 3 methods are tied (mean ROC-AUC 0.700 to 0.900): the corrected test does not tell them apart."


def test_one_that_only_some_of_the_leaders_beat() -> None:
    assert _leaders(findings({"a": 0.9, "b": 0.88, "c": 0.8}, {("a", "c")})) == [
        "a and b are tied (mean ROC-AUC 0.880 to 0.900): the corrected test does not tell them apart.",
        "c is behind a only.",
    ]


def test_two_that_are_tied_with_the_first_and_not_with_each_other() -> None:
    (said,) = _leaders(findings({"a": 0.9, "b": 0.89, "c": 0.7}, {("b", "c")}))
    assert said == "a is tied with b and c (mean ROC-AUC 0.700 to 0.900), but b beats c."


def test_names_with_blanks_are_quoted() -> None:
    (said, _) = _leaders(findings({"t1ce + t2": 0.9, "t1ce": 0.8}, {("t1ce + t2", "t1ce")}))
    assert said == "“t1ce + t2” is best (mean ROC-AUC 0.900)."


def test_of_real_predictions(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    tied, beaten, alone = result(sources)
    assert tied.startswith("guidance and ensemble are tied")
    assert beaten.startswith("Both beat t1ce by 0.")
    assert alone.startswith("Best fusion against best single modality: guidance minus t1ce is +0.")
    assert "(unadjusted 95 % interval +0." in alone
    assert alone.endswith("separated (p <0.001 after Holm).")


def test_too_few_folds_are_said_and_nobody_is_placed(tmp_path: Path) -> None:
    said = " ".join(result(made_sources(tmp_path, repeats=1)))
    assert "Too few folds to separate methods: 3 fold scores each, 10 are needed" in said
    assert "All 3 methods count as tied" in said
    assert "beat" not in said


def test_one_method(tmp_path: Path) -> None:
    (said,) = result(made_sources(tmp_path, methods={"guidance": 3.0}))
    assert said.startswith("One method was tested: guidance, mean ROC-AUC 0.9")


def test_everything_failed(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, methods={"guidance": 3.0}, told={"guidance": {"failed": "out of memory"}})
    assert result(sources) == ["Every method failed; nothing was tested."]
    assert ("Failed", "guidance; the reasons are below.") in [(line.what, line.text) for line in brief(sources)]


def test_the_first_lines_answer_what_must_be_known(tmp_path: Path) -> None:
    marked = {"guidance": {"saw_test_folds": True}, "ensemble": {"outlines": "test"}}
    told = {line.what: line for line in brief(made_sources(tmp_path, told=marked, cohort={"synthetic": True}))}
    assert told["Data"].text.startswith("Synthetic: 60 subjects (30 HGG, 30 LGG) of gliomas")
    assert told["Data"].warning
    assert told["Positive class"].text == "LGG: sensitivity is the share of LGG that is found."
    assert told["Test folds"].text == "Selection saw the test folds: guidance — optimistic; the others did not."
    assert told["Marked"].text == "ensemble: given the tumour outlines of test subjects."


@pytest.mark.parametrize(
    ("saw", "told"),
    [
        (True, "Selection saw the test folds: guidance — optimistic; the others did not; of theirs it is not known."),
        (
            False,
            "Nothing was selected on the folds that it is tested on, as far as the run knows; of theirs it is not "
            "known.",
        ),
    ],
)
def test_of_predictions_made_elsewhere_it_is_not_known_what_they_saw(saw: bool, told: str, tmp_path: Path) -> None:
    run = made_run(told={"guidance": {"saw_test_folds": saw}})
    folder = write_made(run, tmp_path / "made")
    sources = Sources.read(folder, imported={"theirs": predictions_csv(run, tmp_path)})
    (line,) = [line for line in brief(sources) if line.what == "Test folds"]
    assert line.text == told
    assert line.warning


def test_data_that_somebody_gave_are_not_said_to_be_made_by_equations(tmp_path: Path) -> None:
    given = made_sources(tmp_path, cohort={"synthetic": True})
    folder = write_made(made_run(cohort={"synthetic": True}), tmp_path / "built-in")
    toml = (folder / "experiment.toml").read_text().replace('data = "/home/rosa/gliomas"\n', "")
    (folder / "experiment.toml").write_text(toml)
    for sources, made in ((given, False), (Sources.read(folder), True)):
        answers = {item.asks: item.answer for item in checked(sources)}
        assert ("made by equations" in brief(sources)[0].text) == made
        assert ("Made by equations" in to_html(document(sources))) == made
        assert answers["availability of data"] == ("built in" if made else NOT_STATED)
        assert any(" --data PATH/TO/DATA" in line for line in commands(sources)) != made


def test_without_marks_nothing_is_warned_of(tmp_path: Path) -> None:
    lines = brief(made_sources(tmp_path))
    assert [line.what for line in lines] == ["Data", "Positive class", "Result", "Test folds"]
    assert not any(line.warning for line in lines)


def test_more_than_two_classes_have_no_positive_one(tmp_path: Path) -> None:
    told = {line.what: line.text for line in brief(made_sources(tmp_path, classes=("II", "III", "IV")))}
    assert told["Positive class"].startswith("3 classes, each against the rest: scores are means over II, III and IV;")


def test_of_several_runs(tmp_path: Path) -> None:
    one = write_made(made_run("one"), tmp_path / "one")
    two = write_made(made_run("two", {"decision": 2.8}), tmp_path / "two")
    assert "decision" in result(Sources.read(one, two))[0]
