"""How far probabilities can be taken at their word, in numbers: recalibration, and what the Brier score is made of."""

from __future__ import annotations

from fusionbench.comparing import Calibration, calibration, mean_or_nan, pooled
from fusionbench.leaderboard import Row
from fusionbench.report.document import Cell, Table, number
from fusionbench.report.sources import Sources

HEADER = ("Intercept", "Slope", "Brier score", "Miscalibration", "Discrimination", "Uncertainty")


def reliability_table(sources: Sources) -> Table:
    """A row per method and class that is shown: the test folds of a repeat pooled, the mean over repeats."""
    classes = sources.shown_classes
    several = len(classes) > 1
    of = "each class against the rest" if several else f"positive class {sources.positive}"
    return Table(
        name="recalibration",
        caption=(
            f"Calibration, {of}: of the test folds of a repeat pooled, the mean over repeats; pooling mixes models, "
            "and no interval is known. Intercept: what must be added to all log odds; 0 is right, below 0 the class is "
            "given too often. Slope: 1 is right, below 1 probabilities are too extreme; empty where the classes are "
            "separated. Brier score = miscalibration − discrimination + uncertainty; miscalibration, what the best "
            "monotone recalibration would take off, is optimistic on few subjects."
        ),
        header=("Method", *(["Class"] if several else []), *HEADER),
        rows=tuple(
            (Cell(row.method), *([Cell(name)] if several else []), *_numbers(row, name))
            for row in sources.tested
            for name in classes
        ),
        sortable=True,
        left=1 + several,
    )


def _numbers(row: Row, name: str) -> tuple[Cell, ...]:
    """Of one class against the rest; empty where a repeat has no such number."""
    repeats = [_columns(calibration(part, name)) for part in pooled(row.tested)]
    return tuple(number(mean_or_nan(several)) for several in zip(*repeats, strict=True))


def _columns(found: Calibration) -> tuple[float, ...]:
    """In the order of HEADER."""
    brier = found.brier, found.miscalibration, found.discrimination, found.uncertainty
    return (found.intercept, found.slope, *brier)
