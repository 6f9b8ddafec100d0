"""The contract checks find the faults that they are for: each planted fault turns exactly its check red."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusionbench import (
    AttentionModule,
    Backbone,
    Batch,
    Cohort,
    CohortError,
    CohortReader,
    Context,
    Evidence,
    FeatureSpec,
    FusionStrategy,
    Ground,
    Parent,
    Parts,
    Ranker,
    Split,
    Stage,
    pool,
)
from fusionbench.errors import UsageError
from fusionbench.registry import Component
from fusionbench.testing.checks import CHECKS, check_component, promise_name, promises
from fusionbench.testing.toys import ToyAttention, ToyImageBackbone, ToyTableBackbone


def component(kind: str, cls: Any) -> Component:
    return Component(kind, cls.name, cls, "planted", "", "")


def red(kind: str, cls: Any) -> set[str]:
    return {verdict.promise for verdict in check_component(component(kind, cls)) if not verdict.held}


# ---------------------------------------------------------------------------------------------------- fusion: correct


class Concat(FusionStrategy):
    """Concatenates the pooled features of every modality."""

    name = "concat"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.backbones = nn.ModuleList(parts.backbone(name) for name in parts.modalities)
        self.head = parts.head(sum(backbone.high_spec.channels for backbone in self.backbones))

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pooled = [pool(net(inputs[name])) for name, net in zip(self.modalities, self.backbones, strict=True)]
        return torch.cat(pooled, 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.head(self.features(inputs))


class Warm(Concat):
    """Adds to a frozen uni-modal model of the primary what all modalities say together."""

    name = "warm"
    inherited = ("primary",)
    stage_names = ("rest",)

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.primary = parts.branch(parts.modalities[0])

    @classmethod
    def parents(cls, modalities: tuple[str, ...]) -> tuple[Parent, ...]:
        return (Parent("primary", "unimodal", modalities[:1], "weights"),)

    def begin(self, context: Context) -> None:
        self.primary.load_state_dict(context.parents["primary"])

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("rest", ("backbones", "head"), self.loss),)

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        return batch.cross_entropy(model(batch.inputs))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            known = self.primary(inputs[self.modalities[0]])
        return known + super().forward(inputs)


class Stacked(FusionStrategy):
    """A small network on the probabilities of uni-modal models, trained on out-of-fold ones."""

    name = "stacked"
    inherited = ("members",)
    stage_names = ("stack",)

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modalities = parts.modalities
        self.members = nn.ModuleDict({name: parts.branch(name) for name in parts.modalities})
        width = len(parts.modalities) * len(parts.classes)
        self.stack = nn.Sequential(nn.Linear(width, 8), nn.SiLU(), nn.Linear(8, len(parts.classes)))

    @classmethod
    def parents(cls, modalities: tuple[str, ...]) -> tuple[Parent, ...]:
        return tuple(Parent(m, "unimodal", (m,), use) for m in modalities for use in ("weights", "out-of-fold"))

    def begin(self, context: Context) -> None:
        for name, member in self.members.items():
            member.load_state_dict(context.parents[name])

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("stack", ("stack",), self.loss),)

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        return batch.cross_entropy(model.stacked(batch.given))

    def stacked(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        return self.stack(torch.cat([probabilities[name] for name in self.modalities], 1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.stacked({name: member(inputs[name]).softmax(1) for name, member in self.members.items()})


@pytest.mark.parametrize("cls", [Concat, Warm, Stacked])
def test_a_correct_strategy_keeps_every_promise(cls: type[FusionStrategy]) -> None:
    faults = [verdict for verdict in check_component(component("fusion", cls)) if not verdict.held]
    assert not faults


# ---------------------------------------------------------------------------------------------------- fusion: planted


class NormalisedWeights(Concat):
    """Divides by the sum of the class weights, as PyTorch's own weighted cross-entropy does."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", ("",), self.loss),)

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        losses = nn.functional.cross_entropy(model(batch.inputs), batch.labels, reduction="none")
        return (batch.weights * losses).sum() / batch.weights.sum()


class SharedBranches(Concat):
    """Starts every branch from the first one, by sharing it instead of copying it."""

    def begin(self, context: Context) -> None:
        for backbone in self.backbones:
            backbone.second = self.backbones[0].second


