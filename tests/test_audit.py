"""Audits: each rule finds its planted fault and nothing in what real confusion matrices give."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_UP, Decimal
from itertools import combinations_with_replacement, pairwise, product
from pathlib import Path
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench.auditing.audit import Audit, audit, read_table
from fusionbench.auditing.foldcounts import (
    Design,
    deviations,
    fits,
    fold_sizes,
    largest_deviation,
    nearest_mean,
    possible_mean,
    possible_row,
)
from fusionbench.auditing.scoretables import read_scores
from fusionbench.csvtext import csv_text
from fusionbench.errors import UsageError
from fusionbench.published import every_score

SHARES = ("sensitivity", "specificity", "accuracy", "balanced_accuracy")


def audited(text: str) -> Audit:
    return audit(read_scores(text))


def rules(header: str, *rows: str) -> list[str]:
    return [finding.rule for finding in audited("\n".join([header, *rows])).findings]


def equalities(done: Audit) -> str:
    return next((note for note in done.notes if note.startswith("the AUC is")), "")


# The paper


def test_every_row_of_the_paper_whose_auc_is_balanced_accuracy_is_told() -> None:
    found = {(f.dataset, f.table, f.method) for f in PAPER.findings if f.rule == "auc-is-balanced-accuracy"}
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for score in every_score():
        rows.setdefault((score.dataset, score.table, score.method), {})[score.metric] = score.mean
    whole = {row for row, scores in rows.items() if {"AUC", "sensitivity", "specificity"} <= scores.keys()}
    assert whole - found == {("brats2018", "V", "DA_RMC"), ("brats2018", "VII", "DA_RMC")}  # .0085 and .004 apart
    assert found < whole
    assert len(found) == 9
    assert equalities(PAPER).startswith(
        "the AUC is (sensitivity + specificity) / 2 within rounding in 9 of 11 rows that have all three numbers"
    )
    assert equalities(PAPER).endswith("of these 9: 3 with an impossible number among the three")


def test_what_is_impossible_in_the_paper_is_told_with_its_numbers() -> None:
    told = {
        (f.dataset, f.method, f.table, f.rule): f.text for f in PAPER.findings if f.rule != "auc-is-balanced-accuracy"
    }
    assert told.keys() == ODD.keys()
    assert not [(key, number) for key, numbers in ODD.items() for number in numbers if number not in told[key]]


PAPER = audit(read_table("xu2024"))
ODD = {
    ("brats2018", "T1ce", "III; V; VIII", "accuracy-weights"): [
        "0.926 ± 0.038",
        "0.933",
        "0.900",
        "0.909",
        "75 ",
        "210 ",
    ],
    ("brats2018", "DA_RMC", "V", "fold-counts"): ["0.918", "0.920"],  # 69 of 75
    ("brats2018", "DA_RMC", "VII", "fold-counts"): ["0.932", "0.933"],  # 70 of 75
    ("brats2018", "DA_RMC", "VII", "accuracy-weights"): ["0.944 ± 0.012", "0.932", "0.942", "0.939"],
    ("brats2018", "Ensemble", "", "fold-counts"): ["accuracy 0.805", "0.804"],  # 229 of 285, and 230 are .807
    ("brats2018", "Ours", "", "fold-counts"): ["specificity 0.971 ± 0.039", "0.038", "derived"],
    ("brats2019", "Pixel", "", "zero-deviation"): ["sensitivity 0.720 ± 0.000", "26, 25, 25", "single fold"],
    ("brats2019", "Ensemble", "", "deviation-bound"): ["specificity 0.988 ± 0.025", "at most 0.023"],
    ("brats2019", "Ours", "", "deviation-bound"): ["specificity 0.974 ± 0.065", "at most 0.047"],
}
"""Data set, method, table and rule -> numbers that the finding names; by hand, as root 3 times 1 - .973 is .047."""


def test_a_number_that_was_computed_and_not_read_off_is_marked() -> None:
    (t2,) = [f.text for f in PAPER.findings if (f.method, f.rule) == ("T2", "auc-is-balanced-accuracy")]
    (agg,) = [f.text for f in PAPER.findings if f.method == "AGG"]
    assert "derived" not in t2
    assert agg.endswith("(derived in part or whole, not read off: auc, sensitivity, specificity)")


# Each rule, found and not found


@pytest.mark.parametrize(
    ("header", "row", "rule"),
    [
        ("auc,sensitivity,specificity", "0.803,0.773,0.833", "auc-is-balanced-accuracy"),
        ("auc,sensitivity,specificity", "0.804,0.773,0.833", "auc-is-balanced-accuracy"),  # .803 ± .001 by rounding
        ("auc,sensitivity,specificity", "0.805,0.773,0.833", ""),
        ("auc,sensitivity,specificity", "1.000,1.000,1.000", ""),  # all right: a real AUC is 1
        ("auc,sensitivity,specificity", "0.500,0.000,1.000", ""),  # all the same: a real AUC may be one half
        ("auc,sensitivity,specificity", "0.75,0.70,0.80", ""),  # one coarse row says nothing
        ("auc,sensitivity,specificity", "80.3,77.3,83.3", "auc-is-balanced-accuracy"),
        ("bacc,sens,spec", "0.803,0.773,0.833", ""),
        ("bacc,sens,spec", "0.805,0.773,0.833", ""),  # all cut off: up to .805
        ("bacc,sens,spec", "0.806,0.773,0.833", "balanced-accuracy"),
        ("accuracy,sensitivity,specificity", "0.800,0.773,0.833", ""),
        ("accuracy,sensitivity,specificity", "0.835,0.773,0.833", ""),
        ("accuracy,sensitivity,specificity", "0.836,0.773,0.833", "accuracy-range"),
        ("accuracy,sensitivity,specificity", "0.770,0.773,0.833", "accuracy-range"),
        ("accuracy,sensitivity,specificity", "0.770,0.833,0.773", "accuracy-range"),
        ("specificity,specificity_std,folds", "0.974,0.065,3", "deviation-bound"),
        ("specificity,specificity_std,folds", "0.974,0.046,3", ""),  # root 3 of .026 is .045, of .027 .047
        ("specificity,specificity_std,folds", "0.974,0.065,10", ""),  # root 10 of .026 is .082
        ("specificity,specificity_std", "0.974,0.150", ""),
        ("specificity,specificity_std", "0.974,0.170", "deviation-bound"),  # of any number: root of m (1 - m) is .159
        ("auc,auc_std,folds", "0.667,0.577,3", ""),  # 0, 1, 1
        ("auc,auc_std,folds", "0.500,0.501,3", ""),  # 0, 1/2, 1 have .5
        ("auc,auc_std,folds", "0.500,0.577,3", "deviation-bound"),
        ("auc,auc_std,folds", "0.500,0.577,1", ""),  # of one test set it is something else
        ("f1", "1.020", "range"),
        ("f1", "-0.020", "range"),
        ("f1", "−0.020", "range"),
        ("f1", "102.0 %", "range"),
        ("f1", "1.000", ""),
        ("f1", "0.500 ± -0.100", "negative-deviation"),
        ("f1", "0.500 ± 0.100", ""),
    ],
)  # fmt: skip
def test_a_rule_of_one_row(header: str, row: str, rule: str) -> None:
    assert rules(f"method,{header}", f"m,{row}") == [rule] * bool(rule)


@pytest.mark.parametrize(
    ("header", "row", "rule"),
    [
        ("accuracy,sensitivity,specificity", "0.909,0.933,0.900", ""),
        ("accuracy,sensitivity,specificity", "0.926,0.933,0.900", "accuracy-weights"),
        ("sensitivity", "0.933", ""),  # 70 of 75
        ("sensitivity", "0.940", "fold-counts"),  # 70.5 of 75
        ("sensitivity", "0.720 ± 0.000", ""),  # 18, 18, 18
        ("sensitivity", "0.773 ± 0.000", "zero-deviation"),  # 58 of 75: not three times the same
        ("sensitivity", "0.773 ± 0.083", ""),  # 17, 20, 21
        ("sensitivity", "0.773 ± 0.068", ""),  # the same with ddof = 0: .0680
        ("sensitivity", "0.987 ± 0.010", "fold-counts"),  # 25, 25, 24: .023, or .019
        ("accuracy,sensitivity,specificity", "0.817 ± 0.037,0.773 ± 0.083,0.833 ± 0.073", ""),
        ("accuracy,sensitivity,specificity", "0.817 ± 0.010,0.773 ± 0.083,0.833 ± 0.073", "row-counts"),
        ("auc,sensitivity,specificity", "0.803 ± 0.021,0.773 ± 0.083,0.833 ± 0.073", "auc-is-balanced-accuracy"),
    ],
)  # fmt: skip
def test_a_rule_of_counts(header: str, row: str, rule: str) -> None:
    """In three folds of 25 and 70, as the paper's."""
    assert rules(f"method,{header},folds,positives,negatives", f"m,{row},3,75,210") == [rule] * bool(rule)


