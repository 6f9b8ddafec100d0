"""A gallery as one picture, for slides and manuscripts."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from PIL import Image, ImageDraw

from fusionbench.errors import one_line
from fusionbench.explaining.galleries import Cell, Gallery, Group, Row
from fusionbench.explaining.tiles import SIDE, Picture, font

PAPER: Final = "white"
INK: Final = (28, 32, 36)
MUTED: Final = (90, 100, 112)
WARN: Final = (154, 74, 0)
GAP: Final = 10
LEFT: Final = 150
"""Pixels for the names of the rows."""
LINE: Final = 20
"""Pixels from one line of text to the next."""
TEXT: Final = 15
TOLD: Final = 34
"""Letters in a line below a tile."""


def sheet(gallery: Gallery, title: str, warnings: tuple[str, ...]) -> Picture:
    """The gallery on white, with its title, its legend and what must be said with it."""
    width = LEFT + len(gallery.columns) * (SIDE + GAP) + GAP
    blocks = [
        _text([title, gallery.title], width, INK, size=18),
        _header(gallery, width),
        *(block for group in gallery.groups for block in _group(group, width)),
        *(_legend(scale.picture, scale.told, width) for scale in gallery.scales),
        _text([*wrap(one_line(gallery.caption), width // 9)], width, MUTED),
        _text([line for warning in warnings for line in wrap(warning, width // 9)], width, WARN),
    ]
    canvas = Image.new("RGB", (width, sum(block.height for block in blocks) + GAP), PAPER)
    top = 0
    for block in blocks:
        canvas.paste(block, (0, top))
        top += block.height
    return canvas


def _group(group: Group, width: int) -> Iterator[Picture]:
    yield _text([f"{group.name} {group.note}"], width, INK if group.right else WARN)
    yield from (_row(row, width) for row in group.rows)


def _row(row: Row, width: int) -> Picture:
    pictures = [cell.picture for cell in row.cells if not isinstance(cell, str)]
    below = max(len(_below(cell)) for cell in row.cells)
    high = max((picture.height for picture in pictures), default=SIDE) + LINE * below + GAP
    canvas = Image.new("RGB", (width, high), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate([*wrap(one_line(row.name), 16), *wrap(one_line(row.note), 18)]):
        draw.text((GAP, number * LINE), line, fill=INK, font=font(TEXT))
    for number, cell in enumerate(row.cells):
        left = LEFT + number * (SIDE + GAP)
        top = 0
        if not isinstance(cell, str):
            canvas.paste(cell.picture, (left, 0))
            top = cell.picture.height + 2
        for index, line in enumerate(_below(cell)):
            draw.text((left, top + index * LINE), line, fill=MUTED, font=font(TEXT - 1))
    return canvas


def _below(cell: Cell) -> list[str]:
    return wrap(one_line(cell if isinstance(cell, str) else cell.told), TOLD)


def _header(gallery: Gallery, width: int) -> Picture:
    canvas = Image.new("RGB", (width, LINE + 4), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, name in enumerate(gallery.columns):
        draw.text((LEFT + number * (SIDE + GAP), 2), one_line(name)[:TOLD], fill=INK, font=font(TEXT))
    return canvas


def _legend(colours: Picture, told: str, width: int) -> Picture:
    canvas = Image.new("RGB", (width, LINE + 4), PAPER)
    canvas.paste(colours, (GAP, 6))
    ImageDraw.Draw(canvas).text((GAP * 2 + colours.width, 2), told, fill=MUTED, font=font(TEXT - 1))
    return canvas


def _text(lines: list[str], width: int, colour: str | tuple[int, int, int], size: int = TEXT) -> Picture:
    canvas = Image.new("RGB", (width, len(lines) * (size + 6) + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((GAP, GAP // 2 + number * (size + 6)), one_line(line), fill=colour, font=font(size))
    return canvas
