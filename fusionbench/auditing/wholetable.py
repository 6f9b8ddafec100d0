"""The rules of a whole table: numbers that differ from their column, deviations that do not differ at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from fusionbench.auditing.equality import ENOUGH_ROWS, FINE
from fusionbench.auditing.rules import Finding, finding
from fusionbench.auditing.scoretables import PROGRAM_FROM, Number, PrintedRow

EVERYBODY = "every method"
"""Whom a finding about a whole table names."""


def keeps_zeros(rows: Sequence[PrintedRow]) -> bool:
    """Whether these rows keep trailing zeros, and no program wrote them: only then do missing digits say something."""
    numbers = [number for row in rows for _, number in _numbers(row)]
    return any(n.decimals > 1 and n.text.endswith("0") for n in numbers) and all(
        n.decimals < PROGRAM_FROM for n in numbers
    )


def other_digits(rows: Sequence[PrintedRow]) -> Callable[[PrintedRow], Iterator[Finding]]:
    """The rule for these rows: as many decimals as most numbers of the kind, where the table keeps trailing zeros."""
    strict = keeps_zeros(rows)
    counts = Counter((kind, number.decimals) for row in rows for kind, number in _numbers(row))
    usual = {kind: decimals for (kind, decimals), _ in sorted(counts.items(), key=lambda item: (item[1], item[0][1]))}

    def rule(row: PrintedRow) -> Iterator[Finding]:
        for (metric, part), number in _numbers(row):
            expected = usual[metric, part]
            if strict and number.decimals != expected:
                text = f"{metric} {row.scores[metric]}: {number.text} has {number.decimals} decimals, "
                yield finding(row, "digits", f"{text}most numbers of this column {expected}", metric)

    return rule


def telling_deviations(row: PrintedRow) -> list[Number]:
    """The deviations that ought to differ: over folds, printed finely, of means that are neither 0 nor 1."""
    scores = [score for score in row.scores.values() if score.std and 0 < score.mean.value < 1]
    return [score.std for score in scores if score.std and score.std.unit <= FINE and row.folds != 1]


def same_deviations(rows: Sequence[PrintedRow]) -> Iterator[Finding]:
    """A table of a data set whose deviations are all the same number, as zero."""
    for dataset, table in dict.fromkeys((row.dataset, row.table) for row in rows):
        several = [telling_deviations(row) for row in rows if (row.dataset, row.table) == (dataset, table)]
        known = [number for numbers in several for number in numbers]
        if sum(map(bool, several)) >= ENOUGH_ROWS and len({number.value for number in known}) == 1:
            text = (
                f"all {len(known)} deviations are {known[0].text}: scores of several folds do not agree so; a single "
                "fold, a single run, or a copied number?"
            )
            yield Finding("same-deviations", EVERYBODY, dataset, table, text)


def _numbers(row: PrintedRow) -> Iterator[tuple[tuple[str, str], Number]]:
    """((metric, mean or std), number) of each number of a row."""
    for metric, score in row.scores.items():
        yield (metric, "mean"), score.mean
        if score.std:
            yield (metric, "std"), score.std
