"""A fit by two processes is the fit by one, as far as it can be; one that dies fails the fit and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import comparison, table_cohort
from test_training import Tiny, job_of, tiny_study, workplace
from torch import Tensor, nn

from fusionbench import (
    Cohort,
    FusionStrategy,
    Parts,
    Stage,
    Store,
    Study,
    load_comparison,
    load_registry,
    open_study,
    plan,
    spanning,
)
from fusionbench.batches import Batches, chunks
from fusionbench.components import classification_loss
from fusionbench.devices import make_fabric, member, spans
from fusionbench.engine import prepare
from fusionbench.engines import Wanted, attempt, make_engine
from fusionbench.errors import TrainingError, UsageError
from fusionbench.fits import Fit, Job
from fusionbench.ranks import Ranks, together
from fusionbench.training import Progress, Workplace, _optimizer, build_strategy, execute, train_epoch

pytestmark = pytest.mark.enable_socket  # the processes of a fit talk through one


class Plain(Tiny):
    """Neither normalisation nor dropout, and a parameter that no loss reaches."""

    name = "plain"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.norm, self.drop = nn.Identity(), nn.Identity()
        self.idle = nn.Parameter(torch.ones(2))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("first", ("",), classification_loss), Stage("second", ("out",), classification_loss))


class Picture(FusionStrategy):
    """A convolution over the images side by side."""

    name = "picture"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.names = parts.modalities
        self.low = nn.Conv3d(sum(parts.shapes.values()), 4, 3)
        self.out = nn.Linear(4, len(parts.classes))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        low = self.low(torch.cat([inputs[name] for name in self.names], 1))
        return self.out(low.relu().mean((2, 3, 4)))


class Fatal(Plain):
    """Kills the second process of a fit."""

    name = "fatal"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


class Halting(Plain):
    """Fails in the second process of a fit."""

    name = "halting"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            raise ZeroDivisionError("a fault of the plugin")
        return super().forward(inputs)


def of_two(cohort: Cohort, strategy: type[FusionStrategy], processes: int = 2, **recipe: Any) -> Study:
    given = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "processes": processes, **recipe}
    return tiny_study(cohort, strategy, recipe=given)


def done(study: Study, store: Store) -> tuple[dict[str, Tensor], np.ndarray, list[float]]:
    """Weights, probabilities and losses of the study's last fit."""
    job, losses = job_of(study), []
    execute(job, workplace(study, store), lambda progress: losses.append(progress.loss))
    return store.weights(job.key), store.predictions(job.key, job.fit.classes).probabilities, losses


