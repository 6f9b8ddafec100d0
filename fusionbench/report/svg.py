"""Drawings as SVG, with text as text: inside a page whose style sheet colours it, or as a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from xml.etree import ElementTree

from fusionbench.report.drawing import Box, Dot, Drawing, Label, Line, Shape

XMLNS = "http://www.w3.org/2000/svg"
PAPER: Mapping[str, str] = {
    "ink": "#1c2024",
    "muted": "#5a6470",
    "rule": "#e3e6e8",
    "faint": "#eef1f3",
    "accent": "#1d5c8f",
    "soft": "#a9c4da",
    "ground": "#ffffff",
    "warn": "#9a4a00",
}
"""Tone -> colour on white: as in the page where it is light."""
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def inline(drawing: Drawing, id: str) -> str:
    """The element for a page; `id` is unique there. Tones are classes, which the page colours."""
    root = _root(drawing, id)
    return ElementTree.tostring(root, encoding="unicode")


def standalone(drawing: Drawing) -> str:
    """A file: coloured, on white."""
    root = _root(drawing, "figure")
    root.set("xmlns", XMLNS)
    root.set("width", f"{drawing.width:g}")
    root.set("height", f"{drawing.height:g}")
    style = ElementTree.Element("style")
    style.text = _style(PAPER)
    root.insert(2, style)
    root.insert(3, ElementTree.Element("rect", {"width": "100%", "height": "100%", "class": "box ground"}))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _style(colours: Mapping[str, str]) -> str:
    tones = "".join(
        f".line.{t},.ring.{t}{{stroke:{c}}}.box.{t},.dot.{t},text.{t}{{fill:{c}}}" for t, c in colours.items()
    )
    return f".line,.ring{{fill:none}}text{{font-family:{FONT}}}{tones}"


def _root(drawing: Drawing, id: str) -> ElementTree.Element:
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {drawing.width:g} {drawing.height:g}",
            "role": "img",
            "aria-labelledby": f"{id}-title {id}-desc",
        },
    )
    for tag, text in (("title", drawing.title), ("desc", drawing.description)):
        ElementTree.SubElement(root, tag, {"id": f"{id}-{tag}"}).text = text
    root.extend(map(_element, drawing.shapes))
    return root


@singledispatch
def _element(shape: Shape) -> ElementTree.Element:
    raise TypeError(f"no element for a {type(shape).__name__}")


@_element.register
def _(line: Line) -> ElementTree.Element:
    points = " ".join(f"{x:g},{y:g}" for x, y in line.points)
    dashes = {"stroke-dasharray": "4 3"} if line.dashed else {}
    told = {"class": f"line {line.tone}", "points": points, "stroke-width": f"{line.width:g}"}
    return ElementTree.Element("polyline", told | dashes)


@_element.register
def _(dot: Dot) -> ElementTree.Element:
    place = {"cx": f"{dot.x:g}", "cy": f"{dot.y:g}", "r": f"{dot.radius:g}"}
    return ElementTree.Element("circle", {"class": f"{'ring' if dot.hollow else 'dot'} {dot.tone}"} | place)


@_element.register
def _(box: Box) -> ElementTree.Element:
    size = {"x": box.x, "y": box.y, "width": max(box.width, 0), "height": max(box.height, 0)}
    return ElementTree.Element("rect", {"class": f"box {box.tone}"} | {name: f"{n:g}" for name, n in size.items()})


@_element.register
def _(label: Label) -> ElementTree.Element:
    told = {"class": label.tone, "x": f"{label.x:g}", "y": f"{label.y:g}", "font-size": f"{label.size:g}"}
    anchor = {} if label.anchor == "start" else {"text-anchor": label.anchor}
    element = ElementTree.Element("text", told | anchor | ({"font-weight": "600"} if label.bold else {}))
    element.text = label.text
    return element
