"""How a method does on the subjects that have the same modalities, where some lack one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS
from fusionbench.predictions import Predictions
from fusionbench.runs import Run


@dataclass(frozen=True)
class SubsetScores:
    """One method on the subjects that have exactly these modalities.

    Scores are pooled over the test folds of a repeat, since a fold has few of a kind, and are the mean over repeats.
    """

    method: str
    available: tuple[str, ...]
    counts: Mapping[str, int]
    """Class -> subjects."""
    scores: Mapping[str, float]
    """Metric -> score; NaN where it is not defined, as with one class only."""


def by_available(run: Run) -> list[SubsetScores]:
    """A line per method and set of modalities that occurs, the fullest set first.

    Raises UsageError if every subject of the run has every modality.
    """
    lacking: Mapping[str, Sequence[str]] = run.facts["cohort"]["lacking"]
    if not lacking:
        raise UsageError(f"{run.name}: every subject has every modality, so there is nothing to tell apart")
    modalities = run.facts["cohort"]["modalities"]
    lines = []
    for method, told in run.facts["methods"].items():
        pooled = _pooled(run, method)
        if told["failed"] or not pooled:
            continue
        groups: dict[tuple[str, ...], set[str]] = {}
        for id in pooled[0].ids:
            available = tuple(name for name in modalities if name not in lacking.get(id, ()))
            groups.setdefault(available, set()).add(id)
        for available in sorted(groups, key=lambda names: (-len(names), names)):
            some = [_of(predictions, groups[available]) for predictions in pooled]
            lines.append(_scored(method, available, some, run.facts["cohort"]["positive_class"]))
    return lines


def _pooled(run: Run, method: str) -> list[Predictions]:
    """Of each repeat the predictions of all test folds together."""
    repeats: dict[int, list[Predictions]] = {}
    for result in run.results:
        if result.method == method and result.predictions is not None:
            repeats.setdefault(result.repeat, []).append(result.predictions)
    return [Predictions.joined(parts, parts[0].classes) for _, parts in sorted(repeats.items())]


def _of(predictions: Predictions, ids: set[str]) -> Predictions:
    rows = [row for row, id in enumerate(predictions.ids) if id in ids]
    chosen = tuple(predictions.ids[row] for row in rows)
    labels = tuple(predictions.labels[row] for row in rows)
    return Predictions(chosen, labels, predictions.classes, predictions.probabilities[rows])


def _scored(method: str, available: tuple[str, ...], repeats: Sequence[Predictions], positive: str) -> SubsetScores:
    first = repeats[0]
    counts = {name: first.labels.count(name) for name in first.classes}
    scores = {name: _mean(metric(predictions, positive) for predictions in repeats) for name, metric in METRICS.items()}
    return SubsetScores(method, available, counts, scores)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else statistics.fmean(found)


def subset_rows(lines: Iterable[SubsetScores], metrics: Sequence[str]) -> Iterator[list[str]]:
    """Cells of a table: method, modalities, subjects per class, scores."""
    for line in lines:
        counts = ", ".join(f"{number} {name}" for name, number in line.counts.items())
        scores = ("" if math.isnan(line.scores[name]) else f"{line.scores[name]:.3f}" for name in metrics)
        yield [line.method, "+".join(line.available) or "none", counts, *scores]
