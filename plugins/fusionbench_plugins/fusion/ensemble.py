"""The mean of what the uni-modal models say. Nothing is trained, so it costs nothing where they are shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench import Context, FusionStrategy, Parent, Parts, hookimpl


class Ensemble(FusionStrategy):
    """The mean of the uni-modal probabilities; nothing is trained."""

    name = "ensemble"
    inherited = ("members",)
    stage_names = ()

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.members = nn.ModuleList(parts.branch(name) for name in parts.modalities)

    @classmethod
    def parents(cls, modalities: tuple[str, ...], **options: Any) -> tuple[Parent, ...]:
        """The uni-modal model of each modality."""
        return tuple(Parent(name, "unimodal", (name,), "weights") for name in modalities)

    def begin(self, context: Context) -> None:
        """Take over the members' weights."""
        for name, member in zip(self.modalities, self.members, strict=True):
            member.load_state_dict(context.parents[name])

    def stages(self) -> tuple[()]:
        """None."""
        return ()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The log of the mean probability, (B, K): its softmax is that mean."""
        members = zip(self.modalities, self.members, strict=True)
        probabilities = torch.stack([member(inputs[name]).float().softmax(1) for name, member in members])
        return probabilities.mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Ensemble]
