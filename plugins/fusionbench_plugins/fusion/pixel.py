"""Pixel-level fusion: all modalities become the channels of one image, and one network sees it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench import FusionStrategy, Parts, hookimpl, present


class Pixel(FusionStrategy):
    """Pixel-level fusion: the modalities are the channels of one backbone; for tables, early fusion.

    A modality that a subject lacks is a channel of zeros, the grey value of the background.
    """

    name = "pixel"
    takes_missing = True
    stacks = True

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.backbone = parts.backbone(*parts.modalities)
        channels = self.backbone.high_spec.channels
        self.attention = parts.attention(channels)
        self.head = parts.head(channels)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        stacked = torch.cat([_zero_where_absent(inputs, name) for name in self.modalities], 1)  # (B, sum of C_m, ...)
        logits: Tensor = self.head(self.attention(self.backbone(stacked)))
        return logits


def _zero_where_absent(inputs: Mapping[str, Tensor], modality: str) -> Tensor:
    here = present(inputs, modality)
    return inputs[modality] if here is None else inputs[modality] * here[:, None, None, None, None]


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Pixel]
