"""Tables as CSV text that compares byte by byte and reads back exactly, whatever the cells hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV with plain line ends; floats as Python writes them, which reads back to the last bit."""
    table: list[list[object]] = [list(header), *(list(row) for row in rows)]
    # Python 3.11 leaves a lone carriage return unquoted, and then cannot read it
    awkward = any("\r" in cell for row in table for cell in row if isinstance(cell, str))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if awkward else csv.QUOTE_MINIMAL)
    writer.writerows(table)
    return file.getvalue()


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV with a header, column -> cell."""
    return list(csv.DictReader(io.StringIO(text, newline="")))
