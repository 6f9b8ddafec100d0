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
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the ratio keeps the bound."""
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


def alternating(
    ways: Mapping[str, Callable[[], object]], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each way by that clock, measured in turns after one call that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if number:
                taken[name].append(clock() - started)
    return {name: statistics.median(several) for name, several in taken.items()}
