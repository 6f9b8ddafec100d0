"""The engine of one: every fit in this process, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace

from fusionbench.engines import Engine, Workers, attempt
from fusionbench.fits import Job
from fusionbench.training import Report, Workplace


@dataclass(frozen=True)
class Serial(Engine):
    """Does fits in this process, on one device."""

    device: str

    @contextmanager
    def workers(self, place: Workplace, report: Report) -> Iterator[Workers]:
        """This process."""
        yield _ThisProcess(replace(place, device=self.device), report)


@dataclass(frozen=True)
class _ThisProcess(Workers):
    place: Workplace
    report: Report

    @property
    def number(self) -> int:
        return 1

    def submit(self, job: Job) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(attempt(job, self.place, self.report))
        return future
