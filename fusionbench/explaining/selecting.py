"""Whom to look at: subjects by what methods said of them when they were tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fusionbench.errors import UsageError, nearest
from fusionbench.metrics import decide
from fusionbench.runs import Result, Run

Rule = Literal["rescued", "wrong"]
"""`rescued`: wrong by every uni-modal method and right by the method; `wrong`: wrong by the method."""
NOBODY = "none"
"""For a baseline: do without one."""


@dataclass(frozen=True)
class Said:
    """What a method said of a subject in the fold that tested it."""

    fold: int
    label: str
    predicted: str
    probabilities: tuple[float, ...]
    """Of each class, as in predictions.csv."""

    @property
    def right(self) -> bool:
        """Whether the class is the subject's."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Case:
    """A subject, and the two methods that are looked at."""

    subject: str
    repeat: int
    method: str
    baseline: str = ""
    """Empty: there is none."""


@dataclass(frozen=True)
class Verdicts:
    """What every method of a run said of every subject in one repeat."""

    run: Run
    repeat: int = 0

    @cached_property
    def said(self) -> Mapping[str, Mapping[str, Said]]:
        """Method -> subject -> what it said; UsageError if the run has no such repeat."""
        found: dict[str, dict[str, Said]] = {}
        for result in self.run.results:
            if result.repeat == self.repeat and result.predictions is not None:
                found.setdefault(result.method, {}).update(_said(result, self.run.facts["cohort"]["positive_class"]))
        if not found:
            repeats = sorted({result.repeat for result in self.run.results})
            raise UsageError(
                f"{self.run.name} has no repeat {self.repeat}: give --repeat 0 to {max(repeats, default=0)}"
            )
        return found

    def method(self, asked: str, wanted: tuple[str, ...]) -> str:
        """The method asked for; or the first of the wanted strategies' that fuses; UsageError if it said nothing."""
        if asked:
            return self._known(asked)
        told = self.run.facts["methods"]
        fusing = [name for name in self.said if len(told[name]["modalities"]) > 1]
        ranked = sorted(fusing, key=lambda name: (*_place(told[name]["fusion"], wanted), name != told[name]["fusion"]))
        return next(iter(ranked or self.said))

    def baseline(self, asked: str, method: str, subject: str) -> str:
        """The method asked for; or the uni-modal one of the modality that ranks first in the fold that tested it."""
        if asked:
            return "" if asked == NOBODY else self._known(asked)
        fold = self.said[method][subject].fold
        ranked = (r.modality for r in self.run.ranking if (r.repeat, r.fold, r.rank) == (self.repeat, fold, 1))
        told = self.run.facts["methods"]
        first = next(ranked, next(iter(self.run.facts["cohort"]["modalities"])))
        same = [name for name in self.unimodal(method) if told[name]["modalities"] == [first]]
        alike = [name for name in same if told[name]["attention"] == told[method]["attention"]]
        return next(iter([*alike, *same]), "")

    def unimodal(self, method: str) -> list[str]:
        """The methods, but for this one, that see a single modality."""
        told = self.run.facts["methods"]
        return [name for name in self.said if name != method and len(told[name]["modalities"]) == 1]

    def subject(self, asked: str, method: str) -> str:
        """The subject asked for; UsageError if the method was not tested on it."""
        if asked not in self.said[method]:
            known = nearest(asked, self.said[method])
            raise UsageError(f"{method} was not tested on {asked!r} in {self.run.name}: {known}")
        return asked

    def select(self, rule: Rule, method: str) -> tuple[str, ...]:
        """The subjects that a rule means, sorted; UsageError if it needs uni-modal methods and there are none."""
        return {"rescued": self._rescued, "wrong": self._wrong}[rule](method)

    def _wrong(self, method: str) -> tuple[str, ...]:
        return tuple(sorted(subject for subject, said in self.said[method].items() if not said.right))

    def _rescued(self, method: str) -> tuple[str, ...]:
        others = self.unimodal(method)
        if not others:
            raise UsageError(f"{self.run.name} has no uni-modal method beside {method}: nobody can be rescued from one")
        lost = [set(self._wrong(other)) for other in others]
        right = {subject for subject, said in self.said[method].items() if said.right}
        return tuple(sorted(right.intersection(*lost)))

    def _known(self, name: str) -> str:
        told = self.run.facts["methods"]
        if name not in told:
            raise UsageError(f"{self.run.name} has no method {name!r}: {nearest(name, told)}")
        if name not in self.said:
            raise UsageError(f"{name} failed in {self.run.name} ({told[name]['failed']}): name another method")
        return name


def _said(result: Result, positive: str) -> dict[str, Said]:
    told: Any = result.predictions
    decided = [told.classes[number] for number in decide(told.probabilities, told.classes.index(positive))]
    rows = zip(told.ids, told.labels, decided, told.probabilities.tolist(), strict=True)
    return {id: Said(result.fold, label, predicted, tuple(p)) for id, label, predicted, p in rows}


def _place(fusion: str, wanted: tuple[str, ...]) -> tuple[bool, int]:
    """Strategies that were asked for come first, in that order."""
    return fusion not in wanted, wanted.index(fusion) if fusion in wanted else 0
