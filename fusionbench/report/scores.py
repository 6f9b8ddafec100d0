"""The tables of scores: how well each method does, where it may stand, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fusionbench.comparing import ENOUGH_SCORES, Estimate, Findings, Interval
from fusionbench.leaderboard import SHOWN, Row, mean_std
from fusionbench.metrics import METRICS
from fusionbench.report.costs import Cost, cost
from fusionbench.report.document import Cell, Table, number
from fusionbench.report.sources import Sources

NAMES: Mapping[str, str] = {
    "roc_auc": "ROC-AUC",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece": "Calibration error",
}
"""Metric -> as a reader knows it."""
NARROWLY = 0.02
"""From this adjusted p-value on a separation is said to be narrow: of equal methods the test separates more than one
pair in twenty there (docs/evaluation.md)."""
MAIN = (*SHOWN[:2], *SHOWN[3:])
OTHER = tuple(name for name in METRICS if name not in MAIN)
DELONG = "ROC-AUC, DeLong's interval"


def performance(sources: Sources) -> Table:
    """The leaderboard: rank interval, and the metrics that are read first, with what is known of them."""
    board, findings = sources.board, sources.board.findings
    estimates = {e.method: e for e in findings.estimates} if findings else {}
    printed = [
        c for c in board.columns(MAIN) if c not in METRICS and any(board.cells(r, [c])[0] for r in sources.tested)
    ]
    ranks = ["Rank"] if board.standings else []
    return Table(
        name="leaderboard",
        caption=_performance_caption(sources),
        header=("Method", *ranks, *(NAMES[name] for name in MAIN), *map(_printed_name, printed)),
        rows=tuple(
            (
                _method(row),
                *([_rank(sources, row)] if ranks else []),
                *(_score(row, name, estimates.get(row.method), sources) for name in MAIN),
                *(Cell(board.cells(row, [column])[0]) if not row.failed else Cell("") for column in printed),
            )
            for row in board.rows
        ),
        sortable=True,
    )


def further(sources: Sources) -> Table:
    """The other metrics with their intervals, and DeLong's of the ROC-AUC where there are two classes."""
    findings = sources.board.findings
    estimates = {e.method: e for e in findings.estimates} if findings else {}
    delong = any(ends(estimate.delong) for estimate in estimates.values())
    return Table(
        name="further",
        caption=_further_caption(delong=delong),
        header=("Method", *(NAMES[name] for name in OTHER), *([DELONG] if delong else [])),
        rows=tuple(
            (
                Cell(row.method),
                *(_score(row, name, estimates.get(row.method), sources) for name in OTHER),
                *([_delong(estimates.get(row.method))] if delong else []),
            )
            for row in sources.board.rows
        ),
        sortable=True,
    )


def costs(sources: Sources) -> Table:
    """What the methods cost."""
    return Table(
        name="cost",
        caption=(
            "Cost. Training: mean seconds of one fold, in brackets with the fits that the method builds on; ranking "
            "the modalities is not counted. Inference: milliseconds per subject from preprocessed data. Memory: the "
            "most that the process or its GPU had held, an upper bound."
        ),
        header=("Method", "Parameters", "Training, s", "Inference, ms", "Memory, MiB"),
        rows=tuple((Cell(row.method), *_costs(cost(sources, row))) for row in sources.board.rows),
        sortable=True,
    )


