"""Predictions: a probability of each class for each subject, in a CSV that compares byte by byte."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusionbench.csvtext import csv_rows, csv_text


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a fit says of some subjects, sorted by id."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """(N, K), rows sum to one."""
    notes: tuple[Mapping[str, str], ...] = field(default=())
    """Per subject, column -> remark."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """(N,) class numbers."""
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[label] for label in self.labels], dtype=np.int64)

    def of(self, ids: Collection[str]) -> Predictions:
        """What is said of these subjects, in the same order."""
        rows = [row for row, id in enumerate(self.ids) if id in ids]
        return Predictions(
            ids=tuple(self.ids[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            classes=self.classes,
            probabilities=self.probabilities[rows],
            notes=tuple(self.notes[row] for row in rows if self.notes),
        )

    def to_csv(self) -> str:
        """Columns subject, label, p_<class> and one per note."""
        columns = sorted({column for note in self.notes for column in note})
        header = ["subject", "label", *(f"p_{name}" for name in self.classes), *columns]
        notes = self.notes or tuple({} for _ in self.ids)
        rows = zip(self.ids, self.labels, self.probabilities.tolist(), notes, strict=True)
        return csv_text(header, ([id, label, *p, *(note.get(c, "") for c in columns)] for id, label, p, note in rows))

    @classmethod
    def from_csv(cls, text: str, classes: tuple[str, ...]) -> Predictions:
        """The inverse of `to_csv`, exact to the last bit."""
        rows = csv_rows(text)
        known = {"subject", "label", *(f"p_{name}" for name in classes)}
        return cls(
            ids=tuple(row["subject"] for row in rows),
            labels=tuple(row["label"] for row in rows),
            classes=classes,
            probabilities=as_table([[float(row[f"p_{name}"]) for name in classes] for row in rows], classes),
            notes=tuple({key: value for key, value in row.items() if key not in known} for row in rows),
        )

    @classmethod
    def joined(cls, parts: Iterable[Predictions], classes: tuple[str, ...]) -> Predictions:
        """Several predictions of different subjects as one, sorted by id.

        Raises ValueError if a subject is in two of them, or if their classes are not these.
        """
        several = list(parts)
        if any(part.classes != classes for part in several):
            raise ValueError(f"predictions of other classes than {classes} cannot be joined")
        rows = {id: (part, row) for part in several for row, id in enumerate(part.ids)}
        if len(rows) < sum(len(part.ids) for part in several):
            raise ValueError("a subject is predicted twice")
        found = [rows[id] for id in sorted(rows)]
        return cls(
            ids=tuple(sorted(rows)),
            labels=tuple(part.labels[row] for part, row in found),
            classes=classes,
            probabilities=as_table([part.probabilities[row] for part, row in found], classes),
            notes=tuple(part.notes[row] for part, row in found if part.notes),
        )


def as_table(rows: Sequence[ArrayLike], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Rows of probabilities as (N, K), also where there are none."""
    return np.array(rows, dtype=np.float64).reshape(-1, len(classes))
