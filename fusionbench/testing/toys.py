"""Made-up subjects, and parts so small that a strategy is built, trained and taken apart in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from fusionbench.components import (
    OUTLINE,
    AttentionModule,
    Backbone,
    Batch,
    Context,
    FeatureSpec,
    FusionStrategy,
    Needs,
    Parts,
)
from fusionbench.errors import FusionBenchError, PluginError
from fusionbench.numerics import seeded
from fusionbench.registry import load_registry
from fusionbench.seeds import derive_seed
from fusionbench.testing.class_checks import each_option_value

Size = tuple[int, int, int]

NAMES: Final = ("north", "east", "west", "south")
"""Modalities, the primary first; not in alphabetical order, so that sorting them shows."""
CLASSES: Final = ("low", "high", "other")
FEATURES: Final = {"north": 5, "east": 7, "west": 4, "south": 6}
"""Columns of the table of each modality."""
ODD: Final[Size] = (3, 5, 7)
VOXEL: Final[Size] = (1, 1, 1)


class MixedKindsError(PluginError):
    """A strategy asked for one backbone for images and tables together, which is its right to refuse."""


class ToyImageBackbone(Backbone):
    """Two strided convolutions, each with a BatchNorm whose running statistics move when they may."""

    name = "toy-image"
    low_spec = FeatureSpec(4, (1, 2, 2))
    high_spec = FeatureSpec(6, (1, 4, 4))

    def __init__(self, channels: int) -> None:
        super().__init__()
        # SiLU, for no unit of it is ever dead: a gradient of zero means that a strategy passed none.
        self.first = nn.Sequential(nn.Conv3d(channels, 4, 3, (1, 2, 2), 1), nn.BatchNorm3d(4), nn.SiLU())
        self.second = nn.Sequential(nn.Conv3d(4, 6, 3, (1, 2, 2), 1), nn.BatchNorm3d(6), nn.SiLU())

    def low(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 4, D, H/2, W/2)."""
        low: Tensor = self.first(x)
        return low

    def high(self, low: Tensor) -> Tensor:
        """(B, 4, D, H/2, W/2) -> (B, 6, D, H/4, W/4)."""
        high: Tensor = self.second(low)
        return high


class ToyTableBackbone(Backbone):
    """Two pointwise layers and a running mean that moves when it may."""

    name = "toy-table"
    accepts = frozenset({"table"})
    low_spec = FeatureSpec(4)
    high_spec = FeatureSpec(6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, 4, 1), RunningMean(4), nn.SiLU())
        self.second = nn.Sequential(nn.Conv3d(4, 6, 1), nn.SiLU())

    def low(self, x: Tensor) -> Tensor:
        """(B, F, 1, 1, 1) -> (B, 4, 1, 1, 1)."""
        low: Tensor = self.first(x)
        return low

    def high(self, low: Tensor) -> Tensor:
        """(B, 4, 1, 1, 1) -> (B, 6, 1, 1, 1)."""
        high: Tensor = self.second(low)
        return high


class RunningMean(nn.Module):
    """Subtracts a running mean: what BatchNorm does, but a table in a batch of one has nothing else to normalise by."""

    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        if self.training:
            self.mean.lerp_(x.detach().float().mean((0, 2, 3, 4)), 0.1)
        return x - self.mean[:, None, None, None]


class ToyAttention(AttentionModule):
    """A sigmoid gate on every voxel and channel."""

    name = "toy-gate"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return x * torch.sigmoid(self.gate(x))


@dataclass(frozen=True)
class Toy:
    """Some modalities of some kinds: made-up subjects that have them, and the parts to build a strategy for them."""

    kinds: Mapping[str, str]
    """Modality -> image or table, the primary first."""
    classes: tuple[str, ...] = CLASSES[:2]
    size: Size = ODD
    """(D, H, W) of an image."""
    outlines: str = "none"
    """Whose tumour outlines the strategy asks for."""
    roles: tuple[str, ...] = ()
    """The parents whose out-of-fold predictions it asks for."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The options that are tried at another value than was asked for."""

    def __str__(self) -> str:
        modalities = ", ".join(f"{name} ({kind})" for name, kind in self.kinds.items())
        sizes = f", images of {self.size}" if "image" in self.kinds.values() else ""
        values = "".join(f", with {name}={value}" for name, value in self.values.items())
        return f"{modalities}; {len(self.classes)} classes{sizes}{values}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names, the primary first."""
        return tuple(self.kinds)

    @property
    def parts(self) -> Parts:
        """What a strategy for these modalities is built from. Dropout is on, so that one left on in eval shows."""
        shapes = {name: 1 if kind == "image" else FEATURES[name] for name, kind in self.kinds.items()}
        return Parts(self.modalities, self.classes, shapes, self._backbone, ToyAttention, dropout=0.3)

    def kinds_of(self, modalities: tuple[str, ...]) -> dict[str, str]:
        """The kinds of these of its modalities, in this order."""
        return {name: self.kinds[name] for name in modalities}

    def batch(self, subjects: int = 4, *, seed: int = 0) -> Batch:
        """Some subjects, as different as their seed and class, with all that a strategy sees of them in training."""
        generator = torch.Generator().manual_seed(derive_seed("toy", seed, subjects))
        labels = torch.arange(subjects) % len(self.classes)

        def draw(name: str) -> Tensor:
            shape = (1, *self.size) if self.kinds[name] == "image" else (FEATURES[name], *VOXEL)
            return torch.randn(subjects, *shape, generator=generator) + labels.view(-1, 1, 1, 1, 1)

        hints = nn.functional.one_hot(labels, len(self.classes)).float()
        inputs = {name: draw(name) for name in self.kinds}
        outline = (torch.rand(subjects, 1, *self.size, generator=generator) > 0.7).float()
        return Batch(
            ids=tuple(f"subject-{number}" for number in range(subjects)),
            inputs=inputs | ({OUTLINE: outline} if self.outlines == "test" else {}),
            labels=labels,
            weights=0.5 + labels.float(),
            present={name: torch.ones(subjects, dtype=torch.bool) for name in self.kinds},
            seg=None if self.outlines == "none" else outline,
            given={
                role: (hints + torch.randn(subjects, len(self.classes), generator=generator)).softmax(1)
                for role in self.roles
            },
        )

    def _backbone(self, modalities: tuple[str, ...], channels: int) -> Backbone:
        kinds = {self.kinds[name] for name in modalities}
        if len(kinds) > 1:
            raise MixedKindsError(f"{', '.join(modalities)} are of different kinds and cannot be stacked")
        return ToyImageBackbone(channels) if kinds == {"image"} else ToyTableBackbone(channels)


