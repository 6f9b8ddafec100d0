"""The rules of an audit: what printed scores cannot be, and what is not what it is called.

A printed number stands for anything within one unit of its last digit (`Number.span`). What a rule calls impossible is
impossible for all of these. Only `auc-is-balanced-accuracy` finds what may be chance, and so is stricter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fusionbench.auditing.foldcounts import (
    SLACK,
    Design,
    Sizes,
    Span,
    deviations,
    fits,
    fold_sizes,
    largest_deviation,
    nearest_mean,
    possible_mean,
    possible_row,
    told,
)
from fusionbench.auditing.scoretables import PROGRAM_FROM, Number, Printed, PrintedRow

FINE = 0.0025
"""Equality within this says something of one row."""
COARSE = 0.0105
"""Equality within this, as of two decimals, only if all rows have it."""
ENOUGH_ROWS = 3
"""So many rows at least."""

SEARCHED = ("sensitivity", "specificity", "accuracy", "balanced_accuracy")
"""The metrics that counts of right decisions give together."""


@dataclass(frozen=True)
class Finding:
    """A rule that a row breaks, and the numbers that show it."""

    rule: str
    method: str
    dataset: str
    table: str
    text: str


def finding(row: PrintedRow, rule: str, text: str, *metrics: str) -> Finding:
    """A finding about these metrics of a row; it says which of them were not read off but computed."""
    derived = [name for name in metrics if row.scores[name].derived]
    if derived:
        text += f" (derived in part or whole, not read off: {', '.join(derived)})"
    return Finding(rule, row.method, row.dataset, row.table, text)


def out_of_range(row: PrintedRow) -> Iterator[Finding]:
    """Means outside [0, 1], negative deviations."""
    for metric, score in row.scores.items():
        if not 0 <= score.mean.value <= 1:
            whole = "0 and 100 %" if score.percent else "0 and 1"
            yield finding(row, "range", f"{metric} {score}: not between {whole}", metric)
        if score.std and score.std.value < 0:
            yield finding(row, "negative-deviation", f"{metric} {score}: no deviation is negative", metric)


def in_range(row: PrintedRow) -> PrintedRow:
    """The row without what is out of range."""
    good = {metric: score for metric, score in row.scores.items() if 0 <= score.mean.value <= 1}
    bare = {
        metric: replace(score, std=None) if score.std and score.std.value < 0 else score
        for metric, score in good.items()
    }
    return replace(row, scores=bare)


def too_large_deviations(row: PrintedRow) -> Iterator[Finding]:
    """Deviations that no values in [0, 1] with such a mean have."""
    for metric, score in row.scores.items():
        if score.std and (largest := _smaller_bound(row, score.mean, score.std)) is not None:
            who = f"{row.folds} values" if row.folds else "values"
            text = f"{metric} {score}: {who} in [0, 1] with this mean deviate by at most {_as(score, largest)}"
            yield finding(row, "deviation-bound", text, metric)


def _smaller_bound(row: PrintedRow, mean: Number, std: Number) -> float | None:
    """The largest possible deviation if the printed one is larger."""
    if row.folds == 1:
        return None
    largest = largest_deviation(mean.span, row.folds)
    return largest if std.span[0] > largest + SLACK else None


def impossible_counts(row: PrintedRow) -> Iterator[Finding]:
    """Means and deviations that no counts of right decisions in stratified folds give."""
    for metric, choices in _sizes(row.design).items():
        score = row.scores.get(metric)
        if score and not any(possible_mean(sizes, score.mean.span) for sizes in choices):
            near = min(
                (nearest_mean(sizes, score.mean.value) for sizes in choices), key=lambda m: abs(m - score.mean.value)
            )
            text = (
                f"{metric} {score}: no counts in {told(choices[0])} have this mean; the nearest is {_as(score, near)}"
            )
            yield finding(row, "fold-counts", text, metric)
        elif score and score.std and row.folds != 1 and _smaller_bound(row, score.mean, score.std) is None:
            yield from _impossible_deviation(row, metric, score, score.std, choices)


def _impossible_deviation(
    row: PrintedRow, metric: str, score: Printed, std: Number, choices: Sequence[Sizes]
) -> Iterator[Finding]:
    possible = [deviations(sizes, score.mean.span) for sizes in choices]
    known = [found for found in possible if found is not None]
    if len(known) < len(possible) or any(fits(found, len(choices[0]), std.span).any() for found in known):
        return
    near = min((d for found in known for d in found), key=lambda d: abs(d - std.value))
    where = f"{told(choices[0])} with this mean"
    if std.value == 0:
        text = f"{metric} {score}: {where} deviate by at least {_as(score, near)}; a single fold?"
        yield finding(row, "zero-deviation", text, metric)
    else:
        text = f"{metric} {score}: no counts in {where} deviate so; the nearest is {_as(score, near)}"
        yield finding(row, "fold-counts", text, metric)


def accuracy_apart(row: PrintedRow) -> Iterator[Finding]:
    """Accuracy that is no mean of sensitivity and specificity, with the weights of the classes where they are known."""
    if not {"accuracy", "sensitivity", "specificity"} <= row.scores.keys():
        return
    accuracy, *both = (row.scores[name] for name in ("accuracy", "sensitivity", "specificity"))
    ends = sorted(both, key=lambda score: score.mean.value)
    slack = _between_folds(row.design, both) + SLACK
    printed = f"accuracy {accuracy}, sensitivity {both[0]}, specificity {both[1]}"
    metrics = ("accuracy", "sensitivity", "specificity")
    if _apart(accuracy.mean.span, (ends[0].mean.span[0] - slack, ends[1].mean.span[1] + slack)):
        yield finding(row, "accuracy-range", f"{printed}: not between the two", *metrics)
    elif row.design:
        share = row.design.positives / (row.design.positives + row.design.negatives)
        low, middle, high = (
            share * a + (1 - share) * b for a, b in zip(*(_low_middle_high(score) for score in both), strict=True)
        )
        if _apart(accuracy.mean.span, (low - slack, high + slack)):
            text = f"{printed}: {row.design.positives} positives and {row.design.negatives} negatives give "
            yield finding(row, "accuracy-weights", f"{text}{_as(accuracy, middle)}", *metrics)


def balanced_apart(row: PrintedRow) -> Iterator[Finding]:
    """Balanced accuracy that is not the mean of sensitivity and specificity."""
    metrics = ("balanced_accuracy", "sensitivity", "specificity")
    if not set(metrics) <= row.scores.keys():
        return
    balanced, *both = (row.scores[name] for name in metrics)
    low, middle, high = (sum(ends) / 2 for ends in zip(*(_low_middle_high(score) for score in both), strict=True))
    if _apart(balanced.mean.span, (low - SLACK, high + SLACK)):
        text = f"balanced accuracy {balanced}: sensitivity {both[0]} and specificity {both[1]} give "
        yield finding(row, "balanced-accuracy", f"{text}{_as(balanced, middle)}", *metrics)


def is_balanced(row: PrintedRow) -> tuple[bool, float] | None:
    """Whether the AUC is balanced accuracy within rounding, and how large that is; None if it cannot be told.

    It cannot where all decisions are right or all the same: there a real AUC is 1 and may be one half.
    """
    if not {"auc", "sensitivity", "specificity"} <= row.scores.keys():
        return None
    auc, found, kept = (row.scores[name].mean for name in ("auc", "sensitivity", "specificity"))
    if {found.value, kept.value} <= {0.0, 1.0}:
        return None
    rounding = auc.unit / 2 + (found.unit + kept.unit) / 4
    return abs(auc.value - (found.value + kept.value) / 2) <= rounding + SLACK, rounding


def balanced_as_auc(rows: Sequence[PrintedRow]) -> Callable[[PrintedRow], Iterator[Finding]]:
    """The rule for these rows: an equality of coarse numbers counts only where every row has it."""
    known = [known for row in rows if (known := is_balanced(row))]
    coarse_too = len(known) >= ENOUGH_ROWS and all(equal for equal, _ in known)

    def rule(row: PrintedRow) -> Iterator[Finding]:
        equal, rounding = is_balanced(row) or (False, 0.0)
        if not equal or rounding > (COARSE if coarse_too else FINE):
            return
        auc, found, kept = (row.scores[name] for name in ("auc", "sensitivity", "specificity"))
        text = f"AUC {auc} is ({found.mean.text} + {kept.mean.text}) / 2 within rounding: "
        text += "this is balanced accuracy at one threshold"
        yield finding(row, "auc-is-balanced-accuracy", text, "auc", "sensitivity", "specificity")

    return rule


def possible_together(row: PrintedRow) -> bool | None:
    """Whether some counts give the whole row, an AUC that is balanced accuracy as such; None if that was not tried."""
    together = _together(row)
    if not row.design or len(together) < 3 or not {"sensitivity", "specificity"} <= together.keys():
        return True
    means = {metric: score.mean.span for metric, score in together.items()}
    stds = {metric: score.std.span for metric, score in together.items() if score.std and row.folds != 1}
    return possible_row(row.design, means, stds)


def impossible_together(row: PrintedRow, design: Design) -> Finding:
    """The finding about a row that is not possible together."""
    together = _together(row)
    printed = ", ".join(f"{metric} {score}" for metric, score in together.items())
    positives, negatives = (told(fold_sizes(count, design.folds)) for count in (design.positives, design.negatives))
    text = f"{printed}: no counts in {positives} positives and {negatives} negatives give all of these"
    if "balanced_accuracy" in together.keys() - row.scores.keys():
        text += "; balanced accuracy is what is called AUC"
    return finding(row, "row-counts", text, *(row.scores.keys() & {*together, "auc"}))


def _together(row: PrintedRow) -> dict[str, Printed]:
    """The numbers that counts of right decisions give together."""
    equal, rounding = is_balanced(row) or (False, 0.0)
    as_such = {"balanced_accuracy": row.scores["auc"]} if equal and rounding <= FINE else {}
    return {metric: score for metric, score in {**as_such, **row.scores}.items() if metric in SEARCHED}


def other_digits(rows: Sequence[PrintedRow]) -> Callable[[PrintedRow], Iterator[Finding]]:
    """The rule for these rows: as many decimals as most numbers of the kind, where the table keeps trailing zeros."""
    numbers = [(kind, number) for row in rows for kind, number in _numbers(row)]
    keeps = any(n.decimals > 1 and n.text.endswith("0") for _, n in numbers)
    by_a_program = any(n.decimals >= PROGRAM_FROM for _, n in numbers)
    counts = Counter((kind, number.decimals) for kind, number in numbers)
    usual = {kind: decimals for (kind, decimals), _ in sorted(counts.items(), key=lambda item: (item[1], item[0][1]))}

    def rule(row: PrintedRow) -> Iterator[Finding]:
        for (metric, part), number in _numbers(row):
            expected = usual[metric, part]
            if keeps and not by_a_program and number.decimals != expected:
                text = f"{metric} {row.scores[metric]}: {number.text} has {number.decimals} decimals, "
                yield finding(row, "digits", f"{text}most numbers of this column {expected}", metric)

    return rule


def _numbers(row: PrintedRow) -> Iterator[tuple[tuple[str, str], Number]]:
    """((metric, mean or std), number) of each number of a row."""
    for metric, score in row.scores.items():
        yield (metric, "mean"), score.mean
        if score.std:
            yield (metric, "std"), score.std


def _sizes(design: Design | None) -> dict[str, tuple[Sizes, ...]]:
    """Metric of counts -> the sizes that its folds may have."""
    if not design:
        return {}
    return {
        "sensitivity": (fold_sizes(design.positives, design.folds),),
        "specificity": (fold_sizes(design.negatives, design.folds),),
        "accuracy": design.accuracy_sizes(),
    }


def _between_folds(design: Design | None, both: Sequence[Printed]) -> float:
    """How far accuracy may be off the weighted mean because folds differ in their share of positives.

    With weights w_i about w, the mean of (w_i - w) (s_i - c_i) is at most max |w_i - w| times the mean of |s_i - c_i|,
    and that at most min(1, S + C, 2 - S - C).
    """
    if not design:
        return 0.0
    share = design.positives / (design.positives + design.negatives)
    low, high = (sum(score.mean.span[end] for score in both) for end in (0, 1))
    return float(abs(design.weights() - share).max()) * max(0.0, min(1.0, high, 2 - low))


def _low_middle_high(score: Printed) -> tuple[float, float, float]:
    low, high = score.mean.span
    return low, score.mean.value, high


def _apart(one: Span, other: Span) -> bool:
    return one[1] < other[0] or one[0] > other[1]


def _as(score: Printed, value: float) -> str:
    """A computed value with the digits and in the unit of a printed score, one digit more where it would look equal."""
    scale = 100 if score.percent else 1
    digits = min(max(score.mean.decimals, 0), 6)
    near = (number for number in (score.mean, score.std) if number)
    same = any(f"{value * scale:.{digits}f}" == f"{number.value * scale:.{digits}f}" for number in near)
    return f"{value * scale:.{digits + same}f}"
