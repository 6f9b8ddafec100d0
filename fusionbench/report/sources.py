"""What a report is made from: run folders, read once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench.experiment import Comparison, load_comparison
from fusionbench.histories import Epoch
from fusionbench.leaderboard import Leaderboard, Row
from fusionbench.published import Published
from fusionbench.runs import Run, read_runs

Setup = tuple[str, str]
"""Hashes of what a method was asked for but its name and modalities: of the strategies' options, and of all else."""


@dataclass(frozen=True)
class Sources:
    """One or more runs on the same folds, their table, and what lies beside them."""

    board: Leaderboard
    runs: tuple[Run, ...]
    settings: tuple[Comparison, ...]
    """Of each run, without the place of the data."""
    built_in: tuple[bool, ...]
    """Of each run, whether the reader of the data made them up, so that nobody has to have them."""
    card: Mapping[str, Any] | None = None
    """card.json of `fusionbench data card`, if one lies in a run folder and describes these data."""

    @classmethod
    def read(
        cls, *folders: Path, published: Published | None = None, imported: Mapping[str, Path] | None = None
    ) -> Sources:
        """The runs of some folders; UsageError if they cannot be compared."""
        board = Leaderboard.read(*folders, imported=imported)
        runs = tuple(read_runs(folders))
        settings = tuple(load_comparison(folder / "experiment.toml") for folder in folders)
        cards = (_card(folder, runs[0].facts["cohort"]["fingerprint"]) for folder in folders)
        return cls(
            board=board.beside(published) if published else board,
            runs=runs,
            settings=tuple(map(_without_place, settings)),
            built_in=tuple(
                run.facts["cohort"]["synthetic"] and not s.cohort.data for run, s in zip(runs, settings, strict=True)
            ),
            card=next(filter(None, cards), None),
        )

    @property
    def tested(self) -> tuple[Row, ...]:
        """The rows that did not fail."""
        return tuple(row for row in self.board.rows if not row.failed)

    @property
    def synthetic(self) -> bool:
        """Whether nobody's images or tables these are."""
        return bool(self.board.cohort["synthetic"])

    @property
    def made_up(self) -> bool:
        """Whether the data were made up by their reader in every run; else somebody gave them."""
        return all(self.built_in)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The methods whose predictions were made elsewhere: nothing is known of how."""
        return tuple(row.method for row in self.board.rows if self.behind(row) is None)

    @property
    def trained(self) -> tuple[str, ...]:
        """The methods of the runs themselves."""
        return tuple(row.method for row in self.board.rows if self.behind(row) is not None)

    @property
    def positive(self) -> str:
        """The class that sensitivity is about."""
        return str(self.board.cohort["positive_class"])

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """The classes that have a curve: of two the positive one, of more all of them, each against the rest."""
        classes = tuple(self.board.cohort["classes"])
        return classes if len(classes) > 2 else (self.positive,)

    @property
    def inputs(self) -> dict[str, tuple[str, int]]:
        """Modality -> its kind, and its channels or features."""
        return {one["name"]: (one["kind"], one["channels"]) for one in self.board.cohort["inputs"]}

    def behind(self, row: Row) -> tuple[Run, str] | None:
        """The run a row comes from, and what it is called there; None for predictions made elsewhere."""
        return next(self._told_of(row), None)

    def each(self, tell: Callable[[Run, Comparison], str]) -> str:
        """What is to be told of every run: once if it is the same of all, else run by run."""
        told = {run.name: tell(run, asked) for run, asked in zip(self.runs, self.settings, strict=True)}
        if len(set(told.values())) == 1:
            return next(iter(told.values()))
        return "; ".join(f"{name}: {text}" for name, text in told.items())

    def setup(self, row: Row) -> Setup:
        """What rows have in common that differ in modalities alone; of older runs, which do not say, their name."""
        found = self.behind(row)
        if found is None:
            return "", ""
        run, method = found
        told = run.facts["methods"][method].get("setup")
        return (told["strategy"], told["shared"]) if told else (run.name, run.name)

    def told(self, row: Row) -> Mapping[str, Any]:
        """What run.json says of a row; nothing of predictions made elsewhere."""
        found = self.behind(row)
        return found[0].facts["methods"][found[1]] if found else {}

    def history(self, row: Row) -> list[Epoch]:
        """The losses of the fits behind a row."""
        found = self.behind(row)
        return [epoch for epoch in found[0].history if epoch.method == found[1]] if found else []

    def _told_of(self, row: Row) -> Iterator[tuple[Run, str]]:
        for run in self.runs:
            for method, told in run.facts["methods"].items():
                named = row.method in (method, f"{method} ({run.name})")
                if named and told["experiment"] == row.experiment:
                    yield run, method


def _without_place(comparison: Comparison) -> Comparison:
    return comparison.model_copy(update={"cohort": comparison.cohort.model_copy(update={"data": ""})})


def _card(folder: Path, fingerprint: str) -> Mapping[str, Any] | None:
    file = folder / "card.json"
    if not file.is_file():
        return None
    try:
        card: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return card if isinstance(card, dict) and card.get("fingerprint") == fingerprint else None