def classes_line(counts: Mapping[str, int]) -> str:
    """Counts per class.

    >>> classes_line({"HGG": 89, "LGG": 31})
    '89 HGG, 31 LGG'
    """
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def readable(note: str) -> str:
    """A note with its metrics as a reader knows them.

    >>> readable("2 of 3 pairs differ in roc_auc")
    '2 of 3 pairs differ in ROC-AUC'
    """
    for name, shown in NAMES.items():
        note = note.replace(name, shown) if "_" in name else note
    return note


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.0312), signed(-0.1), signed(math.nan)
    ('+0.031', '−0.100', '')
    """
    return "" if math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def measured(value: float) -> str:
    """A time with two digits that count.

    >>> measured(0.0187), measured(1.32), measured(341.2)
    ('0.019', '1.3', '341')
    """
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def p_text(p: float) -> str:
    """A p-value as journals print it.

    >>> p_text(0.0312), p_text(0.0001), p_text(1.0)
    ('0.031', '<0.001', '1.000')
    """
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def ends(interval: Interval | tuple[float, float]) -> str:
    """An interval as text, empty if it is not known.

    >>> ends((-0.701, 0.8246))
    '−0.701 to 0.825'
    """
    low, high = (interval.low, interval.high) if isinstance(interval, Interval) else interval
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.3f} to {high:.3f}".replace("-", "−")


def why_untested(findings: Findings) -> str:
    """Why no test over the folds can separate methods, in sentences; for findings of which that is so."""
    if findings.undefined:
        return f"{NAMES[findings.metric]} is not defined on every test fold, so no test can separate methods by it."
    if findings.folds == 1:
        return "There is a single test part, so no test over folds can separate methods."
    return (
        f"Too few folds to separate methods: {findings.folds} fold scores each, {ENOUGH_SCORES} are needed; repeat the "
        "cross-validation."
    )


def _performance_caption(sources: Sources) -> str:
    folds = len(next((row.scores["roc_auc"] for row in sources.tested), ()))
    synthetic = "SYNTHETIC DATA. " if sources.synthetic else ""
    ranks = (
        "Rank: the places a method may have, given which pairs the test separates. " if sources.board.standings else ""
    )
    several = len(sources.shown_classes) > 1
    of = "means over the classes, each against the rest" if several else f"positive class {sources.positive}"
    decided = "decisions for the most probable" if several else "decisions at 0.5"
    return (
        f"{synthetic}{_ordered_by(sources, folds)}; {of}; {decided}. {ranks}Below sensitivity and specificity of two "
        "classes Wilson's 95 % interval, pooled over the test folds; below the others that of a patient bootstrap; all "
        "are conditional on the fitted models."
    )


def _further_caption(*, delong: bool) -> str:
    another = (
        " DeLong's 95 % interval is of the mean ROC-AUC over the test folds, beside that of the bootstrap in the table "
        "above, and conditional on the fitted models as well."
        if delong
        else ""
    )
    return (
        "Further scores, mean ± sample standard deviation over the test folds. Brier score and calibration error: the "
        "lower the better. Below the accuracy Wilson's 95 % interval, pooled over the test folds; below the others "
        "that of a patient bootstrap; all are conditional on the fitted models. A calibration error is the higher the "
        "fewer subjects it is of, in a test fold and again when patients are drawn, so its interval lies too high and "
        f"may leave the score out.{another}"
    )


def _ordered_by(sources: Sources, folds: int) -> str:
    findings = sources.board.findings
    if findings and findings.undefined:
        return f"Methods by the ROC-AUC of {folds} test folds pooled; mean ± sample standard deviation over the folds"
    if folds == 1:
        return "Methods by ROC-AUC on the one test part"
    return f"Methods by mean ROC-AUC over {folds} test folds, ± sample standard deviation"


def _printed_name(column: str) -> str:
    return f"Published {NAMES[column.removeprefix('published ')].lower()}"


def _method(row: Row) -> Cell:
    return Cell(row.method, note="; ".join(row.marks))


def _rank(sources: Sources, row: Row) -> Cell:
    standing = sources.board.standings.get(row.method)
    return Cell(standing.ranks.replace("-", "–"), standing.rank_low) if standing else Cell("")


def _score(row: Row, name: str, estimate: Estimate | None, sources: Sources) -> Cell:
    if row.failed:
        return Cell("failed") if name in (MAIN[0], OTHER[0]) else Cell("")
    interval = estimate.intervals.get(name) if estimate else None
    best = name == MAIN[0] and row is sources.board.rows[0]
    value = number(row.mean(name)).value
    return Cell(mean_std(row.mean(name), row.std(name)), value, ends(interval) if interval else "", strong=best)


def _delong(estimate: Estimate | None) -> Cell:
    return Cell(ends(estimate.delong), number(estimate.delong.low).value) if estimate else Cell("")


def _costs(told: Cost) -> tuple[Cell, ...]:
    own, whole = told.seconds, told.seconds_with_parents
    several = "" if math.isnan(own) or whole - own < 0.05 * own else f" ({measured(whole)})"
    training = Cell("") if math.isnan(own) else Cell(f"{measured(own)}{several}", whole)
    each = told.seconds_per_subject * 1000
    inference = Cell("") if math.isnan(each) else Cell(measured(each), each)
    parameters = Cell("") if math.isnan(told.parameters) else Cell(f"{told.parameters:,.0f}", told.parameters)
    return parameters, training, inference, number(told.memory_bytes / 2**20, 0)
