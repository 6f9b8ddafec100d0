"""Markdown of text that others wrote: shown as it is, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fusionbench.errors import one_line

SPECIAL = re.compile(r"[\\`*\[\]|#~!$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would interpret anywhere; an underscore inside a word it does not."""
MARKER = re.compile(r"^([-+]|\d+[.)])(?=\s|$)|^-(?=[-\s]*$)")
"""What begins an item of a list, or is a rule, at the beginning of a text."""
ADDRESS = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
"""What makes a link of an address."""


def escaped(text: str) -> str:
    r"""A stranger's text as one line of Markdown that shows it as it is, but for blanks around it.

    >>> escaped("<b>|*x*"), escaped("1. x"), escaped("-0.5")
    ('&lt;b&gt;\\|\\*x\\*', '1\\. x', '-0.5')
    """
    shown = SPECIAL.sub(r"\\\g<0>", one_line(text).strip())
    shown = MARKER.sub(lambda found: rf"{found[0][:-1]}\{found[0][-1]}", shown)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return ADDRESS.sub(lambda found: f"&#{ord(found[0])};", shown)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of strangers' text."""
    cells = [[*map(escaped, header)], ["---"] * len(header), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
