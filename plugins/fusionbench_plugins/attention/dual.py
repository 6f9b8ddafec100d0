"""Dual attention: positions attend to positions within each slice, and slices attend to slices.

After Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019 (arXiv 1809.02983): its position attention
as the spatial branch, its channel attention with slices in the channels' role as the slice branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import AttentionModule, FusionBenchError, hookimpl

Energy = Literal["mean", "dot", "cosine"]

DESCRIPTORS: Final[Mapping[Energy, Callable[[Tensor], Tensor]]] = {
    "dot": lambda slices: slices,
    "mean": lambda slices: slices * slices.shape[-1] ** -0.5,
    "cosine": lambda slices: F.normalize(slices, dim=-1),
}
"""What is multiplied with itself to give an energy: (B, D, C*H*W) -> the same shape."""


class DualAttention(AttentionModule):
    """Dual attention: a spatial map within each slice beside a map between slices, each added by a learned scale.

    Spatial: S_i = sum_j softmax_j(q_i . k_j) v_j, with q, k, v from pointwise convolutions. Slice: with one row Y_d per
    slice, E = Y Y^T, A_d = sum_e softmax_e(-E_de) Y_e. The branches are x + gamma * S and x + gamma' * A with both
    scales 0 at the start. `energy="dot"` is the published form, and saturates on volumes: see docs/attention.md.
    """

    name = "dual"

    def __init__(
        self,
        channels: int,
        *,
        scope: Annotated[Literal["slice", "volume"], "positions attend within their slice, or anywhere"] = "slice",
        energy: Annotated[Energy, "the likeness of two slices: a mean, a sum (published) or a cosine"] = "mean",
        invert: Annotated[bool, "slices attend to the unlike ones, as DANet's code; false: as its formula"] = True,
        combine: Annotated[Literal["sum", "mean"], "of the branches: sum starts at 2x, mean at x"] = "sum",
        reduction: Annotated[int, "queries and keys have channels / reduction channels, at least 1"] = 8,
    ) -> None:
        super().__init__()
        if reduction < 1:
            raise FusionBenchError(f"dual: reduction is {reduction}; it divides the channels, so give 1 or more")
        self.scope = scope
        self.energy: Energy = energy
        self.sign = -1.0 if invert else 1.0
        self.share = 1.0 if combine == "sum" else 0.5
        few = max(1, channels // reduction)
        self.query = nn.Conv3d(channels, few, 1)
        self.key = nn.Conv3d(channels, few, 1)
        self.value = nn.Conv3d(channels, channels, 1)
        self.spatial_scale = nn.Parameter(torch.zeros(1))
        self.slice_scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        with full_precision(x.device):
            # Half precision ends at 65,504, which energies reach; both branches are <1 % of a backbone's work.
            x = self._precise(x)
            spatial = x + self.spatial_scale * self._spatial(x)
            slices = x + self.slice_scale * self._slices(x)
            return self.share * (spatial + slices)

    def spatial_map(self, x: Tensor) -> Tensor:
        """Who attends to which position, (B, D, H*W, H*W), or (B, 1, D*H*W, D*H*W) in the volume scope.

        Rows are the attending positions and sum to 1.
        """
        with full_precision(x.device):
            x = self._precise(x)
            energy = self._positions(self.query(x)) @ self._positions(self.key(x)).mT
            return energy.softmax(-1)

    def slice_map(self, x: Tensor) -> Tensor:
        """Who attends to which slice, (B, D, D): rows are the attending slices and sum to 1."""
        with full_precision(x.device):
            rows = DESCRIPTORS[self.energy](_slice_rows(self._precise(x)))  # (B, D, C*H*W)
            # DANet computes softmax(rowmax(E) - E). The softmax cancels the row's maximum, so the sign is all there is.
            return (self.sign * (rows @ rows.mT)).softmax(-1)

    def _spatial(self, x: Tensor) -> Tensor:
        value = self._positions(self.value(x))  # (B, D, H*W, C)
        if self.scope == "slice":
            seen = self.spatial_map(x) @ value
        else:  # never holds the map, which is 4 GiB at the paper's size
            query, key = self._positions(self.query(x)), self._positions(self.key(x))
            seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        batch, channels, *size = x.shape
        return seen.flatten(1, 2).mT.reshape(batch, channels, *size)  # (B, D, H*W, C) -> (B, C, D, H, W)

    def _slices(self, x: Tensor) -> Tensor:
        batch, channels, depth, height, width = x.shape
        seen = self.slice_map(x) @ _slice_rows(x)  # (B, D, D) @ (B, D, C*H*W)
        return seen.reshape(batch, depth, channels, height, width).transpose(1, 2)

    def _positions(self, x: Tensor) -> Tensor:
        rows = x.flatten(3) if self.scope == "slice" else x.flatten(2).unsqueeze(2)
        return rows.permute(0, 2, 3, 1)  # (B, C, D, H*W) -> (B, D, H*W, C); volume: (B, 1, D*H*W, C)

    def _precise(self, x: Tensor) -> Tensor:
        return x.to(self.value.weight.dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast within, on a device that has it; the meta device has none."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _slice_rows(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, C, D, H, W) -> (B, D, C*H*W)


@hookimpl
def fusionbench_attention_modules() -> list[type[AttentionModule]]:
    """Dual attention."""
    return [DualAttention]
