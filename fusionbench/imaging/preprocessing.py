"""What is done to a volume once, before it is cached: resample, crop, rescale, resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fusionbench.errors import CohortError
from fusionbench.imaging.nifti import Box, Frame, Grid, Size

if TYPE_CHECKING:
    from fusionbench.experiment import Preprocessing


EMPTY = "almost nothing is in the picture"
"""What is said of an image that its window leaves without content."""


def preprocess_image(
    volume: NDArray[np.float32], preprocessing: Preprocessing, shift: Size = (0, 0, 0)
) -> NDArray[np.float32]:
    """Crop or pad, rescale the percentiles to [0, 1] at full resolution, then resize: (C, D, H, W) -> the same axes.

    The window of the crop lies `shift` voxels (D, H, W) from the middle. Resizing is linear; when it shrinks, the
    linear filter is as wide as the step between new voxels (as Pillow's and torch's `antialias`), so that every old
    voxel counts and nothing finer than the new grid is aliased into it.
    """
    window = cropped(torch.from_numpy(volume), preprocessing.crop, shift).numpy()
    scaled = torch.from_numpy(rescaled(window, preprocessing.percentiles))
    resized: NDArray[np.float32] = _resized(scaled, preprocessing.resize).numpy()
    return resized


def rescaled(volume: NDArray[np.float32], percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """A volume cut off at two percentiles, which become 0 and 1; CohortError if they are one value.

    To the last bit what torchio's `RescaleIntensity((0, 1), percentiles)` makes of it, but no random number is drawn,
    so that another thread may do it.
    """
    cutoff = percentiles_of(volume, percentiles).astype(np.float32)
    array = np.clip(volume, *cutoff)
    low, high = array.min(), array.max()
    if low == high:
        first, last = percentiles
        raise CohortError(
            f"has one value from percentile {first} to {last}: {EMPTY}; set another crop or wider percentiles"
        )
    with np.errstate(over="raise"):
        array -= low
        array /= high - low
    return array


def percentiles_of(volume: NDArray[np.float32], percentiles: tuple[float, float]) -> NDArray[np.float64]:
    """`np.percentile(volume, percentiles)` to the last bit; whole numbers are counted where an int16 holds them."""
    low, high, limits = float(volume.min()), float(volume.max()), np.iinfo(np.int16)
    in_range = low >= limits.min and high <= limits.max and high - low <= limits.max
    if not in_range or not np.array_equal(whole := volume.astype(np.int16), volume):
        return np.asarray(np.percentile(volume, percentiles))
    no_larger = torch.from_numpy((whole - np.int16(low)).ravel()).bincount().cumsum(0).numpy()
    places = (volume.size - 1) * (np.array(percentiles) / 100)
    before = np.floor(places)
    pairs = (low + np.searchsorted(no_larger, [before, before + 1], side="right")).astype(np.float32)
    return np.diagonal(np.quantile(pairs, places - before, axis=0))


def preprocess_labels(
    volume: NDArray[np.float32], preprocessing: Preprocessing, shift: Size = (0, 0, 0)
) -> NDArray[np.float32]:
    """Crop or pad, then resize by the nearest voxel: (1, D, H, W) -> the same axes, no label mixed."""
    if (volume != volume.round()).any() or np.abs(volume).max() > np.iinfo(np.int16).max:
        raise CohortError("holds values that are no labels; a segmentation has small whole numbers")
    window = cropped(torch.from_numpy(volume), preprocessing.crop, shift)
    if preprocessing.resize is not None:
        window = F.interpolate(window[None], preprocessing.resize, mode="nearest-exact")[0]
    labels: NDArray[np.float32] = window.numpy()
    return labels


def cropped(volume: Tensor, size: Size | None, shift: Size = (0, 0, 0)) -> Tensor:
    """Cut or pad with 0 around a centre that lies `shift` voxels from the middle: (C, D, H, W) -> (C, *size).

    Of an odd number of surplus or lacking voxels the larger half goes first, so of 155 slices 3 to 152 stay.
    """
    if size is None:
        return volume
    inside = volume
    padding: list[int] = []
    for axis, (old, new, moved) in enumerate(zip(volume.shape[1:], size, shift, strict=True), start=1):
        surplus = abs(old - new)
        start = (surplus + 1) // 2 * (1 if old > new else -1) + moved
        first, last = min(max(start, 0), old), min(max(start + new, 0), old)
        before = min(max(-start, 0), new)
        inside = inside.narrow(axis, first, last - first)
        padding = [before, new - (last - first) - before, *padding]  # torch wants the last axis first
    return F.pad(inside, padding)


def resampled(volume: NDArray[np.float32], frame: Frame, onto: Frame, *, linear: bool) -> NDArray[np.float32]:
    """A volume (C, D, H, W) at the voxels of another frame, (C, *onto.size); 0 where it has none."""
    from scipy.ndimage import affine_transform

    back = (np.linalg.inv(frame.matrix) @ onto.matrix)[:3]  # a voxel (x, y, z) of the result -> one of the volume
    matrix, offset = back[::-1, 2::-1], back[::-1, 3]
    channels = [
        affine_transform(channel, matrix, offset, onto.size, order=int(linear), mode="grid-constant", prefilter=False)
        for channel in volume
    ]
    return np.stack(channels)


def content_box(volume: NDArray[np.float32]) -> Box | None:
    """The smallest box that holds every voxel (C, D, H, W) that is not 0; None if there is none."""
    filled = (volume != 0).any(0)
    if not filled.any():
        return None
    lines = (filled.any((1, 2)), filled.any((0, 2)), filled.any((0, 1)))
    ends = [(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in lines]
    (depth, height, width) = ends
    return (depth[0], height[0], width[0]), (depth[1], height[1], width[1])


def grid_after(grid: Grid, preprocessing: Preprocessing) -> Grid:
    """The grid of the preprocessed volume: cropping keeps the spacing, resizing keeps the extent."""
    window = preprocessing.crop or grid.size
    size = preprocessing.resize or window
    depth, height, width = (mm * old / new for mm, old, new in zip(grid.spacing, window, size, strict=True))
    return Grid(size, (depth, height, width))


def shift_of(boxes: Sequence[Box], size: Size) -> Size:
    """From the middle of a volume to the middle of what is in it, in whole voxels (D, H, W)."""
    low = [min(box[0][axis] for box in boxes) for axis in range(3)]
    high = [max(box[1][axis] for box in boxes) for axis in range(3)]
    depth, height, width = ((first + last - n) // 2 for first, last, n in zip(low, high, size, strict=True))
    return depth, height, width


def _resized(volume: Tensor, size: Size | None) -> Tensor:
    """Linear and antialiased: (C, D, H, W) -> (C, *size). Two calls, since torch antialiases two axes at a time."""
    if size is None:
        return volume
    depth, height, width = size
    planes = F.interpolate(volume, (height, width), mode="bilinear", antialias=True)
    columns = planes.flatten(2)[:, None]  # (C, 1, D, H * W)
    columns = F.interpolate(columns, (depth, height * width), mode="bilinear", antialias=True)
    return columns.reshape(-1, depth, height, width)
