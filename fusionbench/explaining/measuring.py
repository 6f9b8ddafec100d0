"""Numbers about the maps of one subject: which slice to show, how strong a map is, how much of it is tumour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fusionbench.explaining.explainer import Account, Explanation
from fusionbench.explaining.gradcam import enlarged
from fusionbench.explaining.sights import Sight, Volume

BESIDE = 2
"""Slices shown on either side of the one that is looked at."""
APART_MM = 8.0
"""About how far they are from one another."""


@dataclass(frozen=True)
class Place:
    """The slice that is shown, and why it is that one."""

    slice: int
    """From 0, the lowest."""
    why: str
    middle: tuple[float, float]
    """Of the tumour in that slice, or of the image: its row and column."""


@dataclass(frozen=True)
class Strength:
    """What a Grad-CAM comes to; shares from 0 to 1."""

    peak: float
    """Its largest value, as a share of the largest of all maps of that method."""
    inside: float | None
    """How much of it lies inside the outline; None without an outline, or where the map is 0."""
    room: float | None
    """How much of the head, what is not 0 in the image, the outline takes: an even map has that much inside."""


def size_of(told: Explanation) -> tuple[int, int, int]:
    """The (D, H, W) of the images."""
    return told.grid.size


def on_image(map: Volume, told: Explanation) -> Volume:
    """A map (d, h, w) at the size of the images."""
    larger: Volume = enlarged(torch.from_numpy(np.array(map)), size_of(told)).numpy()
    return larger


def place_of(told: Explanation) -> Place:
    """The slice with most tumour, or where nobody outlined it, with most Grad-CAM of the method."""
    if told.outline is not None and told.outline.any():
        area = told.outline.sum((1, 2))
        number = int(area.argmax())
        row, column = (float(places.mean()) for places in told.outline[number].nonzero())
        square_cm = float(area.max()) * math.prod(told.grid.spacing[1:]) / 100
        return Place(number, f"where the outlined tumour is largest, {square_cm:.1f} square cm", (row, column))
    depth, height, width = size_of(told)
    middle = ((height - 1) / 2, (width - 1) / 2)
    maps = [sight.cam for sight in told.account.sights if sight.cam is not None and sight.cam.any()]
    if not maps:
        return Place(depth // 2, "the middle one, for there is neither outline nor map", middle)
    mass = np.sum([on_image(map, told).sum((1, 2)) for map in maps], axis=0)
    why = f"where Grad-CAM of {told.case.method} is strongest; nobody outlined the tumour"
    return Place(int(mass.argmax()), why, middle)


def slices_around(told: Explanation, place: Place) -> tuple[int, ...]:
    """The slice and its neighbours, as many as there are, from the lowest."""
    step = max(1, round(APART_MM / told.grid.spacing[0]))
    around = (place.slice + step * offset for offset in range(-BESIDE, BESIDE + 1))
    return tuple(number for number in around if 0 <= number < size_of(told)[0])


def strength(sight: Sight, account: Account, told: Explanation) -> Strength | None:
    """What the Grad-CAM of a backbone comes to; None if there is none."""
    if sight.cam is None:
        return None
    strongest = max((float(one.cam.max()) for one in account.sights if one.cam is not None), default=0.0)
    peak = float(sight.cam.max()) / strongest if strongest else 0.0
    if told.outline is None:
        return Strength(peak, None, None)
    map, head = on_image(sight.cam, told), told.images[sight.modalities[0]] > 0
    inside = float(map[told.outline].sum() / map.sum()) if map.any() else None
    return Strength(peak, inside, float((told.outline & head).sum() / max(1, head.sum())))


def step_mm(map: Volume, told: Explanation) -> tuple[float, float, float]:
    """How large one position of a feature map is, in mm along (D, H, W)."""
    sizes = zip(told.grid.spacing, size_of(told), map.shape, strict=True)
    depth, height, width = (mm * whole / positions for mm, whole, positions in sizes)
    return depth, height, width
