"""A perceptron for tables: each table is a volume of one voxel with a channel per feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench import Backbone, FeatureSpec, FusionBenchError, hookimpl


class Residual(nn.Module):
    """x plus a correction by two layers, the last of which starts at zero: the identity at first."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        last = nn.Linear(channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # LayerNorm, for BatchNorm raises on a batch of one.
        self.correction = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout), last
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        out: Tensor = x + self.correction(x)
        return out


class Mlp(Backbone):
    """A perceptron for tables that is a linear model of the standardised features until training bends it.

    low(x) = x' + g(x') with x' = W (x - mean) / std + b; high(l) = l + h(l), where g and h are small residual blocks
    that start at zero. The mean and std of each feature are those of the training part.
    """

    name = "mlp"
    accepts = frozenset({"table"})
    needs_statistics = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        *,
        width: Annotated[int, "channels of the hidden layers"] = 64,
        dropout: Annotated[float, "the part of the inputs and hidden units dropped in training"] = 0.5,
    ) -> None:
        super().__init__()
        if width < 1:
            raise FusionBenchError(f"mlp: width is {width}; it is a number of channels, 1 or more")
        if not 0 <= dropout < 1:
            raise FusionBenchError(f"mlp: dropout is {dropout}; it is a fraction, from 0 to less than 1")
        self.low_spec = self.high_spec = FeatureSpec(width)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        # Linear layers over the last axis are 1x1x1 convolutions, and on a table 3.5 times as fast.
        self.drop = nn.Dropout(dropout)
        self.enter = nn.Linear(channels, width)
        self.first = Residual(width, dropout)
        self.second = Residual(width, dropout)

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Keep each feature's mean and standard deviation over these; a constant feature gets 1 for the latter."""
        # (B, F, D, H, W), ... -> (N, F); float64, for features far from zero
        parts = [batch.movedim(1, -1).flatten(0, -2).double() for batch in batches]
        if not parts:
            raise FusionBenchError("mlp: there is no training subject to take the mean and deviation of")
        rows = torch.cat(parts)
        constant = rows.amax(0) == rows.amin(0)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0, correction=0).masked_fill(constant, 1))

    def low(self, x: Tensor) -> Tensor:
        """(B, F, D, H, W) -> (B, width, D, H, W)."""
        standard = (x.movedim(1, -1) - self.mean) / self.std  # (B, F, D, H, W) -> (B, D, H, W, F)
        low: Tensor = self.first(self.enter(self.drop(standard)))
        return low.movedim(-1, 1)

    def high(self, low: Tensor) -> Tensor:
        """(B, width, D, H, W) -> the same shape."""
        high: Tensor = self.second(low.movedim(1, -1))
        return high.movedim(-1, 1)


@hookimpl
def fusionbench_backbones() -> list[type[Backbone]]:
    """The perceptron."""
    return [Mlp]
