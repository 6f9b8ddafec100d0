"""A finished run asked why: subjects of its test parts, before the fits that never trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench import training
from fusionbench.batches import Batches
from fusionbench.cohorts import Cohort, completed
from fusionbench.components import FusionStrategy
from fusionbench.devices import kind_of, make_fabric, resolve_device
from fusionbench.errors import CohortError, StoreError, TrainingError, UsageError, nearest
from fusionbench.explaining.selecting import Case, Rule, Said, Verdicts
from fusionbench.explaining.sights import Sight, Volume, look
from fusionbench.fits import Fit
from fusionbench.imaging.nifti import Grid
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import deterministic, seeded, threads
from fusionbench.registry import Registry, read_cohort
from fusionbench.runs import read_run
from fusionbench.seeds import derive_seed
from fusionbench.store import Store
from fusionbench.using.inference import TrainedRun
from fusionbench.using.loading import changed_code, load_fit

TOLERANCE = 1e-3
"""By how much a probability may differ from that of the run before it is said: rounding is far smaller."""


@dataclass(frozen=True)
class Account:
    """How one method comes to what it says of a subject."""

    method: str
    key: str
    """Of the fit that was asked."""
    training_subjects: int
    """On how many it was trained; the subject is none of them."""
    said: Said
    """What it said when it was tested, as in predictions.csv."""
    now: tuple[float, ...]
    """The probabilities that it was looked at with."""
    sights: tuple[Sight, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What two methods look at in one subject."""

    run: str
    synthetic: bool
    case: Case
    classes: tuple[str, ...]
    target: str
    """The class whose log-odds the maps are about."""
    accounts: tuple[Account, ...]
    """The baseline first, if there is one."""
    images: Mapping[str, Volume]
    """Modality -> its first channel as the models see it, (D, H, W) in [0, 1]."""
    outline: NDArray[np.bool_] | None
    """Where the tumour is, (D, H, W); None if nobody outlined it."""
    grid: Grid
    """Of the images as the models see them."""
    notes: tuple[str, ...]

    @property
    def account(self) -> Account:
        """That of the method."""
        return self.accounts[-1]


