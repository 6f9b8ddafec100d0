"""Draw the text of a run as a picture of a terminal: fusionbench run ... | python docs/terminal.py > docs/run.svg."""

from __future__ import annotations

import io
import re
import sys

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 100
TITLE = "fusionbench run"
# Rich's own template loads its font from a server and links to a site; a picture in a repository must load nothing.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def picture(text: str) -> str:
    """The SVG of a terminal that shows this text."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH, markup=False, highlight=False, emoji=False)
    console.print(Text.from_ansi(text.rstrip("\n")))
    return console.export_svg(title=TITLE, code_format=FORMAT, unique_id="run")


if __name__ == "__main__":
    sys.stdout.write(picture(sys.stdin.read()))
