"""The rules of a row alone: what its printed scores cannot be.

A printed number stands for anything within one unit of its last digit (`Number.span`). What a rule calls impossible is
impossible for all of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    told,
)
from fusionbench.auditing.scoretables import Number, Printed, PrintedRow

ACCURACY = ("accuracy", "sensitivity", "specificity")
BALANCED = ("balanced_accuracy", "sensitivity", "specificity")
"""What two rules compare."""


@dataclass(frozen=True)
class Finding:
    """A rule that a row breaks, and the numbers that show it."""

    rule: str
    method: str
    dataset: str
    table: str
    text: str
    metrics: tuple[str, ...] = ()
    """The metrics that it is about, by our names; none: all of them."""


def finding(row: PrintedRow, rule: str, text: str, *metrics: str) -> Finding:
    """A finding about these metrics of a row; it says which of them were not read off but computed."""
    derived = [name for name in metrics if row.scores[name].derived]
    if derived:
        text += f" (derived in part or whole, not read off: {', '.join(derived)})"
    return Finding(rule, row.method, row.dataset, row.table, text, metrics)


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
    for metric, choices in sizes_of(row.design).items():
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
    if not row.scores.keys() >= set(ACCURACY):
        return
    accuracy, *both = (row.scores[name] for name in ACCURACY)
    ends = sorted(both, key=lambda score: score.mean.value)
    slack = _between_folds(row.design, both) + SLACK
    printed = f"accuracy {accuracy}, sensitivity {both[0]}, specificity {both[1]}"
    if _apart(accuracy.mean.span, (ends[0].mean.span[0] - slack, ends[1].mean.span[1] + slack)):
        yield finding(row, "accuracy-range", f"{printed}: not between the two", *ACCURACY)
    elif row.design:
        share = row.design.positives / (row.design.positives + row.design.negatives)
        low, middle, high = (
            share * a + (1 - share) * b for a, b in zip(*(_low_middle_high(score) for score in both), strict=True)
        )
        if _apart(accuracy.mean.span, (low - slack, high + slack)):
            text = f"{printed}: {row.design.positives} positives and {row.design.negatives} negatives give "
            yield finding(row, "accuracy-weights", f"{text}{_as(accuracy, middle)}", *ACCURACY)


def balanced_apart(row: PrintedRow) -> Iterator[Finding]:
    """Balanced accuracy that is not the mean of sensitivity and specificity."""
    if not row.scores.keys() >= set(BALANCED):
        return
    balanced, *both = (row.scores[name] for name in BALANCED)
    low, middle, high = (sum(ends) / 2 for ends in zip(*(_low_middle_high(score) for score in both), strict=True))
    if _apart(balanced.mean.span, (low - SLACK, high + SLACK)):
        text = f"balanced accuracy {balanced}: sensitivity {both[0]} and specificity {both[1]} give "
        yield finding(row, "balanced-accuracy", f"{text}{_as(balanced, middle)}", *BALANCED)


def sizes_of(design: Design | None) -> dict[str, tuple[Sizes, ...]]:
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
