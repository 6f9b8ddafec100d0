"""Reports of finished runs: a page, text, tables for a paper, a card of the models, figures as files.

Values in, values out: `Sources.read` reads, nothing here writes.
"""

from __future__ import annotations

import hashlib

from fusionbench.report.content import document
from fusionbench.report.document import Document
from fusionbench.report.drawing import Drawing
from fusionbench.report.html import to_html
from fusionbench.report.latex import to_latex
from fusionbench.report.model_card import model_card
from fusionbench.report.raster import png
from fusionbench.report.sources import Sources
from fusionbench.report.svg import standalone
from fusionbench.report.tables import to_csv, to_json, to_markdown
from fusionbench.runs import slug

__all__ = [
    "Document",
    "Drawing",
    "Sources",
    "document",
    "figure_files",
    "model_card",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
]


def figure_files(report: Document, kind: str) -> dict[str, bytes]:
    """File name -> content of every figure, as `svg` or `png`; names are safe whatever the methods are called."""
    return {
        f"{_stem(drawing)}.{kind}": png(drawing) if kind == "png" else standalone(drawing).encode()
        for drawing in report.figures()
    }


def _stem(drawing: Drawing) -> str:
    """
    >>> _stem(Drawing.of("roc-t1ce+dual", "", "", (1, 1), []))
    'roc-t1ce-dual-a4ff53'
    """
    code = hashlib.sha256(drawing.name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    plain = slug(drawing.name)
    return plain if plain == drawing.name else f"{plain}-{code}"
