"""Three 18-layer residual networks for volumes: mixed convolutions (the paper's RMC), full 3-D, and factored (2+1)-D.

The networks are those of Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
Tensor names are torchvision's, so that its Kinetics-400 checkpoints load; the classifier is not the backbone's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from torch import Tensor, nn

from fusionbench import (
    Backbone,
    FeatureSpec,
    FusionBenchError,
    LoadReport,
    hookimpl,
    load_into,
    precisely,
    read_checkpoint,
)

Stride = tuple[int, int, int]
StemRule = Literal["reinit", "sum", "mean"]

PUBLISHED_WIDTH: Final = 64
COLOURS: Final = 3
"""The input channels of a Kinetics-400 checkpoint."""


def full(inputs: int, outputs: int, middle: int, stride: Stride) -> nn.Module:
    """A 3x3x3 convolution."""
    return nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False)


def within_slices(inputs: int, outputs: int, middle: int, stride: Stride) -> nn.Module:
    """A 1x3x3 convolution: each slice by itself."""
    return nn.Conv3d(inputs, outputs, (1, 3, 3), stride, padding=(0, 1, 1), bias=False)


def factored(inputs: int, outputs: int, middle: int, stride: Stride) -> nn.Module:
    """A 1x3x3 convolution, then a 3x1x1 one across slices."""
    depth, height, width = stride
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, height, width), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, (3, 1, 1), (depth, 1, 1), padding=(1, 0, 0), bias=False),
    )


Convolution = Callable[[int, int, int, Stride], nn.Module]


def middle_channels(inputs: int, outputs: int) -> int:
    """The channels between the halves of a factored convolution, for as many weights as 3x3x3 has.

    >>> middle_channels(64, 128)
    230
    """
    return (inputs * outputs * 27) // (inputs * 9 + 3 * outputs)


class BasicBlock(nn.Module):
    """Two convolutions beside an identity, or beside a 1x1x1 projection where the shape changes."""

    def __init__(self, convolution: Convolution, inputs: int, outputs: int, stride: Stride) -> None:
        super().__init__()
        # Both convolutions share one middle width, as published; a formula per convolution would not fit a checkpoint.
        middle = middle_channels(inputs, outputs)
        self.conv1 = nn.Sequential(
            convolution(inputs, outputs, middle, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(convolution(outputs, outputs, middle, (1, 1, 1)), nn.BatchNorm3d(outputs))
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs or stride != (1, 1, 1):
            projection = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.columns = stride[2]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, D, H, W) -> (B, outputs, D/sd, H/sh, W/sw)."""
        return precisely(self._residual, x, self.columns)

    def _residual(self, x: Tensor) -> Tensor:
        total: Tensor = self.conv2(self.conv1(x))
        total += self.downsample(x)  # in place: at full size this tensor is half a GiB
        out: Tensor = self.relu(total)
        return out


class VideoResNet(Backbone):
    """What the three networks share; a subclass declares its convolutions and strides."""

    convolutions: ClassVar[tuple[Convolution, ...]]
    """Of layer1 to layer4."""
    strides: ClassVar[tuple[Stride, ...]]
    """Of layer1 to layer4; the stem's is (1, 2, 2)."""
    stem_depth: ClassVar[int] = 3
    """How many slices the first convolution spans."""

    def __init__(
        self,
        channels: int,
        *,
        width: Annotated[int, "channels of the first block; 64 is the published network"] = PUBLISHED_WIDTH,
        stem: Annotated[StemRule, "how the stem of a 3-channel checkpoint becomes one of other channels"] = "reinit",
        weights: Annotated[
            Path | None, "local path of a Kinetics-400 checkpoint (.pth or .safetensors); none if not given"
        ] = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise FusionBenchError(f"{self.name}: width is {width}; it is a number of channels, 1 or more")
        if weights and width != PUBLISHED_WIDTH:
            raise FusionBenchError(
                f"{self.name}: weights are for width {PUBLISHED_WIDTH}, not {width}: leave out one of the two"
            )
        self.stem = self.make_stem(channels, width)
        self.layer1 = self._layer(0, width, width)
        self.layer2 = self._layer(1, width, 2 * width)
        self.layer3 = self._layer(2, 2 * width, 4 * width)
        self.layer4 = self._layer(3, 4 * width, 8 * width)
        self.low_spec = FeatureSpec(2 * width, _product((1, 2, 2), *self.strides[:2]))
        self.high_spec = FeatureSpec(8 * width, _product((1, 2, 2), *self.strides))
        _initialise(self)
        self.loaded: LoadReport | None = load_checkpoint(self, weights, stem) if weights else None

    def low(self, x: Tensor) -> Tensor:
        """The first three blocks: (B, C, D, H, W) -> (B, 2 * width, D/sd, H/4, W/4)."""
        # A single slice under a stem of three: with 1 or 3 channels a CPU's bf16 returns garbage for any width there.
        alone = self.stem_depth > 1 and x.shape[2] == 1
        low: Tensor = self.layer2(self.layer1(precisely(self.stem, x, x.shape[4] if alone else 2)))
        return low

    def high(self, low: Tensor) -> Tensor:
        """The last two blocks: (B, 2 * width, D/sd, H/4, W/4) -> (B, 8 * width, ..., H/16, W/16)."""
        high: Tensor = self.layer4(self.layer3(low))
        return high

    def make_stem(self, channels: int, width: int) -> nn.Sequential:
        """The first block, a 3x7x7 convolution: (B, C, D, H, W) -> (B, width, D, H/2, W/2)."""
        convolution = nn.Conv3d(channels, width, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False)
        return nn.Sequential(convolution, nn.BatchNorm3d(width), nn.ReLU(inplace=True))

    def _layer(self, index: int, inputs: int, outputs: int) -> nn.Sequential:
        convolution = self.convolutions[index]
        return nn.Sequential(
            BasicBlock(convolution, inputs, outputs, self.strides[index]),
            BasicBlock(convolution, outputs, outputs, (1, 1, 1)),
        )


class Rmc(VideoResNet):
    """ResNet Mixed Convolution, the paper's backbone: 3-D blocks first, then 2-D blocks that keep every slice.

    torchvision's mc3_18. Chatterjee et al., Sci. Rep. 12 (2022), use it for brain tumours (arXiv 2105.14071).
    """

    name = "rmc"
    convolutions = (full, within_slices, within_slices, within_slices)
    strides = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))


