"""Runs a study by whatever engine does the fits. What the store has is not done again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from fusionbench.devices import resolve_devices
from fusionbench.engines import Wanted, Workers, make_engine
from fusionbench.errors import FusionBenchError
from fusionbench.experiment import Comparison
from fusionbench.fits import Fit, Job
from fusionbench.imaging.nifti import Grid
from fusionbench.imaging.transforms import rehearse
from fusionbench.imaging.volumes import Volumes
from fusionbench.planning import Decision, Plan, Planner
from fusionbench.predictions import Predictions
from fusionbench.store import Store
from fusionbench.study import Study
from fusionbench.training import Progress, Workplace, build_strategy, features_of

SECONDS_BETWEEN_LOOKS: Final = 5.0
"""How often it is seen whether more workers are there than before."""


@dataclass(frozen=True)
class Planned:
    """A plan is made, or made again after a ranking."""

    plan: Plan
    stored: frozenset[str]
    """The keys of the fits that the store had, so that nobody does them in this run."""


@dataclass(frozen=True)
class Finished:
    """A fit is done."""

    job: Job


@dataclass(frozen=True)
class Failed:
    """A fit failed, or cannot start because one that it needs did."""

    job: Job
    reason: str
    traceback: Path | None = None
    """The file that says where, if the code of a plugin or a library failed."""


Event = Planned | Progress | Finished | Failed
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Forecast:
    """How much a run will do."""

    fits: int
    """Distinct fits in all, done or not."""
    inner: int
    """Of them, those inside training parts, that rank modalities or stack predictions."""
    undecided: int
    """Of them, those that wait for a ranking: it decides the order of their modalities, or whether they are needed."""
    unshared: int
    """How many there would be if every row had its own."""
    stored: int
    """How many the store has already."""


@dataclass(frozen=True)
class Outcome:
    """What a run found out: the last plan, and what its fits predict or why they failed."""

    study: Study
    plan: Plan
    known: Mapping[str, Predictions]
    failed: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]
    """Key -> what the store knows of the fit: parameters, seconds, peak memory."""
    histories: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """Key of a fit that a row is about -> the loss of each of its epochs: stage, epoch, loss."""
    grids: frozenset[Grid] = frozenset()
    """The grids that images had after preprocessing."""
    file_notes: tuple[str, ...] = ()
    """What was done to files beside the settings, such as turning them to RAS, one line each."""
    stored: frozenset[str] = frozenset()
    """The keys of the fits that the store had before."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The order of the modalities per experiment and fold."""
        return self.plan.decisions


def forecast(study: Study, store: Store) -> Forecast:
    """What a run of the study would do, given what the store has; nothing is trained or written."""
    known: dict[str, Predictions] = {}
    plan = _plan_from_store(Planner(study), store, known, {})
    outer = {fold.split for fold in study.folds}
    return Forecast(
        fits=len(plan.jobs) + len(plan.waiting),
        inner=sum(job.fit.split not in outer for job in (*plan.jobs, *plan.waiting)),
        undecided=len(plan.waiting),
        unshared=plan.asked,
        stored=len(known),
    )


def awaited(study: Study, store: Store) -> tuple[Fit, ...]:
    """The distinct fits that a run would do, given what the store has; those that a ranking decides as if it were done.

    The latter have the order typed: what they cost does not depend on it.
    """
    known: dict[str, Predictions] = {}
    plan = _plan_from_store(Planner(study), store, known, {})
    return tuple(job.fit for job in (*plan.jobs, *plan.waiting) if job.key not in known)


def _plan_from_store(planner: Planner, store: Store, known: dict[str, Predictions], failed: Mapping[str, str]) -> Plan:
    """The plan, once `known` has everything of it that the store has: a ranking found there decides later fits."""
    while True:
        plan = planner.plan(known, failed)
        found = [job for job in plan.jobs if job.key not in known and store.has(job.key)]
        known |= {job.key: store.predictions(job.key, job.fit.classes) for job in found}
        if not found:
            return plan


def run(
    study: Study,
    store: Store,
    *,
    jobs: int = 1,
    engine: str = "local",
    scheduler: str = "",
    listener: Listener = lambda event: None,
    checkpoint_seconds: float = 30.0,
    profile: bool = False,
) -> Outcome:
    """Do every fit that a study needs and the store lacks, planning again whenever a ranking is decided.

    `jobs` is the number of worker processes, 0 as many as suit the machine; with 1 everything runs in this process, bit
    for bit the same. `engine` is `local` or `dask`, which needs the extra `cluster`; `scheduler` is the address of a
    dask cluster that is there already. A fit that fails takes only the rows that need it down. With `profile` the
    records of fits that are done say where their time went.
    """
    recipe = study.comparison.recipe
    chosen = make_engine(Wanted(engine, jobs, scheduler, study.devices, recipe.threads, recipe.processes))
    chosen.check()
    store = Store(store.root.absolute())  # which other processes see too
    with store.open().marked():
        volumes = prepare(study, store)
        place = Workplace(study.cohort, study.registry, volumes, store, checkpoint_seconds, profile)
        one_at_a_time = _Serial(listener)
        with chosen.workers(place, one_at_a_time) as workers:
            outcome = _Run(study, store, one_at_a_time).finish(workers)
    ids, images = [subject.id for subject in study.cohort.subjects], _images(outcome.plan)
    return replace(
        outcome, grids=frozenset(volumes.grids(ids, images).values()), file_notes=tuple(volumes.notes(ids, images))
    )


