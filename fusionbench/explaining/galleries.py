"""An explanation as rows of pictures: a row for each backbone, the baseline and the method in the same columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fusionbench.explaining import tiles
from fusionbench.explaining.explainer import Account, Explanation
from fusionbench.explaining.measuring import Place, on_image, place_of, size_of, slices_around, step_mm, strength
from fusionbench.explaining.sights import CHANNELS, FeatureMap, Sight, Volume
from fusionbench.explaining.tiles import Picture, Tile

EVEN = 0.02
"""Weights that differ by less than this share of the largest are called even, and not drawn."""

Cell = Tile | str
"""A picture, or why there is none."""
Painter = Callable[[Sight, Account], Iterator[Cell]]


@dataclass(frozen=True)
class Row:
    """The pictures of one backbone."""

    name: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """The rows of one method."""

    name: str
    note: str
    right: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Scale:
    """What colours mean."""

    picture: Picture
    told: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under one title."""

    id: str
    title: str
    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    scales: tuple[Scale, ...]


def galleries(told: Explanation) -> tuple[Gallery, ...]:
    """What is shown of an explanation, in order."""
    place = place_of(told)
    return overview(told, place), neighbours(told, place), channels(told, place)


def overview(told: Explanation, place: Place) -> Gallery:
    """The image, Grad-CAM, attention and the mean of the features, in one slice."""
    maps = list(dict.fromkeys(name for one in told.accounts for sight in one.sights for name in sight.attention))

    def paint(sight: Sight, account: Account) -> Iterator[Cell]:
        yield _image(sight, told, place)
        yield _cam(sight, account, told, place.slice)
        for name in maps:
            yield _attention(name, sight, told, place)
        yield _mean(sight.high, "high-level", told, place)
        yield _mean(sight.low, "low-level", told, place)

    names = (f"attention: {name}" for name in maps)
    return Gallery(
        id="overview",
        title="One slice",
        caption=f"Slice {place.slice + 1} of {size_of(told)[0]} from below, {place.why}.",
        columns=("image", f"Grad-CAM for {told.target}", *names, "high-level features", "low-level features"),
        groups=_groups(told, paint),
        scales=(
            _on_image("0 to the largest value of a map; of attention, smallest to largest"),
            _on_its_own(),
        ),
    )


def neighbours(told: Explanation, place: Place) -> Gallery:
    """Grad-CAM in the slice and around it."""
    numbers = slices_around(told, place)

    def paint(sight: Sight, account: Account) -> Iterator[Cell]:
        yield from (_cam(sight, account, told, number, short=True) for number in numbers)

    return Gallery(
        id="slices",
        title="The slices around it",
        caption=f"Grad-CAM for {told.target}, from below upwards.",
        columns=tuple(f"slice {number + 1}" for number in numbers),
        groups=_groups(told, paint),
        scales=(_on_image("0 to the largest value of a map"),),
    )


def channels(told: Explanation, place: Place) -> Gallery:
    """The strongest channels of the features, in the slice."""

    def paint(sight: Sight, account: Account) -> Iterator[Cell]:
        for what, features in (("high-level", sight.high), ("low-level", sight.low)):
            found = [_channel(number, map, what, told, place) for number, map in features.strongest.items()]
            yield from found
            yield from [""] * (CHANNELS - len(found))

    return Gallery(
        id="channels",
        title="Channels of the features",
        caption="The channels of the largest mean magnitude over the volume, that one first, in the same slice.",
        columns=tuple(f"{what} {n + 1}" for what in ("high-level", "low-level") for n in range(CHANNELS)),
        groups=_groups(told, paint),
        scales=(_on_its_own(),),
    )


def verdict(account: Account, told: Explanation) -> str:
    """What a method says of the subject."""
    said = account.said
    shares = ", ".join(f"{name} {p:.3f}" for name, p in zip(told.classes, said.probabilities, strict=True))
    return f"says {said.predicted} ({shares}), which is {'right' if said.right else 'wrong'}"


