r"""Tables for a paper in LaTeX, with booktabs: the best mean in bold, what is tied with it underlined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusionbench.errors import one_line
from fusionbench.report.document import Cell, Document, Table
from fusionbench.report.sources import Sources

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "±": r"$\pm$", "–": "--", "●": r"$\bullet$",
    "“": "``", "”": "''", "…": r"\dots{}",
}  # fmt: skip
TABLES = ("leaderboard", "cost", "differences", "places", "shapley")
"""The tables that a paper may want; those of subsets too."""


def to_latex(sources: Sources, report: Document) -> str:
    r"""The tables of scores, differences and modalities; needs `\usepackage{booktabs,textcomp}` and T1 fonts."""
    found = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    wanted = [table for table in found if table.name in TABLES or table.name.startswith("subsets-")]
    tied = _tied(sources)
    shown = (_leaderboard(table, tied) if table.name == "leaderboard" else _table(table) for table in wanted)
    lines = "\n".join(f"% {line.what}: {escaped(line.text)}" for line in report.brief)
    needed = r"% \usepackage[T1]{fontenc}\usepackage{booktabs,textcomp}"
    return "\n\n".join([f"{needed}\n{lines}", *shown]) + "\n"


def escaped(text: str) -> str:
    r"""A stranger's text as LaTeX that shows it as it is.

    >>> print(escaped(r"50 % of t1_ce \input{x}"))
    50 \% of t1\_ce \textbackslash{}input\{x\}
    """
    return "".join(SPECIAL.get(c, c) for c in one_line(text))


def _tied(sources: Sources) -> tuple[str, ...]:
    """The methods that no test could tell from the first; none are named where there are too few folds to tell."""
    first = next(iter(sources.board.standings.values()), None)
    return first.tied_with if first else ()


def _leaderboard(table: Table, tied: Sequence[str]) -> str:
    column = table.header.index(_score_column(table))
    told = (
        r" Bold: best mean; underlined: tied with it." if tied else r" Bold: best mean; see the text for what is tied."
    )
    rows = [
        [_cell(cell, under=index == column and row[0].text in tied) for index, cell in enumerate(row)]
        for row in table.rows
    ]
    return _environment(table, rows, told)


def _score_column(table: Table) -> str:
    """The column that methods are ordered by: the first of scores."""
    return next(name for name in table.header if name not in ("Method", "Rank"))


def _table(table: Table) -> str:
    return _environment(table, [[_cell(cell) for cell in row] for row in table.rows])


def _cell(cell: Cell, *, under: bool = False) -> str:
    text = escaped(cell.text)
    text = rf"\textbf{{{text}}}" if cell.strong else rf"\underline{{{text}}}" if under and text else text
    return text if not cell.note else rf"{text} {{\footnotesize ({escaped(cell.note)})}}"


def _environment(table: Table, rows: Sequence[Sequence[str]], told: str = "") -> str:
    return "\n".join(_lines(table, rows, told))


def _lines(table: Table, rows: Sequence[Sequence[str]], told: str) -> Iterator[str]:
    yield r"\begin{table}"
    yield rf"\caption{{{escaped(table.caption)}{told}}}"
    yield rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.header) - table.left)}}}"
    yield r"\toprule"
    yield " & ".join(map(escaped, table.header)) + r" \\"
    yield r"\midrule"
    for row in rows:
        yield " & ".join(row) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"
