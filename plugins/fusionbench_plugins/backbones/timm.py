"""Two-dimensional networks of the library timm, applied to each slice of a volume by itself.

Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. timm takes seconds to import, so
it is imported where a network is built or named, and not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import (
    Backbone,
    FeatureSpec,
    FusionBenchError,
    hookimpl,
    load_into,
    nearest,
    precisely,
    read_checkpoint,
)

Stem = Literal["adapt", "reinit"]

LOW_STRIDE: Final = 8
"""Low-level features end at the last level of a network that is smaller than its input by at most this."""


class Timm(Backbone):
    """Any convolutional network, Swin or vision transformer of timm, slice by slice: `timm:resnet50` names one.

    Slices are never strided. Maps are smaller than their input by the strides of the specs, rounded up, for any H and
    W: a network that does not round up by itself gets zeros at the right and the bottom, to a multiple of its stride.
    """

    name = "timm"
    family: ClassVar[str] = "network"
    libraries: ClassVar[tuple[str, ...]] = ("timm",)

    def __init__(
        self,
        channels: int,
        *,
        network: Annotated[str, "one of `fusionbench list 'timm:*'`"] = "resnet18",
        pool: Annotated[
            Literal["mean", "attention"], "slices count alike in the classifier's mean, or by learned weights"
        ] = "mean",
        weights: Annotated[Path | None, "local path of a checkpoint of timm's (.safetensors or .pth)"] = None,
        stem: Annotated[Stem, "a checkpoint's stem for other channels: adapted as timm does, or new"] = "adapt",
        pretrained: Annotated[bool | None, "true: be told where the weights are published; nothing is fetched"] = None,
    ) -> None:
        super().__init__()
        _require_known(network)
        if pretrained:
            raise FusionBenchError(f"timm: fusionbench downloads nothing: {where_published(network)}")
        self.network = build(network, channels)
        low, high = self.network.low_stride, self.network.high_stride
        self.low_spec = FeatureSpec(self.network.low_channels, (1, low, low))
        self.high_spec = FeatureSpec(self.network.high_channels, (1, high, high))
        with evaluating(self.network):
            self.low_grain = grain(network, self.network.low, channels, low)
            self.high_grain = grain(network, self.network.high, self.network.low_channels, high // low)
        self.pool: nn.Module = SlicePool(self.network.high_channels) if pool == "attention" else nn.Identity()
        self.loaded: str | None = load(self.network, network, channels, weights, stem) if weights else None

    def low(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, low_spec.channels, D, H/s, W/s)."""
        slices = padded(folded(x), self.low_grain)
        return unfolded(precisely(self.network.low, slices, self.network.low_stride), len(x))

    def high(self, low: Tensor) -> Tensor:
        """(B, low_spec.channels, D, H/s, W/s) -> (B, high_spec.channels, D, H/S, W/S)."""
        slices = padded(folded(low), self.high_grain)
        ratio = self.network.high_stride // self.network.low_stride
        features: Tensor = self.pool(unfolded(precisely(self.network.high, slices, ratio), len(low)))
        return features

    @classmethod
    def members(cls, pattern: str) -> Iterable[str]:
        """The networks of timm whose names match a pattern such as `resnet*`; with a tag, such as `resnet18.a1*`."""
        return networks(pattern)


@lru_cache
def networks(pattern: str) -> tuple[str, ...]:
    """What timm has under names of that pattern; it names tags, which tell weights apart, only where asked for them."""
    import timm

    return tuple(timm.list_models(pattern, pretrained="." in pattern))


class SlicePool(nn.Module):
    """Makes the mean over slices one by learned weights: each slice times D * softmax_d(score).

    The score of a slice is linear in its mean, w . mean_hw(x_d), and w is 0 at the start, so that all count alike.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1, bias=False)  # a softmax does not see a bias
        nn.init.zeros_(self.score.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return x * (x.shape[2] * self.weights(x))[:, None, :, None, None]

    def weights(self, x: Tensor) -> Tensor:
        """How much each slice counts: (B, C, D, H, W) -> (B, D), of which each row sums to 1."""
        scores: Tensor = self.score(x.mean((3, 4)).mT)  # (B, D, C) -> (B, D, 1)
        return scores.squeeze(-1).softmax(-1)


class Halves(nn.Module, ABC):
    """A network for slices in two halves; `body` is timm's, under timm's names."""

    body: Any
    low_channels: int
    high_channels: int
    low_stride: int
    high_stride: int

    @abstractmethod
    def low(self, slices: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, low_channels, H/low_stride, W/low_stride)."""

    @abstractmethod
    def high(self, low: Tensor) -> Tensor:
        """(N, low_channels, H/low_stride, W/low_stride) -> (N, high_channels, H/high_stride, W/high_stride)."""


