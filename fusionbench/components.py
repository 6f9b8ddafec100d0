"""What a plugin author subclasses: Backbone, AttentionModule, FusionStrategy, and the parts they are built from.

Shapes: B samples, C channels, D slices (depth), H rows, W columns, K classes. A table of F features is a volume of
one voxel, (B, F, 1, 1, 1), so every strategy takes tables as it takes images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureSpec:
    """What a feature map looks like: its channels, and by how much each axis is smaller than the input."""

    channels: int
    stride: tuple[int, int, int] = (1, 1, 1)

    def size(self, input_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The (D, H, W) of this feature for an input of that (D, H, W): division, rounded up.

        >>> FeatureSpec(128, stride=(1, 4, 4)).size((150, 240, 240))
        (150, 60, 60)
        """
        depth, height, width = (-(-n // s) for n, s in zip(input_size, self.stride, strict=True))
        return depth, height, width


class Backbone(nn.Module, ABC):
    """A feature extractor in two halves: `low` (the paper's LFE) and `high` (its HFE).

    A subclass has `name`, takes the number of input channels first and its options by keyword, and sets `low_spec`
    and `high_spec`, which are the truth about the shapes it returns.
    """

    name: ClassVar[str]
    accepts: ClassVar[frozenset[str]] = frozenset({"image"})
    exempt: ClassVar[Mapping[str, str]] = {}
    family: ClassVar[str] = ""
    """The option that the end of a name sets, as in `timm:resnet18`; empty: there are no such names."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version may change what it computes, beyond torch."""
    low_spec: FeatureSpec
    high_spec: FeatureSpec
    modalities: tuple[str, ...] = ()  # what Parts.backbone() was asked for: filled in by it
    loaded: object | None = None
    """What it took from a file of pretrained weights, readable as text; recorded with the fit."""

    @abstractmethod
    def low(self, x: Tensor) -> Tensor:
        """Low-level features: (B, C, D, H, W) -> (B, low_spec.channels, ...)."""

    @abstractmethod
    def high(self, low: Tensor) -> Tensor:
        """High-level features from low-level ones: (B, low_spec.channels, ...) -> (B, high_spec.channels, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """High-level features of the input: high(low(x))."""
        return self.high(self.low(x))

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Fit what the backbone needs to know of its inputs, (B, C, D, H, W) each, from the training part only.

        Called once before a fresh fit and never on reload: keep the result in buffers.
        """

    needs_statistics: ClassVar[bool] = False

    @classmethod
    def members(cls, pattern: str) -> Iterable[str]:
        """Of a family: the members whose names match a pattern such as `resnet*`."""
        return ()


class AttentionModule(nn.Module, ABC):
    """Re-weights a feature map: same shape in and out, for any D, H, W.

    A subclass has `name`, takes the number of channels first and its options by keyword.
    """

    name: ClassVar[str]
    identity: ClassVar[bool] = False
    """Changes nothing, so no label mentions it."""
    exempt: ClassVar[Mapping[str, str]] = {}
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version may change what it computes, beyond torch."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""

    def maps(self, x: Tensor) -> Mapping[str, Tensor]:
        """What it attends to in x (B, C, D, H, W), to be drawn: name -> weights, none if it has no such maps.

        An axis is as long as that of x, or 1 where all weights along it are alike: (B, 1, D, H, W) is a weight for each
        position, (B, 1, D, 1, 1) one for each slice. No prediction depends on this.
        """
        return {}


class Head(nn.Module):
    """The classifier G: global average pool, dropout, one linear layer."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)
        nn.init.normal_(self.linear.weight, 0, 0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, D, H, W), or (B, C) where it is pooled already, -> logits (B, K)."""
        logits: Tensor = self.linear(self.dropout(pool(features)))
        return logits


class Branch(nn.Module):
    """One modality's way to a prediction: backbone, attention, head. A uni-modal model is one branch.

    `here` (B,) says which subjects have the modality; nothing of the others is looked at, no normalisation sees them,
    and their classes are equally likely. Without it everybody has it.
    """

    def __init__(self, parts: Parts, modality: str) -> None:
        super().__init__()
        self.backbone = parts.backbone(modality)
        self.attention = parts.attention(self.backbone.high_spec.channels)
        self.head = parts.head(self.backbone.high_spec.channels)

    def features(self, x: Tensor, here: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W) -> high-level features after attention; zeros for a subject that lacks the modality."""
        return where_present(here, self._features, self.backbone.high_spec, x)

    def forward(self, x: Tensor, here: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W) -> logits (B, K); zeros for a subject that lacks the modality."""
        logits: Tensor = self.head(self.features(x, here))
        return logits if here is None else logits * here[:, None]

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.attention(self.backbone(x))
        return features


def where_present(
    here: Tensor | None, compute: Callable[..., Tensor], spec: FeatureSpec, x: Tensor, *others: Tensor
) -> Tensor:
    """`compute(x, *others)` on the rows (B,) that are `here`, and zeros for the others; on all rows if None.

    `spec` says what comes out of `compute` for an `x` (B, C, D, H, W): it is needed where no row is there.
    """
    if here is None or bool(here.all()):
        return compute(x, *others)
    if not bool(here.any()):
        return x.new_zeros(len(x), spec.channels, *spec.size((x.shape[2], x.shape[3], x.shape[4])))
    found = compute(*(rows[here] for rows in (x, *others)))
    return found.new_zeros(len(here), *found.shape[1:]).index_put((here,), found)


def pool(features: Tensor) -> Tensor:
    """Global average pooling, (B, C, D, H, W) -> (B, C); what is pooled already stays as it is.

    A mean, since AdaptiveAvgPool3d has no deterministic backward on CUDA.
    """
    return features.mean((2, 3, 4)) if features.dim() == 5 else features


@dataclass(frozen=True)
class Parts:
    """What a strategy is built from: its modalities (the primary first) and makers of backbone, attention and head."""

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    shapes: Mapping[str, int]
    make_backbone: Callable[[tuple[str, ...], int], Backbone]
    make_attention: Callable[[int], AttentionModule]
    dropout: float = 0.5

    def backbone(self, *modalities: str) -> Backbone:
        """A new backbone for these modalities stacked as channels: one name for one branch, all for pixel fusion."""
        backbone = self.make_backbone(modalities, sum(self.shapes[name] for name in modalities))
        backbone.modalities = modalities
        return backbone

    def attention(self, channels: int) -> AttentionModule:
        """A new attention module for a feature map of that many channels."""
        return self.make_attention(channels)

    def head(self, channels: int) -> Head:
        """A new classifier: pool, dropout, linear to the classes."""
        return Head(channels, len(self.classes), self.dropout)

    def branch(self, modality: str) -> Branch:
        """A new uni-modal model of one modality: backbone, attention, head."""
        return Branch(self, modality)


@dataclass(frozen=True)
class Batch:
    """Some subjects together, as the losses of a stage see them."""

    ids: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    """Modality -> (B, C, D, H, W)."""
    labels: Tensor
    """(B,) class numbers; -1 for a subject without a label, whom no loss sees."""
    weights: Tensor
    """(B,) the weight of each subject's class."""
    present: Mapping[str, Tensor] = field(default_factory=dict)
    """Modality -> (B,) bool: which subjects have it."""
    seg: Tensor | None = None
    """(B, 1, D, H, W) tumour labels, only for a strategy that `needs` outlines. Never an input of `forward`."""
    given: Mapping[str, Tensor] = field(default_factory=dict)
    """Role -> (B, K): the out-of-fold probabilities that a parent asked for, joined by subject id."""
    constant: bool = False
    """Whether these subjects have the same inputs in every epoch: neither augmented nor with modalities hidden."""

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Eq. 1: the mean over samples of w_y * -log softmax(logits)_y.

        Divided by the number of samples, not by the sum of their weights: that division, which is PyTorch's
        default, makes the class weights cancel in a batch of one.
        """
        losses = nn.functional.cross_entropy(logits.float(), self.labels, reduction="none")
        return (self.weights * losses).mean()


@dataclass(frozen=True)
class Parent:
    """Another strategy whose training a strategy builds on."""

    role: str
    fusion: str
    modalities: tuple[str, ...]
    use: Literal["weights", "out-of-fold"]


@dataclass(frozen=True)
class Context:
    """What `begin` may use: the parents' weights and the training part. Never a test subject."""

    parents: Mapping[str, Mapping[str, Tensor]]
    """Role -> the state dict of that parent."""
    training: Callable[[], Iterable[Batch]]
    """The training subjects, in order, not augmented."""


def presence(modality: str) -> str:
    """The input (B,) of truth values that says which subjects have a modality."""
    return f"has {modality}"


def present(inputs: Mapping[str, Tensor], modality: str) -> Tensor | None:
    """(B,) which subjects have the modality; None where all of them do."""
    return inputs.get(presence(modality))


OUTLINE: Final = "outline"
"""The input under which a strategy that needs outlines of test subjects too finds their labels, (B, 1, D, H, W)."""


@dataclass(frozen=True)
class Needs:
    """What a strategy asks of the images beyond themselves. Every table marks a row that asks for outlines."""

    outlines: Literal["none", "training", "test"] = "none"
    """Tumour outlines drawn by somebody: of training subjects, for a loss; or of test subjects too, which no model
    that is put to use will have. The latter are among the inputs as `OUTLINE`."""
    features: str = ""
    """The extractor that makes a table of each image, from what lies inside the outline; empty: the images."""


Loss = Callable[[Any, Batch, float], Tensor]


@dataclass(frozen=True)
class Stage:
    """One stretch of training: which modules move, and the loss they move down.

    `trains` are prefixes of module names ("" is the whole model); everything else is frozen and in eval mode, so that
    not even a running statistic moves. `loss(model, batch, progress)` is a scalar; progress goes from 0 to 1.
    """

    name: str
    trains: tuple[str, ...]
    loss: Loss
    sees_inputs: bool = True
    """Whether the loss looks at `batch.inputs`; if not they are empty, so that no image is read and augmented for
    nothing."""


def classification_loss(model: Any, batch: Batch, progress: float) -> Tensor:
    """The default loss: weighted cross-entropy on the forward pass."""
    return batch.cross_entropy(model(batch.inputs))


class FusionStrategy(nn.Module, ABC):
    """Turns the modalities of a subject into one prediction.

    A subclass has `name`, a docstring (its first line is shown by `fusionbench list`), `__init__(self, parts,
    *, options)` that builds modules from `parts` and never sees weights, and `forward`. All else has a default.
    """

    name: ClassVar[str]
    accepts: ClassVar[frozenset[str]] = frozenset({"image", "table"})
    """The kinds of modality it takes."""
    single: ClassVar[bool] = False
    """Takes exactly one modality, so a comparison has one row of it for each."""
    uses_order: ClassVar[bool] = False
    """The order of the modalities changes the result, so they are ranked."""
    uses_parts: ClassVar[bool] = True
    """Is built from the backbone and the attention of the comparison; a system with networks of its own is not, and
    does not depend on them."""
    stacks: ClassVar[bool] = False
    """Gives all its modalities to one backbone, so they must be of one kind and have the same one."""
    takes_missing: ClassVar[bool] = False
    """Can do without a modality of a subject: `present(inputs, name)` says who has it, what stands there otherwise is
    not looked at, and no modality is indispensable."""
    inherited: ClassVar[tuple[str, ...]] = ()
    """Prefixes of modules that come from parents and are not trained here."""
    stage_names: ClassVar[tuple[str, ...]] = ("fit",)
    """The stages that it may have, in order; empty if nothing is trained by gradient."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract check -> the reason why it cannot hold for this class."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version may change what it computes, beyond torch."""
    lean: ClassVar[Mapping[str, Any]] = {}
    """Options under which it trains the same in less memory; said where memory is short."""

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality -> (B, C, D, H, W) in; (B, K) out, whose softmax is the prediction."""

    @classmethod
    def parents(cls, modalities: tuple[str, ...], **options: Any) -> tuple[Parent, ...]:
        """The fits that must be done first, for these modalities in this order and these options."""
        return ()

    @classmethod
    def needs(cls, **options: Any) -> Needs:
        """What it asks of the images beyond themselves, with these options."""
        return Needs()

    @classmethod
    def planned_stages(cls, **options: Any) -> tuple[str, ...]:
        """Of `stage_names` those that `stages()` may return with these options."""
        return cls.stage_names

    def begin(self, context: Context) -> None:
        """Load parents, fit statistics into buffers. Called before a fresh fit, never on reload."""

    def stages(self) -> tuple[Stage, ...]:
        """What to train, in order."""
        return (Stage("fit", ("",), classification_loss),)

    @property
    def parameter_count(self) -> int:
        """How many numbers it learns; what `begin` fits into buffers is for the class to count."""
        return sum(parameter.numel() for parameter in self.parameters())

    def notes(self, batch: Batch) -> Mapping[str, list[str]]:
        """Column -> one remark per subject, for predictions.csv."""
        return {}


def copy_equal_shapes(source: nn.Module, target: nn.Module) -> None:
    """Copy every tensor of `source` that `target` has under the same name in the same shape; share nothing."""
    theirs = source.state_dict()
    with torch.no_grad():
        for key, mine in target.state_dict().items():
            if key in theirs and theirs[key].shape == mine.shape:
                mine.copy_(theirs[key])
