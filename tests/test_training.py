"""The loop trains what a stage names, resumes bit for bit, and sees only the subjects of its fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import comparison
from torch import Tensor, nn

from fusionbench import (
    Cohort,
    FusionStrategy,
    Parts,
    Stage,
    Store,
    Study,
    compose,
    load_comparison,
    load_registry,
    open_study,
    plan,
    training,
)
from fusionbench.batches import Batches, chunks
from fusionbench.components import classification_loss
from fusionbench.devices import (
    FABRIC_PRECISION,
    forget_peak,
    make_fabric,
    peak_memory,
    resolve_device,
    resolve_precision,
)
from fusionbench.errors import PluginError, TrainingError, UsageError
from fusionbench.fits import Job
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import deterministic, seeded
from fusionbench.registry import Registry
from fusionbench.training import (
    Progress,
    Workplace,
    build_strategy,
    execute,
    set_modes,
)


class Tiny(FusionStrategy):
    """A linear model with a normalisation layer, in two stages."""

    name = "tiny"
    stage_names = ("first", "second")

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        features = sum(parts.shapes.values())
        self.names = parts.modalities
        self.norm = nn.BatchNorm1d(features)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(features, len(parts.classes))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x = torch.cat([inputs[name].flatten(1) for name in self.names], 1)
        return self.out(self.drop(self.norm(x)))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("first", ("",), classification_loss), Stage("second", ("out", "drop"), classification_loss))


class Frugal(Tiny):
    """Can do with less memory."""

    name = "frugal"
    lean: ClassVar = {"thrift": 2}

    def __init__(self, parts: Parts, *, thrift: int = 1) -> None:
        """`thrift` is how much it saves."""
        super().__init__(parts)


def workplace(study: Study, store: Store, checkpoint_seconds: float = 30.0) -> Workplace:
    volumes = Volumes(study.cohort, study.comparison.preprocessing, store.root / "volumes")
    return Workplace(study.cohort, study.registry, volumes, store, checkpoint_seconds)


def tiny_study(cohort: Cohort, strategy: type[FusionStrategy] = Tiny, **changes: object) -> Study:
    registry: Registry = load_registry().with_classes("tests", fusion=[strategy])
    asked = comparison(fusion=[strategy.name], baselines=[], **changes)
    return open_study(asked, cohort=cohort, registry=registry)


def job_of(study: Study) -> Job:
    return plan(study).jobs[-1]


def test_a_killed_fit_goes_on_from_its_checkpoint_bit_for_bit(cohort: Cohort, tmp_path: Path) -> None:
    study = tiny_study(cohort)
    job = job_of(study)
    whole = Store(tmp_path / "whole").open()
    execute(job, workplace(study, whole), lambda progress: None)

    class KilledError(Exception):
        pass

    for stop in range(6):  # two stages of three epochs
        broken = Store(tmp_path / f"broken{stop}").open()
        seen: list[Progress] = []

        def report(progress: Progress, seen: list[Progress] = seen, stop: int = stop) -> None:
            seen.append(progress)
            if len(seen) == stop + 1:
                raise KilledError

        with pytest.raises(KilledError):
            execute(job, workplace(study, broken, 0.0), report)
        rest: list[Progress] = []
        execute(job, workplace(study, broken, 0.0), rest.append)
        assert len(rest) == 6 - stop  # the epoch that was reported but not yet kept is done again
        for name in ("predictions.csv", "history.csv", "weights.safetensors"):
            assert (broken.folder(job.key) / name).read_bytes() == (whole.folder(job.key) / name).read_bytes()


def test_a_stage_moves_nothing_that_it_does_not_name(cohort: Cohort, store: Store) -> None:
    study = tiny_study(cohort, recipe={"stages": {"first": {"epochs": 0}}})
    job = job_of(study)
    fresh = build_strategy(job.fit, study.registry).state_dict()
    execute(job, workplace(study, store), lambda progress: None)
    trained = store.weights(job.key)
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, fresh[name])}
    assert moved == {"out.weight", "out.bias"}  # and no running statistic of the normalisation


def test_modes_follow_the_stage() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    set_modes(model, ("2",))
    assert [module.training for module in model.modules()] == [False, False, False, True, True]


def test_the_same_fit_gives_the_same_weights_and_leaves_the_random_stream_alone(cohort: Cohort, tmp_path: Path) -> None:
    study = tiny_study(cohort)
    job = job_of(study)
    before = torch.get_rng_state()
    for name in ("one", "two"):
        execute(job, workplace(study, Store(tmp_path / name).open()), lambda progress: None)
    assert torch.equal(before, torch.get_rng_state())
    one, two = (Store(tmp_path / name).weights(job.key) for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_seeded_restores_the_stream() -> None:
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_a_fit_reads_no_subject_but_its_own(study: Study, store: Store) -> None:
    place = workplace(study, store)
    read: set[str] = set()
    inputs = place.volumes.inputs

    def watched(ids, modalities, **more):  # type: ignore[no-untyped-def]
        read.update(ids)
        return inputs(ids, modalities, **more)

    place.volumes.inputs = watched  # type: ignore[method-assign]
    outer = study.folds[0].split
    inner = [
        job
        for job in plan(study).jobs
        if job.fit.split != outer and {*job.fit.split.training, *job.fit.split.test} <= set(outer.training)
    ]
    assert inner
    for job in inner:
        execute(job, place, lambda progress: None)
    assert read
    assert not read & set(outer.test)
    batches = Batches(inner[0].fit, place.volumes, torch.device("cpu"))
    with pytest.raises(ValueError, match="not subjects of this fit"):
        batches.batch(outer.test[:1], {})


def test_class_weights_come_from_the_training_part(study: Study, store: Store) -> None:
    fit = plan(study).jobs[0].fit
    batches = Batches(fit, workplace(study, store).volumes, torch.device("cpu"))
    labels = [fit.labels[id] for id in fit.split.training]
    share = labels.count("HGG") / len(labels)
    assert batches.class_weights.tolist() == pytest.approx([1 - share, share])
    batch = next(batches.training("fit", 0))
    expected = [share if fit.labels[id] == "LGG" else 1 - share for id in batch.ids]
    assert batch.weights.tolist() == pytest.approx(expected)


def test_each_epoch_has_an_order_of_its_own_and_every_subject_once(study: Study, store: Store) -> None:
    fit = plan(study).jobs[0].fit
    batches = Batches(fit, workplace(study, store).volumes, torch.device("cpu"))
    epochs = [[id for batch in batches.training("fit", epoch) for id in batch.ids] for epoch in range(3)]
    assert all(sorted(ids) == sorted(fit.split.training) for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) == 3
    assert [id for batch in batches.training("fit", 0) for id in batch.ids] == epochs[0]


@pytest.mark.parametrize(
    ("recipe", "constant"),
    [
        ({"augmentation": {"flip": 0, "degrees": 0, "scales": (1, 1)}}, True),
        ({"augmentation": {"flip": 0.5, "degrees": 0, "scales": (1, 1)}}, False),
        ({"augmentation": {"flip": 0, "degrees": 0, "scales": (1, 1), "extra": ["RandomNoise()"]}}, False),
        ({"augmentation": {"flip": 0, "degrees": 0, "scales": (1, 1)}, "modality_dropout": 0.5}, False),
    ],
    ids=["as they are", "flipped", "noisy", "hidden"],
)
def test_a_batch_says_whether_it_is_the_same_in_every_epoch(
    recipe: dict[str, Any], constant: bool, store: Store
) -> None:
    small = {"preprocessing": {"resize": [4, 8, 8]}, "options": {"phantom": {"subjects": 16, "spacing": 8.0}}}
    asked = {"fusion": ["feature"], "baselines": [], "protocol": {"folds": 2}, "missing": "mask", "recipe": recipe}
    study = open_study(load_comparison("demo", small, asked), home=store.root)
    fit = next(job.fit for job in plan(study).jobs if job.fit.fusion.name == "feature")
    batches = Batches(fit, workplace(study, store).volumes, torch.device("cpu"))
    assert next(batches.training("fit", 0)).constant == constant


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(some) for some in chunks(range(9), 4)] == [4, 5]
    assert [len(some) for some in chunks(range(10), 4)] == [4, 4, 2]
    assert [len(some) for some in chunks(range(3), 1)] == [1, 1, 1]
    assert [len(some) for some in chunks(range(1), 4)] == [1]


def broken_strategy(**broken: object) -> type[FusionStrategy]:
    return type("Broken", (Tiny,), {"name": "broken", "__doc__": "Broken.", **broken})


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        ({"stage_names": ("first",)}, PluginError, "stage 'second' that its `stage_names` do not declare"),
        ({"stages": lambda self: (Stage("first", ("nowhere",), classification_loss),)}, PluginError, "does not exist"),
        ({"stages": lambda self: (Stage("first", ("",), lambda m, b, p: m(b.inputs).sum() * torch.nan),)},
         TrainingError, "the loss became nan in stage first, epoch 1"),
        ({"forward": lambda self, inputs: Tiny.forward(self, inputs)[:, :1].expand(-1, 3)}, TrainingError,
         r"broken returned logits of shape \(18, 3\), expected \(18, 2\)"),
    ],
    ids=["undeclared stage", "unknown module", "nan loss", "wrong shape"],
)  # fmt: skip
def test_a_broken_promise_is_named(
    cohort: Cohort, store: Store, broken: dict[str, object], error: type[Exception], says: str
) -> None:
    study = tiny_study(cohort, broken_strategy(**broken), recipe={"epochs": 1, "batch_size": 18})
    with pytest.raises(error, match=says):
        execute(job_of(study), workplace(study, store), lambda progress: None)


def test_device_and_precision_are_chosen_once() -> None:
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="no device 'cuda:9'"):
        resolve_device("cuda:9")
    assert resolve_precision("auto", "cpu", {"table"}) == "32"
    assert resolve_precision("auto", "cpu", {"image"}) == "32"
    assert resolve_precision("auto", "mps", {"image"}) == "32"
    assert resolve_precision("16", "cuda:1", {"image"}) == "16"


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_fit_is_trained_in_the_precision_that_was_asked_for(precision: str) -> None:
    assert make_fabric("cpu", precision).strategy.precision.precision == FABRIC_PRECISION[precision]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_half_precision_is_refused_where_it_would_be_another(device: str) -> None:
    with pytest.raises(UsageError, match=f"--precision 16 needs a CUDA GPU, and the device is {device}:"):
        resolve_precision("16", device, {"image"})


def test_half_precision_on_a_cpu_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="--precision 16 needs a CUDA GPU"):
        compose(load_registry(), "demo", {"fusion": ["pixel"], "recipe": {"precision": "16", "device": "cpu"}})


def test_an_epoch_that_needs_too_much_memory_says_all_that_would_lessen_it(
    cohort: Cohort, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*args: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(training, "begin", too_much)
    job = job_of(tiny_study(cohort, Frugal, recipe={"epochs": 1, "batch_size": 8}))
    with pytest.raises(TrainingError) as told:
        execute(job, workplace(tiny_study(cohort, Frugal), store), lambda progress: None)
    assert str(told.value).partition("GiB: ")[2] == (
        "try --precision bf16 or --set frugal.thrift=2 or --set recipe.batch_size=4 or a smaller --set "
        "preprocessing.resize; --dry-run --cost says what would do"
    )
    spared = replace(job.fit.fusion, options={"thrift": 2})
    spare = replace(job.fit, fusion=spared, recipe={**job.fit.recipe, "precision": "bf16", "batch_size": 1})
    with pytest.raises(TrainingError, match="GiB: try a smaller --set"):
        execute(replace(job, key="spare", fit=spare), workplace(tiny_study(cohort, Frugal), store), lambda p: None)


def test_kernels_are_deterministic_inside_and_outside_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic():
            assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == (True, False)
        assert torch.backends.cudnn.benchmark
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with deterministic():
        pass
    assert not torch.are_deterministic_algorithms_enabled()


def test_with_channels_last_an_image_network_is_laid_out_so_and_predicts_the_same(tmp_path: Path) -> None:
    study = open_study(
        load_comparison("demo", {"fusion": ["pixel"], "baselines": [], "options": {"phantom": {"subjects": 16}}})
    )
    fit = plan(study).jobs[0].fit
    other = replace(fit, recipe={**fit.recipe, "memory_format": "channels_last"})
    assert other.key != fit.key
    plain, last = (build_strategy(one, study.registry).eval() for one in (fit, other))
    weights = [parameter for parameter in last.parameters() if parameter.dim() == 5 and parameter.shape[2:].numel() > 1]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain.parameters(), last.parameters(), strict=True))
    inputs = {modality.name: torch.rand(2, 1, 6, 20, 20) for modality in fit.modalities}
    torch.testing.assert_close(last(inputs), plain(inputs), rtol=1e-4, atol=1e-5)


def test_the_memory_format_is_no_part_of_a_fit_on_tables(cohort: Cohort) -> None:
    keys = {
        job_of(open_study(comparison(recipe={"memory_format": layout}), cohort=cohort)).key
        for layout in ("contiguous", "channels_last")
    }
    assert len(keys) == 1


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere a peak counts from the start of the process"
)
def test_the_peak_of_a_fit_forgets_what_was_before() -> None:
    block = np.ones(2**25)  # 256 MiB
    held = peak_memory("cpu")
    assert held >= block.nbytes
    del block
    forget_peak("cpu")
    assert peak_memory("cpu") <= held - 2**27
