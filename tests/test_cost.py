"""What is said of a fit before it is done is what it then takes: by hand, by torch's own counters, by the system."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fusionbench import Batch, Cohort, FusionStrategy, Modality, Parts, Store, Study, Subject, load_registry, open_study
from fusionbench.batches import chunks
from fusionbench.costs.amounts import counted, sized
from fusionbench.costs.budget import CHECKPOINT, Budget
from fusionbench.costs.cost import GIB, USABLE, Cost, cards_for, cost_of, ways
from fusionbench.fits import Fit
from fusionbench.folds import Split
from fusionbench.planning import Planner
from fusionbench.training import build_strategy, is_trained, set_modes

SIZE = (3, 32, 34)


class Hidden(FusionStrategy):
    """Two linear layers with something between that has to be kept."""

    name = "hidden"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.names = parts.modalities
        self.first = nn.Linear(sum(parts.shapes.values()), 50)
        self.second = nn.Linear(50, len(parts.classes))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.second(self.first(torch.cat([inputs[name].flatten(1) for name in self.names], 1)).tanh())


class Curious(Hidden):
    """Looks at its values."""

    name = "curious"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = super().forward(inputs)
        return found if bool(found.sum() > 0) else -found


def study_of(*strategies: type[FusionStrategy], **changes: object) -> Study:
    registry = load_registry().with_classes("tests", fusion=list(strategies))
    asked = comparison(fusion=[strategy.name for strategy in strategies], baselines=[], **changes)
    return open_study(asked, cohort=table_cohort(), registry=registry)


IMAGES = ("t1ce", "t2", "flair", "t1")


def images(folder: Path) -> Cohort:
    """Subjects with four images, of whom no voxel is ever read."""
    for name in IMAGES:
        (folder / name).write_text(name)
    subjects = tuple(
        Subject(s.id, s.label, files={name: folder / name for name in IMAGES}) for s in table_cohort(24).subjects
    )
    return replace(table_cohort(), modalities=tuple(Modality(name, "image", 1) for name in IMAGES), subjects=subjects)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Fit]:
    """Strategy -> its fit on four images."""
    recipe = {"batch_size": 2, "precision": "32", "device": "cpu"}
    changes = {"modalities": IMAGES, "options": {"rmc": {"width": 8}}, "recipe": recipe, "attention": "dual"}
    asked = comparison(fusion=["guidance"], baselines=["unimodal"], **changes)
    study = open_study(asked, cohort=images(tmp_path_factory.mktemp("images")))
    return {fit.fusion.name: fit for fit in Planner(study).strategies()}


def sizes(fit: Fit) -> dict[str, tuple[int, int, int]]:
    return {modality.name: SIZE for modality in fit.modalities}


def test_two_linear_layers_by_hand() -> None:
    study = study_of(Hidden)
    (fit,) = Planner(study).strategies()
    cost = cost_of(fit, study.registry, {})
    features, hidden, classes, batch = 12, 50, 2, 8
    parameters = features * hidden + hidden + hidden * classes + classes
    multiplications = features * hidden + hidden * classes
    assert cost.parameters == parameters
    assert cost.weights == 4 * parameters
    assert cost.flops == 2 * multiplications
    (stage,) = cost.stages
    assert (stage.name, stage.batch_size) == ("fit", batch)
    # Forward, gradients of both weights, gradient of the hidden layer; the input needs none.
    assert stage.flops == 2 * (2 * multiplications + hidden * classes)
    # Both layers keep their input, tanh what comes out of it, which is the same memory; the loss some of its own.
    kept = 4 * batch * (features + hidden)
    assert kept <= stage.saved <= kept + 4 * batch * (3 * classes + 4)
    assert stage.peak >= 4 * cost.weights + stage.saved  # weights, gradients, two moments


@pytest.mark.parametrize("name", ["unimodal", "guidance"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_work_and_activations_are_those_of_a_real_step(name: str, precision: str, fits: Mapping[str, Fit]) -> None:
    fit = fits[name]
    fit = replace(fit, recipe={**fit.recipe, "precision": precision})
    registry = load_registry()
    (stage,) = cost_of(fit, registry, sizes(fit)).stages
    model = build_strategy(fit, registry)
    (real,) = model.stages()
    set_modes(model, real.trains)
    for parameter, tensor in model.named_parameters():
        tensor.requires_grad_(is_trained(parameter, real.trains))
    inputs = {modality.name: torch.rand(2, 1, *SIZE) for modality in fit.modalities}
    known = {t.untyped_storage().data_ptr() for t in (*model.state_dict().values(), *inputs.values())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            loss = real.loss(model, Batch(("a", "b"), inputs, torch.tensor([0, 1]), torch.ones(2)), 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
    assert stage.flops == counter.get_total_flops() // 2
    assert stage.saved == pytest.approx(sum(kept.values()), rel=0.01)


MEASURED = """
import pickle, sys
import torch
from fusionbench import load_registry, Batch
from fusionbench.costs.cost import cost_of
from fusionbench.training import build_strategy, is_trained, set_modes
torch.set_num_threads(1)
fit, size = pickle.load(sys.stdin.buffer)
registry = load_registry()
cost = cost_of(fit, registry, {m.name: size for m in fit.modalities})
model = build_strategy(fit, registry)
(stage,) = model.stages()
set_modes(model, stage.trains)
for name, parameter in model.named_parameters():
    parameter.requires_grad_(is_trained(name, stage.trains))
