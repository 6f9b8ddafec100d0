"""No attention: the baseline that every attention module is compared with."""

from __future__ import annotations

from torch import Tensor

from fusionbench import AttentionModule, hookimpl


class NoAttention(AttentionModule):
    """No attention: the features as they are."""

    name = "none"
    identity = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> itself."""
        return x


@hookimpl
def fusionbench_attention_modules() -> list[type[AttentionModule]]:
    """The identity."""
    return [NoAttention]
