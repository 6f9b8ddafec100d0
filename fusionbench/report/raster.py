"""Drawings as PNG, for manuscripts that take no SVG."""

from __future__ import annotations

import io
from functools import singledispatch
from typing import Any

from fusionbench.report.drawing import Box, Dot, Drawing, Label, Line, Shape
from fusionbench.report.svg import PAPER

PIXELS_PER_INCH = 96
"""Of a drawing's own pixels."""
POINTS = 72 / PIXELS_PER_INCH


def png(drawing: Drawing, dpi: int = 300) -> bytes:
    """The drawing on white, at so many dots per inch of its printed size (96 of its pixels); no metadata."""
    from matplotlib.figure import Figure

    figure = Figure((drawing.width / PIXELS_PER_INCH, drawing.height / PIXELS_PER_INCH), dpi=dpi, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    for order, shape in enumerate(drawing.shapes):
        _draw(shape, axes, order)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


@singledispatch
def _draw(shape: Shape, axes: Any, order: int) -> None:
    raise TypeError(f"cannot draw a {type(shape).__name__}")


@_draw.register
def _(line: Line, axes: Any, order: int) -> None:
    xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
    style = (0, (4, 3)) if line.dashed else "solid"
    axes.plot(xs, ys, color=PAPER[line.tone], linewidth=line.width * POINTS, linestyle=style, zorder=order)


@_draw.register
def _(dot: Dot, axes: Any, order: int) -> None:
    from matplotlib.patches import Circle

    colours = {"facecolor": "none" if dot.hollow else PAPER[dot.tone], "edgecolor": PAPER[dot.tone]}
    edge = POINTS if dot.hollow else 0
    axes.add_patch(Circle((dot.x, dot.y), dot.radius, linewidth=edge, zorder=order, **colours))


@_draw.register
def _(box: Box, axes: Any, order: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((box.x, box.y), box.width, box.height, facecolor=PAPER[box.tone], linewidth=0, zorder=order)
    )


@_draw.register
def _(label: Label, axes: Any, order: int) -> None:
    side = {"start": "left", "middle": "center", "end": "right"}[label.anchor]
    axes.text(
        label.x, label.y, label.text.replace("$", r"\$"), ha=side, va="baseline", fontsize=label.size * POINTS,
        color=PAPER[label.tone], fontweight="bold" if label.bold else "normal", zorder=order,
    )  # fmt: skip
