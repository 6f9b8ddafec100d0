"""Runs in, one row per method out: its scores on the shared folds, and what must be known of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fusionbench.comparing import mean_or_nan
from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS
from fusionbench.runs import Result, Run

if TYPE_CHECKING:
    from fusionbench.predictions import Predictions

OUTLINES = {
    "none": (),
    "training": ("trained with tumour outlines",),
    "test": ("given the tumour outlines of test subjects",),
}
IMPORTED = "imported: predictions made elsewhere; what they were trained on is not known here"
SIGN = "*"
"""Behind the method of a row that has a mark, and before the note that says which."""
REUSED = "one prediction stands in several repeats: they are not independent, and tests over folds too sure of it"


@dataclass(frozen=True)
class Row:
    """One method: its scores per fold, or why it has none, and what a reader must know of it."""

    method: str
    experiment: str
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    failed: str = ""
    marks: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the strategy noted of its own work, such as how well it finds the tumour."""
    fusion: str = ""
    modalities: tuple[str, ...] = ()
    attention: str = ""
    backbones: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    """Options of the strategy that are not at their default: then it is not what a paper describes."""
    tested: Mapping[tuple[int, int], Predictions] = field(default_factory=dict, compare=False, repr=False)
    """(repeat, fold) -> what it says of the test subjects."""

    @property
    def title(self) -> str:
        """The method as a table shows it above its notes: with a sign behind it if it has a mark."""
        return f"{self.method}{SIGN}" if self.marks else self.method

    def mean(self, metric: str) -> float:
        """The mean over folds; NaN if it is not defined on one of them, or if the method failed."""
        return mean_or_nan(self.scores.get(metric, ()))

    def std(self, metric: str) -> float:
        """The sample standard deviation over folds (ddof = 1)."""
        scores = self.scores.get(metric, ())
        return statistics.stdev(scores) if len(scores) > 1 and not any(map(math.isnan, scores)) else math.nan


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row per method, and one row for the same fits, whatever they are called.

    UsageError if the runs were not tested on the same folds of the same data, or if two rows would have one name.
    """
    _check_paired(runs)
    rows: dict[tuple[str, ...], Row] = {}
    for run in runs:
        for method in run.facts["methods"]:
            key = _key(run, method)
            shared = all(_key(other, method) == key for other in runs if method in other.facts["methods"])
            row = _row(method if shared else f"{method} ({run.name})", method, run)
            rows[key] = _merged(rows.get(key, row), row)
    _check_names([row.method for row in rows.values()])
    return list(rows.values())


def mark_notes(rows: Sequence[Row]) -> list[str]:
    """Each mark once, with the methods that have it.

    >>> rows = [Row("guidance", "", marks=("saw",)), Row("agg", "", marks=("saw", "drew")), Row("t1", "")]
    >>> mark_notes(rows)
    ['* guidance, agg: saw', '* agg: drew']
    >>> mark_notes(rows[:2])
    ['* all rows: saw', '* agg: drew']
    """
    owners = _owners(rows, ((mark, row.method) for row in rows for mark in row.marks))
    return [f"{SIGN} {who}: {mark}" for mark, who in owners.items()]


def failure_notes(rows: Sequence[Row]) -> list[str]:
    """Each reason once, with the methods that failed for it."""
    owners = _owners(rows, ((row.failed, row.method) for row in rows if row.failed))
    return [f"{who} failed: {why}" for why, who in owners.items()]


def _owners(rows: Sequence[Row], said: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What is said of methods -> of which."""
    owners: dict[str, list[str]] = {}
    for text, method in said:
        owners.setdefault(text, []).append(method)
    return {text: "all rows" if len(who) == len(rows) > 1 else ", ".join(who) for text, who in owners.items()}


def _key(run: Run, method: str) -> tuple[str, ...]:
    """What stands behind a method: its fits, or the run alone if it failed and has not all of them."""
    told = run.facts["methods"][method]
    if told["fits"] and all(told["fits"]) and not told["failed"]:
        return tuple(told["fits"])
    return "", run.name, method, told["experiment"], told["failed"]


def _row(label: str, method: str, run: Run) -> Row:
    told = run.facts["methods"][method]
    asked = {name: told[name] for name in ("fusion", "attention")}
    asked |= {name: tuple(told[name]) for name in ("modalities", "backbones", "altered")}
    if told["failed"]:
        return Row(label, told["experiment"], failed=told["failed"], marks=_marks(told), **asked)
    results = sorted((r for r in run.results if r.method == method and r.predictions), key=_place)
    tested = {_place(r): r.predictions for r in results if r.predictions}
    positive = run.facts["cohort"]["positive_class"]
    scores = {name: tuple(metric(p, positive) for p in tested.values()) for name, metric in METRICS.items()}
    remarks = tuple(f"{column.replace('_', ' ')} {text}" for column, text in told["remarks"].items())
    return Row(label, told["experiment"], scores, marks=_marks(told), remarks=remarks, tested=tested, **asked)


def _marks(told: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *(["selection saw the test folds"] if told["saw_test_folds"] else []),
        *OUTLINES[told["outlines"]],
        *([IMPORTED] if told.get("imported") else []),
        *([REUSED] if told.get("reused") else []),
    )


def _place(result: Result) -> tuple[int, int]:
    return result.repeat, result.fold


def _merged(known: Row, row: Row) -> Row:
    """A row that stands for another of the same fits, too."""
    also = [f"also called {row.method}: the same fits"] if row.method != known.method else []
    return replace(
        known,
        marks=tuple(dict.fromkeys((*known.marks, *row.marks))),
        remarks=tuple(dict.fromkeys((*known.remarks, *also))),
    )


def _check_names(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two methods would be called {twice[0]!r}: give each run, and each import, a name of its own")


def _check_paired(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.facts["refit"]:
            raise UsageError(
                f"{run.name} was trained on everybody, so nothing was tested and there is nothing to rank: "
                f"`fusionbench predict {run.name} --data NEW` is what it is for"
            )
    first, *others = runs
    for other in others:
        for what, a, b in (
            ("folds", first.facts["folds"]["digest"], other.facts["folds"]["digest"]),
            ("data", first.facts["cohort"]["fingerprint"], other.facts["cohort"]["fingerprint"]),
        ):
            if a != b:
                raise UsageError(
                    f"{first.name} and {other.name} have different {what}, so their scores are not paired: "
                    f"run both with the same --data, --folds and --fold-seed"
                )
