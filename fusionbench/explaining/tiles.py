"""One slice as a picture: grey values, outline, a map of numbers; front on top, the patient's left on the left."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fusionbench.explaining.sights import Volume

Mask = NDArray[np.bool_]
Picture = Image.Image

SIDE: Final = 256
"""Pixels of the longer side of a tile."""
OUTLINE: Final = (86, 214, 255)
"""The colour of the tumour's outline, which is none of the map's."""
LETTERS: Final = (150, 156, 162)
ON_IMAGE: Final = "inferno"
"""The colour map of what lies on an image; of equal steps to the eye, as is the next."""
ON_ITS_OWN: Final = "viridis"
"""The colour map of features."""
COVER: Final = 0.7
"""How much of the image the strongest value of a map covers; a weaker one covers less, and 0 nothing."""
BARS: Final = 72
"""Pixels of the height of bars."""
NEAREST: Final = Image.Resampling.NEAREST


@dataclass(frozen=True)
class Tile:
    """A picture with a line below it, and what it shows for those who do not see it."""

    picture: Picture
    told: str
    alt: str

    @property
    def png(self) -> bytes:
        """The picture as a file, without metadata."""
        return png(self.picture)


def png(picture: Picture) -> bytes:
    """A PNG without metadata."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def image_tile(grey: Volume, outline: Mask | None, voxel: tuple[float, float], told: str, alt: str) -> Tile:
    """A slice (H, W) of values in [0, 1] with the outline (H, W), voxels of that many mm along H and W."""
    picture = _grey(grey, voxel)
    _letters(picture)
    return Tile(_outlined(picture, outline), told, alt)


def overlay_tile(
    grey: Volume, map: Volume, outline: Mask | None, voxel: tuple[float, float], told: str, alt: str
) -> Tile:
    """A slice with a map (H, W) of values in [0, 1] over it: the stronger, the brighter and the less transparent."""
    below = _grey(grey, voxel)
    values = _sized(map, below.size, Image.Resampling.BILINEAR)
    cover = Image.fromarray((255 * COVER * values).astype(np.uint8))
    below.paste(Image.fromarray(_coloured(values, ON_IMAGE)), mask=cover)
    return Tile(_outlined(below, outline), told, alt)


def map_tile(map: Volume, voxel: tuple[float, float], limits: tuple[float, float], told: str, alt: str) -> Tile:
    """A map (h, w) on its own, each position as one square or oblong: nothing is smoothed."""
    low, high = limits
    values = np.clip((map - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    return Tile(Image.fromarray(_coloured(_sized(values, _size(map.shape, voxel), NEAREST), ON_ITS_OWN)), told, alt)


def bars_tile(weights: Volume, shown: int, told: str, alt: str) -> Tile:
    """One bar for each slice (D,), from 0 to the highest; that of the slice that is shown stands out."""
    picture = Image.new("RGB", (SIDE, BARS), (22, 25, 28))
    draw = ImageDraw.Draw(picture)
    wide = SIDE / len(weights)
    for number, weight in enumerate(weights / max(float(weights.max()), 1e-12)):
        left, top = round(number * wide), BARS - 2 - round(float(weight) * (BARS - 8))
        right = max(left, round((number + 1) * wide) - (2 if wide > 4 else 1))
        draw.rectangle((left, top, right, BARS - 2), fill=OUTLINE if number == shown else (122, 130, 138))
    return Tile(picture, told, alt)


def scale(name: str, width: int = 160, height: int = 12) -> Picture:
    """The colours of a map from its lowest value to its highest; of one that lies on images, as they look on grey."""
    values = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    colours = Image.fromarray(_coloured(values, name))
    if name != ON_IMAGE:
        return colours
    below = Image.new("RGB", (width, height), (96, 96, 96))
    below.paste(colours, mask=Image.fromarray((255 * COVER * values).astype(np.uint8)))
    return below


def font(size: int) -> Any:
    """Pillow's own font, which needs no file of the system."""
    return ImageFont.load_default(size)


def _size(shape: tuple[int, ...], voxel: tuple[float, float]) -> tuple[int, int]:
    """(width, height) in pixels of a slice (H, W), in proportion whatever its voxels are."""
    height, width = shape[0] * voxel[0], shape[1] * voxel[1]
    longer = max(height, width)
    return max(1, round(SIDE * width / longer)), max(1, round(SIDE * height / longer))


def _grey(values: Volume, voxel: tuple[float, float]) -> Picture:
    sized = _sized(values, _size(values.shape, voxel), Image.Resampling.BICUBIC)
    return Image.fromarray((np.clip(sized, 0, 1) * 255).astype(np.uint8)).convert("RGB")


def _sized(values: Volume, size: tuple[int, int], how: Image.Resampling) -> NDArray[np.float32]:
    """Values (H, W), the front on top, at (width, height) pixels."""
    upright = np.ascontiguousarray(values[::-1], dtype=np.float32)
    resized: NDArray[np.float32] = np.asarray(Image.fromarray(upright).resize(size, how))
    return resized


def _coloured(values: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    coloured: NDArray[np.uint8] = colormaps[name](np.clip(values, 0, 1), bytes=True)[..., :3]
    return np.ascontiguousarray(coloured)


def _outlined(picture: Picture, outline: Mask | None) -> Picture:
    if outline is not None and outline.any():
        inside = Image.fromarray(outline[::-1].astype(np.uint8) * 255).resize(picture.size, NEAREST)
        picture.paste(OUTLINE, mask=Image.fromarray(_line(np.asarray(inside) > 0).astype(np.uint8) * 255))
    return picture


def _line(inside: Mask) -> Mask:
    """The outermost two pixels inside: one is lost where a page shows tiles smaller."""
    edge = _edge(inside)
    return edge | _edge(inside & ~edge)


def _edge(inside: Mask) -> Mask:
    """The pixels inside that touch one outside."""
    framed = np.pad(inside, 1)
    around = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return np.asarray(inside & ~around)


def _letters(picture: Picture) -> None:
    """Which side is which."""
    draw, middle = ImageDraw.Draw(picture), picture.height / 2
    draw.text((5, middle), "L", fill=LETTERS, font=font(13), anchor="lm")
    draw.text((picture.width - 5, middle), "R", fill=LETTERS, font=font(13), anchor="rm")
