"""How methods do on the subjects that have the same modalities, where some lack one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from fusionbench.comparing import mean_or_nan, pooled
from fusionbench.csvtext import csv_text
from fusionbench.errors import UsageError
from fusionbench.jsontext import json_text
from fusionbench.leaderboard import SHOWN, mean_std
from fusionbench.markdown import markdown_table
from fusionbench.metrics import METRICS
from fusionbench.predictions import Predictions
from fusionbench.runs import Run

FEWEST = 2
"""Sets of modalities with fewer subjects of a class are scored together: most scores are not defined on them."""
NARROW = tuple(name for name in SHOWN if name != "accuracy")
"""The metrics of a table to look at."""


@dataclass(frozen=True)
class SubsetScores:
    """One method on the subjects that have exactly these modalities, or on the small sets of them together.

    Scores are pooled over the test folds of a repeat, since a fold has few of a kind, and are the mean over repeats.
    """

    run: str
    method: str
    available: tuple[str, ...]
    """Empty of those that have none, and of small sets together."""
    sets: int
    """How many sets of modalities these subjects have: 1 unless they are small ones together."""
    counts: Mapping[str, int]
    """Class -> subjects."""
    scores: Mapping[str, float]
    """Metric -> score; NaN where it is not defined, as with one class only."""

    @property
    def has(self) -> str:
        """What the subjects have, as a table shows it."""
        return f"others ({self.sets} sets)" if self.sets > 1 else "+".join(self.available) or "none"


@dataclass(frozen=True)
class Subsets:
    """The scores of methods by what subjects have, a line per method and set of modalities."""

    lines: tuple[SubsetScores, ...]

    @classmethod
    def of(cls, *runs: Run) -> Subsets:
        """Those of some runs, one run after the other; UsageError if all subjects of one have every modality."""
        return cls(tuple(line for run in runs for line in by_available(run)))

    def header(self) -> list[str]:
        """The columns of `rows`."""
        return [*(["run"] if self._several else []), "method", "has", "subjects", *NARROW]

    def rows(self) -> Iterator[list[str]]:
        """Cells of a table to look at: empty where a score is not defined."""
        for line in self.lines:
            counts = ", ".join(f"{number} {name}" for name, number in line.counts.items())
            scores = (mean_std(line.scores[name], None) for name in NARROW)
            yield [*([line.run] if self._several else []), line.method, line.has, counts, *scores]

    def notes(self) -> list[str]:
        """What must be known to read the table."""
        small = f"others: sets with fewer than {FEWEST} subjects of a class, together"
        return [
            "pooled over the test folds, mean over repeats; empty: not defined for one class; decisions at .5",
            *([small] if any(line.sets > 1 for line in self.lines) else []),
        ]

    def to_csv(self) -> str:
        """run, method, has, n_<class>, and every metric; floats by repr, empty where one is not defined."""
        classes = list(dict.fromkeys(name for line in self.lines for name in line.counts))
        header = ["run", "method", "has", *(f"n_{name}" for name in classes), *METRICS]
        rows = (
            [line.run, line.method, line.has, *(line.counts.get(name, 0) for name in classes)]
            + [line.scores[name] for name in METRICS]
            for line in self.lines
        )
        return csv_text(header, rows)

    def to_markdown(self) -> str:
        """The table to look at, with its notes below."""
        notes = "\n".join(f"- {note}" for note in self.notes())
        return f"{markdown_table(self.header(), list(self.rows()))}\n\n{notes}\n"

    def to_json(self) -> str:
        """Every line, with every metric; null where one is not defined."""
        return json_text({"notes": self.notes(), "rows": [{**asdict(line), "has": line.has} for line in self.lines]})

    @property
    def _several(self) -> bool:
        return len({line.run for line in self.lines}) > 1


def by_available(run: Run) -> list[SubsetScores]:
    """A line per method and set of modalities that occurs, the fullest set first, small ones together last.

    Raises UsageError if every subject of the run has every modality.
    """
    if not run.facts["cohort"]["lacking"]:
        raise UsageError(f"{run.name}: every subject has every modality, so there is nothing to tell apart")
    lines: list[SubsetScores] = []
    for method, told in run.facts["methods"].items():
        tested = {(r.repeat, r.fold): r.predictions for r in run.results if r.method == method and r.predictions}
        if tested and not told["failed"]:
            lines += _lines(run, method, pooled(tested))
    return lines


def _lines(run: Run, method: str, repeats: Sequence[Predictions]) -> Iterator[SubsetScores]:
    groups = _groups(run, repeats[0])
    small = {available for available, ids in groups.items() if _is_small(repeats[0].of(ids))}
    if len(small) < 2:
        small = set()
    for available, ids in groups.items():
        if available not in small:
            yield _scored(run, method, available, 1, [part.of(ids) for part in repeats])
    if small:
        ids = {id for available in small for id in groups[available]}
        yield _scored(run, method, (), len(small), [part.of(ids) for part in repeats])


def _groups(run: Run, everybody: Predictions) -> dict[tuple[str, ...], set[str]]:
    """Modalities that subjects have -> who has exactly these, the fullest set first."""
    lacking: Mapping[str, Sequence[str]] = run.facts["cohort"]["lacking"]
    groups: dict[tuple[str, ...], set[str]] = {}
    for id in everybody.ids:
        available = tuple(name for name in run.facts["cohort"]["modalities"] if name not in lacking.get(id, ()))
        groups.setdefault(available, set()).add(id)
    return {available: groups[available] for available in sorted(groups, key=lambda names: (-len(names), names))}


def _is_small(some: Predictions) -> bool:
    return any(some.labels.count(name) < FEWEST for name in some.classes)


def _scored(
    run: Run, method: str, available: tuple[str, ...], sets: int, repeats: Sequence[Predictions]
) -> SubsetScores:
    first, positive = repeats[0], run.facts["cohort"]["positive_class"]
    counts = {name: first.labels.count(name) for name in first.classes}
    scores = {name: mean_or_nan(metric(part, positive) for part in repeats) for name, metric in METRICS.items()}
    return SubsetScores(run.name, method, available, sets, counts, scores)
