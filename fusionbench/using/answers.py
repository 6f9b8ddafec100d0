"""What trained models say of new subjects: each fit's word, the mean of all, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.csvtext import csv_text
from fusionbench.jsontext import json_text
from fusionbench.metrics import decide
from fusionbench.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the fits of one method say of some subjects, and whom they refuse."""

    method: str
    members: tuple[Predictions, ...]
    """One per fit, of the same subjects in the same order."""
    refused: Mapping[str, str]
    """Subject -> why nothing is said of it."""

    @cached_property
    def mean(self) -> Predictions:
        """The mean of the probabilities over the fits, with the remarks of all of them."""
        first = self.members[0]
        table = np.stack([member.probabilities for member in self.members])  # (fits, N, K)
        notes = tuple(_together([m.notes[row] for m in self.members if m.notes]) for row in range(len(first.ids)))
        return Predictions(first.ids, first.labels, first.classes, table.mean(0), notes)

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """(N, K) the sample standard deviation over the fits (ddof = 1); NaN where there is one fit."""
        table = np.stack([member.probabilities for member in self.members])
        return table.std(0, ddof=1) if len(self.members) > 1 else np.full(table.shape[1:], math.nan)

    def decided(self, positive_class: str) -> tuple[str, ...]:
        """The predicted class of each subject, decided as the metrics decide."""
        classes = self.mean.classes
        return tuple(classes[number] for number in decide(self.mean.probabilities, classes.index(positive_class)))


@dataclass(frozen=True, eq=False)
class Answers:
    """The opinions of some methods of a run on one set of subjects, with what must be known to read them."""

    run: str
    classes: tuple[str, ...]
    positive_class: str
    labels: Mapping[str, str]
    """Subject -> its class, or '' where it is not known; those who were refused as well."""
    opinions: tuple[Opinion, ...]
    notes: tuple[str, ...]

    def to_csv(self) -> str:
        """A row per method and subject: probabilities, their deviation over the fits, the decision, or why none.

        Columns method, subject, label, p_<class>, std_<class>, fits, predicted, refused and notes; floats by repr.
        """
        header = [
            "method",
            "subject",
            "label",
            *(f"{column}_{name}" for column in ("p", "std") for name in self.classes),
        ]
        rows = []
        for told in self._subjects():
            numbers = [told[column].get(name, "") for column in ("probabilities", "std") for name in self.classes]
            ending = [told["fits"], told["predicted"], told["refused"], told["notes"]]
            rows.append([told["method"], told["subject"], told["label"], *(_cell(n) for n in numbers), *ending])
        return csv_text([*header, "fits", "predicted", "refused", "notes"], rows)

    def to_json(self) -> str:
        """Everything, subject by subject; a deviation is null where there is one fit."""
        told = {
            "run": self.run,
            "classes": self.classes,
            "positive_class": self.positive_class,
            "notes": self.notes,
            "predictions": list(self._subjects()),
        }
        return json_text(told)

    def columns(self) -> tuple[str, ...]:
        """The header of `lines`: of two classes the positive one is enough."""
        return ("method", "subject", "predicted", *(f"p({name})" for name in self._shown), "fits", "")

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The rows of a table to look at: probabilities as mean ± deviation, and why nobody predicts a subject."""
        for told in self._subjects():
            texts = [_text(told["probabilities"].get(name), told["std"].get(name)) for name in self._shown]
            why = f"refused: {told['refused']}" if told["refused"] else told["notes"]
            yield (told["method"], told["subject"], told["predicted"], *texts, str(told["fits"]), why)

    @property
    def _shown(self) -> Sequence[str]:
        return (self.positive_class,) if len(self.classes) == 2 else self.classes

    def _subjects(self) -> Iterator[dict[str, Any]]:
        for opinion in self.opinions:
            decided = dict(zip(opinion.mean.ids, opinion.decided(self.positive_class), strict=True))
            rows = {id: row for row, id in enumerate(opinion.mean.ids)}
            for id in sorted({*rows, *opinion.refused}):
                probabilities = opinion.mean.probabilities[rows[id]].tolist() if id in rows else []
                spread = opinion.spread[rows[id]].tolist() if id in rows else []
                remarks = opinion.mean.notes[rows[id]] if id in rows else {}
                yield {
                    "method": opinion.method,
                    "subject": id,
                    "label": self.labels[id],
                    "probabilities": dict(zip(self.classes, probabilities, strict=False)),
                    "std": dict(zip(self.classes, spread, strict=False)),
                    "fits": len(opinion.members) if id in rows else 0,
                    "predicted": decided.get(id, ""),
                    "refused": opinion.refused.get(id, ""),
                    "notes": "; ".join(f"{column}={text}" for column, text in sorted(remarks.items()) if text),
                }


def _together(several: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """
    >>> _together([{"box": ""}, {"box": "fallback"}, {"box": "fallback"}])
    {'box': 'fallback'}
    """
    columns = sorted({column for note in several for column in note})
    said = {column: dict.fromkeys(note[column] for note in several if note.get(column)) for column in columns}
    return {column: "|".join(texts) for column, texts in said.items()}


def _cell(number: float | str | None) -> float | str:
    return "" if number is None else number


def _text(mean: float | None, std: float | None) -> str:
    """
    >>> _text(0.9, 0.1), _text(0.9, None), _text(None, None)
    ('0.900 ± 0.100', '0.900', '')
    """
    return " ± ".join(f"{number:.3f}" for number in (mean, std) if number is not None)
