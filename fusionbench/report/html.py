"""A report as one HTML page that loads nothing: style and script are inside, and named in its policy by their hash."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fusionbench.errors import one_line
from fusionbench.report.content import NO_CLINICAL_USE
from fusionbench.report.document import Code, Document, Figure, Paragraph, Points, Table
from fusionbench.report.drawing import Drawing
from fusionbench.report.svg import inline

KINDS = {Table: "table", Figure: "figure", Paragraph: "paragraph", Points: "points", Code: "code"}
"""Block -> how the template tells it."""


def to_html(report: Document) -> str:
    """The page; whatever strangers wrote is escaped."""
    style, script = _asset("report.css"), _asset("report.js")
    page: str = (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
            "form-action 'none'",
            style=Markup(style),
            script=Markup(script),
            numbers=_numbers(report),
            closing=NO_CLINICAL_USE,
        )
    )
    return page


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: one_line(value) if type(value) is str else value,
    )
    environment.filters |= {"picture": _picture, "lines": str.splitlines, "identity": id}
    environment.tests["shown_as"] = lambda block, kind: KINDS[type(block)] == kind
    return environment


@cache
def _asset(name: str) -> str:
    return (files("fusionbench.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _picture(drawing: Drawing, id: str) -> Markup:
    """Markup as it is: the XML writer has escaped every text in it."""
    return Markup(inline(drawing, id))


def _numbers(report: Document) -> dict[int, str]:
    """Identity of a table or figure -> `Table 1`, `Figure 1`, in the order of the page."""
    numbers: dict[int, str] = {}
    counts = {"Table": 0, "Figure": 0}
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Table | Figure):
                kind = type(block).__name__
                counts[kind] += 1
                numbers[id(block)] = f"{kind} {counts[kind]}"
    return numbers
