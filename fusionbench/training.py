"""The one training loop: build, begin, train stage by stage, predict, keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fusionbench.batches import Batches
from fusionbench.beginning import begin, out_of_fold
from fusionbench.cohorts import Cohort
from fusionbench.components import AttentionModule, Backbone, FusionStrategy, Parts, Stage
from fusionbench.devices import BACKENDS, forget_peak, kind_of, make_fabric, member, peak_memory, settle
from fusionbench.errors import PluginError, TrainingError
from fusionbench.features import Features
from fusionbench.fits import Fit, Job
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import deterministic, seeded, threads
from fusionbench.predictions import Predictions
from fusionbench.ranks import ALONE, Ranks, together
from fusionbench.registry import Registry
from fusionbench.seeds import derive_seed
from fusionbench.source import source_digest
from fusionbench.stopwatch import Stopwatch, Watch, unwatched
from fusionbench.store import Store


@dataclass(frozen=True)
class Progress:
    """An epoch of a fit is done."""

    key: str
    stage: str
    epoch: int
    epochs: int
    loss: float
    work: int
    """Subjects times modalities seen."""


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Workplace:
    """What a fit is done with and where it is kept."""

    cohort: Cohort
    registry: Registry
    volumes: Volumes
    store: Store
    checkpoint_seconds: float = 30.0
    """An epoch that ends this long after the last checkpoint leaves a new one."""
    profile: bool = False
    """Whether the record of a fit says where its time went."""
    device: str = ""
    """Which of the devices of a fit's kind, or several for a fit that spans them; empty: the first."""

    def device_of(self, fit: Fit, ranks: Ranks = ALONE) -> str:
        """The device that a fit is done on here, by one of its processes."""
        return member(self.device or fit.recipe["device"], ranks.rank)


def execute(job: Job, place: Workplace, report: Report) -> bool:
    """Do one fit and keep it; False if somebody else had done it meanwhile."""
    with place.store.lock(job.key):
        if place.store.has(job.key):
            return False
        _check_source(job.fit, place.registry)
        count = job.fit.processes
        if count == 1:
            _do(job, place, ALONE, report)
        else:
            _check_enough(job.fit)
            together(count, BACKENDS[kind_of(place.device_of(job.fit))], partial(_do, job, place), report)
    return True


def _do(job: Job, place: Workplace, ranks: Ranks, report: Report) -> None:
    """Do one fit, or take part in it; the first process keeps it."""
    started, device = time.monotonic(), place.device_of(job.fit, ranks)
    forget_peak(device)
    watch = Stopwatch(lambda: settle(device)) if place.profile else None
    with threads(job.fit.recipe["threads"]), deterministic():
        trained = _train_and_predict(job.fit, place, report, watch or unwatched, ranks)
    if trained is None:
        return
    model, history, predictions, predicting = trained
    record = {
        "key": job.key,
        "fit": asdict(job.fit),
        "pretrained": pretrained(model),
        "parameters": model.parameter_count,
        "seconds": round(time.monotonic() - started, 3),
        "predict_seconds": round(predicting, 4),
        "peak_memory_bytes": peak_memory(device),
    } | ({"profile": watch.stop()} if watch else {})
    place.store.save(job.key, model.state_dict(), predictions, history, record)


def _check_enough(fit: Fit) -> None:
    """TrainingError if there are not two learners for each process: normalisation needs company."""
    if len(fit.learners) < 2 * fit.processes:
        raise TrainingError(
            f"{len(fit.learners)} subjects to train on are too few for {fit.processes} processes: "
            "set a smaller recipe.processes"
        )


def features_of(fit: Fit, place: Workplace) -> Features | None:
    """The tables that the fit works on in place of images, if it does."""
    if fit.features is None:
        return None
    extractor = place.registry.get("extractor", fit.features.name).make(options=fit.features.options)
    return Features(place.cohort, extractor, fit.features, place.store.root / "features")


def pretrained(model: nn.Module) -> dict[str, str]:
    """Backbone -> what it took from a file of pretrained weights, for those that did."""
    backbones = {name: module for name, module in model.named_modules() if isinstance(module, Backbone)}
    return {name: str(backbone.loaded) for name, backbone in backbones.items() if backbone.loaded is not None}


def _check_source(fit: Fit, registry: Registry) -> None:
    """PluginError if code was edited since the fit was planned: its result would be kept under the wrong key."""
    for kind, built in fit.components:
        if source_digest(registry.get(kind, built.name).cls) != built.source:
            raise PluginError(f"the code of {kind} {built.name} changed during the run: run the same command again")


def build_strategy(fit: Fit, registry: Registry) -> FusionStrategy:
    """The strategy of a fit with fresh weights, the same for the same fit."""
    component = registry.get("fusion", fit.fusion.name)
    with seeded(derive_seed(fit.base_seed, "weights")):
        strategy: FusionStrategy = component.make(parts_of(fit, registry), options=fit.fusion.options)
    if fit.recipe.get("memory_format") == "channels_last":
        channels_last(strategy)
    return strategy