def test_an_equality_of_two_decimals_counts_where_all_rows_have_it() -> None:
    header, equal, other = (
        "method,auc,sens,spec",
        ["a,0.75,0.70,0.80", "b,0.80,0.71,0.88", "c,0.90,0.91,0.89"],
        "d,0.95,0.90,0.89",
    )
    assert rules(header, *equal) == ["auc-is-balanced-accuracy"] * 3
    assert rules(header, *equal, other) == rules(header, *equal[:2]) == []


def test_an_auc_that_does_not_fit_the_counts_as_balanced_accuracy_may_be_a_real_one() -> None:
    header = "method,auc,sens,spec,folds,positives,negatives"
    apart = audited(f"{header}\nm,0.803 ± 0.160,0.773 ± 0.083,0.833 ± 0.073,3,75,210")
    assert [finding.rule for finding in apart.findings] == ["auc-is-balanced-accuracy"]
    assert apart.findings[0].text.endswith("give such a balanced accuracy: chance, or a misprint")
    assert equalities(apart).endswith("of these 1: 1 that the counts of the rest of the row speak against")
    fitting = audited(f"{header}\nm,0.803 ± 0.021,0.773 ± 0.083,0.833 ± 0.073,3,75,210")
    assert fitting.findings[0].text.endswith("balanced accuracy at one threshold")
    assert rules(header, "m,0.80 ± 0.20,0.77 ± 0.08,0.83 ± 0.07,3,75,210") == []  # coarse: it may be a real one


