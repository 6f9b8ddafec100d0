"""Gated fusion: how much each modality counts is decided for each subject, by all modalities together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionbench import FusionStrategy, Parts, hookimpl, pool


class Gated(FusionStrategy):
    """Weighs each modality's features by a gate that sees all of them."""

    name = "gated"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.backbones = nn.ModuleList(parts.backbone(name) for name in parts.modalities)
        channels = [backbone.high_spec.channels for backbone in self.backbones]
        self.attentions = nn.ModuleList(parts.attention(number) for number in channels)
        self.values = nn.ModuleList(nn.Linear(number, max(channels)) for number in channels)
        self.gate = nn.Linear(sum(channels), len(channels))
        self.head = parts.head(max(channels))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        branches = zip(self.modalities, self.backbones, self.attentions, strict=True)
        features = [pool(attention(backbone(inputs[name]))) for name, backbone, attention in branches]  # (B, C_m) each
        gates = self.gate(torch.cat(features, 1)).sigmoid()  # (B, M)
        values = torch.stack([value(x) for value, x in zip(self.values, features, strict=True)], 1)  # (B, M, C)
        return self.head((gates[:, :, None] * values).sum(1))


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Gated]
