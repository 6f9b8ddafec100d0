"""From the voxels that are tumour to the box that is graded."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


def largest_component(mask: Mask) -> Mask:
    """The largest part of a mask (D, H, W) whose voxels touch by face, edge or corner; the first of equal ones."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask
    largest: Mask = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return largest


def surrounding_box(mask: Mask, margin: int) -> Box | None:
    """The smallest box around a mask (D, H, W), wider by a margin on each side but not past the border.

    None if there is nothing to surround.
    """
    if not mask.any():
        return None
    (tight,) = ndimage.find_objects(mask.astype(np.uint8))
    depth, height, width = (
        slice(max(0, side.start - margin), min(voxels, side.stop + margin))
        for side, voxels in zip(tight, mask.shape, strict=True)
    )
    return depth, height, width


def central_box(size: tuple[int, ...]) -> Box:
    """The middle half of each axis of a volume (D, H, W), rounded outwards.

    >>> central_box((12, 5, 1))
    (slice(3, 9, None), slice(1, 4, None), slice(0, 1, None))
    """
    depth, height, width = (slice(voxels // 4, voxels - voxels // 4) for voxels in size)
    return depth, height, width


@torch.library.custom_op("fusionbench_agg::cut", mutates_args=())
def cut(volumes: Tensor, tumour: Tensor, margin: int, side: int) -> Tensor:
    """What lies in the box around each tumour: (B, C, D, H, W), (B, 1, D, H, W) -> (B, C, side, side, side).

    The box is around the largest component of what is true, or in the middle if nothing is. An operator of its own,
    so that `--cost`, whose tensors have no values, knows the shape; no gradient flows back to the volumes.
    """
    boxes = (surrounding_box(largest_component(mask), margin) for mask in as_masks(tumour))
    middle = central_box(tuple(volumes.shape[2:]))
    return torch.stack([resampled(volume, box or middle, side) for volume, box in zip(volumes, boxes, strict=True)])


@cut.register_fake
def _(volumes: Tensor, tumour: Tensor, margin: int, side: int) -> Tensor:
    return volumes.new_empty(*volumes.shape[:2], side, side, side)


def resampled(volume: Tensor, box: Box, side: int) -> Tensor:
    """What lies in the box, linearly interpolated to a cube: (C, D, H, W) -> (C, side, side, side)."""
    crop = volume[:, *box]
    return F.interpolate(crop[None], size=(side, side, side), mode="trilinear")[0]


def standardised(cubes: Tensor) -> Tensor:
    """Each channel of each subject at mean 0 and deviation 1: (B, C, D, H, W) -> the same shape; a flat one is 0."""
    mean = cubes.mean((2, 3, 4), keepdim=True)
    deviation = cubes.std((2, 3, 4), correction=0, keepdim=True)
    return (cubes - mean) / (deviation + 1e-6)


def dice(mask: Mask, truth: Mask) -> float:
    """Twice the voxels in both over the sum of those in each, 0 to 1; 1 if both are empty.

    >>> dice(np.array([True, True, False]), np.array([False, True, False]))
    0.6666666666666666
    """
    total = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / total if total else 1.0


def as_masks(tumour: Tensor) -> list[Mask]:
    """(B, 1, D, H, W) of truth values on any device -> a mask (D, H, W) of each subject."""
    return [*tumour[:, 0].to("cpu", torch.bool).numpy()]
