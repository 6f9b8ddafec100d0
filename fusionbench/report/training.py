"""How the loss fell: a small panel per method, a line per fold, its stages one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fusionbench.histories import Epoch
from fusionbench.report.axes import Scale, span, told
from fusionbench.report.drawing import Drawing, Label, Line, Shape, shortened

WIDTH, HEIGHT = 252.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 240.0, 34.0, 148.0


def loss_panel(method: str, history: Sequence[Epoch]) -> Drawing:
    """The mean loss per subject in each epoch of each fold; a line where a stage ends."""
    stages = _stages(history)
    total = sum(stages.values())
    across = Scale(0, max(total, 2), LEFT, RIGHT)
    up = Scale(*span(epoch.loss for epoch in history), BOTTOM, TOP)
    shapes: list[Shape] = [*_frame(method, across, up), *_borders(stages, across)]
    shapes += [Line(tuple(points), "accent", 0.9) for points in _lines(history, stages, across, up)]
    words = ", ".join(f"{name} ({epochs} epochs)" for name, epochs in stages.items())
    ends = [epochs[-1].loss for epochs in _fits(history) if epochs]
    text = f"Training loss of {method}; stages: {words}; last losses {min(ends):.3g} to {max(ends):.3g}"
    return Drawing.of(f"loss-{method}", f"Training loss of {method}", text, (WIDTH, HEIGHT), shapes)


def _stages(history: Iterable[Epoch]) -> dict[str, int]:
    """Stage -> its number of epochs, in the order of training."""
    stages: dict[str, int] = {}
    for epoch in history:
        stages[epoch.stage] = max(stages.get(epoch.stage, 0), epoch.epoch + 1)
    return stages


def _fits(history: Iterable[Epoch]) -> list[list[Epoch]]:
    fits: dict[tuple[int, int], list[Epoch]] = {}
    for epoch in history:
        fits.setdefault((epoch.repeat, epoch.fold), []).append(epoch)
    return list(fits.values())


def _lines(
    history: Iterable[Epoch], stages: dict[str, int], across: Scale, up: Scale
) -> Iterator[list[tuple[float, float]]]:
    """A line per fit and stage: stages may have losses that cannot be compared."""
    starts = dict(zip(stages, _sums(stages.values()), strict=True))
    for fit in _fits(history):
        for stage, start in starts.items():
            yield [(across(start + e.epoch + 0.5), up(e.loss)) for e in fit if e.stage == stage]


def _sums(lengths: Iterable[int]) -> Iterator[int]:
    total = 0
    for length in lengths:
        yield total
        total += length


def _frame(method: str, across: Scale, up: Scale) -> Iterator[Shape]:
    yield Label(LEFT, 14, shortened(method, 30), "start", 12.5, "ink", bold=True)
    yield Label(LEFT, 28, "loss", "start", 10.5, "muted")
    for value in up.ticks(4):
        yield Line(((LEFT, up(value)), (RIGHT, up(value))), "rule")
        yield Label(LEFT - 5, up(value) + 4, told(value), "end", 10.5, "muted")
    for value in across.ticks(5):
        yield Label(across(value), BOTTOM + 14, told(value), "middle", 10.5, "muted")
    yield Label((LEFT + RIGHT) / 2, BOTTOM + 30, "epoch", "middle", 10.5, "muted")


def _borders(stages: dict[str, int], across: Scale) -> Iterator[Shape]:
    if len(stages) < 2:
        return
    for (name, length), start in zip(stages.items(), _sums(stages.values()), strict=True):
        if start:
            yield Line(((across(start), TOP), (across(start), BOTTOM)), "muted", 0.8, dashed=True)
        yield Label(across(start + length / 2), TOP + 10, shortened(name, 12), "middle", 10, "muted")
