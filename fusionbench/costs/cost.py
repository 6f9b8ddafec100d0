"""What a fit will need before it is done: parameters, work, memory. Its tensors have shapes and no values here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fusionbench.batches import chunks
from fusionbench.cohorts import Modality
from fusionbench.components import OUTLINE, Batch, FusionStrategy, Stage
from fusionbench.costs.meter import Meter, kept
from fusionbench.errors import describe
from fusionbench.fits import Fit
from fusionbench.imaging.nifti import Size
from fusionbench.ranks import Ranks, as_vector
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
    """Subjects in the largest step, of one process where several do the fit."""
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


def cost_of(fit: Fit, registry: Registry, sizes: Mapping[str, Size]) -> Cost:
    """What the fit will need, its images being of these (D, H, W).

    The strategy runs as in training, every stage for one step, on tensors without values: where it looks at values,
    or its code fails, the cost says why it is not known.
    """
    cost = Cost()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
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
    least = 2 * fit.processes if fit.processes > 1 else 1
    options = "".join(f" --set {fit.fusion.name}.{name}={value}" for name, value in lean.items())
    sizes = [asked >> halvings for halvings in range(asked.bit_length()) if asked >> halvings >= least]
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


def _prediction(model: FusionStrategy, fit: Fit, sizes: Mapping[str, Size], meter: Meter) -> tuple[int, int]:
    """The FLOPs of a prediction, per subject, and the bytes at most while a batch is predicted."""
    subjects = _largest(fit.split.test, fit.recipe["batch_size"])
    batch = _batch(fit, sizes, subjects)
    model.eval()
    meter.restart()
    with torch.no_grad(), _autocast(fit):
        model(batch.inputs)
    return meter.flops // subjects, meter.peak


def _step(model: FusionStrategy, stage: Stage, fit: Fit, sizes: Mapping[str, Size], meter: Meter) -> StageCost:
    """What the largest step of that stage takes in a process of the fit.

    It is the training loop's, but for the optimiser, of which the state is counted.
    """
    subjects = _largest(fit.learners, fit.stages[stage.name]["batch_size"], fit.processes)
    batch = _batch(fit, sizes, subjects, inputs=stage.sees_inputs)
    set_modes(model, stage.trains)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    meter.restart()
    with _autocast(fit), kept([*model.state_dict().values(), *batch.inputs.values()]) as saved:
        loss = stage.loss(model, batch, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    if fit.processes > 1:
        as_vector([p.grad for p in model.parameters() if p.grad is not None])
    moments = 2 * sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)  # Adam's
    for parameter in model.parameters():
        parameter.grad = None
    return StageCost(stage.name, subjects, meter.flops // subjects, sum(saved.values()), meter.peak + moments)


def _largest(ids: Sequence[str], size: int, processes: int = 1) -> int:
    """Subjects in the largest batch, or in a process's share of it: a last one that is too small joins another.

    >>> _largest("abcdefg", 2), _largest("abcdefg", 4, 2)
    (3, 4)
    """
    everybody = Ranks(0, processes)
    return max((len(everybody.share(some)) for some in chunks(ids, size, 2 * processes)), default=size)


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