def test_what_no_counts_give_is_found_beside_an_auc_that_does_not_fit() -> None:
    header = "method,auc,accuracy,sens,spec,folds,positives,negatives"
    row = "m,0.803 ± 0.160,0.817 ± 0.010,0.773 ± 0.083,0.833 ± 0.073,3,75,210"
    found = audited(f"{header}\n{row}").findings
    assert [finding.rule for finding in found] == ["auc-is-balanced-accuracy", "row-counts"]
    assert "auc" not in found[1].text


def test_a_single_test_set_is_one_fold() -> None:
    header = "method,sensitivity,folds,positives,negatives"
    assert rules(header, "m,0.933 ± 0.400,1,75,210") == []
    assert rules(header, "m,0.940,1,75,210") == ["fold-counts"]


def test_accuracy_may_be_off_the_mean_where_folds_differ() -> None:
    """Folds of 2 + 2 and 2 + 1: sensitivities 0 and 1, specificities 1 and 0 give accuracies 1/2 and 2/3."""
    scores = f"m,{(1 / 2 + 2 / 3) / 2!r},0.5,0.5"
    assert rules("method,accuracy,sens,spec,folds,positives,negatives", f"{scores},2,4,3") == []
    assert rules("method,accuracy,sens,spec,folds,positives,negatives", f"{scores},2,4,4") == [
        "fold-counts",
        "accuracy-range",
    ]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (("0.910", "0.93", "0.950"), 1),
        (("0.910", "0.9301", "0.950"), 1),
        (("0.910", "0.930", "0.950"), 0),
        (("0.91", "0.93", "0.9"), 0),  # no number ends in a zero: a program may have dropped it
        (("0.9103437201", "0.93", "0.950"), 0),  # a program wrote it
    ],
)
def test_digits_that_differ_in_a_table_that_keeps_its_zeros(cells: tuple[str, ...], found: int) -> None:
    assert rules("method,f1", *(f"m,{cell}" for cell in cells)) == ["digits"] * found


