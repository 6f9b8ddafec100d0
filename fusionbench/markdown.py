"""Markdown of text that others wrote: shown as it is, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fusionbench.errors import one_line

SPECIAL = re.compile(r"[\\`*\[\]|#~!]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would interpret; an underscore inside a word it does not."""


def escaped(text: str) -> str:
    r"""A stranger's text as one line of Markdown that shows it as it is.

    >>> escaped("<b>|*x*")
    '&lt;b&gt;\\|\\*x\\*'
    """
    shown = SPECIAL.sub(r"\\\g<0>", one_line(text))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", "&#58;//")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of strangers' text."""
    cells = [[*map(escaped, header)], ["---"] * len(header), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
