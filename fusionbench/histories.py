"""How the loss of each method fell: a line per epoch, for the fits that the table is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from fusionbench.csvtext import csv_rows, csv_text, number

if TYPE_CHECKING:
    from fusionbench.engine import Outcome


@dataclass(frozen=True)
class Epoch:
    """The mean loss per training subject in one epoch of the fit that a method is tested with on a fold."""

    method: str
    repeat: int
    fold: int
    stage: str
    epoch: int
    """From 0 in each stage."""
    loss: float


def epochs_of(outcome: Outcome) -> Iterator[Epoch]:
    """Every epoch behind a row of the table, by method, repeat and fold; what ranks modalities is not among them."""
    tested = [row for row in outcome.plan.rows if row.key in outcome.histories]
    for row in sorted(tested, key=lambda row: (row.experiment.label, row.fold.repeat, row.fold.number)):
        for told in outcome.histories[row.key]:
            where = (row.experiment.label, row.fold.repeat, row.fold.number)
            yield Epoch(*where, told["stage"], int(told["epoch"]), float(told["loss"]))


def history_csv(epochs: Iterable[Epoch]) -> str:
    """Columns method, repeat, fold, stage, epoch, loss; floats by repr."""
    return csv_text([field.name for field in fields(Epoch)], [astuple(epoch) for epoch in epochs])


def read_history(text: str) -> tuple[Epoch, ...]:
    """The inverse of `history_csv`."""
    return tuple(
        Epoch(row["method"], int(row["repeat"]), int(row["fold"]), row["stage"], int(row["epoch"]), number(row["loss"]))
        for row in csv_rows(text)
    )
