"""Pictures of a cohort: some axial slices of some subjects, the tumour outlined, one PNG per modality."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.cohorts import Cohort, Modality, Subject
from fusionbench.imaging.nifti import MAX_VOXELS, Frame, Grid, mismatch, read_image
from fusionbench.imaging.preprocessing import resampled
from fusionbench.runs import slug

if TYPE_CHECKING:
    from PIL.Image import Image

SUBJECTS = 6
"""Rows of a picture."""
PLACES = (0.25, 0.5, 0.75)
"""Where the slices are, from the lowest of the tumour to its highest; without outline, of the middle half."""
TILE = 176
"""Pixels of the longer side of a slice."""
MARGIN = 18
"""Pixels left of the slices for the number of the row, and above those of a synthetic cohort."""
WINDOW = (0.5, 99.5)
"""Percentiles of a volume that are black and white."""
OUTLINE = (255, 150, 0)


@dataclass(frozen=True)
class Picture:
    """Slices of one modality: a PNG without metadata, under a name that is safe whatever the modality is called."""

    modality: str
    file: str
    png: bytes


def shown(cohort: Cohort, count: int = SUBJECTS) -> tuple[Subject, ...]:
    """Whom to show: the classes in turn, in each those with most images first, then by id."""
    images = [modality.name for modality in cohort.modalities if modality.kind == "image"]
    ranked = sorted(cohort.subjects, key=lambda s: (len(s.lacks(images)), s.seg is None, s.id))
    by_class = [[subject for subject in ranked if subject.label == name] for name in cohort.classes]
    turns = chain.from_iterable(zip_longest(*by_class))
    return tuple(subject for subject in turns if subject)[:count]


def pictures(cohort: Cohort, subjects: Sequence[Subject], max_voxels: int = MAX_VOXELS) -> tuple[Picture, ...]:
    """One for each modality of images, with a row for each of these subjects, empty for those who lack it.

    An outline is drawn where it lies in space, on whatever grid. CohortError for a file that cannot be read.
    """
    images = [modality for modality in cohort.modalities if modality.kind == "image"]
    rows = {m.name: [list(_tiles(subject, m, max_voxels)) for subject in subjects] for m in images}
    return tuple(Picture(name, file_name(name), _png(tiles, cohort.synthetic)) for name, tiles in rows.items())


def file_name(modality: str) -> str:
    """A file name for the slices of a modality, which may be called anything.

    >>> file_name("t1ce")
    'slices-t1ce-f32f866f.png'
    """
    code = hashlib.sha256(modality.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"slices-{slug(modality)[:40]}-{code}.png"


def _png(rows: Sequence[Sequence[Image]], synthetic: bool) -> bytes:
    from PIL import Image, ImageDraw

    top = MARGIN if synthetic else 0
    canvas = Image.new("RGB", (MARGIN + TILE * len(PLACES), top + TILE * len(rows)))
    draw = ImageDraw.Draw(canvas)
    if synthetic:
        draw.text((MARGIN, 3), "SYNTHETIC: made by equations, no patient", fill=OUTLINE)
    for row, tiles in enumerate(rows):
        draw.text((4, top + row * TILE + TILE // 2), str(row + 1), fill="white")
        for column, tile in enumerate(tiles):
            left = MARGIN + column * TILE + (TILE - tile.width) // 2
            canvas.paste(tile, (left, top + row * TILE + (TILE - tile.height) // 2))
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()


def _tiles(subject: Subject, modality: Modality, max_voxels: int) -> Iterable[Image]:
    if modality.name not in subject.files:
        return
    image = read_image(subject.files[modality.name], modality.channels, max_voxels)
    volume = image.voxels[0]  # (D, H, W)
    outline = _outline(subject, image.frame, max_voxels)
    black, white = np.percentile(volume, WINDOW)
    grey = np.clip((volume - black) / max(white - black, 1e-12), 0, 1) * 255
    for index in _indices(outline):
        yield _tile(grey[index], outline[index], image.frame.grid)


def _outline(subject: Subject, frame: Frame, max_voxels: int) -> NDArray[np.bool_]:
    """Which voxels of an image are tumour, (D, H, W); none if nobody outlined it."""
    if subject.seg is None:
        return np.zeros(frame.size, bool)
    labels = read_image(subject.seg, max_voxels=max_voxels)
    voxels = labels.voxels
    if mismatch("", labels.frame, "", frame):
        voxels = resampled(voxels, labels.frame, frame, linear=False)
    return np.asarray(voxels[0] > 0)


def _indices(outline: NDArray[np.bool_]) -> list[int]:
    """The slices to show of (D, H, W)."""
    depth = len(outline)
    tumour = np.flatnonzero(outline.any(axis=(1, 2)))
    low, high = (tumour[0], tumour[-1]) if len(tumour) else (depth // 4, depth - 1 - depth // 4)
    return [round(low + place * (high - low)) for place in PLACES]


def _tile(grey: NDArray[Any], outline: NDArray[np.bool_], grid: Grid) -> Image:
    """One slice (H, W), the front of the head on top, in proportion whatever its voxels are."""
    from PIL import Image

    _, high, wide = grid.spacing
    height, width = grey.shape[0] * high, grey.shape[1] * wide
    size = (max(1, round(TILE * width / max(height, width))), max(1, round(TILE * height / max(height, width))))
    picture = Image.fromarray(grey[::-1].astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    inside = Image.fromarray(outline[::-1].astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    picture.paste(OUTLINE, mask=Image.fromarray(_edge(np.asarray(inside) > 0).astype(np.uint8) * 255))
    return picture


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels inside that touch one outside."""
    framed = np.pad(inside, 1)
    around = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return np.asarray(inside & ~around)