def check_engine(comparison: Comparison, *, jobs: int = 1, engine: str = "local", scheduler: str = "") -> None:
    """UsageError if no fit of the comparison could be done so; nothing is read for it, not even the cohort."""
    recipe = comparison.recipe
    devices = resolve_devices(recipe.device)
    make_engine(Wanted(engine, jobs, scheduler, devices, recipe.threads, recipe.processes)).check()


def prepare(study: Study, store: Store) -> Volumes:
    """Do what can fail before anything trains: open the store, build each strategy once, read and check every file.

    Raises a FusionBenchError in one line; what was read is in the cache afterwards.
    """
    store.open()
    for fit in Planner(study).strategies():
        with torch.device("meta"), _strangers_later():
            build_strategy(fit, study.registry)
    volumes = Volumes(study.cohort, study.comparison.preprocessing, store.root / "volumes")
    ids = [subject.id for subject in study.cohort.subjects]
    fits = Planner(study).strategies()
    seen = {modality.name for fit in fits for modality in fit.modalities if modality.kind == "image"}
    outlined = any(fit.outlines != "none" and not fit.features for fit in fits)
    volumes.prepare(ids, [name for name in study.comparison.modalities if name in seen], segmentation=outlined)
    _rehearse(study, volumes, sorted(seen), outlined)
    place = Workplace(study.cohort, study.registry, volumes, store)
    for fit in fits:
        if features := features_of(fit, place):
            features.prepare(ids, [modality.name for modality in fit.modalities])
    return volumes


def _rehearse(study: Study, volumes: Volumes, images: Sequence[str], outlined: bool) -> None:
    """Try the transforms that were asked for on one subject; UsageError for one that does not suit its images."""
    extra = study.comparison.recipe.augmentation.extra
    if extra and images:
        ids = [study.cohort.subjects[0].id]
        seg = volumes.segmentation(ids) if outlined else None
        rehearse(extra, volumes.inputs(ids, images), seg, volumes.spacing(ids))


def _images(plan: Plan) -> list[str]:
    """The image modalities that a plan's fits see."""
    return sorted({m.name for job in plan.jobs for m in job.fit.modalities if m.kind == "image"})


@contextmanager
def _strangers_later() -> Iterator[None]:
    """Let errors of ours through; what a plugin's own code raises fails its rows later, and no others."""
    try:
        yield
    except FusionBenchError:
        raise
    except Exception:
        pass


class _Serial:
    """A listener that is called by one thread at a time: workers report from another than the planner."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self.lock = listener, threading.Lock()

    def __call__(self, event: Event) -> None:
        with self.lock:
            self.listener(event)


class _Run:
    """A run in progress: what is known, what failed, what is being done."""

    def __init__(self, study: Study, store: Store, listener: Listener) -> None:
        self.study, self.store, self.listener = study, store, listener
        self.planner = Planner(study)
        self.known: dict[str, Predictions] = {}
        self.stored: set[str] = set()
        self.failed: dict[str, str] = {}
        self.busy: dict[Future[str], Job] = {}
        self.plan = self._replan()

    def finish(self, workers: Workers) -> Outcome:
        """Do jobs until nothing is left to do."""
        while True:
            started = {job.key for job in self.busy.values()}
            for job in self._ready(started)[: max(0, workers.number - len(self.busy))]:
                self.busy[workers.submit(job)] = job
            if not self.busy:
                break
            for future in wait(self.busy, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
                self._take(self.busy.pop(future), future)
            if self.plan.undecided and self.plan.awaited <= {*self.known, *self.failed}:
                self.plan = self._replan()
        records = {job.key: self.store.record(job.key) for job in self.plan.jobs if job.key in self.known}
        histories = {row.key: self.store.history(row.key) for row in self.plan.rows if row.key in records}
        stored = frozenset(self.stored)
        return Outcome(self.study, self.plan, self.known, self.failed, records, histories, stored=stored)

    def _replan(self) -> Plan:
        before = set(self.known)
        plan = _plan_from_store(self.planner, self.store, self.known, self.failed)
        self.stored |= self.known.keys() - before
        self.listener(Planned(plan, frozenset(self.stored)))
        return plan

    def _ready(self, started: set[str]) -> list[Job]:
        """The jobs that can start now; those whose parents failed are settled on the way."""
        ready = []
        for job in self.plan.jobs:
            if job.key in self.known or job.key in self.failed or job.key in started:
                continue
            if lost := [key for key in job.needs if key in self.failed]:
                self._fail(job, self.failed[lost[0]])
            elif all(key in self.known for key in job.needs):
                ready.append(job)
        return ready

    def _take(self, job: Job, future: Future[str]) -> None:
        if reason := future.result():
            self._fail(job, reason)
        else:
            self.known[job.key] = self.store.predictions(job.key, job.fit.classes)
            self.listener(Finished(job))

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job.key] = reason
        kept = self.store.traceback(job.key)
        self.listener(Failed(job, reason, kept if kept.is_file() else None))
