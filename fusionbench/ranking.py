"""Ranking the modalities: which comes first is decided on evidence, and on whose is declared."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fusionbench.folds import Fold, Split
from fusionbench.predictions import Predictions


@dataclass(frozen=True)
class Ground:
    """What a ranker may stand on to order the modalities for one outer fold."""

    draw_inner: Callable[[], tuple[Split, ...]]
    outer: tuple[Fold, ...]
    """The outer folds of the same repeat: their test subjects are those that the results are reported on."""

    @property
    def inner(self) -> tuple[Split, ...]:
        """Folds drawn inside the training part: no test subject is in them. Drawn when they are asked for."""
        return self.draw_inner()


@dataclass(frozen=True)
class Evidence:
    """How one modality did alone on the splits that the ranker asked for."""

    modality: str
    scores: tuple[float, ...]
    """One per split, in the ranking's metric."""
    predictions: Predictions
    """On the test parts of those splits together, for rankers that ask who errs where."""
    higher_is_better: bool = True
    parts: tuple[Predictions, ...] = ()
    """The same, one for each split: a score of all together may differ from the mean of theirs."""

    @property
    def mean(self) -> float:
        """The mean score; worse than any other if there is none, or none on some split."""
        if not self.scores or any(math.isnan(score) for score in self.scores):
            return -math.inf if self.higher_is_better else math.inf
        return sum(self.scores) / len(self.scores)


class Ranker(ABC):
    """Orders modalities, the primary first. A subclass has `name`, a docstring and keyword-only options."""

    name: ClassVar[str]
    fusion: ClassVar[str]
    """The strategy, for one modality, whose fits give the evidence."""
    saw_test: ClassVar[bool] = False
    """Looks at the test folds: every table marks the rows that depend on it."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract check -> the reason why it cannot hold for this class."""

    @abstractmethod
    def splits(self, ground: Ground) -> tuple[Split, ...]:
        """The splits on which each modality is tried alone; none if no evidence is needed."""

    def order(self, evidence: Sequence[Evidence]) -> tuple[str, ...]:
        """The modalities by descending mean score; ties keep the order in which they were typed."""
        ordered = sorted(evidence, key=lambda e: -e.mean if e.higher_is_better else e.mean)
        return tuple(e.modality for e in ordered)
