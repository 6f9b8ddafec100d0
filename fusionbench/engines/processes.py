"""Long-lived worker processes on this machine; one that dies is replaced, and its fit goes on from its checkpoint."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from fusionbench.devices import assigned
from fusionbench.engines import DEATHS, Engine, Workers, attempt, given_up
from fusionbench.fits import Job
from fusionbench.subprocesses import cause_of_death, start
from fusionbench.training import Report, Workplace


@dataclass(frozen=True)
class Processes(Engine):
    """Does as many fits at once as it has processes, which take the devices in turn."""

    jobs: int
    devices: tuple[str, ...]

    @contextmanager
    def workers(self, place: Workplace, report: Report) -> Iterator[Workers]:
        """Places to work at; each starts its process when the first fit comes."""
        desks = [_Desk(replace(place, device=assigned(self.devices, n)), report) for n in range(self.jobs)]
        with ThreadPoolExecutor(self.jobs, "fit") as threads:
            try:
                yield _Office(desks, threads)
            finally:  # what the workers are at is not waited for: the store loses nothing
                for desk in desks:
                    desk.close()


class _Office(Workers):
    """Gives each fit to a desk that is free, and waits there in a thread."""

    def __init__(self, desks: Sequence[_Desk], threads: ThreadPoolExecutor) -> None:
        self.desks, self.threads = desks, threads
        self.free: queue.SimpleQueue[_Desk] = queue.SimpleQueue()
        for desk in desks:
            self.free.put(desk)

    @property
    def number(self) -> int:
        return len(self.desks)

    def submit(self, job: Job) -> Future[str]:
        return self.threads.submit(self._do, job)

    def _do(self, job: Job) -> str:
        desk = self.free.get()
        try:
            return desk.do(job)
        finally:
            self.free.put(desk)


class _Desk:
    """Where one process after another works, each replacing one that died."""

    def __init__(self, place: Workplace, report: Report) -> None:
        self.place, self.report = place, report
        self.worker: _Worker | None = None
        self.closed, self.lock = False, threading.Lock()

    def do(self, job: Job) -> str:
        """Why the fit failed, or empty."""
        deaths: list[str] = []
        while len(deaths) < DEATHS:
            worker = self._occupied()
            try:
                return worker.do(job, self.report)
            except (EOFError, ConnectionError):
                with self.lock:
                    deaths.append(worker.end())
                    self.worker = None
        return given_up(deaths)

    def close(self) -> None:
        """End the process that works here, and take in no other."""
        with self.lock:
            self.closed = True
            if self.worker:
                self.worker.end()

    def _occupied(self) -> _Worker:
        with self.lock:
            if self.closed:
                raise CancelledError
            self.worker = self.worker or _Worker(self.place)
            return self.worker


class _Worker:
    """A process that does fits one after another, and the pipe that jobs, progress and results go through.

    Each has a pipe of its own: one that is killed can take no lock with it that others wait for.
    """

    def __init__(self, place: Workplace) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = start(_serve, theirs, place)
        theirs.close()  # else the pipe would not end with the process

    def do(self, job: Job, report: Report) -> str:
        """Why the fit failed, or empty; EOFError or ConnectionError if the process dies."""
        self.pipe.send(job)
        while not isinstance(told := self.pipe.recv(), str):
            report(told)
        return told

    def end(self) -> str:
        """End the process, dead or alive; what it died of."""
        self.process.kill()
        self.process.join()
        return cause_of_death(self.process)


def _serve(pipe: Connection, place: Workplace) -> None:
    with suppress(EOFError, ConnectionError):  # the main process is gone
        while True:
            pipe.send(attempt(pipe.recv(), place, pipe.send))
