"""A 3-D U-Net that says of each voxel whether it is tumour, and what it is trained with."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS: Final = 4
"""Each has half the size and twice the channels of the one above."""


class Normalise(nn.InstanceNorm3d):
    """Instance normalisation with a learned scale and shift; a map of a single voxel is scaled and shifted only.

    One voxel is its own mean, so that normalisation, which PyTorch refuses there, would leave nothing of it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        if x.shape[2:].numel() > 1:
            return super().forward(x)
        return x * self.weight[:, None, None, None] + self.bias[:, None, None, None]


class Level(nn.Sequential):
    """Twice: 3x3x3 convolution, instance normalisation, leaky ReLU. No bias, which normalisation would remove."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv3d(channels, width, 3, padding=1, bias=False), Normalise(width), nn.LeakyReLU(),
            nn.Conv3d(width, width, 3, padding=1, bias=False), Normalise(width), nn.LeakyReLU(),
        )  # fmt: skip


class UNet(nn.Module):
    """An encoder of four levels, width to 8 width, and a decoder that sees each level again, for any D, H, W."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(Level(above, own) for above, own in pairwise([channels, *widths]))
        self.up = nn.ModuleList(Level(own + below, own) for own, below in reversed([*pairwise(widths)]))
        self.last = nn.Conv3d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the logit of tumour, (B, 1, D, H, W)."""
        seen: list[Tensor] = []
        for level in self.down:
            # Rounded up: no voxel is dropped at an odd border, and an axis of one voxel stays as it is.
            x = level(F.max_pool3d(x, 2, ceil_mode=True) if seen else x)
            seen.append(x)
        for level, skipped in zip(self.up, reversed(seen[:-1]), strict=True):
            x = level(torch.cat([F.interpolate(x, skipped.shape[2:], mode="trilinear"), skipped], 1))
        logits: Tensor = self.last(x)
        return logits


def segmentation_loss(logits: Tensor, tumour: Tensor) -> Tensor:
    """Soft Dice loss plus binary cross-entropy, of logits and of what is true (0 or 1), (B, 1, D, H, W) each."""
    return soft_dice_loss(logits, tumour) + F.binary_cross_entropy_with_logits(logits.float(), tumour)


def soft_dice_loss(logits: Tensor, tumour: Tensor) -> Tensor:
    """1 - (2 sum p g + 1) / (sum p + sum g + 1), with p the probability and g the truth, averaged over subjects.

    The ones make it 0 for a subject without tumour in which none is found.
    """
    probability, truth = logits.float().sigmoid().flatten(1), tumour.flatten(1)
    overlap = (probability * truth).sum(1)  # (B,)
    return 1 - ((2 * overlap + 1) / (probability.sum(1) + truth.sum(1) + 1)).mean()