def seen_by(sight: Sight) -> str:
    """Whose image a backbone sees."""
    return ", ".join(sight.modalities)


def _groups(told: Explanation, paint: Painter) -> tuple[Group, ...]:
    return tuple(
        Group(account.method, verdict(account, told), account.said.right, _rows(account, paint))
        for account in told.accounts
    )


def _rows(account: Account, paint: Painter) -> tuple[Row, ...]:
    return tuple(Row(seen_by(sight), _row_note(sight), tuple(paint(sight, account))) for sight in account.sights)


def _row_note(sight: Sight) -> str:
    return f"one backbone sees all of them: one map; the image is {sight.modalities[0]}" * (len(sight.modalities) > 1)


def _image(sight: Sight, told: Explanation, place: Place) -> Tile:
    name = sight.modalities[0]
    alt = f"Axial slice of {name}" + (", tumour outlined" if told.outline is not None else "")
    return tiles.image_tile(
        told.images[name][place.slice], _outline(told, place.slice), told.grid.spacing[1:], name, alt
    )


def _cam(sight: Sight, account: Account, told: Explanation, number: int, *, short: bool = False) -> Cell:
    if sight.cam is None:
        return "no gradient of the prediction reaches these features"
    if not sight.cam.any():
        return f"nowhere above 0: nothing here speaks for {told.target}"
    found = strength(sight, account, told)
    assert found is not None
    strong = "" if len(account.sights) == 1 else f"peak {found.peak:.0%} of the model's"
    return _over(on_image(sight.cam, told) / sight.cam.max(), sight, told, number, "" if short else strong, "Grad-CAM")


def _attention(name: str, sight: Sight, told: Explanation, place: Place) -> Cell:
    weights = sight.attention.get(name)
    if weights is None:
        return "none"
    low, high = float(weights.min()), float(weights.max())
    limits = f"{low:.3f} to {high:.3f}"
    if weights.size == 1 or high - low < EVEN * abs(high):
        return f"even: {limits}"
    if weights.shape[1:] == (1, 1):
        nearest = _slice_of(weights, told, place)
        return tiles.bars_tile(weights[:, 0, 0], nearest, limits, f"Attention {name} of each slice: {limits}")
    return _over((on_image(weights, told) - low) / (high - low), sight, told, place.slice, limits, f"Attention {name}")


def _over(map: Volume, sight: Sight, told: Explanation, number: int, text: str, what: str) -> Tile:
    name = sight.modalities[0]
    return tiles.overlay_tile(
        told.images[name][number], np.clip(map[number], 0, 1), _outline(told, number), told.grid.spacing[1:], text,
        f"{what} over slice {number + 1} of {name}",
    )  # fmt: skip


def _mean(features: FeatureMap, what: str, told: Explanation, place: Place) -> Tile:
    positions = " x ".join(map(str, features.mean.shape))
    text = f"mean of {features.channels} channels, {positions} positions"
    return _features(features.mean, text, f"Mean of the {what} features", told, place)


def _channel(number: int, map: Volume, what: str, told: Explanation, place: Place) -> Tile:
    return _features(map, f"channel {number}", f"Channel {number} of the {what} features", told, place)


def _features(map: Volume, text: str, alt: str, told: Explanation, place: Place) -> Tile:
    limits = (float(map.min()), float(map.max()))
    return tiles.map_tile(map[_slice_of(map, told, place)], step_mm(map, told)[1:], limits, text, alt)


def _slice_of(map: Volume, told: Explanation, place: Place) -> int:
    """The slice of a map (d, h, w) that covers the middle of the slice that is shown."""
    return int((place.slice + 0.5) * len(map) / size_of(told)[0])


def _outline(told: Explanation, number: int) -> tiles.Mask | None:
    return None if told.outline is None else told.outline[number]


def _on_image(text: str) -> Scale:
    return Scale(tiles.scale(tiles.ON_IMAGE), text)


def _on_its_own() -> Scale:
    return Scale(tiles.scale(tiles.ON_ITS_OWN), "features: smallest to largest value of the map over the volume")
