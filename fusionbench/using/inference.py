"""Trained fits put to use: loaded from the store, asked about subjects that they have not seen. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fusionbench import training
from fusionbench.batches import Batches
from fusionbench.cohorts import Cohort, CohortReader
from fusionbench.devices import make_fabric, resolve_device, resolve_precision
from fusionbench.errors import TrainingError, UsageError, nearest, summary
from fusionbench.experiment import Comparison, Preprocessing, load_comparison, parse_options
from fusionbench.fits import Fit
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import deterministic, threads
from fusionbench.predictions import Predictions, as_table
from fusionbench.registry import Registry
from fusionbench.runs import read_facts
from fusionbench.store import Store
from fusionbench.using.answers import Answers, Opinion
from fusionbench.using.evaluation import Evaluation
from fusionbench.using.loading import detach, load_fit, read_fit
from fusionbench.using.newcomers import Newcomers, read_and_check

NOT_CLINICAL = "not for clinical use: a prediction says nothing about a patient"


@dataclass(frozen=True)
class Step:
    """How far the work is: subjects that are read, or subjects that a fit has predicted, one by one for each fit."""

    what: str
    done: int
    total: int


Listener = Callable[[Step], None]


@dataclass(frozen=True)
class TrainedRun:
    """The models of a finished run, ready to be asked about new subjects."""

    name: str
    facts: Mapping[str, Any]
    """What its run.json says."""
    comparison: Comparison
    store: Store
    """Where its fits lie: in the folder itself, if it was exported."""
    cache: Path
    """The folder of the store whose caches take the preprocessed images of new subjects."""
    registry: Registry

    @classmethod
    def open(cls, folder: Path, store: Store, registry: Registry) -> TrainedRun:
        """The run in that folder; UsageError if it holds no finished one."""
        facts = read_facts(folder)
        if "grids" not in facts["cohort"]:
            raise UsageError(f"{folder} is of an older version, which did not keep what images it saw: run it again")
        own = Store(folder) if (folder / "fits").is_dir() else store
        return cls(folder.name, facts, load_comparison(folder / "experiment.toml"), own, store.root, registry)

    @property
    def positive_class(self) -> str:
        """The class that sensitivity is about."""
        return str(self.facts["cohort"]["positive_class"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order in which its models have them."""
        return next(iter(self.members(self.methods()[0]).values())).classes

    def methods(self, asked: Sequence[str] = ()) -> tuple[str, ...]:
        """The methods asked for, or all that did not fail; UsageError for one that is not there or failed."""
        told = self.facts["methods"]
        for name in asked:
            if name not in told:
                raise UsageError(f"{self.name} has no method {name!r}: {nearest(name, told)}")
            if told[name]["failed"]:
                raise UsageError(f"{name} failed in {self.name} ({told[name]['failed']}): name another --method")
        found = tuple(dict.fromkeys(asked)) or tuple(name for name in told if not told[name]["failed"])
        if not found:
            raise UsageError(f"every method of {self.name} failed: there is nothing to predict with")
        return found

    def members(self, method: str) -> dict[str, Fit]:
        """Key -> fit of a method, one for each fold of each repeat; StoreError if one is not in the store."""
        return {key: read_fit(key, self.store) for key in self.facts["methods"][method]["fits"]}

    def read_new(self, path: Path, reader: str = "", settings: Sequence[str] = ()) -> Cohort:
        """New subjects, by the reader of the run with its options or by another; they need no label.

        `settings` are `READER.OPTION=VALUE`; UsageError for anything else, since all but the reader is the run's.
        """
        if not path.exists():
            raise UsageError(f"there is nothing at {path}: give the place of the new data with --data")
        component = self.registry.get("cohort", reader or self.comparison.cohort.reader)
        given = parse_options(component.name, settings, "for all else is as the run was trained")
        chosen = component.resolve({**self.comparison.options.get(component.name, {}), **given})
        instance: CohortReader = component.cls(**chosen)
        return instance.read_new(path, self.classes, self.positive_class)

    def predict(
        self,
        cohort: Cohort,
        methods: Sequence[str] = (),
        *,
        device: str = "",
        listener: Listener = lambda step: None,
    ) -> Answers:
        """What the fits of each method say of new subjects, with the mean and the spread over them.

        Preprocessing, batch size and precision are the run's, and so is the device unless it is named or not there.
        Raises a FusionBenchError in one line, before any model is loaded, for data that the run cannot judge.
        """
        fits = {method: self.members(method) for method in self.methods(methods)}
        members = {key: fit for several in fits.values() for key, fit in several.items()}
        machine = _Machine.of(next(iter(members.values())), device)
        new = Newcomers.of(cohort, fits, self.facts["cohort"], self.registry)
        volumes = Volumes(new.cohort, self._preprocessing(members.values()), self.cache / "volumes")
        place = training.Workplace(new.cohort, self.registry, volumes, Store(self.cache))
        read_and_check(new, place, lambda done, total: listener(Step("subjects read", done, total)))
        ask = _Asking(self, new, place, machine, listener)
        opinions = tuple(
            Opinion(method, tuple(ask(key, method) for key in fits[method]), new.refused[method]) for method in fits
        )
        notes = (*new.notes(list(members.values()), place), *machine.notes, *self._notes())
        return Answers(self.name, self.classes, self.positive_class, new.labels, opinions, notes)

    def evaluate(
        self,
        cohort: Cohort,
        methods: Sequence[str] = (),
        *,
        device: str = "",
        listener: Listener = lambda step: None,
    ) -> Evaluation:
        """How well each method does on subjects with labels; UsageError names those that have none of the run's."""
        unknown = [f"{s.id!r} ({s.label or 'none'})" for s in cohort.subjects if s.label not in self.classes]
        if unknown:
            has = "every subject needs a label of the run's classes to be scored"
            raise UsageError(f"{has}, {' and '.join(self.classes)}; these have others: {summary(unknown, ', ')}")
        answers = self.predict(cohort, methods, device=device, listener=listener)
        return Evaluation.of(answers, cohort.name, {s.id: s.group for s in cohort.subjects if s.group})

    def _preprocessing(self, fits: Iterable[Fit]) -> Preprocessing:
        """What the run did to images, by the fits themselves, and within which limits."""
        did = next((fit.preprocessing for fit in fits if fit.preprocessing), {})
        return Preprocessing(**{**self.comparison.preprocessing.model_dump(), **did})

    def _notes(self) -> list[str]:
        synthetic = ["trained on synthetic data: what it says of real ones means nothing"]
        return [*(synthetic if self.facts["cohort"]["synthetic"] else []), NOT_CLINICAL]


