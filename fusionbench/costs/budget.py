"""What a study will need before it is run: the cost of each of its methods, the cards they fit on, room on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fusionbench.costs.amounts import counted, sized
from fusionbench.costs.cost import Cost, cards_for, cost_of
from fusionbench.engine import awaited
from fusionbench.fits import Fit
from fusionbench.imaging.nifti import Size
from fusionbench.imaging.volumes import Volumes
from fusionbench.planning import Planner
from fusionbench.registry import Registry
from fusionbench.seeds import content_digest
from fusionbench.store import Store
from fusionbench.study import Study

HALF: Final = 2
"""Bytes of a cached voxel, of an image as of an outline."""
CHECKPOINT: Final = 2 * 3
"""States that the checkpoints of a fit hold: the newest and the one before, each with Adam's two moments."""


@dataclass(frozen=True)
class Line:
    """One kind of fit."""

    label: str
    cost: Cost
    cards: Mapping[int, str | None]
    """GiB of a card -> the flags with which it trains there; empty: as it is; None: with none."""


@dataclass(frozen=True)
class Disk:
    """Room that a run takes, in bytes."""

    fits: int
    """How many it has yet to do."""
    weights: int
    """Of those fits, which stay."""
    checkpoints: int
    """Of the largest one while it is trained, at most, for each that is trained at once."""
    volumes: int
    """Preprocessed images and outlines of the whole cohort, where the cache has not got them."""


@dataclass(frozen=True)
class Budget:
    """What a study will need."""

    sizes: Mapping[str, Size]
    """Image -> its (D, H, W) after preprocessing."""
    precision: str
    lines: tuple[Line, ...]
    disk: Disk

    @classmethod
    def of(cls, study: Study, store: Store, sizes: Mapping[str, Size] | None = None) -> Budget:
        """The budget of a study, given what the store has; one image is read, unless the sizes are given."""
        found = image_sizes(study, store) if sizes is None else sizes
        costs = _Costs(study.registry, found)
        typical = {costs.kind(fit): fit for fit in Planner(study).strategies()}
        lines = tuple(costs.line(fit) for fit in typical.values())
        return cls(found, study.comparison.recipe.precision, lines, _disk(study, store, costs, found))

    @property
    def header(self) -> list[str]:
        """The columns of the table."""
        return ["method", "parameters", "forward", "stage", "batch", "step", "kept", "peak"]

    def rows(self) -> list[list[str]]:
        """A row for each stage of each kind of fit; what is not trained by gradient has the memory of predicting."""
        return [row for line in self.lines for row in _rows(line)]

    def notes(self) -> list[str]:
        """What the columns mean, which cards do, and what the disk needs."""
        seen = " and ".join(dict.fromkeys(" x ".join(map(str, size)) for size in self.sizes.values())) or "tables"
        disk = self.disk
        return [
            f"inputs: {seen}, precision {self.precision}; forward and step: FLOP per subject, a multiplication and an "
            "addition are two; kept: bytes held for the backward pass; peak: bytes of all tensors at once",
            *(f"{line.label}: not known, {line.cost.unknown}" for line in self.lines if line.cost.unknown),
            *_card_notes(line for line in self.lines if not line.cost.unknown),
            f"disk: {sized(disk.weights)} of weights for {disk.fits} fits to do, {sized(disk.checkpoints)} of "
            f"checkpoints per fit at work, at most {sized(disk.volumes)} of cached volumes",
        ]


def image_sizes(study: Study, store: Store) -> dict[str, Size]:
    """Image -> (D, H, W) after preprocessing, of the images that some method sees as images."""
    volumes = Volumes(study.cohort, study.comparison.preprocessing, store.open().root / "volumes")
    seen = {m.name for fit in Planner(study).strategies() for m in fit.modalities if m.kind == "image"}
    return {name: volumes.size(name) for name in study.comparison.modalities if name in seen}


class _Costs:
    """The costs of fits, each kind of fit looked at once."""

    def __init__(self, registry: Registry, sizes: Mapping[str, Size]) -> None:
        self.registry, self.sizes = registry, sizes
        self._known: dict[str, Cost] = {}

    def kind(self, fit: Fit) -> str:
        """The same for fits that cost the same: of the same parts, on inputs of the same channels."""
        parts = [built.content() for _, built in fit.components]
        inputs = [[m.kind, m.channels, self.sizes.get(m.name)] for m in fit.modalities]
        return content_digest([parts, inputs, fit.classes, fit.outlines, fit.recipe, fit.stages])

    def of(self, fit: Fit) -> Cost:
        """The cost of a fit."""
        kind = self.kind(fit)
        if kind not in self._known:
            self._known[kind] = cost_of(fit, self.registry, self.sizes)
        return self._known[kind]

    def line(self, fit: Fit) -> Line:
        """A kind of fit with the cards that it trains on."""
        cost = self.of(fit)
        cards = {} if cost.unknown else cards_for(fit, self.registry, self.sizes)
        return Line(self._label(fit), cost, cards)

    def _label(self, fit: Fit) -> str:
        """The strategy, its attention, and the options that are not at their default."""
        attention = fit.attention and self.registry.get("attention", fit.attention.name)
        with_attention = f"+{attention.name}" if attention and not attention.cls.identity else ""  # type: ignore[attr-defined]
        default = self.registry.get("fusion", fit.fusion.name).chosen({})
        altered = [f" {name}={value}" for name, value in fit.fusion.options.items() if value != default[name]]
        return "".join([fit.fusion.name, with_attention, *altered])


def _disk(study: Study, store: Store, costs: _Costs, sizes: Mapping[str, Size]) -> Disk:
    fits = awaited(study, store)
    weights = [costs.of(fit).weights for fit in fits]
    outlined = any(fit.outlines != "none" and not fit.features for fit in fits)
    voxels = [study.cohort.modality(name).channels * math.prod(size) for name, size in sizes.items()]
    voxels += [math.prod(next(iter(sizes.values())))] if sizes and outlined else []
    volumes = HALF * sum(voxels) * len(study.cohort.subjects)
    return Disk(len(fits), sum(weights), CHECKPOINT * max(weights, default=0), volumes)


def _rows(line: Line) -> list[list[str]]:
    cost = line.cost
    model = [line.label, counted(cost.parameters), counted(cost.flops) if cost.flops else ""]
    if not cost.stages:
        return [[*model, "", "", "", "", sized(cost.peak) if cost.peak else ""]]
    return [[*model, s.name, str(s.batch_size), counted(s.flops), sized(s.saved), sized(s.peak)] for s in cost.stages]


def _card_notes(lines: Iterable[Line]) -> Iterator[str]:
    """On which cards which methods train, and how."""
    alike: dict[str, list[str]] = {}
    for line in lines:
        by_flags: dict[str | None, list[str]] = {}
        for card, flags in line.cards.items():
            by_flags.setdefault(flags, []).append(str(card))
        says = [f"{', '.join(cards)} GiB {_how(flags)}" for flags, cards in by_flags.items()]
        alike.setdefault("; ".join(says), []).append(line.label)
    for cards_and_flags, labels in alike.items():
        yield f"GPUs of {cards_and_flags}: {', '.join(dict.fromkeys(labels))}"


def _how(flags: str | None) -> str:
    return "too small" if flags is None else f"with {flags}" if flags else "as it is"