def channels_last(model: nn.Module) -> None:
    """Lay out the weights of 3-D convolutions with their channels last; kernels follow the weights."""
    for parameter in model.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def parts_of(fit: Fit, registry: Registry) -> Parts:
    """The parts that a fit's strategy is built from."""

    def make_backbone(modalities: tuple[str, ...], channels: int) -> Backbone:
        if not fit.backbones:
            raise PluginError(f"{fit.fusion.name} says `uses_parts = False` and asks for a backbone")
        built = [fit.backbones[name] for name in modalities]
        if len({backbone.name for backbone in built}) > 1:
            raise PluginError(f"{fit.fusion.name} stacks modalities of different backbones: {', '.join(modalities)}")
        backbone: Backbone = registry.get("backbone", built[0].name).make(channels, options=built[0].options)
        return backbone

    def make_attention(channels: int) -> AttentionModule:
        if fit.attention is None:
            raise PluginError(f"{fit.fusion.name} says `uses_parts = False` and asks for an attention module")
        attention = registry.get("attention", fit.attention.name)
        module: AttentionModule = attention.make(channels, options=fit.attention.options)
        return module

    return Parts(
        modalities=tuple(modality.name for modality in fit.modalities),
        classes=fit.classes,
        shapes={modality.name: modality.channels for modality in fit.modalities},
        make_backbone=make_backbone,
        make_attention=make_attention,
        dropout=fit.recipe.get("dropout", 0.0),
    )


