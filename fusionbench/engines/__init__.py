"""Where fits are done: in this process, in processes of this machine, or on a cluster."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from traceback import format_exception
from typing import Final

from fusionbench.devices import spans, workers_for
from fusionbench.errors import FusionBenchError, StoreError, UsageError, describe, nearest
from fusionbench.fits import Job
from fusionbench.training import Report, Workplace, execute

DEATHS: Final = 3
"""How many workers may die of one fit before it is given up."""


class Workers(ABC):
    """Whoever does fits, one at a time each."""

    @property
    @abstractmethod
    def number(self) -> int:
        """How many fits they can do at once now."""

    @abstractmethod
    def submit(self, job: Job) -> Future[str]:
        """Have a fit done; the future is why it failed, or empty. An error in it ends the run."""


class Engine(ABC):
    """How workers are come by."""

    def check(self) -> None:  # noqa: B027 - most have nobody whom they could ask
        """UsageError if it can be told already that no fit could be done."""

    @abstractmethod
    def workers(self, place: Workplace, report: Report) -> AbstractContextManager[Workers]:
        """Workers for a while, who are ended whatever they are at; `report` may be called by several threads."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of an engine."""

    engine: str
    jobs: int
    """Fits at once; 0: as many as suit the machine."""
    scheduler: str
    devices: tuple[str, ...]
    threads: int
    processes: int = 1
    """How many do a fit together."""


def make_engine(wanted: Wanted) -> Engine:
    """The engine of that name; UsageError for one that does not exist, or that has no use for what is asked of it."""
    if wanted.engine not in ENGINES:
        raise UsageError(f"no engine {wanted.engine!r}: {nearest(wanted.engine, ENGINES)}")
    devices = spans(wanted.devices, wanted.processes)
    jobs = wanted.jobs or workers_for(devices, os.cpu_count() or 1, wanted.threads * wanted.processes)
    return ENGINES[wanted.engine](wanted, jobs, devices)


def _local(wanted: Wanted, jobs: int, devices: tuple[str, ...]) -> Engine:
    from fusionbench.engines.processes import Processes
    from fusionbench.engines.serial import Serial

    if wanted.scheduler:
        raise UsageError("--scheduler is for --engine dask: add that, or leave the scheduler out")
    return Serial(devices[0]) if jobs == 1 else Processes(jobs, devices)


def _cluster(wanted: Wanted, jobs: int, devices: tuple[str, ...]) -> Engine:
    if wanted.processes > 1:
        raise UsageError("a fit by several processes is for this machine: --engine local, or recipe.processes=1")
    try:
        from fusionbench.engines.cluster import Cluster
    except ImportError:
        raise UsageError("--engine dask needs dask: pip install 'fusionbench[cluster]'") from None
    return Cluster(jobs, devices, wanted.scheduler)


ENGINES: Final[Mapping[str, Callable[[Wanted, int, tuple[str, ...]], Engine]]] = {"local": _local, "dask": _cluster}
"""Name -> what makes the engine, for so many fits at once on these devices."""


def attempt(job: Job, place: Workplace, report: Report) -> str:
    """Do one fit; why it failed, or nothing."""
    try:
        place.store.traceback(job.key).unlink(missing_ok=True)  # an earlier attempt's explains another error
        execute(job, place, report)
    except FusionBenchError as error:
        return describe(error)
    except Exception as error:  # a plugin's code may raise anything: the row says what, the others go on
        with suppress(StoreError):
            place.store.keep_traceback(job.key, "".join(format_exception(error)))
        return describe(error)
    return ""


def given_up(deaths: Sequence[str]) -> str:
    """What is said of a fit that its workers died of."""
    return (
        f"{len(deaths)} workers died of this fit, the last by {deaths[-1]}: perhaps for lack of memory; "
        "try a smaller --jobs"
    )
