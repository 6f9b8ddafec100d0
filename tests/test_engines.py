"""Whoever does the fits, the bytes are the same; a worker that dies in mid-fit costs an epoch and no more."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import comparison, table_cohort, write_tables
from distributed import LocalCluster
from test_cli import PROGRAM
from test_engine import tables
from torch import Tensor, nn

from fusionbench import Cohort, FusionStrategy, Parts, Store, Study, load_registry, open_study, plan, run
from fusionbench.devices import assigned, resolve_devices, workers_for
from fusionbench.engine import Event, Failed, Finished, check_engine
from fusionbench.engines import cluster, processes
from fusionbench.errors import StoreError, UsageError
from fusionbench.fits import runtime
from fusionbench.runs import Run
from fusionbench.training import Progress
from fusionbench_cli.render_next import next_steps

EPOCHS = 5


class Deadly(FusionStrategy):
    """Kills the process that it is trained in."""

    name = "deadly"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.out = nn.Linear(sum(parts.shapes.values()), len(parts.classes))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return self.out(torch.cat([x.flatten(1) for x in inputs.values()], 1))


@dataclass
class Killer:
    """Takes note of events, and kills every worker when a fit is half done."""

    events: list[Event] = field(default_factory=list)
    killed: int = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Progress) and event.epoch == EPOCHS // 2 and not self.killed:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGKILL)
                self.killed += 1

    def epochs_done_twice(self) -> int:
        told = [(event.key, event.stage, event.epoch) for event in self.events if isinstance(event, Progress)]
        return len(told) - len(set(told))


@pytest.fixture
def longer(cohort: Cohort) -> Study:
    """A study whose fits take some epochs."""
    asked = comparison(fusion=["ensemble"], baselines=[], modalities=["a", "b"], recipe={"epochs": EPOCHS})
    return open_study(asked, cohort=cohort)


def tables_of(study: Study, folder: Path, **asked: object) -> dict[str, bytes]:
    folder.mkdir()
    outcome = run(study, Store(folder / "store"), checkpoint_seconds=0.0, **asked)  # type: ignore[arg-type]
    return tables(Run.of(outcome), folder / "run", study)


# Local processes


def test_a_worker_killed_in_mid_fit_is_replaced_and_its_fit_goes_on(longer: Study, tmp_path: Path) -> None:
    killer = Killer()
    killed = tables_of(longer, tmp_path / "killed", jobs=2, listener=killer)
    assert killer.killed == 2
    assert killer.epochs_done_twice() <= 2  # for each worker the epoch that it was about to keep
    assert not [event for event in killer.events if isinstance(event, Failed)]
    assert killed == tables_of(longer, tmp_path / "serial")
    assert not multiprocessing.active_children()


def test_a_fit_that_workers_die_of_fails_alone(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEATHS", 2)
    registry = load_registry().with_classes("tests", fusion=[Deadly])
    asked = comparison(fusion=["deadly"], baselines=["unimodal"], modalities=["a"], protocol={"refit": True})
    study = open_study(asked, cohort=cohort, registry=registry)
    events: list[Event] = []
    run(study, Store(tmp_path), jobs=2, listener=events.append)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.job.fit.fusion.name == "deadly"
    assert failed.reason.startswith("2 workers died of this fit, the last by SIGKILL: perhaps for lack of memory")
    assert sum(isinstance(event, Finished) for event in events) == 1


# A cluster


@pytest.mark.enable_socket
def test_a_cluster_gives_the_same_bytes_though_its_workers_are_killed(longer: Study, tmp_path: Path) -> None:
    killer = Killer()
    killed = tables_of(longer, tmp_path / "killed", jobs=2, engine="dask", listener=killer)
    assert killer.killed == 2
    assert killer.epochs_done_twice() <= 2
    assert sum(isinstance(event, Finished) for event in killer.events) == len(plan(longer).jobs)
    assert killed == tables_of(longer, tmp_path / "serial")
    assert not multiprocessing.active_children()


@pytest.fixture
def foreign() -> Iterator[str]:
    """The address of a cluster that somebody else started."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as theirs:
        yield theirs.scheduler_address