def toy_for(cls: type[FusionStrategy], kinds: Mapping[str, str], options: Mapping[str, Any], **others: Any) -> Toy:
    """A toy with these modalities, and with what a strategy asks for besides, as the core would give it."""
    needs = cls.needs(**options) if "image" in kinds.values() else Needs()
    seen = {name: "table" if needs.features else kind for name, kind in kinds.items()}
    parents = cls.parents(tuple(kinds), **options)
    roles = tuple(parent.role for parent in parents if parent.use == "out-of-fold")
    return Toy(seen, outlines="none" if needs.features else needs.outlines, roles=roles, **others)


def toys_for(
    cls: type[FusionStrategy], counts: tuple[int, ...] = (1, 2, 3, 4), options: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Toy]:
    """A toy for each kind of modality that a strategy accepts and each number of them that it takes."""
    numbers = (1,) if cls.single else counts
    toys = [toy_for(cls, dict.fromkeys(NAMES[:n], kind), options) for kind in sorted(cls.accepts) for n in numbers]
    # One that refuses them all is tried with all, so that its refusal is seen.
    yield from [toy for toy in toys if not refuses(cls, toy, options)] or toys


def settings_for(
    cls: type[FusionStrategy], counts: tuple[int, ...], options: Mapping[str, Any]
) -> Iterator[tuple[Toy, dict[str, Any]]]:
    """Each toy with these options; then toys of three modalities, with each other value of an option that lists them.

    A value with which nothing can be begun is left out: `each-option` tells of it.
    """
    for toy in toys_for(cls, counts, options):
        yield toy, dict(options)
    for values in each_option_value(cls):
        chosen = {**options, **values}
        if chosen != options and _begins(cls, chosen):
            yield from ((replace(toy, values=values), chosen) for toy in toys_for(cls, (3,), chosen))


def refuses(cls: type[FusionStrategy], toy: Toy, options: Mapping[str, Any]) -> bool:
    """Whether a strategy says in one line that its options are not for such modalities; its defaults are for all."""
    try:
        build(cls, toy, options)
    except FusionBenchError:
        return bool(options)
    except Exception:  # a fault, which the promises will find
        return False
    return False


def _begins(cls: type[FusionStrategy], options: Mapping[str, Any]) -> bool:
    try:
        for toy in toys_for(cls, (3,), options):
            begun(cls, toy, options)
    except Exception:  # a stranger's code may raise anything
        return False
    return True


def build(cls: type[FusionStrategy], toy: Toy, options: Mapping[str, Any], seed: int = 0) -> FusionStrategy:
    """A strategy for a toy with fresh weights from a seed; `begin` has not been called."""
    with seeded(derive_seed("build", seed)):
        return cls(toy.parts, **options)


def begun(cls: type[FusionStrategy], toy: Toy, options: Mapping[str, Any], seed: int = 0) -> FusionStrategy:
    """A strategy for a toy as training would find it: built, and begun with parents that are toys as well."""
    model = build(cls, toy, options, seed)
    begin(model, toy_context(cls, toy, options))
    return model


def begin(model: FusionStrategy, context: Context) -> None:
    """Call `begin` as the training loop does: with a seed of its own, and no gradients."""
    with seeded(derive_seed("begin")), torch.no_grad():
        model.begin(context)


def toy_context(cls: type[FusionStrategy], toy: Toy, options: Mapping[str, Any], seed: int = 0) -> Context:
    """What `begin` gets: the state of each parent, built from the installed strategy of its name, and subjects."""
    parents = [p for p in cls.parents(toy.modalities, **options) if p.use == "weights"]
    states = {p.role: _state(p.fusion, toy, p.modalities, seed) for p in parents}
    return Context(states, lambda: iter([training_batch(toy)]))


def training_batch(toy: Toy, subjects: int = 6, *, seed: int = 0) -> Batch:
    """Some subjects as a stage sees them."""
    return toy.batch(subjects, seed=seed)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Move every parameter and running statistic off its start, where a layer may be silent on purpose."""
    generator = torch.Generator().manual_seed(derive_seed("randomise", seed))
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=fan_in**-0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn(buffer.shape, generator=generator), alpha=0.25)


def _state(fusion: str, toy: Toy, modalities: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    cls: type[FusionStrategy] = load_registry().get("fusion", fusion).cls
    parent = begun(cls, toy_for(cls, toy.kinds_of(modalities), {}, classes=toy.classes, size=toy.size), {}, seed)
    randomise(parent, seed)
    return {name: value.clone() for name, value in parent.state_dict().items()}
