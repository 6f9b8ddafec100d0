"""Tables as CSV text that compares byte by byte and reads back exactly, whatever the cells hold."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV with plain line ends; floats as Python writes them, which reads back to the last bit; NaN is empty."""
    table: list[list[object]] = [list(header), *([_cell(value) for value in row] for row in rows)]
    # Python 3.11 leaves a lone carriage return unquoted, and then cannot read it
    awkward = any("\r" in cell for row in table for cell in row if isinstance(cell, str))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if awkward else csv.QUOTE_MINIMAL)
    writer.writerows(table)
    return file.getvalue()


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV with a header, column -> cell."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def strict_rows(text: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a stranger's CSV with the lines that they begin on; a cell is empty where a row ends early.

    Raises ValueError, in words to follow the name of the file, for a column that is there twice, for a row that has
    more cells than there are columns, and for what is no CSV.

    >>> strict_rows("subject,fold\\ns1,0\\n")
    [(2, {'subject': 's1', 'fold': '0'})]
    """
    lines = _lines(text)
    _, header = next(lines, (1, []))
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise ValueError(f"has two columns {twice[0]!r}: rename one")
    rows = []
    for line, cells in lines:
        if any(cells[len(header) :]):
            raise ValueError(f"has {len(cells)} cells on line {line} and {len(header)} columns: quote commas")
        padded = [*cells, *[""] * (len(header) - len(cells))]
        rows.append((line, dict(zip(header, padded, strict=False))))
    return rows


def number(cell: str) -> float:
    """The number in a cell, NaN in an empty one; ValueError for what is none, such as `1_0`, Python's 10.

    >>> number("0.25"), number("")
    (0.25, nan)
    """
    if "_" in cell:
        raise ValueError(f"{cell!r} is no number")
    return float(cell) if cell else math.nan


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(the line that it begins on, cells) of each row that is not blank."""
    reader, before = csv.reader(io.StringIO(text, newline="")), 0
    try:
        for cells in reader:
            if cells:
                yield before + 1, cells
            before = reader.line_num
    except csv.Error as error:
        raise ValueError(f"cannot be read as CSV, line {before + 1}: {error}") from None
