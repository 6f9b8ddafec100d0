r"""Tables for a paper in LaTeX, with booktabs: the best mean in bold, what is tied with it underlined."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase

from fusionbench.report.document import Cell, Document, Table
from fusionbench.report.latextext import escaped, not_in_fonts
from fusionbench.report.sources import Sources

TABLES = ("leaderboard", "further", "recalibration", "cost", "differences", "places", "shapley")
"""The tables that a paper may want; those of subsets too."""
NEEDED = r"% \usepackage[T1]{fontenc}\usepackage{booktabs,graphicx,textcomp}"
MOST_COLUMNS = 8
"""Of more a table becomes several, each with the names of the rows."""
WIDEST, SHORT = 100, 10
"""In a header of more letters a letter below the table stands for each name of more than so many."""
SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is still wider than the text is made as wide as the text."""
HYPHEN = re.compile(r"(?<![\w.])-(?=[\d.])")
"""The sign of a negative number."""


def to_latex(sources: Sources, report: Document) -> str:
    r"""The tables of scores, differences and modalities; needs T1 fonts, booktabs, graphicx and textcomp."""
    found = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    wanted = [table for table in found if table.name in TABLES or table.name.startswith("subsets-")]
    head = [NEEDED, *(f"% {line.what}: {escaped(line.text)}" for line in report.brief), *_missing(wanted)]
    written = (text for table in wanted for text in _parts(table, sources))
    return "\n\n".join(["\n".join(head), *written]) + "\n"


def _missing(tables: Iterable[Table]) -> Iterator[str]:
    """A comment on each character that the fonts lack."""
    texts = (text for table in tables for text in (table.caption, *table.header, *_in_cells(table)))
    for character, code in not_in_fonts(" ".join(texts)).items():
        yield f"% Warning: T1 fonts have no {character}: {code} is printed instead"


def _in_cells(table: Table) -> Iterator[str]:
    return (text for row in table.rows for cell in row for text in (cell.text, cell.note))


def _parts(table: Table, sources: Sources) -> Iterator[str]:
    """A table in as many parts as its columns need."""
    chosen = _chosen(len(table.header), table.left)
    tied = _tied(sources) if table.name == "leaderboard" else ()
    told = f"{escaped(table.caption)} {escaped(_told(table, sources))}"
    for number, columns in enumerate(chosen, 1):
        part = replace(
            table,
            header=tuple(table.header[column] for column in columns),
            rows=tuple(tuple(row[column] for column in columns) for row in table.rows),
        )
        which = f" Part {number} of {len(chosen)}." if len(chosen) > 1 else ""
        yield "\n".join(_lines(part, told + which, tied if number == 1 else ()))


def _chosen(columns: int, left: int) -> list[list[int]]:
    """The columns of each part: those of words in all of them, those of numbers shared out evenly.

    >>> _chosen(10, 1)
    [[0, 1, 2, 3, 4, 5], [0, 6, 7, 8, 9]]
    """
    numbers = range(left, columns)
    parts = math.ceil(len(numbers) / (MOST_COLUMNS - left))
    each = math.ceil(len(numbers) / parts)
    return [[*range(left), *numbers[start : start + each]] for start in range(0, len(numbers), each)]


def _told(table: Table, sources: Sources) -> str:
    """What the caption of a table must add when it leaves the report."""
    if table.name != "leaderboard":
        synthetic = " SYNTHETIC DATA." if sources.synthetic else ""
        folds = f"{sources.board.folds} test folds" if sources.board.folds > 1 else "One test part"
        classes = sources.shown_classes
        of = f"positive class {sources.positive}" if len(classes) == 1 else "means over the classes"
        return f"{folds}; {of}.{synthetic}"
    if not sources.board.standings:
        return "Bold: best mean; whether another is tied with it was not tested."
    return f"Bold: best mean; {'underlined: tied with it' if _tied(sources) else 'none is tied with it'}."


def _tied(sources: Sources) -> tuple[str, ...]:
    """The methods that no test could tell from the first; none are named where there are too few folds to tell."""
    first = next(iter(sources.board.standings.values()), None)
    return first.tied_with if first else ()


def _lines(table: Table, caption: str, tied: Sequence[str]) -> Iterator[str]:
    long, notes = _long(table), _notes(table)
    letters = {text: _letter(number) for number, text in enumerate((*long, *notes))}
    yield r"\begin{table}"
    yield rf"\caption{{{caption}}}"
    yield r"\smallskip\centering\small\setlength{\tabcolsep}{4pt}"
    yield SHRUNK
    yield rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.header) - table.left)}}}"
    yield r"\toprule"
    yield " & ".join(f"({letters[name]})" if name in long else escaped(name) for name in table.header) + r" \\"
    yield r"\midrule"
    for row in table.rows:
        yield from _row(row, table, letters, underlined=row[0].text in tied)
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield from (rf"\par\footnotesize ({letters[name]}) {escaped(name)}" for name in long)
    yield from (rf"\par\footnotesize\textsuperscript{{{letters[note]}}} {escaped(note)}" for note in notes)
    yield r"\end{table}"


def _row(row: Sequence[Cell], table: Table, letters: Mapping[str, str], *, underlined: bool) -> Iterator[str]:
    """The line of a row, and one below it in small if its numbers have notes."""
    words, numbers = row[: table.left], row[table.left :]
    scored = _scored(table) if underlined else -1
    cells = [*(_word(cell, letters) for cell in words), *map(_number, numbers)]
    yield (
        " & ".join(rf"\underline{{{text}}}" if n == scored and text else text for n, text in enumerate(cells)) + r" \\"
    )
    if any(cell.note for cell in numbers):
        below = (rf"{{\footnotesize {escaped(_signed(cell.note))}}}" if cell.note else "" for cell in numbers)
        yield " & ".join([*("" for _ in words), *below]) + r" \\ \addlinespace"


def _scored(table: Table) -> int:
    """The column that methods are ordered by: the first of scores."""
    return next(n for n, name in enumerate(table.header) if name not in ("Method", "Rank"))


def _word(cell: Cell, letters: Mapping[str, str]) -> str:
    return _strong(escaped(cell.text), cell) + (rf"\textsuperscript{{{letters[cell.note]}}}" if cell.note else "")


def _number(cell: Cell) -> str:
    return _strong(escaped(_signed(cell.text)), cell)


def _strong(text: str, cell: Cell) -> str:
    return rf"\textbf{{{text}}}" if cell.strong else text


def _signed(text: str) -> str:
    """Numbers with a minus for a hyphen.

    >>> _signed("-0.1 to 0.2")
    '−0.1 to 0.2'
    """
    return HYPHEN.sub("−", text)


def _long(table: Table) -> list[str]:
    """The names over numbers that a letter stands for, where the header is too wide."""
    too_wide = sum(map(len, table.header)) > WIDEST
    return [name for name in table.header[table.left :] if too_wide and len(name) > SHORT]


def _notes(table: Table) -> list[str]:
    """The notes on words, which stand below the table."""
    return list(dict.fromkeys(cell.note for row in table.rows for cell in row[: table.left] if cell.note))


def _letter(number: int) -> str:
    """A letter for each number.

    >>> _letter(0), _letter(27)
    ('a', 'bb')
    """
    return ascii_lowercase[number % 26] * (1 + number // 26)