def resident(what):
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[what].split()[0]) * 1024
def step(*size):
    inputs = {m.name: torch.rand(2, 1, *size) for m in fit.modalities}
    stage.loss(model, Batch(("a", "b"), inputs, torch.tensor([0, 1]), torch.ones(2)), 0.0).backward()
step(2, 16, 16)
model.zero_grad()
before = resident("VmRSS")
step(*size)
measured = resident("VmHWM") - before  # of this process alone, unlike what getrusage says
moments = 2 * sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
print((cost.stages[0].peak - moments - cost.weights) / measured)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel of Linux for the memory in use")
def test_the_peak_is_that_of_a_real_process(fits: Mapping[str, Fit]) -> None:
    mapped = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # what is freed is given back
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        input=pickle.dumps((fits["guidance"], (8, 128, 128))),
        env=mapped,
        capture_output=True,
        check=True,
    )
    assert 0.85 < float(done.stdout) < 1.1


def test_branch_by_branch_needs_the_memory_of_one_branch_and_more_work(fits: Mapping[str, Fit]) -> None:
    plain = fits["guidance"]
    frugal = replace(plain, fusion=replace(plain.fusion, options={**plain.fusion.options, "backward": "branchwise"}))
    registry, large = load_registry(), {modality.name: (12, 160, 160) for modality in plain.modalities}
    (one,), (two,) = (cost_of(fit, registry, large).stages for fit in (plain, frugal))
    assert 2.9 < one.saved / two.saved < 3.1
    assert two.peak < 0.45 * one.peak
    assert 1.15 < two.flops / one.flops < 1.25


def test_the_network_of_the_paper_at_the_size_of_the_paper(fits: Mapping[str, Fit]) -> None:
    published = {name: replace(built, options={"width": 64}) for name, built in fits["unimodal"].backbones.items()}
    fit = replace(fits["unimodal"], backbones=published, recipe={**fits["unimodal"].recipe, "batch_size": 1})
    plain = replace(fit, attention=replace(fit.attention, name="none", options={}))  # type: ignore[type-var, arg-type]
    cost = cost_of(plain, load_registry(), dict.fromkeys(published, (150, 240, 240)))
    assert cost.flops == pytest.approx(3.65e12, rel=0.005)
    assert cost.stages[0].saved / cost.stages[0].batch_size == pytest.approx(9.2 * GIB, rel=0.01)