@dataclass(frozen=True)
class Explainer:
    """The models and tables of a run, with its data."""

    trained: TrainedRun
    verdicts: Verdicts
    cohort: Cohort
    place: training.Workplace
    device: str = ""

    @classmethod
    def open(
        cls,
        folder: Path,
        store: Store,
        registry: Registry,
        *,
        repeat: int = 0,
        data: Path | None = None,
        home: Path | None = None,
        device: str = "",
    ) -> Explainer:
        """The run in that folder and its data, which may lie elsewhere by now; UsageError if it has no predictions."""
        run, trained = read_run(folder), TrainedRun.open(folder, store, registry)
        if not run.results:
            raise UsageError(f"{folder} tested nobody, so every subject was trained on: explain a run with test folds")
        cohort = _cohort(trained, data, home)
        volumes = Volumes(cohort, trained.comparison.preprocessing, trained.cache / "volumes")
        place = training.Workplace(cohort, registry, volumes, Store(trained.cache))
        return cls(trained, Verdicts(run, repeat), cohort, place, device)

    def case(self, subject: str, method: str = "", baseline: str = "") -> Case:
        """A subject by its id; UsageError for one that was not tested, or a method that is not there."""
        chosen = self.method(method)
        id = self.verdicts.subject(subject, chosen)
        return self._case(id, chosen, baseline)

    def select(self, rule: Rule, method: str = "", baseline: str = "") -> tuple[Case, ...]:
        """The subjects that a rule means, sorted by id; there may be none."""
        chosen = self.method(method)
        return tuple(self._case(id, chosen, baseline) for id in self.verdicts.select(rule, chosen))

    def method(self, asked: str = "") -> str:
        """The method that is asked for, or that the run is about; UsageError if no images can be drawn of it."""
        chosen = self.verdicts.method(asked, self.trained.comparison.fusion)
        self._check_drawn(chosen)
        return chosen

    def explain(self, case: Case, target: str = "") -> Explanation:
        """What the methods look at, for the class of that name; without one, for the class that the method predicts.

        Raises CohortError if the data are not those of the run, UsageError if a method has nothing to be looked at.
        """
        target = target or self.verdicts.said[case.method][case.subject].predicted
        methods = [name for name in (case.baseline, case.method) if name]
        fits = {name: self._fit_key(name, case) for name in dict.fromkeys(methods)}
        accounts = tuple(self._account(name, key, case, target) for name, key in fits.items())
        names = list(dict.fromkeys(name for one in accounts for sight in one.sights for name in sight.modalities))
        shown = [name for name in names if name in self.cohort.subject(case.subject).files]
        images = self.place.volumes.inputs([case.subject], shown)
        outline, notes = self._outline(case.subject)
        return Explanation(
            run=self.trained.name,
            synthetic=self.cohort.synthetic,
            case=case,
            classes=self.trained.classes,
            target=target,
            accounts=accounts,
            images={name: x[0, 0].numpy() for name, x in images.items()},
            outline=outline,
            grid=self.place.volumes.grids([case.subject], shown)[case.subject],
            notes=notes,
        )

    def _case(self, id: str, method: str, baseline: str) -> Case:
        other = self.verdicts.baseline(baseline, method, id)
        if other:
            self._check_drawn(other)
        return Case(id, self.verdicts.repeat, method, "" if other == method else other)

    def _check_drawn(self, method: str) -> None:
        told = self.trained.facts["methods"][method]
        if all(self.cohort.modality(name).kind == "table" for name in told["modalities"]):
            raise UsageError(f"{method} sees tables only, of which there are no pictures: name a --method on images")
        if not told["backbones"]:
            raise UsageError(
                f"{method} is not built on backbones whose features could be looked at: name another --method"
            )

    def _fit_key(self, method: str, case: Case) -> str:
        """The fit of the fold that tested the subject."""
        keys = self.trained.facts["methods"][method]["fits"]
        tested = sorted({(r.repeat, r.fold) for r in self.verdicts.run.results if r.method == method})
        if case.subject not in self.verdicts.said[method]:
            raise UsageError(f"{method} was not tested on {case.subject!r}: name another --baseline")
        return str(keys[tested.index((case.repeat, self.verdicts.said[method][case.subject].fold))])

    def _account(self, method: str, key: str, case: Case, target: str) -> Account:
        model, fit = load_fit(key, self.trained.store, self.trained.registry)
        self._check_fit(method, fit, case)
        if target not in fit.classes:
            raise UsageError(f"{self.trained.name} has no class {target!r}: {nearest(target, fit.classes)}")
        fit = replace(fit, recipe=_on_device(fit, self.device))
        now, sights = self._look(model, fit, case.subject, fit.classes.index(target))
        drawn = [one for one in sights if set(one.modalities) <= set(_images(fit))]
        if not drawn:
            raise UsageError(f"no backbone of {method} saw an image of {case.subject!r}: name another --method")
        said = self.verdicts.said[method][case.subject]
        notes = (*_differences(said, now), *changed_code([fit], self.trained.registry), *_remarks(fit, sights, drawn))
        return Account(method, key, len(fit.split.training), said, now, tuple(drawn), notes)

    def _look(
        self, model: FusionStrategy, fit: Fit, subject: str, number: int
    ) -> tuple[tuple[float, ...], tuple[Sight, ...]]:
        fabric = make_fabric(fit.recipe["device"], fit.recipe["precision"])
        batches = Batches(fit, self.place.volumes, fabric.device, training.features_of(fit, self.place))
        with (
            threads(fit.recipe["threads"]),
            deterministic(),
            seeded(derive_seed(fit.base_seed, "predict")),
            fabric.autocast(),
        ):
            inputs = batches.batch([subject], given={}).inputs
            try:
                logits, sights = look(model.to(fabric.device), inputs, number)
            except torch.OutOfMemoryError:
                raise TrainingError(f"out of memory on {fit.recipe['device']}: try --device cpu") from None
        return tuple(logits.double().softmax(0).tolist()), sights

    def _check_fit(self, method: str, fit: Fit, case: Case) -> None:
        """That the fit tested the subject, and that its data are those that it saw."""
        if case.subject not in fit.split.test or case.subject in fit.split.training:
            raise StoreError(f"the fits of {method} are not those that tested {case.subject!r}: run the command again")
        subject = self.cohort.subject(case.subject)
        names = [modality.name for modality in fit.modalities]
        if any(subject.digest(n) != seen for n, seen in zip(names, fit.digests[subject.id], strict=False)):
            raise CohortError(
                f"{subject.id!r} is not what {self.trained.name} was run on: say where that lies with --data"
            )

    def _outline(self, subject: str) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
        if self.cohort.subject(subject).seg is None:
            return None, ()
        try:
            return self.place.volumes.segmentation([subject])[0, 0].numpy() > 0, ()
        except CohortError as error:
            return None, (f"the outline is not shown: {error}",)


def _cohort(trained: TrainedRun, data: Path | None, home: Path | None) -> Cohort:
    """The cohort of a run as its methods saw it; UsageError if the data are not where they were."""
    source = trained.comparison.cohort
    place = data or (Path(source.data) if source.data else None)
    if place is not None and not place.exists():
        raise UsageError(f"the data of {trained.name} are not at {place}: say where they are with --data")
    cohort = read_cohort(source.reader, place, home, **trained.comparison.options.get(source.reader, {}))
    return completed(cohort, trained.comparison.modalities, trained.comparison.missing)


def _on_device(fit: Fit, asked: str) -> dict[str, Any]:
    """The recipe with the device asked for, or that of the training if it is there; elsewhere in full precision."""
    trained: str = fit.recipe["device"]
    try:
        device = resolve_device(asked or trained)
    except UsageError:
        if asked:
            raise
        device = resolve_device("auto")
    same = kind_of(device) == kind_of(trained)
    return {**fit.recipe, "device": device, "precision": fit.recipe["precision"] if same else "32"}


def _images(fit: Fit) -> list[str]:
    """The modalities that it sees as images."""
    return [modality.name for modality in fit.modalities if modality.kind == "image"]


def _differences(said: Said, now: Sequence[float]) -> Iterator[str]:
    if max(abs(then - p) for then, p in zip(said.probabilities, now, strict=True)) > TOLERANCE:
        told = ", ".join(f"{p:.3f}" for p in now)
        yield f"WARNING: it now says {told}, which is not what the run recorded: the maps are of what it says now"


def _remarks(fit: Fit, sights: Sequence[Sight], drawn: Sequence[Sight]) -> Iterator[str]:
    if fit.outlines == "training":
        yield "learned from the outlines of training subjects"
    if fit.outlines == "test":
        yield "was given the outline of this subject"
    tables = [name for sight in sights if not any(sight is one for one in drawn) for name in sight.modalities]
    if tables:
        yield f"not drawn, for they are tables: {', '.join(tables)}"
