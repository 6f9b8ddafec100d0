"""A target of performance: a ratio of two things measured in the same run, and whether it is met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What was measured, as a ratio, and the bound that it should keep."""

    what: str
    ratio: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the ratio keeps the bound."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def __str__(self) -> str:
        word, verdict = "at least" if self.at_least else "at most", "met" if self.met else "not met"
        return f"{self.what}: {self.ratio:.2f}x (target: {word} {self.bound:g}x, {verdict})"


def alternating(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median wall seconds of each way, measured in turns after one call that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(several) for name, several in taken.items()}
