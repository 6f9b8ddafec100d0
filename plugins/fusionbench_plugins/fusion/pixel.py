"""Pixel-level fusion: all modalities become the channels of one image, and one network sees it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench import Batch, Context, FusionStrategy, Parts, hookimpl, present


class Pixel(FusionStrategy):
    """Pixel-level fusion: the modalities are the channels of one backbone; for tables, early fusion.

    An image that a subject lacks is a channel of zeros, the grey value of the background; a table is at the mean of
    those who have it.
    """

    name = "pixel"
    takes_missing = True
    stacks = True
    typical: Tensor

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.backbone = parts.backbone(*parts.modalities)
        channels = self.backbone.high_spec.channels
        self.attention = parts.attention(channels)
        self.head = parts.head(channels)
        self.channels = [parts.shapes[name] for name in parts.modalities]
        self.register_buffer("typical", torch.zeros(sum(self.channels)))

    def begin(self, context: Context) -> None:
        """Where subjects lack a table, keep the mean of those who have it."""
        rows: dict[str, list[Tensor]] = {name: [] for name in self.modalities}
        for batch in context.training():
            if all(present(batch.inputs, name) is None for name in self.modalities):
                return  # before anything else is read
            for name in self.modalities:
                rows[name].append(_rows_of_table(batch, name))
        for name, typical in zip(self.modalities, torch.split(self.typical, self.channels), strict=True):
            table = torch.cat([*rows[name], typical.new_zeros(0, len(typical))])
            if len(table):
                typical.copy_(table.double().mean(0))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        parts = zip(self.modalities, torch.split(self.typical, self.channels), strict=True)
        stacked = torch.cat([_filled(inputs, name, typical) for name, typical in parts], 1)  # (B, sum of C_m, D, H, W)
        logits: Tensor = self.head(self.attention(self.backbone(stacked)))
        return logits


def _rows_of_table(batch: Batch, modality: str) -> Tensor:
    """(b, F) of those who have the table; none of an image."""
    x = batch.inputs[modality]
    return x[batch.present[modality]].flatten(1) if x.shape[2:].numel() == 1 else x.new_zeros(0, x.shape[1])


def _filled(inputs: Mapping[str, Tensor], modality: str, typical: Tensor) -> Tensor:
    """(B, C, D, H, W) with something typical (C,) where the modality is missing."""
    x, here = inputs[modality], present(inputs, modality)
    if here is None:
        return x
    return torch.where(here[:, None, None, None, None], x, typical[:, None, None, None].to(x))


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Pixel]