class Chain(Halves):
    """A network whose modules run one after the other: what timm builds where only the features are wanted.

    A level ends where timm returns a feature map. The first half ends with the last level of at most LOW_STRIDE, the
    second one with the last level: what timm has behind it, a norm or a wider convolution, belongs to its classifier.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        strides, channels = body.feature_info.reduction(), body.feature_info.channels()
        split = max((level for level, stride in enumerate(strides[:-1]) if stride <= LOW_STRIDE), default=0)
        self.low_channels, self.high_channels = channels[split], channels[-1]
        self.low_stride, self.high_stride = strides[split], strides[-1]
        levels = level_names(body)
        steps = list(_steps(body, levels))
        middle, end = steps.index(levels[split]) + 1, steps.index(levels[-1]) + 1
        self.low_steps, self.high_steps = steps[:middle], steps[middle:end]
        self.channels_last = str(getattr(body, "output_fmt", "")).endswith("NHWC")

    def low(self, slices: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, low_channels, H/low_stride, W/low_stride)."""
        return self._channels_first(self._run(self.low_steps, slices))

    def high(self, low: Tensor) -> Tensor:
        """(N, low_channels, H/low_stride, W/low_stride) -> (N, high_channels, H/high_stride, W/high_stride)."""
        return self._channels_first(self._run(self.high_steps, low.permute(0, 2, 3, 1) if self.channels_last else low))

    def _run(self, steps: Sequence[str], x: Tensor) -> Tensor:
        for step in steps:
            x = self.body.get_submodule(step)(x)
        return x

    def _channels_first(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self.channels_last else x  # (N, H, W, C) -> (N, C, H, W)


class Transformer(Halves):
    """A vision transformer: the patches and the first half of the blocks, then the rest and the last norm.

    Class and register tokens have no place in a map, so the first half repeats each of them at every position, as more
    channels, and the second takes the mean of what it finds there: between the two, nothing is lost.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.body.attn_pool = None  # some have one, and it is of the classifier
        self.high_channels = body.embed_dim
        self.low_channels = body.embed_dim * (1 + body.num_prefix_tokens)
        self.low_stride = self.high_stride = body.feature_info[-1]["reduction"]
        self.middle = len(body.blocks) // 2

    def low(self, slices: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, low_channels, H/patch, W/patch)."""
        patches = self.body.patch_embed(slices)  # (N, rows, columns, E)
        size = patches.shape[1:3]
        tokens = self.body.norm_pre(self.body.patch_drop(self.body._pos_embed(patches)))
        tokens = self.body.blocks[: self.middle](tokens)  # (N, P + rows * columns, E)
        several = self.body.num_prefix_tokens
        prefix = tokens[:, :several].flatten(1)[:, :, None, None].expand(-1, -1, *size)  # (N, P * E, rows, columns)
        return torch.cat([tokens[:, several:].mT.unflatten(2, size), prefix], 1)

    def high(self, low: Tensor) -> Tensor:
        """(N, low_channels, H/patch, W/patch) -> (N, high_channels, H/patch, W/patch)."""
        width, several, size = self.body.embed_dim, self.body.num_prefix_tokens, low.shape[2:]
        prefix = low[:, width:].mean((2, 3)).reshape(len(low), several, width)  # (N, P, E)
        tokens = self.body.blocks[self.middle :](torch.cat([prefix, low[:, :width].flatten(2).mT], 1))
        # One of the two is the identity: fc_norm is what timm's classifier does behind a mean of the patches.
        features: Tensor = self.body.fc_norm(self.body.norm(tokens))[:, several:].mT.unflatten(2, size)
        return features


def build(network: str, channels: int) -> Halves:
    """A network with fresh weights in two halves; FusionBenchError if it cannot be split, or takes one size only."""
    from timm import create_model, models

    any_size: dict[str, Any] = {"dynamic_img_size": True} if _config(network).fixed_input_size else {}

    def create(**how: Any) -> Any:
        try:
            return create_model(network, in_chans=channels, **any_size, **how)
        except Exception as error:  # timm's networks refuse what they cannot do in a dozen ways
            reason = str(error).partition("\n")[0]
            raise FusionBenchError(
                f"timm: {network} cannot be built for {channels} channels and slices of any size: {reason}"
            ) from error

    with torch.device("meta"):  # which costs no drawing of weights
        sketch = create(features_only=True)
    if isinstance(sketch, models.FeatureListNet | models.EfficientNetFeatures | models.MobileNetV3Features):
        return Chain(create(features_only=True))
    if isinstance(getattr(sketch, "model", None), models.VisionTransformer):
        return Transformer(create(num_classes=0))
    raise FusionBenchError(
        f"timm: {network} cannot be split in two; networks whose modules run in a row can (resnet, efficientnet, "
        "convnext, swin and most others), and vision transformers (vit, deit)"
    )


def level_names(body: Any) -> list[str]:
    """The modules with which the levels of a network end; a network that timm rebuilt has names of its own."""
    names: Iterable[str] = getattr(body, "return_layers", None) or body.feature_info.module_name()
    return list(names)


def grain(network: str, half: Callable[[Tensor], Tensor], channels: int, stride: int) -> int:
    """To a multiple of what a half must have its input padded: 1 if it rounds up by itself, else its stride.

    A stride is made of steps, each of which rounds up, down or not at all; one voxel and stride + 1 voxels show which,
    for the latter are odd at each step.
    """
    if _sizes(half, channels, (1, stride + 1)) == [1, 2]:
        return 1
    if _sizes(half, channels, (stride, 3 * stride)) == [1, 3]:
        return stride
    raise FusionBenchError(f"timm: {network} cannot be used: its maps are not {stride} times smaller than their input")


def folded(x: Tensor) -> Tensor:
    """Slices as samples: (B, C, D, H, W) -> (B * D, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def unfolded(slices: Tensor, batch: int) -> Tensor:
    """Samples as slices again: (B * D, C, H, W) -> (B, C, D, H, W)."""
    return slices.reshape(batch, -1, *slices.shape[1:]).transpose(1, 2)


def padded(slices: Tensor, multiple: int) -> Tensor:
    """With zeros at the right and the bottom, so that rows and columns are such a multiple: (N, C, H, W)."""
    height, width = slices.shape[2:]
    return F.pad(slices, (0, -width % multiple, 0, -height % multiple)) if multiple > 1 else slices


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients inside, so that a trial moves nothing."""
    with torch.no_grad():
        module.eval()
        yield
        module.train()


def where_published(network: str) -> str:
    """How a user gets the published weights of a network."""
    config = _config(network)
    place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    if not place:
        return f"and timm publishes no weights of {network}; leave out pretrained"
    return f"get the weights of {network} from {place} and give the file with timm.weights=PATH"


def load(halves: Halves, network: str, channels: int, path: Path, stem: Stem) -> str:
    """Copy a checkpoint of timm's into a network and report what was loaded, what was missing, what was skipped.

    FusionBenchError if the file is no checkpoint or one of another network.
    """
    checkpoint, fresh = fit_stem(read_checkpoint(path, read), network, channels, stem)
    return str(load_into(dict(_timm_names(halves.body, network)), checkpoint, path, network, fresh))


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file as timm reads it, without running its code."""
    from timm.models import load_state_dict

    found = load_state_dict(str(file), use_ema=False)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def fit_stem(
    checkpoint: dict[str, Tensor], network: str, channels: int, stem: Stem
) -> tuple[dict[str, Tensor], set[str]]:
    """A checkpoint as a network of that many input channels can use it, and what of the network starts anew.

    `adapt` is timm's rule: one channel gets the sum of the colour kernels, others get them in turn, times 3/C.
    """
    from timm.models import adapt_input_conv

    config = _config(network)
    colours = config.input_size[0]
    first = [config.first_conv] if isinstance(config.first_conv, str) else [*(config.first_conv or ())]
    names = {f"{name}.weight" for name in first} & set(checkpoint)
    if channels == colours or not names:
        return checkpoint, set()
    if stem == "reinit":
        return checkpoint, names
    return checkpoint | {name: adapt_input_conv(channels, checkpoint[name], colours) for name in names}, set()


def _timm_names(body: nn.Module, network: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a network under the name that a checkpoint has for it: `stages_0.x` is timm's `stages.0.x`."""
    import timm

    with torch.device("meta"):
        plain = timm.create_model(network)
    sequences = {name: module for name, module in plain.named_children() if isinstance(module, nn.Sequential)}
    original = {f"{name}_{part}": f"{name}.{part}" for name, module in sequences.items() for part in module._modules}
    for name, tensor in body.state_dict().items():
        top, dot, rest = name.partition(".")
        yield f"{original.get(top, top)}{dot}{rest}", tensor


def _steps(body: nn.Module, levels: Sequence[str]) -> Iterator[str]:
    """The modules of a chain in order; one that has a level inside is taken apart."""
    for name, module in body.named_children():
        if any(level.startswith(f"{name}.") for level in levels):
            yield from (f"{name}.{part}" for part, _ in module.named_children())
        else:
            yield name


def _sizes(half: Callable[[Tensor], Tensor], channels: int, sides: Iterable[int]) -> list[int]:
    """The side of the map that a half makes of a square of each side; 0 if it fails at one that small, or that odd."""
    found = []
    for side in sides:
        try:
            rows, columns = half(torch.zeros(1, channels, side, side)).shape[2:]
        except (RuntimeError, AssertionError, ValueError):
            rows = columns = 0
        found.append(rows if rows == columns else 0)
    return found


def _config(network: str) -> Any:
    """What timm knows of a network: the size of its images, the name of its stem, where its weights are."""
    import timm

    return timm.get_pretrained_cfg(network)


def _require_known(network: str) -> None:
    import timm

    known = {*timm.list_models(), *timm.list_pretrained()}
    if network not in known:
        raise FusionBenchError(f"timm has no network {network!r}: {nearest(network, known)}")


@hookimpl
def fusionbench_backbones() -> list[type[Backbone]]:
    """The networks of timm."""
    return [Timm]