class R3d18(VideoResNet):
    """ResNet-18 with full 3x3x3 convolutions, which halve the slices three times.

    torchvision's r3d_18.
    """

    name = "r3d-18"
    convolutions = (full, full, full, full)
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class R2plus1d18(VideoResNet):
    """ResNet-18 with each 3x3x3 convolution factored into one within slices and one across them.

    torchvision's r2plus1d_18.
    """

    name = "r2plus1d-18"
    convolutions = (factored, factored, factored, factored)
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    stem_depth = 1

    def make_stem(self, channels: int, width: int) -> nn.Sequential:
        """The first block, a 1x7x7 then a 3x1x1 convolution: (B, C, D, H, W) -> (B, width, D, H/2, W/2)."""
        middle = max(1, 45 * width // PUBLISHED_WIDTH)  # published: 45 for 64, which is not the formula of the blocks
        return nn.Sequential(
            nn.Conv3d(channels, middle, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )


def load_checkpoint(network: VideoResNet, path: Path, stem: StemRule) -> LoadReport:
    """Copy a Kinetics-400 checkpoint into a network and say what was loaded, missing and skipped.

    Raises FusionBenchError if the path is no checkpoint, or one of another network.
    """
    mine = network.state_dict()
    checkpoint, fresh = fit_stem(read_checkpoint(path), mine["stem.0.weight"].shape[1], stem)
    return load_into(mine, checkpoint, path, network.name, fresh)


def fit_stem(
    checkpoint: Mapping[str, Tensor], channels: int, rule: StemRule
) -> tuple[Mapping[str, Tensor], Collection[str]]:
    """The checkpoint as a network of that many input channels can use it, and what of the network starts anew.

    With 3 channels the stem is used as it is. Otherwise `reinit` starts the whole stem anew; `sum` gives each channel
    3/C of the mean colour kernel, so that a grey volume in every channel has the answer that it has as three colours;
    `mean` gives each 1/C of it.
    """
    if channels == COLOURS or "stem.0.weight" not in checkpoint:
        return checkpoint, ()
    if rule == "reinit":
        return checkpoint, [key for key in checkpoint if key.startswith("stem.")]
    total = checkpoint["stem.0.weight"].sum(1, keepdim=True)  # (out, 3, d, h, w) -> (out, 1, d, h, w)
    share = total / channels if rule == "sum" else total / (COLOURS * channels)
    return {**checkpoint, "stem.0.weight": share.expand(-1, channels, -1, -1, -1)}, ()


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv3d):  # normalisation starts at scale 1, shift 0 by itself
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _product(*strides: Stride) -> Stride:
    depth, height, width = (math.prod(axis) for axis in zip(*strides, strict=True))
    return depth, height, width


@hookimpl
def fusionbench_backbones() -> list[type[Backbone]]:
    """The three residual networks."""
    return [Rmc, R3d18, R2plus1d18]
