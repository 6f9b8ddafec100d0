"""Workers of dask.distributed, here or on other machines that see the same store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import dask
from distributed import Client, KilledWorker, LocalCluster, Security, Worker, WorkerPlugin, get_worker
from distributed.utils import silence_logging_cmgr

from fusionbench.devices import assigned, kind_of, resolve_device
from fusionbench.engines import Engine, Workers, attempt, given_up
from fusionbench.errors import StoreError, TrainingError, UsageError
from fusionbench.fits import Job, runtime
from fusionbench.store import Store
from fusionbench.subprocesses import uninterrupted
from fusionbench.training import Progress, Report, Workplace

SECONDS_TO_CONNECT: Final = 10


@dataclass(frozen=True)
class Cluster(Engine):
    """Does fits on the workers of a scheduler, or of a cluster of its own on this machine."""

    jobs: int
    """How many workers a cluster of its own has; another has those that it has."""
    devices: tuple[str, ...]
    scheduler: str = ""

    def check(self) -> None:
        """UsageError if the scheduler does not answer; a cluster of its own is not started for that."""
        if self.scheduler:
            with _quiet(), self._client():
                pass

    @contextmanager
    def workers(self, place: Workplace, report: Report) -> Iterator[Workers]:
        """The workers that there are, and those that join. UsageError in one line if no fit could be done by them."""
        with _quiet(), self._client() as client, place.store.marked() as mark:
            name = f"fusionbench-{mark}"
            client.subscribe_topic(name, lambda event: report(Progress(**event[1]["progress"])))
            with _handed_out(client, name, _Desk(place, mark, self._devices())):
                yield _Team(client, name, place.store)

    def _devices(self) -> tuple[str, ...]:
        """What the workers of a machine take by number; those of another's cluster the first that they see."""
        return (kind_of(self.devices[0]),) if self.scheduler else self.devices

    @contextmanager
    def _client(self) -> Iterator[Client]:
        if not self.scheduler:
            with _own_cluster(self.jobs) as cluster, Client(cluster) as client:
                yield client
            return
        if len(self.devices) > 1:
            raise UsageError("--device with several GPUs is for this machine: a worker of --scheduler takes its first")
        try:
            client = Client(self.scheduler, timeout=SECONDS_TO_CONNECT)
        except (OSError, ValueError):
            raise UsageError(
                f"no scheduler answers at {self.scheduler}: start one with `dask scheduler`, or correct the address"
            ) from None
        with client:
            yield client


@dataclass(frozen=True)
class _Desk(WorkerPlugin):
    """What every worker has at hand, under the name of the run."""

    place: Workplace
    mark: str
    devices: tuple[str, ...]


class _Team(Workers):
    """The workers of a scheduler."""

    def __init__(self, client: Client, name: str, store: Store) -> None:
        self.client, self.name, self.store = client, name, store
        self.asked: dict[str, Any] = {}

    @property
    def number(self) -> int:
        return max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    def submit(self, job: Job) -> Future[str]:
        done: Future[str] = Future()
        future = self.asked[job.key] = self.client.submit(_work, job, self.name, pure=False)
        future.add_done_callback(lambda _: self._settle(job.key, done))
        return done

    def _settle(self, key: str, done: Future[str]) -> None:
        """Hand over what came of a fit; called in a thread of the client."""
        try:
            done.set_result(self._result(key))
        except BaseException as error:
            done.set_exception(error)

    def _result(self, key: str) -> str:
        try:
            reason: str = self.asked.pop(key).result()
        except KilledWorker as killed:
            return given_up([f"the loss of {killed.last_worker.address}"] * (killed.allowed_failures + 1))
        except CancelledError:
            raise TrainingError("the scheduler is gone: start it and run the same command again to go on") from None
        if not reason and not self.store.await_fit(key):
            raise StoreError(f"a worker finished fit {key}, but it is not in {self.store.root}: is that one folder?")
        return reason


@contextmanager
def _quiet() -> Iterator[None]:
    """Have dask, and asyncio of what dask left unfinished, say nothing: what matters comes as an error of ours."""
    unfinished = logging.getLogger("asyncio")
    before = unfinished.level
    unfinished.setLevel(logging.CRITICAL)
    try:
        with silence_logging_cmgr(logging.CRITICAL):
            yield
    finally:
        unfinished.setLevel(before)


@contextmanager
def _own_cluster(jobs: int) -> Iterator[LocalCluster]:
    """A cluster on this machine, a fit per worker at a time, that nobody else on it can give work to."""
    with ExitStack() as afterwards:
        # Dask would limit the threads of libraries through the environment, and workers must compute as this one does.
        with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}), uninterrupted():
            cluster = LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
                security=Security.temporary(),
                silence_logs=logging.CRITICAL,
            )
            afterwards.callback(_end, cluster)  # inside: an interruption that waited comes when this block ends
        yield cluster


def _end(cluster: LocalCluster) -> None:
    """End a cluster of our own; what its workers are at is not waited for: the store loses nothing."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.process and nanny.process.process:
            cluster.sync(nanny.process.process.kill)
    cluster.close()


@contextmanager
def _handed_out(client: Client, name: str, desk: _Desk) -> Iterator[None]:
    """Give every worker once what it does fits with, those that join later too."""
    try:
        client.register_plugin(desk, name=name)
    except ImportError as error:
        raise UsageError(f"a worker lacks {error.name}: install fusionbench and the plugins there as here") from None
    try:
        yield
    finally:
        with suppress(OSError):  # the scheduler is gone
            client.unregister_worker_plugin(name)


def _work(job: Job, name: str) -> str:
    """Do a fit in a worker of the cluster: why it failed, or empty; UsageError or StoreError if no fit can be done."""
    worker = get_worker()
    desk: Any = worker.plugins[name]
    device = assigned(desk.devices, worker.name if isinstance(worker.name, int) else 0)
    _check(worker, job, desk.place.store, desk.mark, device)
    return attempt(job, replace(desk.place, device=device), _Post(worker, name))


def _check(worker: Worker, job: Job, store: Store, mark: str, device: str) -> None:
    """That a worker can do what would have been done here."""
    who = f"worker {worker.name}"
    if worker.state.nthreads != 1:
        raise UsageError(f"{who} has {worker.state.nthreads} threads: start it with --nthreads 1, one fit at a time")
    if fault := store.fault(mark):
        raise StoreError(f"{who}: {fault}")
    here = runtime()
    if other := [name for name in here if here[name] != job.fit.runtime.get(name)]:
        raise UsageError(f"{who} has another version of {', '.join(other)}: install there what is installed here")
    try:
        resolve_device(device)
    except UsageError as error:
        raise UsageError(f"{who}: {error}") from None


class _Post:
    """Sends progress to whoever asked for the fit; ends the fit when nobody asks for it any more."""

    def __init__(self, worker: Worker, topic: str) -> None:
        self.worker, self.topic = worker, topic
        self.task = worker.get_current_task()

    def __call__(self, progress: Progress) -> None:
        task = self.worker.state.tasks.get(self.task)
        if task is None or task.state == "cancelled":
            raise InterruptedError("nobody waits for this fit any more")
        self.worker.log_event(self.topic, {"progress": asdict(progress)})