def assert_alike(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    assert one[0].keys() == two[0].keys()
    for name in one[0]:
        torch.testing.assert_close(two[0][name], one[0][name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(two[1], one[1], atol=1e-5)
    assert two[2] == pytest.approx(one[2], abs=1e-5)


def test_two_processes_end_with_the_weights_of_one(cohort: Cohort, store: Store) -> None:
    one, two = (of_two(cohort, Plain, processes, batch_size=9) for processes in (1, 2))
    assert job_of(one).key != job_of(two).key
    alone = done(one, store)
    assert_alike(alone, done(two, store))
    assert torch.equal(alone[0]["idle"], torch.ones(2))  # without a gradient it is not even decayed
    assert store.record(job_of(two).key)["fit"]["recipe"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_train_an_image_network_as_one_does(store: Store) -> None:
    registry = load_registry().with_classes("tests", fusion=[Picture])
    small = {
        "fusion": ["picture"],
        "baselines": [],
        "preprocessing": {"resize": [4, 8, 8]},
        "protocol": {"folds": 2},
        "options": {"phantom": {"subjects": 16, "spacing": 8.0}},
    }
    found = []
    for processes in (1, 2):
        recipe = {"epochs": 2, "batch_size": 4, "processes": processes}
        study = open_study(load_comparison("demo", small, {"recipe": recipe}), registry=registry)
        prepare(study, store)
        found.append(done(study, store))
    assert_alike(*found)


# What processes tell each other


def epochs_of_all(job: Job, place: Workplace, ranks: Ranks, tell: Callable[[Any], None]) -> None:
    """Two epochs; tells the weights and statistics of this process, and the subjects that it saw."""
    fabric, model = make_fabric("cpu", "32"), build_strategy(job.fit, place.registry)
    batches = Batches(job.fit, place.volumes, fabric.device, ranks=ranks)
    stage = model.stages()[0]
    optimizer = fabric.setup_optimizers(_optimizer(model, stage, job.fit))
    for epoch in range(2):
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        train_epoch(model, stage, epoch, 2, job.fit, batches, fabric, optimizer)
    seen = [batch.ids for batch in batches.training(stage.name, 1)]
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    drawn = ranks.seed(7)
    tell((ranks.rank, state, seen, drawn, {name: buffer.numpy() for name, buffer in before.items()}))


@pytest.mark.slow
def test_all_end_with_the_same_weights_and_statistics_and_saw_their_own_subjects(cohort: Cohort, store: Store) -> None:
    study = of_two(cohort, Tiny)
    job, told = job_of(study), []
    together(2, "gloo", partial(epochs_of_all, job, workplace(study, store)), told.append)
    (_, first, seen, drawn, before), (_, second, others, other_drawn, _) = sorted(told, key=lambda one: one[0])
    assert {name: tensor.tolist() for name, tensor in first.items()} == {n: t.tolist() for n, t in second.items()}
    assert not np.array_equal(first["norm.running_mean"], before["norm.running_mean"])
    whole = [set(a) | set(b) for a, b in zip(seen, others, strict=True)]
    assert not {id for ids in seen for id in ids} & {id for ids in others for id in ids}
    assert [len(ids) for ids in whole] == [8, 10]
    assert set().union(*whole) == set(job.fit.learners)
    assert drawn != other_drawn


class Noting(Ranks):
    """Takes note of the part of a profile that each talk with the others belongs to."""

    within: ClassVar[list[str]] = ["other"]
    noted: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    @contextmanager
    def watch(cls, part: str) -> Iterator[None]:
        cls.within.append(part)
        yield
        cls.within.pop()

    def total(self, loss: float, subjects: int, device: torch.device) -> tuple[float, int]:
        self.noted.append(("total", self.within[-1]))
        return super().total(loss, subjects, device)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        self.noted.append(("gradients", self.within[-1]))

    def average_statistics(self, model: nn.Module) -> None:
        self.noted.append(("statistics", self.within[-1]))


def test_waiting_for_the_others_is_waiting_in_a_profile(cohort: Cohort, store: Store) -> None:
    study = of_two(cohort, Plain, processes=1)
    job, place, fabric = job_of(study), workplace(study, store), make_fabric("cpu", "32")
    model = build_strategy(job.fit, place.registry)
    batches = Batches(job.fit, place.volumes, fabric.device, watch=Noting.watch, ranks=Noting())
    stage = model.stages()[0]
    optimizer = fabric.setup_optimizers(_optimizer(model, stage, job.fit))
    train_epoch(model, stage, 0, 1, job.fit, batches, fabric, optimizer)
    assert set(Noting.noted) == {("total", "wait"), ("gradients", "wait"), ("statistics", "wait")}


def listening(process: int) -> list[str]:
    """The addresses, in hexadecimal, on which a process waits for others to connect."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()}
    tables = [Path(f"/proc/self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    return [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in inodes]


def who_listens(ranks: Ranks, tell: Callable[[Any], None]) -> None:
    ranks.sum(torch.ones(1))
    tell(listening(os.getpid()) + (listening(os.getppid()) if ranks.leads else []))


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="asks the kernel of Linux who listens")
def test_nobody_but_this_machine_can_talk_to_the_processes_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "elsewhere")  # what somebody has set for programs that span machines
    told: list[list[str]] = []
    together(2, "gloo", who_listens, told.append)
    assert sum(map(len, told)) >= 3
    assert {address for addresses in told for address in addresses} == {"0100007F"}


def test_a_batch_is_shared_out_evenly_and_wholly() -> None:
    for count in (1, 2, 3):
        for size in range(2 * count, 12):
            shares = [Ranks(rank, count).share(range(size)) for rank in range(count)]
            assert [id for share in shares for id in share] == list(range(size))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [len(some) for some in chunks(range(11), 4, 4)] == [4, 7]
    assert [len(some) for some in chunks(range(3), 4, 4)] == [3]


# Interrupted


@pytest.mark.slow
def test_a_fit_of_two_goes_on_from_its_checkpoint_bit_for_bit(cohort: Cohort, tmp_path: Path) -> None:
    study = of_two(cohort, Tiny)
    job = job_of(study)
    whole, broken = (Store(tmp_path / name).open() for name in ("whole", "broken"))
    execute(job, workplace(study, whole), lambda progress: None)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        execute(job, workplace(study, broken, 0.0), stop)
    rest: list[Progress] = []
    execute(job, workplace(study, broken, 0.0), rest.append)
    assert 1 <= len(rest) < 6
    for name in ("predictions.csv", "history.csv", "weights.safetensors"):
        assert (broken.folder(job.key) / name).read_bytes() == (whole.folder(job.key) / name).read_bytes()


def test_a_killed_process_fails_the_fit_and_not_the_run(cohort: Cohort, store: Store) -> None:
    study = of_two(cohort, Fatal, epochs=1)
    reason = attempt(job_of(study), workplace(study, store), lambda progress: None)
    assert reason.startswith("process 2 of the 2 of this fit died by SIGKILL: perhaps for lack of memory")
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_fault_in_one_process_is_told_as_it_is(cohort: Cohort, store: Store) -> None:
    with pytest.raises(TrainingError, match="ZeroDivisionError: a fault of the plugin"):
        done(of_two(cohort, Halting), store)


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_process_ends_all(cohort: Cohort, store: Store) -> None:
    study = of_two(cohort, Diverging)
    with pytest.raises(TrainingError, match="the loss became nan in stage first, epoch 1"):
        done(study, store)


class Diverging(Plain):
    """Its loss is no number in the second process."""

    name = "diverging"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = super().forward(inputs)
        return found * torch.nan if torch.distributed.is_initialized() and torch.distributed.get_rank() else found


# Asked for


def test_the_number_is_part_of_a_key_only_above_one(cohort: Cohort) -> None:
    fits: dict[int, Fit] = {n: job_of(of_two(cohort, Plain, n)).fit for n in (1, 2)}
    assert "processes" not in fits[1].recipe
    assert (fits[1].processes, fits[2].processes) == (1, 2)
    asked = {"fusion": ["logistic", "ensemble"], "baselines": [], "recipe": {"batch_size": 8, "processes": 2}}
    jobs = plan(open_study(comparison(**asked), cohort=cohort)).jobs
    numbers = {job.fit.fusion.name: job.fit.processes for job in jobs}
    assert numbers == {"logistic": 1, "unimodal": 2, "ensemble": 1}  # what trains nothing is done by one


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"recipe": {"processes": 2, "batch_size": 3}}, "batches of 4 subjects or more, not 3"),
        ({"recipe": {"processes": 2, "batch_size": 8, "stages": {"meta": {"batch_size": 2}}}}, "not 2"),
        ({"recipe": {"processes": 2, "batch_size": 8}, "fusion": ["logistic"]}, "logistic trains nothing"),
    ],
    ids=["batch", "stage", "nothing to train"],
)
def test_what_cannot_be_spread_is_refused(cohort: Cohort, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_study(comparison(baselines=[], **asked), cohort=cohort)


def test_a_training_part_of_too_few_fails_its_fit(store: Store) -> None:
    recipe = {"batch_size": 20, "processes": 10, "stages": {"meta": {"batch_size": 20}, "vae": {"batch_size": 20}}}
    study = tiny_study(table_cohort(subjects=36), Plain, recipe=recipe)
    with pytest.raises(TrainingError, match="18 subjects to train on are too few for 10 processes"):
        done(study, store)


def test_ddp_spans_the_gpus_or_the_processes_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def processes(device: str, given: int = 1) -> int:
        return spanning(comparison(recipe={"device": device, "processes": given}), "ddp").recipe.processes

    assert (processes("cuda:0,1,3"), processes("cuda:0,1,2,3", 2), processes("cpu", 3)) == (3, 2, 3)
    for alone in ("cpu", "cuda", "cuda:1"):
        with pytest.raises(UsageError, match="name GPUs"):
            processes(alone)
    with pytest.raises(UsageError, match="no strategy 'fsdp'"):
        spanning(comparison(), "fsdp")
    assert spanning(comparison(), "") == comparison()


def test_each_process_has_a_gpu_of_its_own() -> None:
    four = tuple(f"cuda:{n}" for n in range(4))
    assert spans(four, 1) == four
    assert [[member(span, rank) for rank in range(2)] for span in spans(four, 2)] == [list(four[:2]), list(four[2:])]
    assert make_engine(Wanted("local", 0, "", four, 1, 4)).device == "cuda:0,1,2,3"  # type: ignore[attr-defined]
    for devices in (four[:3], ("cuda",), ("mps",)):
        with pytest.raises(UsageError, match="needs a GPU for each process"):
            spans(devices, 2)
    with pytest.raises(UsageError, match="is for this machine"):
        make_engine(Wanted("dask", 0, "", ("cpu",), 1, 2))
