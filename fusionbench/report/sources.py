"""What a report is made from: run folders, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench.experiment import Comparison, load_comparison
from fusionbench.histories import Epoch
from fusionbench.leaderboard import Leaderboard, Row
from fusionbench.published import Published
from fusionbench.runs import Run, read_run


@dataclass(frozen=True)
class Sources:
    """One or more runs on the same folds, their table, and what lies beside them."""

    board: Leaderboard
    runs: tuple[Run, ...]
    settings: tuple[Comparison, ...]
    """Of each run, without the place of the data."""
    card: Mapping[str, Any] | None = None
    """card.json of `fusionbench data card`, if one lies in a run folder and describes these data."""

    @classmethod
    def read(
        cls, *folders: Path, published: Published | None = None, imported: Mapping[str, Path] | None = None
    ) -> Sources:
        """The runs of some folders; UsageError if they cannot be compared."""
        board = Leaderboard.read(*folders, imported=imported)
        runs = tuple(map(read_run, folders))
        cards = (_card(folder, runs[0].facts["cohort"]["fingerprint"]) for folder in folders)
        return cls(
            board=board.beside(published) if published else board,
            runs=runs,
            settings=tuple(_settings(folder) for folder in folders),
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
        for run in self.runs:
            for method, told in run.facts["methods"].items():
                if told["experiment"] == row.experiment and (
                    row.method == method or row.method.startswith(f"{method} (")
                ):
                    return run, method
        return None

    def told(self, row: Row) -> Mapping[str, Any]:
        """What run.json says of a row; nothing of predictions made elsewhere."""
        found = self.behind(row)
        return found[0].facts["methods"][found[1]] if found else {}

    def history(self, row: Row) -> list[Epoch]:
        """The losses of the fits behind a row."""
        found = self.behind(row)
        return [epoch for epoch in found[0].history if epoch.method == found[1]] if found else []


def _settings(folder: Path) -> Comparison:
    comparison = load_comparison(folder / "experiment.toml")
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