def test_one_fault_is_told_once() -> None:
    header = "method,specificity,folds,positives,negatives"
    assert rules(header, "Ours,0.974 ± 0.065,3,76,259") == ["deviation-bound"]
    assert rules("method,auc,sens,spec,folds,positives,negatives", "m,1.200,1.200,1.200,3,75,210") == ["range"] * 3


# What counts can give, against going through all of them


def means_and_deviations(sizes: tuple[int, ...]) -> list[tuple[float, float]]:
    rates = [[count / size for count, size in zip(counts, sizes, strict=True)] for counts in _counts(sizes)]
    return [(fmean(values), stdev(values)) for values in rates]


def _counts(sizes: tuple[int, ...]) -> product[tuple[int, ...]]:
    return product(*(range(size + 1) for size in sizes))


@pytest.mark.parametrize("sizes", [(5, 5, 5), (4, 4, 3), (7, 6), (3, 2, 2, 2), (5, 4, 3)])
def test_possible_means_and_deviations_are_all_there_are(sizes: tuple[int, ...]) -> None:
    known = means_and_deviations(sizes)
    means = sorted({round(mean, 12) for mean, _ in known})
    for mean in means:
        assert possible_mean(sizes, (mean, mean))
        expected = sorted({round(std, 6) for m, std in known if math.isclose(m, mean, abs_tol=1e-9)})
        found = deviations(sizes, (mean, mean))
        assert found is not None
        assert sorted({round(std, 6) for std in found.tolist()}) == expected
    for low, high in pairwise(means):
        if high - low > 1e-6:
            assert not possible_mean(sizes, (low + 1e-7, high - 1e-7))
            assert nearest_mean(sizes, low + (high - low) / 3) == pytest.approx(low)


@pytest.mark.parametrize("values", [2, 3, 5])
def test_the_largest_deviation_is_reached_and_never_passed(values: int) -> None:
    grid = [n / 10 for n in range(11)]
    rows = list(combinations_with_replacement(grid, values))
    for mean in {round(fmean(row), 9) for row in rows}:
        largest = max(stdev(row) for row in rows if math.isclose(fmean(row), mean, abs_tol=1e-6))
        assert largest_deviation((mean, mean), values) == pytest.approx(largest, abs=1e-6)
        assert largest_deviation((mean, mean), None) >= largest - 1e-9


def test_the_largest_deviation_of_a_span_is_that_of_its_best_mean() -> None:
    assert largest_deviation((0.2, 0.4), 3) == pytest.approx(stdev([0, 0, 1]))
    assert largest_deviation((-0.1, 0.0), 3) == 0


@pytest.mark.parametrize("design", [Design(2, 3, 4), Design(3, 4, 5), Design(3, 6, 3)])
def test_a_row_is_possible_exactly_if_some_confusion_matrices_give_it(design: Design) -> None:
    possible = {
        tuple(round(fmean(values), 9) for values in rates(found, kept, sizes).values())[:3]
        for sizes in design.alignments()
        for found in _counts(sizes[0])
        for kept in _counts(sizes[1])
    }
    every = [sorted({row[place] for row in possible}) for place in range(3)]
    for row in product(*every):
        means = {name: (mean, mean) for name, mean in zip(SHARES, row, strict=False)}
        assert possible_row(design, means, {}) is (row in possible)


def test_too_many_counts_are_left_and_that_is_said() -> None:
    assert deviations(fold_sizes(5000, 10), (0.5, 0.6)) is None
    assert possible_row(Design(10, 500, 500), dict.fromkeys(SHARES, (0.5, 0.6)), {}) is None
    row = "m,0.850 ± 0.010,0.850 ± 0.010,0.850 ± 0.010,10,500,500"
    done = audited(f"method,accuracy,sens,spec,folds,positives,negatives\n{row}")
    assert done.findings == ()
    assert any("too many counts to search in 1 row" in note for note in done.notes)


def test_every_way_in_which_larger_folds_coincide_is_there() -> None:
    assert set(Design(3, 76, 260).alignments()) == {((26, 25, 25), (86, 87, 87)), ((26, 25, 25), (87, 87, 86))}
    assert fits(deviations((2, 2), (0.5, 0.5)) * 1.0, 2, (0.0, 0.1)).tolist() == [True, False]  # type: ignore[operator]


