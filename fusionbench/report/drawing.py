"""A figure as a value: a few kinds of shape on a canvas in pixels, before anybody decides how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fusionbench.errors import one_line

Tone = Literal["ink", "muted", "rule", "faint", "accent", "soft", "ground", "warn"]
"""What a shape means, which a theme gives a colour."""

Point: TypeAlias = tuple[float, float]
"""Pixels right and down from the upper left corner."""


@dataclass(frozen=True)
class Line:
    """An open polygon."""

    points: tuple[Point, ...]
    tone: Tone = "ink"
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """A disc, or a ring."""

    x: float
    y: float
    radius: float = 3.0
    tone: Tone = "ink"
    hollow: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle by its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    tone: Tone = "faint"


@dataclass(frozen=True)
class Label:
    """A line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = 12.0
    tone: Tone = "ink"
    bold: bool = False


Shape = Line | Dot | Box | Label


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order in which they are drawn, and what they show for those who do not see them."""

    name: str
    title: str
    description: str
    width: float
    height: float
    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, name: str, title: str, description: str, size: Point, shapes: Iterable[Shape]) -> Drawing:
        """A drawing of that size (width, height), whose text is printable whatever strangers called their methods."""
        width, height = size
        shown = tuple(map(_printable, shapes))
        return cls(one_line(name), one_line(title), one_line(description), width, height, shown)

    def stamped(self, text: str) -> Drawing:
        """The same with a word of warning in a corner; as it is without one."""
        if not text:
            return self
        return replace(self, height=self.height + 12, shapes=(*self.shapes, _stamp(text, self.width, self.height + 12)))


def _stamp(text: str, width: float, height: float) -> Label:
    return Label(width - 8, height - 4, text, "end", 10, "warn", bold=True)


def reach(text: str, size: float = 12.0) -> float:
    """About how many pixels wide a text is."""
    return 0.56 * size * len(text)


def shortened(text: str, letters: int) -> str:
    """A text that takes no more than so many letters.

    >>> shortened("guidance (second run)", 12)
    'guidance (s…'
    """
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _printable(shape: Shape) -> Shape:
    if not isinstance(shape, Label):
        return shape
    return replace(shape, text=one_line(shape.text))
