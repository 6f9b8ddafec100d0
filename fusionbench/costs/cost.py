"""What a fit will need before it is done: parameters, work, memory. Its tensors have shapes and no values here."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fusionbench.cohorts import Modality
from fusionbench.components import OUTLINE, Batch, FusionStrategy, Stage
from fusionbench.errors import describe
from fusionbench.fits import Fit
from fusionbench.imaging.nifti import Size
from fusionbench.registry import Registry
from fusionbench.training import build_strategy, is_trained, set_modes

GIB: Final = 2**30
CARDS: Final = (24, 48, 80)
"""Memory of usual GPUs, GiB."""
USABLE: Final = 0.9
"""The share of a card that tensors may fill: the rest is for kernels, their workspaces and fragmentation."""
AUTOCAST: Final = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class StageCost:
    """One training step of a stage."""

    name: str
    batch_size: int
    flops: int
    """Of forward, backward and what is computed again, per subject; a multiplication and an addition are two."""
    saved: int
    """Bytes that the forward pass leaves for the backward pass."""
    peak: int
    """Bytes of tensors at most at once: inputs, weights, gradients, the optimiser's state, everything between."""


@dataclass(frozen=True)
class Cost:
    """One fit."""

    parameters: int = 0
    weights: int = 0
    """Bytes of its state, in memory and in the store."""
    flops: int = 0
    """Of a prediction, per subject."""
    predicting: int = 0
    """Bytes of tensors at most at once while a batch is predicted."""
    stages: tuple[StageCost, ...] = ()
    unknown: str = ""
    """Why it cannot be told; what is above is then not all of it."""

    @property
    def peak(self) -> int:
        """Bytes at most at once, in any stage and in predicting."""
        return max([self.predicting, *(stage.peak for stage in self.stages)])


@dataclass
class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOPs, and the bytes of the tensors that there are, now and at most; those of the backward pass too.

    Not with torch's FlopCounterMode: what is computed again in the backward pass would live longer under it.
    """

    flops: int = 0
    now: int = 0
    peak: int = 0
    known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and take note of the work and of the memory behind what comes out."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def restart(self) -> None:
        """Count work from nothing, and the most of memory from what there is."""
        self.flops, self.peak = 0, self.now

    def _see(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address not in self.known:
            self.known.add(address)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def cost_of(fit: Fit, registry: Registry, sizes: Mapping[str, Size]) -> Cost:
    """What the fit will need, its images being of these (D, H, W).

    The strategy runs as in training, every stage for one step, on tensors without values: where it looks at values,
    or its code fails, the cost says why it is not known.
    """
    cost = Cost()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Meter() as meter:
            model = build_strategy(fit, registry)
            cost = Cost(model.parameter_count, sum(map(_bytes, model.state_dict().values())))
            flops, predicting = _prediction(model, fit, sizes, meter)
            cost = replace(cost, flops=flops, predicting=predicting)
            for stage in model.stages():
                cost = replace(cost, stages=(*cost.stages, _step(model, stage, fit, sizes, meter)))
    except Exception as error:  # a plugin's code may raise anything, and much cannot be done without values
        return replace(cost, unknown=describe(error))
    return cost


def ways(fit: Fit, lean: Mapping[str, Any]) -> Iterator[tuple[str, Fit]]:
    """Ways to do a fit in ever less memory: the flags that say so, and the fit so changed. First as it is."""
    asked, precision = fit.recipe["batch_size"], fit.recipe["precision"]
    options = "".join(f" --set {fit.fusion.name}.{name}={value}" for name, value in lean.items())
    sizes = [asked >> halvings for halvings in range(asked.bit_length())]
    for size, spare, number in product(sizes, dict.fromkeys(("", options)), dict.fromkeys((precision, "bf16"))):
        batch = f" --set recipe.batch_size={size}" if size != asked else ""
        flags = (f" --precision {number}" if number != precision else "") + spare + batch
        yield flags.strip(), _changed(fit, lean if spare else {}, {"precision": number, "batch_size": size})


def cards_for(fit: Fit, registry: Registry, sizes: Mapping[str, Size]) -> dict[int, str | None]:
    """GiB of a card -> the flags with which the fit trains there; empty if it does as it is, None if no flag helps."""
    lean = registry.get("fusion", fit.fusion.name).cls.lean  # type: ignore[attr-defined]
    found: dict[int, str | None] = dict.fromkeys(CARDS)
    for flags, changed in ways(fit, lean):
        if not (left := [card for card, chosen in found.items() if chosen is None]):
            break
        peak = cost_of(changed, registry, sizes).peak
        found |= {card: flags for card in left if peak <= USABLE * card * GIB}
    return found


def _changed(fit: Fit, options: Mapping[str, Any], recipe: Mapping[str, Any]) -> Fit:
    """The fit with some options of its strategy and some of its recipe changed; a stage's own batch size stays."""
    before, now = fit.recipe["batch_size"], recipe["batch_size"]
    stages = {
        name: {**stage, "batch_size": now if stage["batch_size"] == before else stage["batch_size"]}
        for name, stage in fit.stages.items()
    }
    fusion = replace(fit.fusion, options={**fit.fusion.options, **options})
    return replace(fit, fusion=fusion, recipe={**fit.recipe, **recipe}, stages=stages)