# No false alarm


def rates(found: tuple[int, ...], kept: tuple[int, ...], sizes: tuple[tuple[int, ...], ...]) -> dict[str, list[float]]:
    """Metric -> its value in each fold, of confusion matrices."""
    folds = list(zip(found, sizes[0], kept, sizes[1], strict=True))
    sensitivity, specificity = [a / p for a, p, _, _ in folds], [b / n for _, _, b, n in folds]
    balanced = [(a + b) / 2 for a, b in zip(sensitivity, specificity, strict=True)]
    return dict(
        zip(SHARES, (sensitivity, specificity, [(a + b) / (p + n) for a, p, b, n in folds], balanced), strict=True)
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, int]:
    """A table of rows from confusion matrices over stratified folds, and in how many rows."""
    folds = draw(st.integers(1, 5))
    design = Design(folds, draw(st.integers(folds, 90)), draw(st.integers(folds, 90)))
    sizes = draw(st.sampled_from(list(design.alignments())))
    known = draw(st.booleans()) or design.positives % folds > 0 or design.negatives % folds > 0
    sign, decimals = draw(st.sampled_from(["", "%", " %", "percent"])), draw(st.sampled_from([1, 2, 3, 4, None]))
    how = draw(st.sampled_from([ROUND_HALF_UP, ROUND_DOWN, ROUND_CEILING]))
    deviation = draw(st.sampled_from([stdev, pstdev]))
    scale, sign = 100 if sign else 1, sign.replace("percent", "")
    least = 2 if scale == 100 and not sign else 1  # a percentage without a sign is known by its size
    rows = []
    for number in range(draw(st.integers(1, 3))):
        found, kept = (tuple(draw(st.integers(size * (least - 1) // 2, size)) for size in part) for part in sizes)
        cells = [
            printed(fmean(values) * scale, decimals, how)
            + (f" ± {printed(deviation(values) * scale, decimals, how)}" if folds > 1 else "")
            + sign
            for values in rates(found, kept, sizes).values()
        ]
        rows.append([f"m{number}", *((folds, design.positives, design.negatives) if known else ("", "", "")), *cells])
    return csv_text(["method", "folds", "positives", "negatives", *SHARES], rows), len(rows)


def printed(value: float, decimals: int | None, how: str) -> str:
    return repr(value) if decimals is None else str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), how))


@settings(max_examples=150, deadline=None)
@given(tables())
def test_what_real_confusion_matrices_give_is_never_a_finding(made: tuple[str, int]) -> None:
    text, rows = made
    done = audited(text)
    assert [f for f in done.findings if f.rule != "same-deviations"] == []  # small folds may all agree
    assert done.rows == rows


# How tables are read


def scores(text: str) -> list[dict[str, tuple[float, float | None]]]:
    return [
        {metric: (s.mean.value, s.std.value if s.std else None) for metric, s in row.scores.items()}
        for row in read_scores(text).rows
    ]


@pytest.mark.parametrize(
    ("cell", "mean", "std"),
    [
        ("0.85", 0.85, None),
        (".85", 0.85, None),
        ("+0.85", 0.85, None),
        ("8.5e-1", 0.85, None),
        ("0.85 ± 0.03", 0.85, 0.03),
        ("0.85±0.03", 0.85, 0.03),
        ("0.85 +/- 0.03", 0.85, 0.03),
        ("0.85 (0.03)", 0.85, 0.03),
        ("0.85\u00a0±\u00a00.03", 0.85, 0.03),
        ("85 %", 0.85, None),
        ("85.0% ± 3.0%", 0.85, 0.03),
        ("85.0 ± 3.0 %", 0.85, 0.03),
        ("85.0% (3.0)", 0.85, 0.03),
        ("85.0 (3.0)%", 0.85, 0.03),
        ("85.0 ± 3.0", 0.85, 0.03),
        ("0.85 %", 0.0085, None),
    ],
)  # fmt: skip
def test_cells(cell: str, mean: float, std: float | None) -> None:
    assert scores(f"method,acc\nm,{cell}") == [{"accuracy": (mean, std)}]
    assert scores(f"method,metric,mean\nm,ACC,{cell}") == [{"accuracy": (mean, std)}]


@pytest.mark.parametrize("cell", ["", "-", "–", "n/a", "nan", "NaN"])
def test_cells_without_a_number(cell: str) -> None:
    assert scores(f"method,acc,f1\nm,{cell},0.5") == [{"f1": (0.5, None)}]


def test_percentages_are_known_by_metric_and_declared() -> None:
    table = read_scores("method,AUC,Accuracy (%),sens\na,0.95,0.9,0.3\nb,0.91,93.1,1.2")
    assert [round(row.scores["accuracy"].mean.value, 6) for row in table.rows] == [0.009, 0.931]
    assert [row.scores["auc"].mean.value for row in table.rows] == [0.95, 0.91]
    assert table.notes == ("read as percentages: accuracy",)
    assert [f.rule for f in audit(table).findings][-1] == "range"  # 1.2 among shares is no percentage
    assert rules("method,f1", "a,0.9", "b,0.8", "c,85.2") == ["range"]


def test_long_and_wide_and_a_leaderboard_are_the_same() -> None:
    long = "Method,dataset,table,metric,mean,std\na,d,I,Sensitivity,0.9,0.1\na,d,I,spec,0.8,\na,e,I,spec,0.7,"
    wide = "method,dataset,table,sens,sens_std,specificity\na,d,I,0.9,0.1,0.8\na,e,I,,,0.7"
    ours = "sensitivity_mean,sensitivity_std,specificity_mean,specificity_std"
    board = f"method,dataset,table,{ours}\na,d,I,0.9,0.1,0.8,\na,e,I,,,0.7,"
    assert read_scores(long) == read_scores(wide) == read_scores(board)


def test_what_is_not_looked_at_is_told() -> None:
    assert read_scores("method,acuracy,f1,loss\nm,0.9,0.8,3").notes == ("columns not looked at: acuracy, loss",)
    assert read_scores("method,metric,mean\nm,f1,0.9\nm,loss,a").notes == ("metrics not looked at: loss",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'method', separated by commas: the columns are none"),
        ("method;auc\nm;0.9", "the columns are method;auc"),
        ("name,auc\nm,0.9", "the columns are name, auc"),
        ('"na\nme",auc\nm,0.9', "the columns are na_me, auc"),
        ("method,auc", "a header and no line below it"),
        ("method,auc,AUC\nm,0.9,0.9", "two columns 'auc': rename one"),
        ("method,auc,roc_auc\nm,0.9,0.9", "two columns of auc: 'auc' and 'roc_auc': rename one"),
        ("method,colour\nm,0.9", "no column is a metric: name one of auc, accuracy"),
        ("method,auc\nm,0.9,0.8", "row 1 has not as many cells as the header has columns, 2"),
        ("method,auc,f1\nm,0.9", "row 1 has not as many cells"),
        ("method,auc\n,0.9", "row 1 names no method"),
        ("method,auc\na\x1b[31m,0.9", "characters that cannot be shown"),
        ("method,auc\nm,high", "row 1: auc 'high' is no number: write 0.85, 85 % or 0.85 ± 0.03"),
        ('method,auc\nm,"0,85"', "'0,85' is no number"),
        ("method,auc\nm,0.8%5", "is no number"),
        ("method,auc\nm,inf", "is no number"),
        ("method,auc\nm,1e999999999", "is no number"),
        ("method,auc\nm,０.９", "is no number"),
        ("method,auc\nm,0.9 ± 0.1 ± 0.1", "is no number"),
        ("method,auc\nm,0.9 ±", "is no number"),
        ("method,auc,auc_std\nm,0.9 ± 0.1,0.1", "row 1: auc has two deviations, '0.1' and '0.1'"),
        ("method,auc,auc_std\nm,0.9,0.1 ± 3", "'0.1 ± 3' is no number"),
        ("method,auc,auc_std\nm,,0.1", "'' is no number"),
        ("method,metric,mean\nm,auk,0.9", "no metric is known, such as 'auk': did you mean 'auc'?"),
        ("method,metric,mean\nm,auc,0.9\nm,AUC,0.9", "'m' has two numbers of auc: give them different tables"),
        ("method,metric,mean,folds\nm,auc,0.9,3\nm,acc,0.9,4", "other folds, positives or negatives than above"),
        ("method,auc,folds\nm,0.9,three", "folds 'three' is no whole number from 1 to 1000"),
        ("method,auc,folds\nm,0.9,0", "folds '0' is no whole number"),
        ("method,auc,positives\nm,0.9,75", "give folds, positives and negatives together (folds 1: one test set)"),
        ("method,auc,folds,positives,negatives\nm,0.9,5,4,9", "4 positives and 9 negatives do not fill 5 folds"),
        ("method,auc,folds,positives,negatives\nm,0.9,5,9,99999999999", "is no whole number from 1 to 1000000"),
        ("method,auc\nm," + "9" * 200_000, "no CSV: field larger than field limit"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_read_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_scores(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('0159.,%±()-+e \n"abmf'), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    refusals: list[str] = []
    try:
        audited(f"method,f1,sens,spec,acc,folds\nm,{text},1,0.5,3")
    except UsageError as error:
        refusals.append(str(error))
    assert "\n" not in "".join(refusals)


# Showing it


def test_markdown_shows_strange_names_as_they_are() -> None:
    text = audited('method,f1,<img src=x>\n"a | b\\",1.2,1\n<b>*c*,1.2,2').to_markdown()
    table = text.splitlines()
    assert table[2].startswith("| a \\| b\\\\ |")
    assert table[3].startswith("| &lt;b&gt;\\*c\\* |")
    assert "columns not looked at: &lt;img" in text
    assert "<" not in text
    assert audited("method,f1\na,0.5").to_markdown().startswith("- nothing in 1 row\n")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    heavy = "{'torch', 'pandas', 'sklearn', 'scipy'} & set(sys.modules)"
    code = f"import sys; from fusionbench_cli.app import main\ntry: main()\nfinally: assert not {heavy}"
    asked = [sys.executable, "-c", code, "audit", *arguments]
    return subprocess.run(asked, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_says_by_its_code_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("\ufeffmethod,accuracy\nm,0.9\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("method,f1\nm,0.9 ± 0.1".encode("latin-1"))
    good = command("good.csv", cwd=tmp_path)
    assert (good.returncode, good.stdout.splitlines()[0]) == (0, "nothing in 1 row"), good.stderr
    paper = command("xu2024", "--format", "json", cwd=tmp_path)
    told = json.loads(paper.stdout)
    assert (paper.returncode, len(told["findings"]), told["rows"]) == (1, len(PAPER.findings), 25)
    assert told["findings"][0].keys() == {"rule", "method", "dataset", "table", "text", "metrics"}
    plain = command("xu2024", cwd=tmp_path)
    assert plain.stdout.splitlines()[0] == "T1ce, brats2018, table III; V; VIII"
    assert "  accuracy-weights: accuracy 0.926 ± 0.038, " in plain.stdout
    for wrong, says in {
        "xu2023": "no file 'xu2023', and no shipped paper is called so: did you mean 'xu2024'?",
        "latin.csv": "latin.csv cannot be read: ",
        ".": ". cannot be read: ",
    }.items():
        refused = command(wrong, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_leaderboard_of_ours_is_sound() -> None:
    from fusionbench.leaderboard import Leaderboard, Row

    folds = rates((20, 25, 22), (70, 61, 66), ((25, 25, 25), (70, 70, 70)))
    folds |= {"roc_auc": [0.91, 0.97, 0.93], "brier": [0.1, 0.2, 0.1], "ece": [0.1] * 3, "average_precision": [0.8] * 3}
    row = Row("m", "key", {metric: tuple(values) for metric, values in folds.items()})
    board = Leaderboard((row, Row("n", "key", failed="no memory")), {}, 3, ())
    done = audited(board.to_csv())
    assert done.findings == ()
    assert "read as exact: a number has many decimals" in done.notes


def test_the_example_of_the_documents_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from fusionbench_cli import render

    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    table, output = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    render.audit(audited(table))
    assert capsys.readouterr().out == output