class ParentKept(Warm):
    """Takes the parent's own tensors instead of their values."""

    def begin(self, context: Context) -> None:
        self.primary.load_state_dict(context.parents["primary"], assign=True)


class ParentSpoilt(Warm):
    """Scales the parent's weights where they are."""

    def begin(self, context: Context) -> None:
        context.parents["primary"]["head.linear.weight"].mul_(2)
        super().begin(context)


class ParentForgotten(Warm):
    """Asks for a parent and does not load it."""

    def begin(self, context: Context) -> None:
        pass


class FrozenNormalisationMoves(Warm):
    """Puts the frozen part into train mode, so that its running statistics move."""

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        model.primary.backbone.train()
        return batch.cross_entropy(model(batch.inputs))


class InSampleStacking(Stacked):
    """Trains on what the members say of the subjects that they were trained on."""

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        return batch.cross_entropy(model(batch.inputs))


class JoinsByRow(Stacked):
    """Sorts the given probabilities by subject and takes the labels as they stand."""

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        rows = sorted(range(len(batch.ids)), key=lambda row: batch.ids[row])
        return batch.cross_entropy(model.stacked({role: given[rows] for role, given in batch.given.items()}))


class DeadLayer(Concat):
    """Creates a layer that nothing passes through."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.unused = nn.Linear(3, 3)


class NeverTrained(Concat):
    """Trains its head alone, and inherits nothing."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", ("head",), Warm.loss),)


class ByPosition(Concat):
    """Takes the modalities in the order in which they come."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().features(dict(zip(self.modalities, inputs.values(), strict=True)))


class FirstOnly(Concat):
    """Looks at the sign of whether there is a second modality, so to speak: at nothing of it."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        first = self.modalities[0]
        return super().features({n: x if n == first else torch.ones_like(x) for n, x in inputs.items()})


class ClampsInputs(Concat):
    """Clips the inputs where they are."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().features({name: x.clamp_(-1, 1) for name, x in inputs.items()})


class ComparesWithTheBatch(Concat):
    """Subtracts the mean of the batch, in eval mode too."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features = super().features(inputs)
        return features - features.mean(0)


class UndeclaredStage(Concat):
    """Has a stage that `stage_names` does not know."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("warm-up", ("",), Warm.loss),)


class StrangePrefix(Concat):
    """Trains a module that does not exist."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", ("backbones", "head", "heads"), Warm.loss),)


class Climbs(Concat):
    """Has the sign of its loss wrong."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", ("",), self.loss),)

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        loss = batch.cross_entropy(model(batch.inputs))
        return loss.detach() * 2 - loss


class Forgetful(Concat):
    """Keeps a statistic of the training part in a plain attribute."""

    scale = 1.0

    def begin(self, context: Context) -> None:
        self.scale = 1 / sum(x.std().item() for batch in context.training() for x in batch.inputs.values())

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().forward({name: x * self.scale for name, x in inputs.items()})


class Unpicklable(Concat):
    """Holds a lambda."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.nothing: Callable[[Tensor], Tensor] = lambda x: x


class OwnDice(Concat):
    """Draws its weights from another generator than torch's."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        bias = torch.from_numpy(np.random.default_rng().normal(size=len(parts.classes)))
        self.head.linear.bias.data.copy_(bias)


class Rounds(Concat):
    """Adds a large number, which bf16 does not survive."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pooled = [pool(net(inputs[name])) + 300 for name, net in zip(self.modalities, self.backbones, strict=True)]
        return 3 * (torch.cat(pooled, 1) - 300)


class LooksAway(Concat):
    """Says that it can do without a modality, and takes what stands in its place."""

    takes_missing = True


class NeedsCompany(Concat):
    """Normalises pooled features over the batch."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.norm = nn.BatchNorm1d(self.head.linear.in_features)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.norm(super().features(inputs))


class TwoClasses(Concat):
    """Has two outputs whatever the classes."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.head.linear = nn.Linear(self.head.linear.in_features, 2)


