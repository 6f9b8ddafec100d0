"""Dual attention: positions attend to positions within each slice, and slices attend to slices.

After Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019 (arXiv 1809.02983): its position attention
as the spatial branch, its channel attention with slices in the channels' role as the slice branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fusionbench import AttentionModule, FusionBenchError, hookimpl

Energy = Literal["mean", "dot", "cosine"]

DESCRIPTORS: Final[Mapping[Energy, Callable[[Tensor], Tensor]]] = {
    "dot": lambda slices: slices,
    "mean": lambda slices: slices * slices.shape[-1] ** -0.5,
    "cosine": lambda slices: F.normalize(slices, dim=-1),
}
"""What is multiplied with itself to give an energy: (B, D, C*H*W) -> the same shape."""
MAP_NUMBERS: Final = 2**21
"""How much of a map over the volume there is at once: 8 MiB in single precision."""


class DualAttention(AttentionModule):
    """Dual attention: a spatial map within each slice beside a map between slices, each added by a learned scale.

    Spatial: S_i = sum_j softmax_j(q_i . k_j) v_j, with q, k, v from pointwise convolutions. Slice: with one row Y_d per
    slice, E = Y Y^T, A_d = sum_e softmax_e(-E_de) Y_e. The branches are x + gamma * S and x + gamma' * A with both
    scales 0 at the start. `energy="dot"` is the published form, and saturates on volumes: see docs/attention.md. With
    `second="channels"` the second branch is DANet's own, between channels: one row Y_c per channel and slice.
    """

    name = "dual"

    def __init__(
        self,
        channels: int,
        *,
        scope: Annotated[Literal["slice", "volume"], "positions attend within their slice, or anywhere"] = "slice",
        energy: Annotated[Energy, "the likeness of two slices: a mean, a sum (published) or a cosine"] = "mean",
        invert: Annotated[bool, "slices attend to the unlike ones, as DANet's code; false: as its formula"] = True,
        second: Annotated[Literal["slices", "channels"], "the branch beside the spatial one: what attends"] = "slices",
        combine: Annotated[Literal["sum", "mean"], "of the branches: sum starts at 2x, mean at x"] = "sum",
        reduction: Annotated[int, "queries and keys have channels / reduction channels, at least 1"] = 8,
    ) -> None:
        super().__init__()
        if reduction < 1:
            raise FusionBenchError(f"dual: reduction is {reduction}; it divides the channels, so give 1 or more")
        self.scope = scope
        self.second = second
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
            second = x + self.slice_scale * (self._slices(x) if self.second == "slices" else self._channels(x))
            return self.share * (spatial + second)

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
            return self._likeness(_slice_rows(self._precise(x)))

    def channel_map(self, x: Tensor) -> Tensor:
        """Who attends to which channel in each slice, (B, D, C, C), or (B, 1, C, C) in the volume scope.

        Rows are the attending channels and sum to 1.
        """
        with full_precision(x.device):
            return self._likeness(self._positions(self._precise(x)).mT)

    @torch.no_grad()
    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """How much attention each position gets, and each slice or channel: 1 is an equal share, the mean is 1.

        `spatial` is (B, 1, D, H, W), within each slice in the slice scope; `slices` (B, 1, D, 1, 1); `channels`
        (B, C, D, 1, 1), or (B, C, 1, 1, 1) in the volume scope. They say nothing of the scales, which may be near 0.
        """
        with full_precision(x.device):
            seen = self._received(self._precise(x))
        spatial = seen.reshape(len(x), 1, *x.shape[2:])
        if self.second == "slices":
            return {"spatial": spatial, "slices": _shares(self.slice_map(x))[:, None, :, None, None]}
        return {"spatial": spatial, "channels": _shares(self.channel_map(x)).mT[..., None, None]}

    def _received(self, x: Tensor) -> Tensor:
        """The share of each position, (B, D, H*W) or (B, D*H*W); a map over the volume is made some rows at a time."""
        if self.scope == "slice":
            return _shares(self.spatial_map(x))
        query, key = (self._positions(part(x))[:, 0].contiguous() for part in (self.query, self.key))
        return torch.stack([weights.sum(1) for _, weights, _ in _maps(query, key)]).sum(0)

    def _likeness(self, rows: Tensor) -> Tensor:
        rows = DESCRIPTORS[self.energy](rows)  # (..., D or C, what describes one)
        # DANet computes softmax(rowmax(E) - E). The softmax cancels the row's maximum, so the sign is all there is.
        return (self.sign * (rows @ rows.mT)).softmax(-1)

    def _spatial(self, x: Tensor) -> Tensor:
        if self.scope == "slice":
            seen = self.spatial_map(x) @ self._positions(self.value(x))  # (B, D, H*W, C)
        else:
            rows = (self.query(x), self.key(x), self.value(x))
            seen = Attend.apply(*(self._positions(row)[:, 0].contiguous() for row in rows)).unsqueeze(1)
        return _volume(seen, x)

    def _slices(self, x: Tensor) -> Tensor:
        batch, channels, depth, height, width = x.shape
        seen = self.slice_map(x) @ _slice_rows(x)  # (B, D, D) @ (B, D, C*H*W)
        return seen.reshape(batch, depth, channels, height, width).transpose(1, 2)

    def _channels(self, x: Tensor) -> Tensor:
        seen = self.channel_map(x) @ self._positions(x).mT  # (B, D, C, C) @ (B, D, C, H*W)
        return _volume(seen.mT, x)

    def _positions(self, x: Tensor) -> Tensor:
        rows = x.flatten(3) if self.scope == "slice" else x.flatten(2).unsqueeze(2)
        return rows.permute(0, 2, 3, 1)  # (B, C, D, H*W) -> (B, D, H*W, C); volume: (B, 1, D*H*W, C)

    def _precise(self, x: Tensor) -> Tensor:
        return x.to(self.value.weight.dtype)


class Attend(torch.autograd.Function):
    """softmax(q k^T) v in memory linear in N: q, k (B, N, few) and v (B, N, C) -> (B, N, C).

    The map, 4 GiB at the paper's size, is made some rows at a time, and made again in the backward pass, which is cheap
    as queries are narrow. torch's kernels without a map want them as wide as the values: on a CPU 1.6 times the time.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The values that each position sees."""
        out = torch.empty_like(value)
        for rows, weights, _ in _maps(query, key):
            torch.bmm(weights, value, out=out[:, rows])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k, v: with P the map and G = dS v^T, energies have P_ij (G_ij - sum_j P_ij G_ij)."""
        query, key, value, out = ctx.saved_tensors
        seen = above[0].contiguous()
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for rows, weights, scratch in _maps(query, key):
            d_value.baddbmm_(weights.mT, seen[:, rows])
            means = (seen[:, rows] * out[:, rows]).sum(-1, keepdim=True)  # sum_j P_ij G_ij, for the rows of P v are out
            energies = torch.bmm(seen[:, rows], value.mT, out=scratch).sub_(means).mul_(weights)
            torch.bmm(energies, key, out=d_query[:, rows])
            d_key.baddbmm_(energies.mT, query[:, rows])
        return d_query, d_key, d_value


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast within, on a device that has it; the meta device has none."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _maps(query: Tensor, key: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows of the map at a time, (B, rows, N), and room of that size; both are used again for the next rows."""
    batch, positions, _ = query.shape
    several = max(1, MAP_NUMBERS // (batch * positions))
    energies, weights = (query.new_empty(batch, min(several, positions), positions) for _ in range(2))
    for start in range(0, positions, several):
        rows = slice(start, min(start + several, positions))
        mine, room = weights[:, : rows.stop - start], energies[:, : rows.stop - start]
        torch.bmm(query[:, rows], key.mT, out=room)
        yield rows, torch.softmax(room, -1, out=mine), room


def _shares(weights: Tensor) -> Tensor:
    """What each gets of the attention of all, in equal shares: rows that attend (..., N, N) -> (..., N)."""
    return weights.sum(-2)


def _slice_rows(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, C, D, H, W) -> (B, D, C*H*W)


def _volume(rows: Tensor, like: Tensor) -> Tensor:
    batch, channels, *size = like.shape
    return rows.flatten(1, 2).mT.reshape(batch, channels, *size)  # (B, D, H*W, C) -> (B, C, D, H, W)


@hookimpl
def fusionbench_attention_modules() -> list[type[AttentionModule]]:
    """Dual attention."""
    return [DualAttention]