def test_nothing_is_computed_and_no_random_number_drawn(fits: Mapping[str, Fit]) -> None:
    before = torch.get_rng_state()
    cost_of(fits["guidance"], load_registry(), dict.fromkeys(sizes(fits["guidance"]), (1000, 2000, 2000)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_strategy_that_looks_at_values_is_said_to_be_unknown(store: Store) -> None:
    study = study_of(Curious)
    (fit,) = Planner(study).strategies()
    cost = cost_of(fit, study.registry, {})
    assert cost.parameters
    assert cost.unknown
    board = Budget.of(study, store, {})
    assert any(note.startswith("curious: not known, ") for note in board.notes())


def test_ways_end_at_one_subject_and_change_nothing_but_what_they_say(fits: Mapping[str, Fit]) -> None:
    fit = replace(fits["guidance"], recipe={**fits["guidance"].recipe, "batch_size": 4})
    found = dict(ways(fit, {"backward": "branchwise"}))
    assert next(iter(found)) == ""
    assert found[""].key == fit.key
    assert [*found][:4] == [
        "",
        "--precision bf16",
        "--set guidance.backward=branchwise",
        "--precision bf16 --set guidance.backward=branchwise",
    ]
    assert "--precision bf16 --set guidance.backward=branchwise --set recipe.batch_size=1" in found
    assert {way.recipe["batch_size"] for way in found.values()} == {4, 2, 1}
    assert len({way.key for way in found.values()}) == len(found) == 12


def test_a_card_gets_the_first_way_that_fits(fits: Mapping[str, Fit]) -> None:
    fit, registry = fits["guidance"], load_registry()
    fit = replace(fit, recipe={**fit.recipe, "batch_size": 2})
    large = dict.fromkeys(sizes(fit), (150, 480, 480))
    cards = cards_for(fit, registry, large)
    found = ways(fit, {"backward": "branchwise"})
    peaks = {flags: cost_of(way, registry, large).peak for flags, way in islice(found, 4)}
    assert sorted(peaks.values(), reverse=True) == [*peaks.values()]
    for card, flags in cards.items():
        small = [way for way, peak in peaks.items() if peak <= USABLE * card * GIB]
        assert flags == small[0]
    assert len(set(cards.values())) > 1


def test_a_last_batch_that_joins_another_makes_the_largest_step(fits: Mapping[str, Fit]) -> None:
    registry, whole = load_registry(), fits["unimodal"]
    for number, largest in {8: 2, 7: 3}.items():  # 2, 2, 2, 2 and 2, 2, 3
        fit = replace(whole, split=Split(whole.split.training[:number], whole.split.test[:1]))
        (stage,) = cost_of(fit, registry, sizes(fit)).stages
        assert stage.batch_size == largest == max(map(len, chunks(fit.learners, 2)))
    three = replace(whole, recipe={**whole.recipe, "batch_size": 3}, stages=with_batches(whole, 3))
    assert cost_of(fit, registry, sizes(fit)).stages[0].peak == cost_of(three, registry, sizes(fit)).stages[0].peak


def with_batches(fit: Fit, size: int) -> dict[str, Mapping[str, Any]]:
    return {name: {**stage, "batch_size": size} for name, stage in fit.stages.items()}


def test_a_process_of_two_takes_half_a_batch_and_sends_its_gradients(fits: Mapping[str, Fit]) -> None:
    registry, fit = load_registry(), fits["unimodal"]
    one = replace(fit, stages=with_batches(fit, 4))
    two = replace(fit, stages=with_batches(fit, 8), recipe={**fit.recipe, "batch_size": 8, "processes": 2})
    (alone,), (shared,) = (cost_of(some, registry, sizes(fit)).stages for some in (one, two))
    assert (alone.batch_size, alone.saved, alone.flops) == (shared.batch_size, shared.saved, shared.flops)
    assert {way.recipe["batch_size"] for _, way in ways(two, {})} == {8, 4}  # of fewer a process would have one
    tiny = dict.fromkeys(sizes(fit), (1, 1, 1))  # so that gradients are more than what lies between
    assert peak_of(two, tiny) - peak_of(one, tiny) == pytest.approx(cost_of(one, registry, tiny).weights, rel=0.1)


def peak_of(fit: Fit, size: Mapping[str, tuple[int, int, int]]) -> int:
    return cost_of(fit, load_registry(), size).stages[0].peak


def test_a_budget_adds_up_the_weights_of_the_fits_that_are_left(store: Store) -> None:
    study = study_of(Hidden)
    budget = Budget.of(study, store)
    (line,) = budget.lines
    assert (line.label, budget.disk.fits, budget.disk.weights) == ("hidden", 2, 2 * line.cost.weights)
    assert budget.disk.checkpoints == CHECKPOINT * line.cost.weights
    assert budget.disk.volumes == 0
    assert all(len(row) == len(budget.header) for row in budget.rows())
    assert "GPUs of 24, 48, 80 GiB as it is: hidden" in budget.notes()


def test_large_numbers_are_read_at_a_glance() -> None:
    assert [counted(n) for n in (0, 999, 1000, 3_650_365_440_000)] == ["0", "999", "1 k", "3.65 T"]
    assert [sized(n) for n in (0, 1023, 1024, 3 * GIB // 2)] == ["0 B", "1023 B", "1 KiB", "1.5 GiB"]
    assert math.isclose(Cost(weights=5, predicting=7).peak, 7)