class Logs(Concat):
    """Takes a logarithm of what may be zero."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        size = torch.stack([x.abs().mean((1, 2, 3, 4)) for x in inputs.values()]).sum(0)
        return super().forward(inputs) + size.log()[:, None] * torch.tensor([0.0] + [1.0] * (self.classes - 1))

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.classes = len(parts.classes)


class ImagesAtLeast(Concat):
    """Says that it takes both kinds, and stacks feature maps of one size."""

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        maps = [net(inputs[name]) for name, net in zip(self.modalities, self.backbones, strict=True)]
        return pool(torch.cat(maps, 1))


class StrangeParent(Warm):
    """Asks for a parent that nobody offers."""

    @classmethod
    def parents(cls, modalities: tuple[str, ...]) -> tuple[Parent, ...]:
        return (*super().parents(modalities), Parent("other", "unimodel", modalities[:1], "out-of-fold"))

    @staticmethod
    def loss(model: Any, batch: Batch, progress: float) -> Tensor:
        return batch.cross_entropy(model(batch.inputs) + batch.given["other"])


class OneNote(Concat):
    """Has one remark for all."""

    def notes(self, batch: Batch) -> Mapping[str, list[str]]:
        return {"remark": ["fine"]}


class WrongDefault(Concat):
    """Declares an option whose default is of another type."""

    def __init__(self, parts: Parts, *, depth: Annotated[int, "how deep"] = "deep") -> None:  # type: ignore[assignment]
        super().__init__(parts)


class BrokenValue(Concat):
    """Declares a value of an option that it cannot be built with."""

    def __init__(self, parts: Parts, *, how: Annotated[Literal["a", "b"], "which way"] = "a") -> None:
        super().__init__(parts)
        self.way = {"a": 1}[how]


class IdleExtra(Concat):
    """Creates a layer that nothing passes through, if asked for it."""

    def __init__(self, parts: Parts, *, aux: Annotated[Literal["no", "yes"], "a second head"] = "no") -> None:
        super().__init__(parts)
        if aux == "yes":
            self.aux = nn.Linear(3, 3)


class UndeclaredExtra(UndeclaredStage):
    """Has a stage that `stage_names` does not know, if asked for it."""

    def __init__(self, parts: Parts, *, warm: Annotated[bool, "a stage before the others"] = False) -> None:
        super().__init__(parts)
        self.warm = warm

    def stages(self) -> tuple[Stage, ...]:
        return super().stages() if self.warm else Concat.stages(self)


class NormalisedIfAsked(NormalisedWeights):
    """Divides by the sum of the class weights, if asked for it."""

    def __init__(self, parts: Parts, *, norm: Annotated[bool, "divide by the sum of weights"] = False) -> None:
        super().__init__(parts)
        self.norm = norm

    def stages(self) -> tuple[Stage, ...]:
        return super().stages() if self.norm else Concat.stages(self)


class MovesIfAsked(FrozenNormalisationMoves):
    """Puts the frozen part into train mode, if asked for it."""

    def __init__(self, parts: Parts, *, thaw: Annotated[bool, "put the frozen part into train mode"] = False) -> None:
        super().__init__(parts)
        self.thaw = thaw

    @classmethod
    def parents(cls, modalities: tuple[str, ...], **options: Any) -> tuple[Parent, ...]:
        return super().parents(modalities)

    def stages(self) -> tuple[Stage, ...]:
        return super().stages() if self.thaw else (Stage("rest", ("backbones", "head"), Warm.loss),)


class Undocumented(Concat):
    name = "concat"


class TakesNothing(Concat):
    """Accepts no kind of modality."""

    accepts = frozenset()


class ClaimsToNeedNoParts(Concat):
    """Is built from backbones, and says that it is not."""

    name = "claims-to-need-no-parts"
    uses_parts = False


PLANTED = {
    ClaimsToNeedNoParts: "parts-told",
    NormalisedWeights: "class-weight-counts",
    SharedBranches: "own-tensors",
    ParentKept: "own-tensors",
    ParentSpoilt: "begin-leaves-parents",
    ParentForgotten: "parents-matter",
    FrozenNormalisationMoves: "frozen-stays",
    InSampleStacking: "out-of-fold-used",
    JoinsByRow: "row-order-ignored",
    DeadLayer: "every-parameter-trains",
    NeverTrained: "every-parameter-trains",
    ByPosition: "found-by-name",
    FirstOnly: "every-modality-matters",
    LooksAway: "missing-ignored",
    ClampsInputs: "inputs-untouched",
    ComparesWithTheBatch: "samples-independent",
    UndeclaredStage: "stages-declared",
    StrangePrefix: "stages-declared",
    Climbs: "stages-learn",
    Forgetful: "state-round-trip",
    Unpicklable: "pickles",
    OwnDice: "same-seed",
    Rounds: "autocast",
    NeedsCompany: "batch-of-one",
    TwoClasses: "shape",
    Logs: "finite",
    ImagesAtLeast: "mixed-kinds",
    StrangeParent: "parents-planned",
    OneNote: "notes",
    WrongDefault: "options-valid",
    BrokenValue: "each-option",
    IdleExtra: "every-parameter-trains",
    UndeclaredExtra: "stages-declared",
    NormalisedIfAsked: "class-weight-counts",
    MovesIfAsked: "frozen-stays",
    Undocumented: "documented",
    TakesNothing: "kinds-known",
}


@pytest.mark.parametrize("cls", PLANTED, ids=lambda cls: cls.__name__)
def test_a_planted_fault_turns_exactly_its_check_red(cls: type[FusionStrategy]) -> None:
    assert red("fusion", cls) == {PLANTED[cls]}


def test_a_fault_of_another_value_of_an_option_says_which() -> None:
    (fault,) = (verdict.detail for verdict in check_component(component("fusion", IdleExtra)) if not verdict.held)
    assert fault.startswith("no gradient for aux.")
    assert fault.endswith("with aux=yes)")


# ------------------------------------------------------------------------------------------ backbones and attention


class LyingSizes(ToyImageBackbone):
    """Says that it keeps the size."""

    high_spec = FeatureSpec(6, (1, 2, 2))


class LyingChannels(ToyImageBackbone):
    """Says that it has more channels than it has."""

    low_spec = FeatureSpec(5, (1, 2, 2))


class ThirdWay(ToyImageBackbone):
    """Has a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class SpoilsLow(ToyImageBackbone):
    """Works on the low-level features where they are."""

    def high(self, low: Tensor) -> Tensor:
        return super().high(low.clamp_(min=0))


