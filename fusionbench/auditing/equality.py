"""Whether a printed AUC is balanced accuracy, (sensitivity + specificity) / 2, and how often chance makes it so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusionbench.auditing.foldcounts import SLACK
from fusionbench.auditing.rules import Finding, finding
from fusionbench.auditing.scoretables import PrintedRow

FINE = 0.0025
"""Equality within this says something of one row."""
COARSE = 0.0105
"""Equality within this, as of two decimals, only if all rows have it."""
ENOUGH_ROWS = 3
"""So many rows at least."""
THREE = ("auc", "sensitivity", "specificity")
"""The numbers that are compared."""


@dataclass(frozen=True)
class Likeness:
    """The AUC of a row beside the mean of its sensitivity and specificity."""

    equal: bool
    """Within rounding, as if all three were rounded."""
    rounding: float
    """How far rounding alone may take the two apart."""
    chance: float
    """The probability of `equal` if the AUC lay anywhere among the areas under curves through the operating point."""


def has_three(row: PrintedRow) -> bool:
    """Whether AUC, sensitivity and specificity are printed."""
    return row.scores.keys() >= set(THREE)


def likeness(row: PrintedRow) -> Likeness | None:
    """The AUC of a row compared; None where a number is missing, or sensitivity and specificity are each 0 or 1.

    There all decisions are right or all the same, and a real AUC is 1 or may be one half. A ROC curve that rises
    through (1 - C, S) has an area from S C to 1 - (1 - S) (1 - C), which is S + C - 2 S C wide.
    """
    if not has_three(row):
        return None
    auc, found, kept = (row.scores[name].mean for name in THREE)
    if {found.value, kept.value} <= {0.0, 1.0}:
        return None
    rounding = auc.unit / 2 + (found.unit + kept.unit) / 4
    width = found.value + kept.value - 2 * found.value * kept.value
    equal = abs(auc.value - (found.value + kept.value) / 2) <= rounding + SLACK
    return Likeness(equal, rounding, min(1.0, 2 * rounding / width))


def coarsest(rows: Sequence[PrintedRow]) -> float:
    """The largest rounding with which an equality in these rows is a finding: coarse if every row has it."""
    known = [known for row in rows if (known := likeness(row))]
    return COARSE if len(known) >= ENOUGH_ROWS and all(one.equal for one in known) else FINE


def balanced_as_auc(row: PrintedRow, limit: float) -> Iterator[Finding]:
    """An AUC that is balanced accuracy, where rounding is within the limit."""
    known = likeness(row)
    if not known or not known.equal or known.rounding > limit:
        return
    auc, found, kept = (row.scores[name] for name in THREE)
    text = f"AUC {auc} is ({found.mean.text} + {kept.mean.text}) / 2 within rounding: "
    text += "this is balanced accuracy at one threshold"
    yield finding(row, "auc-is-balanced-accuracy", text, *THREE)