def train(
    model: FusionStrategy,
    fit: Fit,
    batches: Batches,
    fabric: Fabric,
    place: Workplace,
    report: Report = lambda progress: None,
    resumed: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train a model through its stages, from where a checkpoint left off; the loss of every epoch."""
    history: list[dict[str, Any]] = list(resumed["history"]) if resumed else []
    checkpoint, saved = place.store.checkpoint(fit.key), time.monotonic()
    for number, stage in enumerate(_stages(model, fit)):
        if resumed and number < resumed["stage"]:
            continue
        optimizer: Any = fabric.setup_optimizers(_optimizer(model, stage, fit))
        start = 0
        if resumed and number == resumed["stage"]:
            optimizer.load_state_dict(resumed["optimizer"])
            fabric.strategy.precision.load_state_dict(resumed["precision"])
            start = resumed["epoch"] + 1
        epochs = fit.stages[stage.name]["epochs"] if fit.learners else 0
        for epoch in range(start, epochs):
            loss = train_epoch(model, stage, epoch, epochs, fit, batches, fabric, optimizer)
            history.append({"stage": stage.name, "epoch": epoch, "loss": loss})
            work = len(fit.learners) * len(fit.modalities)
            if not batches.ranks.leads:
                continue
            report(Progress(fit.key, stage.name, epoch, epochs, loss, work))
            if time.monotonic() - saved >= place.checkpoint_seconds:
                checkpoint.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "precision": fabric.strategy.precision.state_dict(),
                        "stage": number,
                        "epoch": epoch,
                        "history": history,
                    }
                )
                saved = time.monotonic()
    return history


def train_epoch(
    model: FusionStrategy,
    stage: Stage,
    epoch: int,
    epochs: int,
    fit: Fit,
    batches: Batches,
    fabric: Fabric,
    optimizer: Any,
) -> float:
    """One pass over the training part; the mean loss per subject.

    Where several processes do the fit, the loss of a batch is the mean of theirs by their number of subjects, and the
    gradients are those of that mean.
    """
    ranks = batches.ranks
    set_modes(model, stage.trains)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total, count = 0.0, 0
    for step, batch in enumerate(batches.training(stage.name, epoch, inputs=stage.sees_inputs)):
        seed = ranks.seed(derive_seed(fit.base_seed, "step", stage.name, epoch, step))
        with seeded(seed), fabric.autocast(), batches.watch("forward"):
            loss = stage.loss(model, batch, epoch / max(1, epochs))
        with batches.watch("wait"):
            of_all, subjects = ranks.total(loss.item(), len(batch.ids), fabric.device)
        if not math.isfinite(of_all):
            raise TrainingError(
                f"the loss became {of_all} in stage {stage.name}, epoch {epoch + 1}: "
                f"try a smaller learning rate or --precision 32"
            )
        with batches.watch("backward"):
            optimizer.zero_grad()
            fabric.backward(loss * (len(batch.ids) / subjects))
            with batches.watch("wait"):
                ranks.sum_gradients(trained)
            optimizer.step()
        total, count = total + of_all, count + subjects
    with batches.watch("wait"):
        ranks.average_statistics(model)
    return total / count


def predict(
    model: FusionStrategy,
    batches: Batches,
    ids: Sequence[str],
    fabric: Fabric,
    report: Callable[[int], None] = lambda subjects: None,
) -> Predictions:
    """The class probabilities of some subjects of the fit, and the strategy's remarks.

    `report` is told after each batch how many subjects were in it.
    """
    model.eval()
    fit, notes = batches.fit, []
    rows = [torch.empty(0, len(fit.classes), dtype=torch.float64)]
    with torch.inference_mode(), seeded(derive_seed(batches.fit.base_seed, "predict")):
        for batch in batches.in_order(ids):
            # Notes too: in another precision they might tell of another prediction.
            with fabric.autocast(), batches.watch("predict"):
                logits, remarks = model(batch.inputs), model.notes(batch)
            _check_logits(fit, logits, batch.inputs)
            rows.append(logits.double().softmax(1).cpu())
            notes += [{column: values[i] for column, values in remarks.items()} for i in range(len(batch.ids))]
            report(len(batch.ids))
    labels = tuple(fit.labels[id] for id in ids)
    return Predictions(tuple(ids), labels, fit.classes, torch.cat(rows).numpy(), tuple(notes))


def is_trained(name: str, trains: Sequence[str]) -> bool:
    """Whether a stage with these prefixes trains the module or tensor of that name.

    >>> is_trained("branches.0.low", ["branches"]), is_trained("head.linear", ["head.dropout"]), is_trained("x", [""])
    (True, False, True)
    """
    return any(prefix in ("", name) or name.startswith(f"{prefix}.") for prefix in trains)


def set_modes(model: nn.Module, trains: Sequence[str]) -> None:
    """Put what a stage trains into train mode and all else into eval mode: not even a running statistic moves."""
    for name, module in model.named_modules():
        module.training = is_trained(name, trains)


def _train_and_predict(
    fit: Fit, place: Workplace, report: Report, watch: Watch, ranks: Ranks
) -> tuple[FusionStrategy, list[dict[str, Any]], Predictions, float] | None:
    """The trained model, its losses, what it says of the test part, and the seconds that took.

    None in a process that is not the first of a fit's.
    """
    fabric = make_fabric(place.device_of(fit, ranks), fit.recipe["precision"])
    model = build_strategy(fit, place.registry).to(fabric.device)
    tables, given = features_of(fit, place), out_of_fold(fit, place.store)
    batches = Batches(fit, place.volumes, fabric.device, tables, given, watch, ranks)
    resumed = place.store.checkpoint(fit.key).load()
    try:
        if resumed:
            model.load_state_dict(resumed["model"])
        else:
            begin(model, fit, batches, place.store)
        ranks.start_alike(model)
        history = train(model, fit, batches, fabric, place, report, resumed)
        if not ranks.leads:
            return None
        started = time.monotonic()
        predictions = predict(model, batches, fit.split.test, fabric)
        return model, history, predictions, time.monotonic() - started
    except torch.OutOfMemoryError:
        peak = peak_memory(place.device_of(fit, ranks)) / 2**30
        ways = " or ".join([*_less_memory(fit, type(model).lean), "a smaller --set preprocessing.resize"])
        raise TrainingError(
            f"out of memory at {peak:.1f} GiB: try {ways}; --dry-run --cost says what would do"
        ) from None


def _less_memory(fit: Fit, lean: Mapping[str, Any]) -> Iterator[str]:
    """Flags that lessen the memory of a fit, the mildest first; `lean` are the options of its strategy that do."""
    name, least = fit.fusion.name, 1 if fit.processes == 1 else 2 * fit.processes
    if fit.recipe["precision"] == "32":
        yield "--precision bf16"
    yield from (f"--set {name}.{key}={value}" for key, value in lean.items() if fit.fusion.options.get(key) != value)
    if (half := fit.recipe["batch_size"] // 2) >= least:
        yield f"--set recipe.batch_size={half}"


def _stages(model: FusionStrategy, fit: Fit) -> tuple[Stage, ...]:
    stages = model.stages()
    names = [name for name, _ in model.named_modules()]
    for stage in stages:
        if stage.name not in fit.stages:
            raise PluginError(f"{fit.fusion.name} has a stage {stage.name!r} that its `stage_names` do not declare")
        for prefix in stage.trains:
            if prefix not in names and prefix not in dict(model.named_parameters()):
                raise PluginError(f"stage {stage.name} of {fit.fusion.name} trains {prefix!r}, which does not exist")
    return stages


def _optimizer(model: FusionStrategy, stage: Stage, fit: Fit) -> torch.optim.Optimizer:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    settings = fit.stages[stage.name]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=settings["learning_rate"], weight_decay=settings["weight_decay"])


def _check_logits(fit: Fit, logits: Tensor, inputs: Mapping[str, Tensor]) -> None:
    expected = (len(next(iter(inputs.values()))), len(fit.classes))
    if tuple(logits.shape) != expected:
        raise TrainingError(f"{fit.fusion.name} returned logits of shape {tuple(logits.shape)}, expected {expected}")
    if not torch.isfinite(logits).all():
        raise TrainingError(f"{fit.fusion.name} predicts NaN or infinity: try a smaller learning rate")
