"""Which rows have the numbers that a rule needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fusionbench.auditing.equality import likeness
from fusionbench.auditing.foldcounts import deviations
from fusionbench.auditing.rules import ACCURACY, BALANCED, in_range, sizes_of
from fusionbench.auditing.scoretables import PrintedRow
from fusionbench.auditing.together import Search
from fusionbench.auditing.wholetable import telling_deviations


def checked(row: PrintedRow, search: Search, limit: float, *, strict: bool) -> Iterator[str]:
    """The rules that a row was held to, as it was searched, with the rounding and the strictness of its table."""
    sound, known = in_range(row), likeness(in_range(row))
    yield from (rule for rule, needs in PRINTED.items() if needs(row))
    yield from (rule for rule, needs in SOUND.items() if needs(sound))
    others = {
        "row-counts": search.done,
        "digits": strict and bool(row.scores),
        "auc-is-balanced-accuracy": known is not None and known.rounding <= limit,
    }
    yield from (rule for rule, done in others.items() if done)


def _has_deviation(row: PrintedRow) -> bool:
    return any(score.std for score in row.scores.values())


def _has_counted_deviation(row: PrintedRow) -> bool:
    """Whether the possible deviations of a sensitivity, specificity or accuracy are few enough to be known."""
    return row.folds != 1 and any(
        score.std and any(deviations(sizes, score.mean.span) is not None for sizes in choices)
        for metric, choices in sizes_of(row.design).items()
        if (score := row.scores.get(metric))
    )


PRINTED: Mapping[str, Callable[[PrintedRow], bool]] = {
    "range": lambda row: bool(row.scores),
    "negative-deviation": _has_deviation,
}
"""Rule -> whether a row as printed has what it needs."""
SOUND: Mapping[str, Callable[[PrintedRow], bool]] = {
    "deviation-bound": lambda row: row.folds != 1 and _has_deviation(row),
    "same-deviations": lambda row: bool(telling_deviations(row)),
    "accuracy-range": lambda row: row.scores.keys() >= set(ACCURACY),
    "accuracy-weights": lambda row: row.design is not None and row.scores.keys() >= set(ACCURACY),
    "balanced-accuracy": lambda row: row.scores.keys() >= set(BALANCED),
    "fold-counts": lambda row: bool(sizes_of(row.design).keys() & row.scores.keys()),
    "zero-deviation": _has_counted_deviation,
}
"""The same of a row without what is out of range."""
RULES = (*PRINTED, *SOUND, "row-counts", "digits", "auc-is-balanced-accuracy")
"""Every rule, in the order in which they are told."""
