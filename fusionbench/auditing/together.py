"""Whether the numbers of a row can be all at once: every choice of right decisions in its folds gone through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusionbench.auditing.equality import FINE, likeness
from fusionbench.auditing.foldcounts import Design, fold_sizes, possible_row, told
from fusionbench.auditing.rules import Finding, finding
from fusionbench.auditing.scoretables import Printed, PrintedRow

SEARCHED = ("sensitivity", "specificity", "accuracy", "balanced_accuracy")
"""The metrics that counts of right decisions give together."""


@dataclass(frozen=True)
class Search:
    """What all counts say of a row."""

    done: bool = False
    """The row has enough numbers, and the counts are few enough to go through."""
    too_many: bool = False
    """They are not."""
    finding: Finding | None = None
    """No counts give what was printed."""
    auc_apart: bool = False
    """Some do, but none that have the AUC as balanced accuracy."""


def search(row: PrintedRow) -> Search:
    """Every choice of counts tried on a row in which no single number is impossible.

    An AUC that equals balanced accuracy is tried as such. That it does not fit is no finding: it may be a real AUC.
    """
    printed = {metric: score for metric, score in row.scores.items() if metric in SEARCHED}
    as_such = _auc_as_balanced(row) | printed
    if not row.design or not _enough(as_such):
        return Search()
    possible = _possible(row, row.design, as_such)
    if possible is not False:
        return Search(done=bool(possible), too_many=possible is None)
    if _possible(row, row.design, printed) is not False:
        return Search(done=True, auc_apart=True)
    return Search(done=True, finding=_impossible(row, row.design, printed))


def _auc_as_balanced(row: PrintedRow) -> dict[str, Printed]:
    known = likeness(row)
    return {"balanced_accuracy": row.scores["auc"]} if known and known.equal and known.rounding <= FINE else {}


def _enough(scores: Mapping[str, Printed]) -> bool:
    return len(scores) > 2 and {"sensitivity", "specificity"} <= scores.keys()


def _possible(row: PrintedRow, design: Design, scores: Mapping[str, Printed]) -> bool | None:
    """Whether some counts give all of these; None if they are too many to go through."""
    means = {metric: score.mean.span for metric, score in scores.items()}
    stds = {metric: score.std.span for metric, score in scores.items() if score.std and row.folds != 1}
    return possible_row(design, means, stds)


def _impossible(row: PrintedRow, design: Design, scores: Mapping[str, Printed]) -> Finding:
    positives, negatives = (told(fold_sizes(count, design.folds)) for count in (design.positives, design.negatives))
    printed = ", ".join(f"{metric} {score}" for metric, score in scores.items())
    text = f"{printed}: no counts in {positives} positives and {negatives} negatives give all of these"
    return finding(row, "row-counts", text, *scores)
