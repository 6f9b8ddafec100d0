"""A report as a value: sections of paragraphs, tables and figures, before anybody decides how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusionbench.report.drawing import Drawing

NOT_STATED = "not stated"
"""The run cannot know it: the authors, or whoever hands models on, have to say it."""


@dataclass(frozen=True)
class Cell:
    """What stands in a table."""

    text: str
    value: float | None = None
    """What it is sorted by; None: its text."""
    note: str = ""
    """A second, smaller line."""
    strong: bool = False
    """Stands out: a pair that is separated, the best mean."""

    @property
    def whole(self) -> str:
        """Text and note in one line, for forms that have no smaller one.

        >>> Cell("0.93 ± 0.02", note="0.90 to 0.95").whole
        '0.93 ± 0.02 (0.90 to 0.95)'
        """
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first cell of a row names it."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False
    left: int = 1
    """How many columns, from the first, hold words; the others hold numbers."""
    folded: bool = False
    """Long, and not for everybody."""


@dataclass(frozen=True)
class Figure:
    """Drawings side by side under one caption."""

    name: str
    caption: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""

    text: str


Block = Table | Figure | Paragraph | Points | Code


@dataclass(frozen=True)
class Section:
    """A headed part."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Line:
    """One of the few things to be known first."""

    what: str
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    brief: tuple[Line, ...]
    """What a reader must know who reads no further."""
    sections: tuple[Section, ...]
    version: str
    stamp: str = ""
    """What must stand on every figure that leaves the page."""

    def figures(self) -> Iterator[Drawing]:
        """Every drawing, stamped."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Figure):
                    yield from (drawing.stamped(self.stamp) for drawing in block.drawings)


def cells(*texts: str) -> tuple[Cell, ...]:
    """Plain cells."""
    return tuple(map(Cell, texts))


def number(value: float, digits: int = 3, note: str = "", *, strong: bool = False) -> Cell:
    """A cell of a number, empty if it is none.

    >>> number(0.75664), number(-1.5).text, number(math.nan).text
    (Cell(text='0.757', value=0.75664, note='', strong=False), '−1.500', '')
    """
    if math.isnan(value):
        return Cell("", None, note, strong)
    return Cell(f"{value:.{digits}f}".replace("-", "−"), value, note, strong)


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names as prose.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
