"""Random flips, rotations and scalings of whole batches in torch: one draw per item, one resampling for everything.

What torchio's `RandomFlip(axes=("LR",), flip_probability=flip)` followed by `RandomAffine(scales=scales,
degrees=degrees, isotropic=True, default_pad_value=0)` does, with the same conventions (angles about the RAS axes
in millimetres, composed as Rz Rx Ry; a scale above 1 enlarges), but drawn from the seed of each item and resampled
once for all modalities. Away from the border the two agree to 1e-3 of the intensity range (tests). In the outermost
half voxel torchio repeats the edge while this one fades to 0. Transforms of torchio itself come after it on request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionbench.imaging.transforms import transformed, transforms_of

if TYPE_CHECKING:
    from fusionbench.experiment import Augmentation


def augment(
    inputs: Mapping[str, Tensor],
    seg: Tensor | None,
    seeds: Sequence[int],
    spacing: Tensor | Sequence[float],
    augmentation: Augmentation,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Move every item as its own seed says, all its images (B, C, D, H, W) and its segmentation alike; then the extras.

    An item depends on its seed and its voxels alone, not on what else is in the batch. `spacing` is mm per voxel in
    the order (D, H, W), for all or one row (B, 3) each. Images are interpolated linearly, labels by the nearest
    voxel, and what comes from outside is 0. Tables and items that do not move are returned as they are.
    """
    spacings = torch.as_tensor(spacing).expand(len(seeds), 3)
    moved, moved_seg = _all_moved(inputs, seg, seeds, spacings, augmentation)
    if not augmentation.extra:
        return moved, moved_seg
    return transformed(transforms_of(augmentation.extra), moved, moved_seg, seeds, spacings)


def _all_moved(
    inputs: Mapping[str, Tensor],
    seg: Tensor | None,
    seeds: Sequence[int],
    spacings: Tensor,
    augmentation: Augmentation,
) -> tuple[dict[str, Tensor], Tensor | None]:
    images = [name for name, values in inputs.items() if values.shape[2:] != (1, 1, 1)]
    matrices = torch.stack([draw(seed, augmentation) for seed in seeds])
    moved = (matrices != torch.eye(3, dtype=torch.float64)).any(2).any(1).nonzero()[:, 0]
    if not images or len(moved) == 0:
        return dict(inputs), seg
    channels = [inputs[name].shape[1] for name in images]
    together = torch.cat([inputs[name] for name in images], dim=1)  # (B, sum of C, D, H, W)
    grid = sampling_grid(matrices[moved], together.shape[2:], spacings[moved], together.device)
    parts = torch.split(_moved(together, moved, grid, "bilinear"), channels, dim=1)
    result = dict(inputs) | dict(zip(images, parts, strict=True))
    return result, seg if seg is None else _moved(seg, moved, grid, "nearest")


def draw(seed: int, augmentation: Augmentation) -> Tensor:
    """The random transform of one seed, as the (3, 3) matrix of `transform_matrix`."""
    uniform = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = augmentation.scales
    x, y, z = ((2 * uniform[1:4] - 1) * augmentation.degrees).tolist()
    scale = low + float(uniform[4]) * (high - low)
    return transform_matrix(bool(uniform[0] < augmentation.flip), (x, y, z), scale)


def transform_matrix(flip: bool, degrees: tuple[float, float, float], scale: float) -> Tensor:
    """Where a point of the object goes, in mm (x, y, z) from the centre of the image: (3, 3), float64.

    First left and right change places, then the object turns about the axes by Rz Rx Ry and grows by `scale`.
    """
    x, y, z = (_rotation(axis, angle) for axis, angle in enumerate(degrees))
    mirror = torch.diag(torch.tensor([-1.0 if flip else 1.0, 1.0, 1.0], dtype=torch.float64))
    return scale * (z @ x @ y) @ mirror


def sampling_grid(matrices: Tensor, size: Sequence[int], spacings: Tensor, device: torch.device) -> Tensor:
    """Where each voxel of the result is read, for `grid_sample`: (B, 3, 3) -> (B, D, H, W, 3), in [-1, 1] inside.

    Through millimetres, so that voxels longer along one axis shear nothing. Summed axis by axis, which needs no
    matrix product over the voxels and gives an item the same bits in any batch.
    """
    extent = (torch.tensor(size) * spacings.double().cpu()).flip(-1)  # (B, 3) mm, (D, H, W) -> (x, y, z)
    backward = torch.linalg.inv(matrices) * extent[:, None, :] / extent[:, :, None]
    depth, height, width = (_centres(n, device) for n in size)
    toward_x, toward_y, toward_z = backward.float().to(device)[:, None, None, None].unbind(-1)  # (B, 1, 1, 1, 3)
    in_plane = height[:, None, None] * toward_y + width[:, None] * toward_x  # (B, 1, H, W, 3)
    grid: Tensor = in_plane + depth[:, None, None, None] * toward_z
    return grid


def _moved(values: Tensor, moved: Tensor, grid: Tensor, mode: str) -> Tensor:
    if len(moved) == len(values):  # the usual case, without two copies of the batch
        return F.grid_sample(values.to(grid), grid, mode=mode, align_corners=False).to(values)
    index = moved.to(values.device)
    sampled = F.grid_sample(values[index].to(grid), grid, mode=mode, align_corners=False)
    return values.index_copy(0, index, sampled.to(values))


def _rotation(axis: int, degrees: float) -> Tensor:
    """The right-handed rotation about axis 0, 1 or 2 (x, y, z)."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[first, first] = matrix[second, second] = angle.cos()
    matrix[second, first], matrix[first, second] = angle.sin(), -angle.sin()
    return matrix


def _centres(count: int, device: torch.device) -> Tensor:
    """The centres of that many voxels between -1 and 1."""
    return (torch.arange(count, device=device) + 0.5) * (2 / count) - 1