def _prediction(model: FusionStrategy, fit: Fit, sizes: Mapping[str, Size], meter: _Meter) -> tuple[int, int]:
    """The FLOPs of a prediction, per subject, and the bytes at most while a batch is predicted."""
    subjects = fit.recipe["batch_size"]
    batch = _batch(fit, sizes, subjects)
    model.eval()
    meter.restart()
    with torch.no_grad(), _autocast(fit):
        model(batch.inputs)
    return meter.flops // subjects, meter.peak


def _step(model: FusionStrategy, stage: Stage, fit: Fit, sizes: Mapping[str, Size], meter: _Meter) -> StageCost:
    """What a step of that stage takes: the training loop's, but for the optimiser, of which the state is counted."""
    subjects = min(fit.stages[stage.name]["batch_size"], len(fit.split.training))
    batch = _batch(fit, sizes, subjects, inputs=stage.sees_inputs)
    set_modes(model, stage.trains)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    meter.restart()
    with _autocast(fit), _saved([*model.state_dict().values(), *batch.inputs.values()]) as saved:
        loss = stage.loss(model, batch, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    moments = 2 * sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)  # Adam's
    for parameter in model.parameters():
        parameter.grad = None
    return StageCost(stage.name, subjects, meter.flops // subjects, sum(saved.values()), meter.peak + moments)


@contextmanager
def _saved(others: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Address -> bytes of what is kept for the backward pass inside, but for the memory of these tensors."""
    known = {tensor.untyped_storage()._cdata for tensor in others}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def _batch(fit: Fit, sizes: Mapping[str, Size], subjects: int, *, inputs: bool = True) -> Batch:
    """So many subjects without values, as the fit's stages see them."""
    images = {m.name: torch.empty(subjects, m.channels, *_size(m, sizes)) for m in fit.modalities}
    seg = None
    if fit.outlines != "none" and sizes:
        seg = torch.empty(subjects, 1, *next(iter(sizes.values())), dtype=torch.int16)
    told = {OUTLINE: seg.float()} if seg is not None and fit.outlines == "test" else {}
    guesses = {p.role: torch.empty(subjects, len(fit.classes)) for p in fit.parents if p.use == "out-of-fold"}
    return Batch(
        ids=tuple(map(str, range(subjects))),
        inputs={**images, **told} if inputs else {},
        labels=torch.zeros(subjects, dtype=torch.int64),
        weights=torch.ones(subjects),
        present={name: torch.ones(subjects, dtype=torch.bool) for name in images},
        seg=seg,
        given=guesses,
    )


def _size(modality: Modality, sizes: Mapping[str, Size]) -> Size:
    return sizes[modality.name] if modality.kind == "image" else (1, 1, 1)


def _autocast(fit: Fit) -> AbstractContextManager[Any]:
    """The precision of a fit, on a CPU as on any device."""
    dtype = AUTOCAST.get(fit.recipe["precision"])
    return torch.autocast("cpu", dtype) if dtype else nullcontext()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
