"""Audits of whole tables: how much an equality says, how many rows were checked, deviations that never differ."""

from __future__ import annotations

from statistics import fmean

import pytest
from test_audit import audited, equalities, rules

from fusionbench.auditing.equality import likeness
from fusionbench.auditing.scoretables import read_scores

# What the notes count


def test_equalities_that_are_no_findings_are_called_coarse() -> None:
    done = audited("method,auc,sens,spec\na,0.75,0.70,0.80\nb,0.95,0.90,0.89")
    assert done.findings == ()
    assert done.checked["auc-is-balanced-accuracy"] == 0
    told = equalities(done)
    assert "in 1 of 2 rows" in told
    assert told.endswith("of these 1: 1 printed too coarsely to be told from chance")


def test_what_is_out_of_range_is_no_evidence() -> None:
    done = audited("method,auc,sens,spec\na,1.200,1.400,1.000\nb,0.950,0.900,0.890")
    assert [finding.rule for finding in done.findings] == ["range", "range"]
    assert "in 0 of 1 row that" in equalities(done)
    coarse = [f"{name},0.75,0.70,0.80" for name in "abc"]
    assert rules("method,auc,sens,spec", *coarse, "d,1.20,0.70,0.80").count("auc-is-balanced-accuracy") == 3


def test_a_row_that_shows_equality_and_cannot_be_says_so() -> None:
    done = audited("method,auc,sens,spec,folds\na,0.900 ± 0.600,0.850,0.950,3\nb,0.900,0.850,0.950,3")
    first, bound, second = done.findings
    assert (first.rule, bound.rule, bound.metrics) == ("auc-is-balanced-accuracy", "deviation-bound", ("auc",))
    assert first.text.endswith("; not all three can be as printed, though: deviation-bound")
    assert second.text.endswith("balanced accuracy at one threshold")
    assert equalities(done).endswith("of these 2: 1 with an impossible number among the three")


def test_an_impossible_accuracy_is_no_doubt_about_the_three() -> None:
    (equal, apart) = audited("method,auc,sens,spec,acc\na,0.900,0.850,0.950,0.700").findings
    assert (equal.rule, apart.rule) == ("auc-is-balanced-accuracy", "accuracy-range")
    assert equal.text.endswith("balanced accuracy at one threshold")


@pytest.mark.parametrize("point", [(0.8, 0.8), (0.95, 0.6), (1.0, 0.7)])
def test_chance_is_the_share_of_possible_areas_within_rounding(point: tuple[float, float]) -> None:
    """A curve that rises through the point is free in two rectangles beside it."""
    found, kept = point
    (row,) = read_scores(f"method,auc,sens,spec\nm,0.75,{found:.2f},{kept:.2f}").rows
    known = likeness(row)
    assert known
    assert known.rounding == pytest.approx(0.01)
    lowest, highest = found * kept, found * kept + found * (1 - kept) + (1 - found) * kept
    areas = [lowest + (highest - lowest) * n / 9999 for n in range(10_000)]
    middle = (found + kept) / 2
    share = fmean(abs(area - middle) <= known.rounding for area in areas)
    assert known.chance == pytest.approx(share, abs=2e-3)


def test_how_often_chance_would_do_it_is_summed_over_rows() -> None:
    header, rows = "method,auc,sens,spec", [f"m{n},0.90,0.80,0.80" for n in range(8)]
    assert "0 of 8 rows that have all three numbers; chance would give about 0.5" in equalities(
        audited("\n".join([header, *rows]))
    )  # 8 times .02 of .32
    assert "chance would give less than 0.1" in equalities(audited(f"{header}\nm,0.900,0.800,0.800"))


def test_how_many_rows_have_what_a_rule_needs() -> None:
    done = audited(
        "method,auc,sens,spec,acc,bacc,folds,positives,negatives\n"
        "a,0.803 ± 0.021,0.773 ± 0.083,0.833 ± 0.073,0.817 ± 0.037,0.803,3,75,210\n"
        "b,0.900,0.900,0.800,0.850,,3,,\n"
        "c,1.000,1.000,1.000,1.000,,1,9,9\n"
        "d,,0.900,,,,,,"
    )
    assert done.checked == {
        "range": 4, "negative-deviation": 1, "deviation-bound": 1, "same-deviations": 1, "accuracy-range": 3,
        "accuracy-weights": 2, "balanced-accuracy": 1, "fold-counts": 2, "zero-deviation": 1, "row-counts": 2,
        "digits": 4, "auc-is-balanced-accuracy": 2,
    }  # fmt: skip
    assert done.notes[-1].startswith("checked, of 4 rows: range 4, negative-deviation 1, ")
    assert "sensitivity and specificity are 0 or 1 in 1 row: a real AUC may be their mean there" in done.notes


def test_rows_that_were_not_searched_are_not_counted_as_checked() -> None:
    row = "m,0.850 ± 0.010,0.850 ± 0.010,0.850 ± 0.010,10,500,500"
    done = audited(f"method,accuracy,sens,spec,folds,positives,negatives\n{row}")
    assert (done.checked["row-counts"], done.checked["zero-deviation"], done.checked["fold-counts"]) == (0, 0, 1)
    assert audited("method,f1\na,0.9\nb,0.85").checked["digits"] == 0  # no trailing zeros are kept


# Deviations of a whole table


def test_deviations_that_are_all_the_same_are_found() -> None:
    header = "method,dataset,auc,sens,spec"
    zeros = [f"{name},d,0.9{name}1 ± 0.000,0.8{name}2 ± 0.000,1.000 ± 0.000" for name in "123"]
    (found,) = audited("\n".join([header, *zeros])).findings
    assert (found.rule, found.method, found.dataset) == ("same-deviations", "every method", "d")
    assert found.text.startswith("all 6 deviations are 0.000: ")  # one of a mean of 1 is nothing odd
    copied = [row.replace("0.000", "0.021") for row in zeros]
    assert rules(header, *copied)[-1] == "same-deviations"
    assert "all 9" in audited("\n".join([header, *(row.replace("1.000", "0.700") for row in copied)])).findings[-1].text


@pytest.mark.parametrize(
    "rows",
    [
        ["a,d,0.911 ± 0.000,5", "b,d,0.921 ± 0.000,5"],  # two methods may be chance
        ["a,d,0.911 ± 0.000,5", "b,d,0.921 ± 0.000,5", "c,d,0.931 ± 0.010,5"],
        ["a,d,0.91 ± 0.00,5", "b,d,0.92 ± 0.00,5", "c,d,0.93 ± 0.00,5"],  # below half a hundredth, perhaps
        ["a,d,0.911 ± 0.000,1", "b,d,0.921 ± 0.000,1", "c,d,0.931 ± 0.000,1"],  # not over folds
        ["a,d,0.911,5", "b,d,0.921,5", "c,d,0.931,5"],
        ["a,d,1.000 ± 0.000,5", "b,d,1.000 ± 0.000,5", "c,d,1.000 ± 0.000,5"],
        ["a,d,0.911 ± 0.000,5", "b,d,0.921 ± 0.000,5", "c,e,0.931 ± 0.000,5"],
    ],
)
def test_deviations_that_may_be_the_same(rows: list[str]) -> None:
    assert rules("method,dataset,auc,folds", *rows) == []


def test_one_table_of_several_may_have_no_deviations() -> None:
    rows = [f"{name},{table},0.9{name}1 ± 0.0{name if table == 'I' else 0}0" for table in ("I", "II") for name in "123"]
    (found,) = audited("\n".join(["method,table,auc", *rows])).findings
    assert (found.rule, found.table) == ("same-deviations", "II")