class SecretStatistics(ToyImageBackbone):
    """Fits statistics and does not say that it needs them."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("mean", torch.zeros(1))

    def fit_statistics(self, batches: Any) -> None:
        self.mean.fill_(sum(x.mean().item() for x in batches))


class PlainStatistics(ToyImageBackbone):
    """Keeps its statistics where state_dict does not see them."""

    needs_statistics = True
    mean = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("count", torch.zeros(1))

    def fit_statistics(self, batches: Any) -> None:
        self.mean = sum(x.mean().item() for x in batches)
        self.count.fill_(1)

    def low(self, x: Tensor) -> Tensor:
        return super().low(x - self.mean)


class CountsPasses(ToyImageBackbone):
    """Counts its passes, in eval mode too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("passes", torch.zeros(1))

    def low(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().low(x)


class Scale(AttentionModule):
    """Scales each channel."""

    name = "scale"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Pools(Scale):
    """Pools what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3, 4), keepdim=True)


class SecretIdentity(AttentionModule):
    """Does nothing and does not say so."""

    name = "nothing"

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Cut(Scale):
    """Lets no gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class ComparesSamples(Scale):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True))


class InPlace(Scale):
    """Scales its input where it is."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.clamp_(-1, 1)
        return super().forward(x)


@pytest.mark.parametrize("cls", [ToyImageBackbone, ToyTableBackbone])
def test_a_correct_backbone_keeps_every_promise(cls: type[Backbone]) -> None:
    assert red("backbone", cls) == set()


@pytest.mark.parametrize("cls", [Scale, ToyAttention])
def test_a_correct_attention_module_keeps_every_promise(cls: type[AttentionModule]) -> None:
    assert red("attention", cls) == set()


@pytest.mark.parametrize(
    ("cls", "promise"),
    [
        (LyingSizes, "specs-true"),
        (LyingChannels, "specs-true"),
        (ThirdWay, "low-then-high"),
        (SpoilsLow, "low-then-high"),
        (SecretStatistics, "statistics-fitted"),
        (PlainStatistics, "state-round-trip"),
        (CountsPasses, "eval-changes-nothing"),
    ],
)
def test_a_planted_fault_of_a_backbone_is_found(cls: type[Backbone], promise: str) -> None:
    assert red("backbone", cls) == {promise}


@pytest.mark.parametrize(
    ("cls", "promise"),
    [
        (Pools, "shape-kept"),
        (SecretIdentity, "identity-told"),
        (Cut, "differentiable"),
        (ComparesSamples, "samples-independent"),
        (InPlace, "inputs-untouched"),
    ],
)
def test_a_planted_fault_of_an_attention_module_is_found(cls: type[AttentionModule], promise: str) -> None:
    assert red("attention", cls) == {promise}


# ------------------------------------------------------------------------------------------------ rankers and readers


class Peeks(Ranker):
    """Scores on the test folds and does not say so."""

    name = "peeks"
    fusion = "unimodal"

    def splits(self, ground: Ground) -> tuple[Split, ...]:
        return tuple(fold.split for fold in ground.outer)


class Confesses(Peeks):
    """Scores on the test folds and says so."""

    saw_test = True


class Drops(Ranker):
    """Leaves out what did badly."""

    name = "drops"
    fusion = "unimodal"

    def splits(self, ground: Ground) -> tuple[Split, ...]:
        return ground.inner

    def order(self, evidence: Sequence[Evidence]) -> tuple[str, ...]:
        return tuple(one.modality for one in evidence if one.mean > 0.55)


class AsksGuidance(Confesses):
    """Judges a modality alone by a strategy of several."""

    fusion = "guidance"


class Traceback(CohortReader):
    """Lets Python say that a file is not there."""

    name = "traceback"

    def read(self, path: Path) -> Cohort:
        raise FileNotFoundError(path)


class NoConfig(CohortReader):
    """Starts from a configuration that is not shipped."""

    name = "no-config"
    config = "nowhere"

    def read(self, path: Path) -> Cohort:
        raise CohortError(f"nothing at {path.name}")


@pytest.mark.parametrize(
    ("kind", "cls", "promises"),
    [
        ("ranker", Peeks, {"test-unseen"}),
        ("ranker", Confesses, set()),
        ("ranker", Drops, {"order-complete"}),
        ("ranker", AsksGuidance, {"fusion-installed"}),
        ("cohort", Traceback, {"absent-data-told"}),
        ("cohort", NoConfig, {"config-shipped"}),
    ],
)
def test_a_planted_fault_of_a_ranker_or_reader_is_found(kind: str, cls: type, promises: set[str]) -> None:
    assert red(kind, cls) == promises


# --------------------------------------------------------------------------------------------- exemptions and options


class Excused(NeedsCompany):
    """Normalises over the batch, and says why it must."""

    exempt = {"batch-of-one": "compares the subjects of a batch"}  # noqa: RUF012 - as a plugin author writes it


class ExcusedForNothing(Concat):
    """Declares an exemption that it does not need."""

    exempt = {"batch-of-one": "caution"}  # noqa: RUF012


class ExcusedFromTheUnknown(Concat):
    """Misspells a promise."""

    exempt = {"batch-of-two": "compares subjects"}  # noqa: RUF012


class ExcusedWithoutReason(NeedsCompany):
    """Gives no reason."""

    exempt = {"batch-of-one": " "}  # noqa: RUF012


def test_an_exemption_is_shown_with_its_reason() -> None:
    verdicts = {verdict.promise: verdict for verdict in check_component(component("fusion", Excused))}
    assert all(verdict.held for verdict in verdicts.values())
    assert verdicts["batch-of-one"].exempt
    assert verdicts["batch-of-one"].detail == "compares the subjects of a batch"


def test_an_exemption_that_is_not_needed_is_a_fault() -> None:
    assert red("fusion", ExcusedForNothing) == {"batch-of-one"}


def test_an_exemption_from_an_unknown_promise_or_without_a_reason_is_a_fault() -> None:
    assert red("fusion", ExcusedFromTheUnknown) == {"exemptions"}
    assert red("fusion", ExcusedWithoutReason) == {"exemptions"}


def test_every_promise_of_a_fusion_strategy_has_a_planted_fault() -> None:
    assert {promise_name(check) for check in CHECKS["fusion"]} == set(PLANTED.values())


def test_every_promise_is_a_sentence() -> None:
    for promise in promises(component("fusion", Concat)):
        assert promise.text.endswith("."), promise.name
        assert "\n" not in promise.text


def test_an_option_that_a_component_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="concat has no option 'width'"):
        promises(component("fusion", Concat), width=8)


def test_a_crash_of_the_component_is_a_fault_with_its_place() -> None:
    faults = {v.promise: v.detail for v in check_component(component("fusion", BrokenValue)) if not v.held}
    assert faults["each-option"].startswith("KeyError: 'b' (test_checks.py:")
