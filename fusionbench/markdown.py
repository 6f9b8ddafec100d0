"""Markdown of text that others wrote: shown as it is, never interpreted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusionbench.errors import one_line


def escaped(text: str) -> str:
    r"""A stranger's text as one line of Markdown that shows it as it is.

    >>> escaped("<b>|*x*")
    '&lt;b&gt;\\|\\*x\\*'
    """
    shown = "".join(f"\\{c}" if c in r"\`*_[]|#~!" else c for c in one_line(text))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", "&#58;//")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of strangers' text."""
    cells = [[*map(escaped, header)], ["---"] * len(header), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
