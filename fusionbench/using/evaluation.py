"""How well trained models do on a cohort with labels that they have not seen: scores, and how well they are known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fusionbench.comparing import Interval, Resample, bootstrap, shares
from fusionbench.csvtext import csv_text
from fusionbench.jsontext import json_text
from fusionbench.metrics import METRICS, Metric
from fusionbench.using.answers import Answers, Opinion

SHOWN = ("roc_auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity")
"""The metrics of a table to look at."""


@dataclass(frozen=True)
class Score:
    """A metric of one method: of the mean over its fits, and of each fit alone."""

    method: str
    metric: str
    subjects: int
    value: float
    """Of the mean of the probabilities over the fits; NaN where it is not defined."""
    interval: Interval
    singles: tuple[float, ...]
    """Of each fit alone."""

    @property
    def mean(self) -> float:
        """The mean over single fits; NaN if one is."""
        return statistics.fmean(self.singles)

    @property
    def std(self) -> float:
        """The sample deviation over single fits (ddof = 1); NaN for one fit, or if one has no score."""
        known = len(self.singles) > 1 and not any(map(math.isnan, self.singles))
        return statistics.stdev(self.singles) if known else math.nan


@dataclass(frozen=True)
class Evaluation:
    """The scores of the methods of a run on a cohort that is not its own."""

    run: str
    cohort: str
    classes: Mapping[str, int]
    """Class -> number of subjects."""
    positive_class: str
    scores: tuple[Score, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, answers: Answers, cohort: str, groups: Mapping[str, str] | None = None) -> Evaluation:
        """The scores of answers about subjects whose labels are all known; `groups` is subject -> patient.

        Methods are scored on those that they predict; `notes` tell where that is not everybody.
        """
        answering = [opinion for opinion in answers.opinions if opinion.mean.ids]
        resample = Resample.of([opinion.mean for opinion in answering], groups)
        scores = (s for opinion in answering for s in _scores(opinion, answers.positive_class, resample, groups))
        labels = list(answers.labels.values())
        told = {name: labels.count(name) for name in answers.classes}
        return cls(answers.run, cohort, told, answers.positive_class, tuple(scores), (*_notes(told), *answers.notes))

    def to_csv(self) -> str:
        """method, metric, subjects, value, low, high, interval, single_mean and single_std; floats by repr.

        What is not defined is empty.
        """
        header = ["method", "metric", "subjects", "value", "low", "high", "interval", "single_mean", "single_std"]
        rows = [
            [s.method, s.metric, s.subjects, s.value, s.interval.low, s.interval.high, s.interval.method, s.mean, s.std]
            for s in self.scores
        ]
        return csv_text(header, rows)

    def to_json(self) -> str:
        """Everything, with the score of each fit alone; null where one is not defined."""
        rows = [
            {
                "method": score.method,
                "metric": score.metric,
                "subjects": score.subjects,
                "value": score.value,
                "interval": asdict(score.interval),
                "singles": score.singles,
            }
            for score in self.scores
        ]
        told: dict[str, Any] = {"run": self.run, "cohort": self.cohort, "classes": dict(self.classes)}
        told |= {"positive_class": self.positive_class, "notes": self.notes, "scores": rows}
        return json_text(told)

    def columns(self) -> tuple[str, ...]:
        """The header of `lines`."""
        return ("method", "metric", "subjects", "all fits", "95 % interval", "single fits")

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The rows of a table to look at, without the metrics that are seldom asked for."""
        for score in self.scores:
            if score.metric in SHOWN:
                interval = "" if math.isnan(score.interval.low) else _ends(score.interval)
                single = " ± ".join(f"{x:.3f}" for x in (score.mean, score.std) if not math.isnan(x))
                yield (score.method, score.metric, str(score.subjects), _shown(score.value), interval, single)


def _scores(
    opinion: Opinion, positive_class: str, resample: Resample, groups: Mapping[str, str] | None
) -> Iterator[Score]:
    wilson = shares([opinion.mean], positive_class, groups)
    for name, metric in METRICS.items():
        yield Score(
            method=opinion.method,
            metric=name,
            subjects=len(opinion.mean.ids),
            value=metric(opinion.mean, positive_class),
            interval=wilson.get(name) or _drawn(opinion, metric, positive_class, resample),
            singles=tuple(metric(member, positive_class) for member in opinion.members),
        )


def _drawn(opinion: Opinion, metric: Metric, positive_class: str, resample: Resample) -> Interval:
    return bootstrap(resample.scores([opinion.mean], metric, positive_class))


def _notes(classes: Mapping[str, int]) -> Iterable[str]:
    counts = ", ".join(f"{number} {name}" for name, number in classes.items())
    yield f"{sum(classes.values())} subjects ({counts}); decisions at .5"
    yield "all fits: the mean of their probabilities; single fits: mean ± sample std of the scores of each alone"
    yield "intervals: Wilson's for shares, else of patients drawn again, and none where all draws score the same"
    yield "they know that other subjects would have come, and not that training would have gone otherwise"
    for name in (name for name, number in classes.items() if not number):
        yield f"WARNING: nobody is of class {name}, so that some scores are not defined"


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"
