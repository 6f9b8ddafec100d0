"""Squeeze-excitation of volumes: channels are weighted by what all of them are on average.

After Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv 1709.01507).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from fusionbench import AttentionModule, FusionBenchError, hookimpl


class SqueezeExcitation(AttentionModule):
    """Squeeze-excitation: each channel is scaled by a gate that sees the mean of every channel over the volume.

    s = sigmoid(W2 relu(W1 z + b1) + b2), where z_c is the mean of channel c over D, H, W; x_c becomes s_c x_c.
    """

    name = "se"

    def __init__(
        self,
        channels: int,
        *,
        reduction: Annotated[int, "the gate has channels / reduction hidden units, at least 1"] = 16,
    ) -> None:
        super().__init__()
        if reduction < 1:
            raise FusionBenchError(f"se: reduction is {reduction}; it divides the channels, so give 1 or more")
        few = max(1, channels // reduction)
        self.gate = nn.Sequential(nn.Linear(channels, few), nn.ReLU(), nn.Linear(few, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        scale: Tensor = self.gate(x.mean((2, 3, 4)))  # (B, C)
        return x * scale[:, :, None, None, None]


@hookimpl
def fusionbench_attention_modules() -> list[type[AttentionModule]]:
    """Squeeze-excitation."""
    return [SqueezeExcitation]
