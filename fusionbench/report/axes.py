"""Scales, ticks and frames of figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fusionbench.report.drawing import Label, Line, Shape

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)
"""Of which one, times a power of ten, lies between two ticks."""


@dataclass(frozen=True)
class Scale:
    """Values from low to high, laid out from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; those beyond the ends are put at the ends.

        >>> Scale(0.5, 1.0, 100, 200)(0.75)
        150.0
        """
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the scale, as many as there may be.

        >>> Scale(0.42, 1.0, 0, 1).ticks()
        [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        """
        if not self.high > self.low:
            return [self.low]
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        steps = (self._multiples(power * step) for step in STEPS)
        return next(ticks for ticks in steps if len(ticks) <= most)

    def _multiples(self, step: float) -> list[float]:
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


def span(values: Iterable[float], *, floor: float = -math.inf, ceiling: float = math.inf) -> tuple[float, float]:
    """Round ends that hold all values that are numbers; (0, 1) if there are none.

    >>> span([0.71, 0.93], ceiling=1.0)
    (0.7, 0.95)
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    step = 10.0 ** math.floor(math.log10((high - low) or 0.1)) / 2
    ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    low, high = max(round(ends[0], 10), floor), min(round(ends[1], 10), ceiling)
    return (low, high) if low < high else (low - step, high + step)


def x_axis(scale: Scale, y: float, top: float, title: str, ticks: Iterable[float] | None = None) -> Iterator[Shape]:
    """Ticks below `y` with hairlines up to `top`, and a title."""
    marks = list(scale.ticks() if ticks is None else ticks)
    for value in marks:
        yield Line(((scale(value), top), (scale(value), y)), "rule")
    for value in marks:
        yield Label(scale(value), y + 15, told(value), "middle", 11, "muted")
    yield Label((scale.start + scale.end) / 2, y + 32, title, "middle", 11.5, "muted")


def told(value: float) -> str:
    """A tick as text: no more digits than it has.

    >>> told(0.8), told(12.0), told(0.125)
    ('0.8', '12', '0.125')
    """
    return f"{value:.6g}"
