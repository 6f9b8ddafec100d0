"""A target of performance: a ratio of two things measured in the same run, and whether it is met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Target:
    """What was measured, as a ratio, and the bound that it should keep.

    >>> print(Target("theirs / ours", 2.345, 2))
    theirs / ours: 2.35x (target: at least 2x, met)
    >>> print(Target("ours / theirs", 1.2, 1.1, at_least=False))
    ours / theirs: 1.2x (target: at most 1.1x, not met)
    """

    what: str
    ratio: float
    bound: float
    at_least: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the ratio keeps the bound; one that is no number does not."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What, ratio, target and verdict, for a table."""
        word = "at least" if self.at_least else "at most"
        return (
            self.what,
            f"{self.ratio:.3g}{self.unit}",
            f"{word} {self.bound:g}{self.unit}",
            "met" if self.met else "not met",
        )

    def __str__(self) -> str:
        what, ratio, bound, verdict = self.cells
        return f"{what}: {ratio} (target: {bound}, {verdict})"


@dataclass(frozen=True)
class NotMeasured:
    """A target of which nothing is known on this machine.

    >>> print(NotMeasured("theirs / ours", "they are not installed"))
    theirs / ours: not measured, they are not installed
    """

    what: str
    why: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As those of a target."""
        return (self.what, "not measured", "", self.why)

    def __str__(self) -> str:
        return f"{self.what}: not measured, {self.why}"


Row = Target | NotMeasured


def medians(ways: Mapping[str, Callable[[], float]], rounds: int = 3) -> dict[str, float]:
    """The median of what each way says of itself, asked in turns.

    >>> answers = iter([1, 10, 3, 20, 2, 90])
    >>> medians({"one": answers.__next__, "other": answers.__next__})
    {'one': 2, 'other': 20}
    """
    several = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in several) for name in ways}


def alternating(
    ways: Mapping[str, Callable[[], object]], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each way by that clock, measured in turns after one call that is not counted."""
    for way in ways.values():
        way()
    return medians({name: partial(_seconds, way, clock) for name, way in ways.items()}, rounds)


def _seconds(way: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    way()
    return clock() - started
