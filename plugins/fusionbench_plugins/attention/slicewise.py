"""Four attention modules of the library timm, applied to each slice of a volume by itself.

timm takes seconds to import, so it is imported where a module is built, and not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from torch import Tensor, nn

from fusionbench import AttentionModule, FusionBenchError, hookimpl

Reduction = Annotated[int, "the hidden layer has channels / reduction units, at least 1"]


class SliceWise(AttentionModule):
    """What the four share: `module`, for images, sees each slice as an image."""

    libraries: ClassVar[tuple[str, ...]] = ("timm",)
    module: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        slices = x.transpose(1, 2).flatten(0, 1)  # (B * D, C, H, W)
        with as_in_eval(self.module, x[:, 0].numel() == 1):
            seen: Tensor = self.module(slices)
        return seen.reshape(len(x), -1, *seen.shape[1:]).transpose(1, 2)

    def hidden(self, channels: int, reduction: int) -> int:
        """The units of the hidden layer."""
        if reduction < 1:
            raise FusionBenchError(f"{self.name}: reduction is {reduction}; it divides the channels, so give 1 or more")
        return max(1, channels // reduction)


class SliceSe(SliceWise):
    """Squeeze-excitation of each slice: each channel is scaled by a gate that sees the slice's mean of every channel.

    timm's SqueezeExcite; Hu et al., CVPR 2018 (arXiv 1709.01507).
    """

    name = "slice-se"

    def __init__(self, channels: int, *, reduction: Reduction = 16) -> None:
        super().__init__()
        from timm.layers import SqueezeExcite

        self.module = SqueezeExcite(channels, rd_channels=self.hidden(channels, reduction))


class SliceEca(SliceWise):
    """Efficient channel attention of each slice: a gate that sees the means of a channel and of its neighbours.

    timm's EfficientChannelAttn, whose width of the neighbourhood follows from the number of channels; Wang et al.,
    CVPR 2020 (arXiv 1910.03151).
    """

    name = "slice-eca"

    def __init__(self, channels: int) -> None:
        super().__init__()
        from timm.layers import EfficientChannelAttn

        self.module = EfficientChannelAttn(channels)


class SliceCbam(SliceWise):
    """Convolutional block attention of each slice: a gate on channels, then one on positions.

    timm's CbamModule; Woo et al., ECCV 2018 (arXiv 1807.06521).
    """

    name = "slice-cbam"

    def __init__(self, channels: int, *, reduction: Reduction = 16) -> None:
        super().__init__()
        from timm.layers.cbam import CbamModule

        self.module = CbamModule(channels, rd_channels=self.hidden(channels, reduction))

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """`spatial`: the gate of each position, (B, 1, D, H, W), from 0 to 1."""
        gates: list[Tensor] = []
        gate = self.module.get_submodule("spatial.gate")
        with gate.register_forward_hook(lambda module, inputs, out: gates.append(out)):
            self(x)
        return {"spatial": gates[0].reshape(len(x), 1, *x.shape[2:])}


class SliceNonLocal(SliceWise):
    """A non-local block in each slice: positions attend to positions, and what they see is added; starts as identity.

    timm's NonLocalAttn; Wang et al., CVPR 2018 (arXiv 1711.07971).
    """

    name = "slice-non-local"

    def __init__(self, channels: int, *, reduction: Reduction = 8) -> None:
        super().__init__()
        from timm.layers.non_local_attn import NonLocalAttn

        self.scale = channels**-0.5  # timm's
        self.module = NonLocalAttn(channels, rd_channels=self.hidden(channels, reduction))

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """`spatial`: how much attention each position of a slice gets, (B, 1, D, H, W); 1 is an equal share."""
        slices = x.transpose(1, 2).flatten(0, 1)  # (B * D, C, H, W)
        asking, asked = (self.module.get_submodule(name)(slices).flatten(2) for name in ("t", "p"))
        weights = (asking.mT @ asked * self.scale).softmax(-1)  # (B * D, H*W, H*W)
        return {"spatial": weights.sum(1).reshape(len(x), 1, *x.shape[2:])}


@contextmanager
def as_in_eval(module: nn.Module, single: bool) -> Iterator[None]:
    """While training on a single voxel, normalise by the running statistics: one number has no deviation of its own."""
    if not (single and module.training):
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()


@hookimpl
def fusionbench_attention_modules() -> list[type[AttentionModule]]:
    """Four modules of timm's, slice by slice."""
    return [SliceSe, SliceEca, SliceCbam, SliceNonLocal]