@dataclass(frozen=True)
class _Machine:
    """Where and how precisely it is computed."""

    device: str
    precision: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, fit: Fit, asked: str) -> _Machine:
        """As in training, if that device is there and no other is asked for."""
        trained, precision = fit.recipe["device"], fit.recipe["precision"]
        device = resolve_device(asked) if asked else _device_or_another(trained)
        if device.partition(":")[0] == trained.partition(":")[0]:
            return cls(device, precision)
        now = resolve_precision("auto", device, {modality.kind for modality in fit.modalities})
        told = f"trained on {trained} in {precision}, predicted on {device} in {now}: equal but for rounding"
        return cls(device, now, (told,))


def _device_or_another(trained: str) -> str:
    try:
        return resolve_device(trained)
    except UsageError:
        return resolve_device("auto")


@dataclass
class _Asking:
    """Asks fits about the subjects that their method takes; each fit once."""

    run: TrainedRun
    new: Newcomers
    place: training.Workplace
    machine: _Machine
    listener: Listener
    done: int = 0
    known: dict[str, Predictions] = field(default_factory=dict)

    @cached_property
    def total(self) -> int:
        """Subjects that fits have to predict, over all methods."""
        told = self.run.facts["methods"]
        asked = self.new.asked
        distinct = {key: len(self.new.accepted(method)) for method in asked for key in told[method]["fits"]}
        return sum(distinct.values())

    def __call__(self, key: str, method: str) -> Predictions:
        ids = self.new.accepted(method)
        if key not in self.known:
            self.known[key] = self._predict(key, ids) if ids else _nothing(self.run.classes)
        return self.known[key]

    def _predict(self, key: str, ids: tuple[str, ...]) -> Predictions:
        model, fit = load_fit(key, self.run.store, self.run.registry)
        subjects = [self.new.cohort.subject(id) for id in ids]
        machine = {"device": self.machine.device, "precision": self.machine.precision}
        asked = detach(fit, subjects, self.run.registry, **machine)
        fabric = make_fabric(self.machine.device, self.machine.precision)
        features = training.features_of(asked, self.place)
        batches = Batches(asked, self.place.volumes, fabric.device, features)
        try:
            with threads(asked.recipe["threads"]), deterministic():
                return training.predict(model.to(fabric.device), batches, ids, fabric, self._report)
        except torch.OutOfMemoryError:
            raise TrainingError(f"out of memory on {self.machine.device}: try --device cpu") from None

    def _report(self, subjects: int) -> None:
        self.done += subjects
        self.listener(Step("predictions", self.done, self.total))


def _nothing(classes: tuple[str, ...]) -> Predictions:
    """What is said of nobody."""
    return Predictions((), (), classes, as_table([], classes))