@pytest.mark.enable_socket
def test_a_scheduler_that_is_there_already_serves(foreign: str, cohort: Cohort, tmp_path: Path) -> None:
    study = open_study(comparison(fusion=["unimodal"], baselines=[], modalities=["a"]), cohort=cohort)
    served = tables_of(study, tmp_path / "served", engine="dask", scheduler=foreign)
    assert served == tables_of(study, tmp_path / "serial")


def levels() -> list[tuple[int, list[int]]]:
    """The levels of the loggers of dask and asyncio, and of their handlers."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "asyncio")]
    return [(logger.level, [handler.level for handler in logger.handlers]) for logger in loggers]


@pytest.mark.enable_socket
def test_a_scheduler_that_does_not_answer_is_named(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.2)
    before = levels()
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9: start one with"):
        run(study, Store(tmp_path), engine="dask", scheduler="tcp://127.0.0.1:9")
    assert levels() == before  # of loggers that are somebody else's


def test_dask_that_is_not_installed_is_named(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fusionbench.engines.cluster", None)
    with pytest.raises(UsageError, match=r"pip install 'fusionbench\[cluster\]'"):
        run(study, Store(tmp_path), engine="dask")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"engine": "dusk"}, "no engine 'dusk': did you mean 'dask'?"),
        ({"scheduler": "tcp://somewhere:8786"}, "--scheduler is for --engine dask"),
        ({"engine": "dask", "scheduler": "tcp://127.0.0.1:9"}, "no scheduler answers at"),
    ],
)
@pytest.mark.enable_socket
def test_a_wrong_word_is_refused_before_anything_is_read_or_written(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], says: str
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.2)
    with pytest.raises(UsageError, match=says):
        run(study, Store(tmp_path / "store"), **asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=says):
        check_engine(comparison(cohort={"data": "nowhere"}), **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


# What a worker must have


def worker(threads: int = 1) -> SimpleNamespace:
    return SimpleNamespace(name="w", state=SimpleNamespace(nthreads=threads))


def test_a_worker_must_see_the_store_and_its_locks(study: Study, store: Store, tmp_path: Path) -> None:
    job = plan(study).jobs[0]
    with store.marked() as mark:
        cluster._check(worker(), job, store, mark, "cpu")
        with pytest.raises(StoreError, match=r"worker w: there is no such store at .*other: put it where every worker"):
            cluster._check(worker(), job, Store(tmp_path / "other").open(), mark, "cpu")
        path = store.root / "working" / mark
        path.rename(path.with_name("elsewhere"))
        path.touch()  # the same name, and not the file that is locked: what a lock that stays on one machine looks like
        with pytest.raises(StoreError, match=r"worker w: a file lock in .* does not hold across machines"):
            cluster._check(worker(), job, store, mark, "cpu")
    assert not path.exists()


def test_a_worker_must_have_one_thread_the_same_versions_and_the_device(
    study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan(study).jobs[0]
    with store.marked() as mark:
        with pytest.raises(UsageError, match="worker w has 2 threads: start it with --nthreads 1"):
            cluster._check(worker(threads=2), job, store, mark, "cpu")
        with pytest.raises(UsageError, match="worker w: no device 'cuda': there are cpu"):
            cluster._check(worker(), job, store, mark, "cuda")
        monkeypatch.setattr(cluster, "runtime", lambda: runtime() | {"torch": "1.0"})
        with pytest.raises(UsageError, match="worker w has another version of torch: install there what"):
            cluster._check(worker(), job, store, mark, "cpu")


def test_a_fit_of_another_machine_may_come_into_sight_late(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr(store, "has", lambda key: next(looks))
    assert store.await_fit("k")
    monkeypatch.setattr(store, "has", lambda key: False)
    assert not store.await_fit("k", seconds=0.0)


# Interrupted


OTHERS = [pytest.param(stop, marks=pytest.mark.slow) for stop in (signal.SIGTERM, signal.SIGKILL)]


INTERRUPTED = (130, "fusionbench: interrupted; the same command goes on where it stopped\n")


def started(folder: Path, *asked: str) -> subprocess.Popen[str]:
    """A run of its own session that would take hours."""
    write_tables(folder / "data", table_cohort(subjects=60, features=6))
    given = ["--cohort", "table", "--data", "data", "--fusion", "ensemble", "--store", "store", "--out", "run"]
    return subprocess.Popen(
        [PROGRAM, "run", *given, *asked, "--set", "recipe.epochs=100000"],
        cwd=folder, env=os.environ | {"FUSIONBENCH_HOME": str(folder / "home")}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(["--jobs", "2"], id="local"),
        pytest.param(["--jobs", "2", "--engine", "dask"], id="dask", marks=pytest.mark.slow),
        pytest.param(
            ["--device", "cpu", "--strategy", "ddp", "--set", "recipe.processes=2", "--set", "recipe.batch_size=8"],
            id="ddp",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_workers_that_are_interrupted_while_they_start_say_nothing(tmp_path: Path, asked: list[str]) -> None:
    process = started(tmp_path, *asked)
    while not any("spawn_main" in command for command in members(process.pid)) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)  # the worker imports
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == INTERRUPTED


@pytest.mark.parametrize("stop", [signal.SIGINT, *OTHERS], ids=lambda stop: stop.name)
def test_an_interrupted_cluster_leaves_no_process_behind(tmp_path: Path, stop: signal.Signals) -> None:
    process = started(tmp_path, "--engine", "dask", "--jobs", "1")
    working = tmp_path / "store" / "working"
    while not list(working.glob("[0-9a-f]*.lock")) and process.poll() is None:  # a worker is at a fit
        time.sleep(0.1)
    os.killpg(process.pid, stop) if stop is signal.SIGINT else process.send_signal(stop)  # a terminal tells everybody
    _, said = process.communicate(timeout=60)
    if stop is not signal.SIGKILL:
        assert (process.returncode, said) == INTERRUPTED
    end = time.monotonic() + 20
    while (left := members(process.pid)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def members(session: int) -> list[str]:
    """The command lines of the processes of a session that are alive."""
    if sys.platform != "linux":
        pytest.skip("processes are read from /proc")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, ours = path.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
            if int(ours) == session and state != "Z":
                found.append(path.joinpath("cmdline").read_text())
        except OSError:  # it ended meanwhile
            continue
    return found


# Devices


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def test_devices_are_named_once_and_must_be_there(two_gpus: None) -> None:
    assert resolve_devices("cuda:0,1") == ("cuda:0", "cuda:1")
    assert resolve_devices("cuda:1") == ("cuda:1",)
    assert resolve_devices("auto") == ("cuda",)
    for wrong, says in {"cuda:0,2": "no device 'cuda:2'", "cuda:1,1": "twice", "cuda:0,": "no device 'cuda:'"}.items():
        with pytest.raises(UsageError, match=says):
            resolve_devices(wrong)


def test_what_is_said_to_add_a_method_by_names_the_gpus_that_a_fit_spans(
    two_gpus: None, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = comparison(recipe={"device": "cuda:0,1", "batch_size": 8, "processes": 2})
    study = open_study(asked, cohort=cohort)
    next_steps(Path("there"), Path("store"), study)
    said = capsys.readouterr().out
    assert "--config there/experiment.toml --out there --device cuda:0,1 --store store --fusion NAME" in said
    with pytest.raises(UsageError, match="needs a GPU for each process"):
        open_study(study.comparison, cohort=cohort)  # what experiment.toml says, without that
    next_steps(Path("there"), Path("store"), open_study(comparison(recipe={"device": "cuda:1"}), cohort=cohort))
    assert "--device" not in capsys.readouterr().out


def test_workers_take_the_devices_in_turn() -> None:
    devices = ("cuda:0", "cuda:1")
    assert [assigned(devices, number) for number in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert (workers_for(devices, 64, 1), workers_for(("cpu",), 64, 1), workers_for(("cpu",), 3, 4)) == (2, 64, 1)


def test_a_key_does_not_say_which_gpu_it_was(two_gpus: None, cohort: Cohort) -> None:
    studies = [open_study(comparison(recipe={"device": asked}), cohort=cohort) for asked in ("cuda:0", "cuda:0,1")]
    assert [study.devices for study in studies] == [("cuda:0",), ("cuda:0", "cuda:1")]
    one, other = ([job.key for job in plan(study).jobs] for study in studies)
    assert one == other
    assert studies[0].comparison == studies[1].comparison
    on_cpu = open_study(comparison(recipe={"device": "cpu"}), cohort=cohort)
    assert not {job.key for job in plan(on_cpu).jobs} & set(one)
