"""Figures of each method alone: scores per fold, ROC and calibration curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fusionbench.comparing import Bin, pooled, reliability
from fusionbench.leaderboard import Row
from fusionbench.predictions import Predictions
from fusionbench.report.axes import Scale, span, x_axis
from fusionbench.report.drawing import Dot, Drawing, Label, Line, Point, Shape, Tone, reach, shortened

WIDTH, ROW, GUTTER, LETTERS = 640.0, 24.0, 200.0, 28
SIDE = 252.0
"""Of a small square panel."""
LEFT, TOP, INSIDE = 40.0, 34.0, 196.0
"""Where its frame begins, and how wide that is."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST = 2
"""Subjects in a bin of one fold that are worth a point."""


def fold_dots(rows: Sequence[Row], metric: str, title: str) -> Drawing:
    """A dot per test fold and a bar for the mean, a line per method."""
    scores = {row.method: row.scores[metric] for row in rows}
    low, high = span((value for several in scores.values() for value in several), floor=0.0, ceiling=1.0)
    left = min(max(map(reach, scores)), GUTTER) + 20
    scale, bottom = Scale(low, high, left, WIDTH - 24), 12 + ROW * len(rows)
    shapes: list[Shape] = list(x_axis(scale, bottom, 8, title))
    for number, row in enumerate(rows):
        shapes += _strip(row, scores[row.method], row.mean(metric), 8 + ROW * (number + 0.5), scale)
    told = "; ".join(f"{row.method}: {_range(scores[row.method])}, mean {_mean(row.mean(metric))}" for row in rows)
    return Drawing.of("folds", f"{title} on each test fold", told, (WIDTH, bottom + 44), shapes)


def roc_panel(row: Row, name: str, title: str) -> Drawing:
    """The ROC curve of one class in each fold, thin, and in each repeat's folds pooled, thick."""
    curves = [roc_points(part, name) for part in row.tested.values()]
    mean = statistics.fmean(map(area, curves))
    shapes = [*_panel(title, "1 − specificity", "sensitivity"), _diagonal()]
    shapes += [_curve(points, "soft", 0.7) for points in curves]
    shapes += [_curve(roc_points(part, name), "accent", 1.4) for part in pooled(row.tested)]
    if not math.isnan(mean):
        shapes.append(Label(LEFT + INSIDE - 6, TOP + INSIDE - 8, f"{mean:.3f}", "end"))
    told = f"{name} against the rest; mean area under the curves of the folds {_mean(mean)}"
    return Drawing.of(f"roc-{title}", f"ROC curve of {title}", told, (SIDE, SIDE + 20), shapes)


def calibration_panel(row: Row, name: str, title: str) -> Drawing:
    """Share observed against probability given, of one class: each fold thin, each repeat pooled thick.

    The first repeat has Wilson's bars.
    """
    shapes = [*_panel(title, "probability given", "share observed"), _diagonal()]
    for part in row.tested.values():
        shapes.append(_curve([_bin_point(b) for b in bins_of(part, name) if b.count >= FEWEST], "soft", 0.7))
    for number, part in enumerate(pooled(row.tested)):
        shapes += _reliability(bins_of(part, name), first=number == 0)
    told = f"{name} against the rest; mean calibration error over the folds {row.mean('ece'):.3f}"
    return Drawing.of(f"calibration-{title}", f"Calibration of {title}", told, (SIDE, SIDE + 20), shapes)


def area(points: Sequence[Point]) -> float:
    """Under a ROC curve; NaN where there is none.

    >>> area([(0, 0), (0, 0.5), (1, 1)])
    0.75
    """
    if not points:
        return math.nan
    return math.fsum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


def roc_points(part: Predictions, positive: str) -> list[Point]:
    """(1 - specificity, sensitivity) at every threshold, from (0, 0) to (1, 1); none if a class is missing."""
    hits, scores = _of(part, positive)
    if hits.all() or not hits.any():
        return []
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # ties are one step
    found, false = np.cumsum(hits[order])[last], np.cumsum(~hits[order])[last]
    shares = zip((false / (~hits).sum()).tolist(), (found / hits.sum()).tolist(), strict=True)
    return _corners([(0.0, 0.0), *shares])


def _corners(points: list[Point]) -> list[Point]:
    """The points where a curve turns."""
    ends = zip(points, points[1:], points[2:], strict=False)
    turns = [b for a, b, c in ends if (b[0] - a[0]) * (c[1] - b[1]) != (b[1] - a[1]) * (c[0] - b[0])]
    return [points[0], *turns, points[-1]]


def bins_of(part: Predictions, positive: str) -> list[Bin]:
    """The reliability curve of one class against the rest."""
    return reliability(*_of(part, positive))


def _of(part: Predictions, positive: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    number = part.classes.index(positive)
    return part.targets == number, part.probabilities[:, number]


def _strip(row: Row, scores: Sequence[float], mean: float, y: float, scale: Scale) -> Iterator[Shape]:
    yield Label(scale.start - 12, y + 4, shortened(row.method, LETTERS), "end")
    for score in scores:
        if not math.isnan(score):
            yield Dot(scale(score), y, 3.2, "accent", hollow=True)
    if not math.isnan(mean):
        yield Line(((scale(mean), y - 8), (scale(mean), y + 8)), "ink", 2)


def _mean(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.3f}"


def _range(scores: Sequence[float]) -> str:
    known = [score for score in scores if not math.isnan(score)]
    return f"{min(known):.3f} to {max(known):.3f}" if known else "not defined"


_X = Scale(0.0, 1.0, LEFT, LEFT + INSIDE)
_Y = Scale(0.0, 1.0, TOP + INSIDE, TOP)


def _panel(title: str, across: str, up: str) -> Iterator[Shape]:
    """The frame of a square from 0 to 1."""
    yield Label(LEFT, 14, shortened(title, 30), "start", 12.5, "ink", bold=True)
    yield Label(LEFT, 28, up, "start", 10.5, "muted")
    for share in SHARES:
        yield Line(((_X(share), TOP), (_X(share), TOP + INSIDE)), "rule")
        yield Line(((LEFT, _Y(share)), (LEFT + INSIDE, _Y(share))), "rule")
    for share in SHARES[::2]:
        yield Label(_X(share), TOP + INSIDE + 14, f"{share:g}", "middle", 10.5, "muted")
        yield Label(LEFT - 5, _Y(share) + 4, f"{share:g}", "end", 10.5, "muted")
    yield Label(LEFT + INSIDE / 2, TOP + INSIDE + 28, across, "middle", 10.5, "muted")


def _diagonal() -> Line:
    return Line(((_X(0), _Y(0)), (_X(1), _Y(1))), "muted", 0.8, dashed=True)


def _curve(points: Sequence[Point], tone: Tone, width: float) -> Line:
    return Line(tuple((_X(x), _Y(y)) for x, y in points), tone, width)


def _bin_point(found: Bin) -> Point:
    return found.predicted, found.observed


def _reliability(curve: Sequence[Bin], *, first: bool) -> Iterator[Shape]:
    yield _curve([_bin_point(found) for found in curve], "accent", 1.8 if first else 0.9)
    for found in curve if first else ():
        x = _X(found.predicted)
        yield Line(((x, _Y(found.interval.low)), (x, _Y(found.interval.high))), "accent")
        yield Dot(x, _Y(found.observed), 2.6, "accent")
