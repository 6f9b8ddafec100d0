"""A single modality on its own: what every fusion has to beat, and what ranks the modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionbench import FusionStrategy, Parts, hookimpl


class Unimodal(FusionStrategy):
    """One modality alone: backbone, attention, head."""

    name = "unimodal"
    single = True

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        (self.modality,) = parts.modalities
        branch = parts.branch(self.modality)
        self.backbone, self.attention, self.head = branch.backbone, branch.attention, branch.head

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) from (B, C, D, H, W)."""
        logits: Tensor = self.head(self.attention(self.backbone(inputs[self.modality])))
        return logits


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Unimodal]
