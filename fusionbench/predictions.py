"""Predictions: a probability of each class for each subject, in a CSV that compares byte by byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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

    def to_csv(self) -> str:
        """Columns subject, label, p_<class> and one per note; floats by repr."""
        columns = sorted({column for note in self.notes for column in note})
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", "label", *(f"p_{name}" for name in self.classes), *columns])
        for index, (subject, label) in enumerate(zip(self.ids, self.labels, strict=True)):
            remarks = [self.notes[index].get(column, "") for column in columns]
            writer.writerow([subject, label, *map(repr, self.probabilities[index].tolist()), *remarks])
        return file.getvalue()

    @classmethod
    def from_csv(cls, text: str, classes: tuple[str, ...]) -> Predictions:
        """The inverse of `to_csv`, exact to the last bit."""
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        known = {"subject", "label", *(f"p_{name}" for name in classes)}
        return cls(
            ids=tuple(row["subject"] for row in rows),
            labels=tuple(row["label"] for row in rows),
            classes=classes,
            probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]),
            notes=tuple({key: value for key, value in row.items() if key not in known} for row in rows),
        )

    @classmethod
    def joined(cls, parts: Iterable[Predictions], classes: tuple[str, ...]) -> Predictions:
        """Several predictions of different subjects as one, sorted by id."""
        several = list(parts)
        rows = sorted(
            (subject, label, index, row)
            for index, part in enumerate(several)
            for row, (subject, label) in enumerate(zip(part.ids, part.labels, strict=True))
        )
        return cls(
            ids=tuple(subject for subject, *_ in rows),
            labels=tuple(label for _, label, *_ in rows),
            classes=classes,
            probabilities=np.array([several[i].probabilities[row] for *_, i, row in rows]).reshape(-1, len(classes)),
        )
