"""Planning: which fits a study needs, in what order, and which it can share. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fusionbench.cohorts import Modality, Subject
from fusionbench.errors import CohortError, FusionBenchError, PluginError, describe
from fusionbench.experiment import Experiment
from fusionbench.fits import Fit, Job, ParentFits, built, runtime, unseen_by_all
from fusionbench.folds import Fold, Split, draw_splits
from fusionbench.methods import Method
from fusionbench.metrics import Metric, metric
from fusionbench.predictions import Predictions
from fusionbench.ranking import Evidence, Ground, Ranker
from fusionbench.registry import Component
from fusionbench.seeds import derive_seed
from fusionbench.study import Study


@dataclass(frozen=True)
class Row:
    """Where the predictions of an experiment on a fold come from."""

    experiment: Experiment
    fold: Fold
    key: str = ""
    """Empty while the order of its modalities is not decided."""
    failed: str = ""
    """Why it never will be."""


@dataclass(frozen=True)
class Decision:
    """The order of the modalities that was found for an experiment on a fold, and the evidence."""

    experiment: Experiment
    fold: Fold
    order: tuple[str, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be done as far as is known; planned again as results arrive."""

    jobs: tuple[Job, ...]
    """Every fit once, parents before children, done or not."""
    rows: tuple[Row, ...]
    decisions: tuple[Decision, ...]
    awaited: frozenset[str]
    """The fits that undecided rows wait for."""
    waiting: tuple[Job, ...]
    """What undecided rows need beside those, in the order typed: as many, and as much work, whatever is decided."""
    asked: int
    """How many fits would be trained if none were shared."""

    @property
    def undecided(self) -> tuple[Row, ...]:
        """The rows whose fit depends on a ranking that is not known yet."""
        return tuple(row for row in self.rows if not row.key and not row.failed)


@dataclass
class _Draft:
    """A plan in the making."""

    jobs: dict[str, Job] = field(default_factory=dict)
    waiting: dict[str, Job] = field(default_factory=dict)
    asked: int = 0
    awaited: set[str] = field(default_factory=set)


class Planner:
    """Plans a study. The same study and results give the same plan; what was worked out once is kept."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._inner: dict[tuple[Split, int, int], tuple[Split, ...]] = {}
        self._fits: dict[tuple[object, ...], tuple[Job, ...]] = {}

    def plan(self, known: Mapping[str, Predictions], failed: Mapping[str, str] | None = None) -> Plan:
        """The plan, given the predictions of the fits that are done and the reasons of those that failed."""
        draft = _Draft()
        rows, decisions = [], []
        for experiment in self.study.experiments:
            for fold in self.study.folds:
                try:
                    decided = self._decide(draft, experiment, fold, known, failed or {})
                    if isinstance(decided, Decision):
                        row = Row(experiment, fold, self._add(draft, experiment, decided.order, fold.split))
                        decisions.append(decided)
                    else:
                        row = decided
                except FusionBenchError:
                    raise
                except Exception as error:  # a plugin's `parents`, `splits` or `order`: its row fails, no other
                    row = Row(experiment, fold, failed=describe(error))
                rows.append(row)
        ranked = tuple(decision for decision in decisions if decision.evidence)
        waiting = tuple(job for key, job in draft.waiting.items() if key not in draft.jobs)
        return Plan(tuple(draft.jobs.values()), tuple(rows), ranked, frozenset(draft.awaited), waiting, draft.asked)

    def strategies(self) -> tuple[Fit, ...]:
        """The fits of each method on one fold, in the order typed: to see whether they can be built."""
        first = self.study.folds[0].split
        chosen = [self._jobs(experiment, experiment.modalities, first) for experiment in self.study.experiments]
        return tuple({job.key: job.fit for jobs in chosen for job in jobs}.values())

    def _decide(
        self,
        draft: _Draft,
        experiment: Experiment,
        fold: Fold,
        known: Mapping[str, Predictions],
        failed: Mapping[str, str],
    ) -> Decision | Row:
        strategy = self._component("fusion", experiment.fusion)
        if not strategy.cls.uses_order or len(experiment.modalities) == 1:  # type: ignore[attr-defined]
            return Decision(experiment, fold, experiment.modalities, ())
        ranker, splits = self._ranker(experiment, fold)
        keys = {
            name: [self._add_solo(draft, experiment, ranker, name, split) for split in splits]
            for name in experiment.modalities
        }
        everything = [key for several in keys.values() for key in several]
        if lost := [failed[key] for key in everything if key in failed]:
            return Row(experiment, fold, failed=f"the ranking failed: {lost[0]}")
        if missing := [key for key in everything if key not in known]:
            draft.awaited.update(missing)
            jobs = self._jobs(experiment, experiment.modalities, fold.split)  # as many, whatever the order
            draft.waiting.update((job.key, job) for job in jobs)
            draft.asked += len(jobs)
            return Row(experiment, fold)
        evidence = tuple(self._evidence(experiment, name, [known[key] for key in keys[name]]) for name in keys)
        order = ranker.order(evidence)
        if first := experiment.protocol.ranking.primary:
            order = (first, *(name for name in order if name != first))
        return Decision(experiment, fold, order, evidence)

    def _ranker(self, experiment: Experiment, fold: Fold) -> tuple[Ranker, tuple[Split, ...]]:
        name = experiment.protocol.ranking.ranker
        ranker: Ranker = self._component("ranker", name).make(options=self._options(experiment, "ranker", name))
        outer = tuple(other for other in self.study.folds if other.repeat == fold.repeat)
        splits = ranker.splits(Ground(lambda: self._inner_splits(experiment, fold.split), outer))
        seen = {subject for split in splits for subject in (*split.training, *split.test)}
        if not ranker.saw_test and seen & set(fold.split.test):
            raise PluginError(f"ranker {name} asked for test subjects without saying `saw_test = True`")
        return ranker, splits

    def _evidence(self, experiment: Experiment, modality: str, several: list[Predictions]) -> Evidence:
        score = metric(experiment.protocol.ranking.score)
        scores = tuple(self._score(score, predictions, modality) for predictions in several)
        pooled = Predictions.joined(several, self.study.cohort.classes)
        return Evidence(modality, scores, pooled, score.higher_is_better, tuple(several))

    def _score(self, score: Metric, predictions: Predictions, modality: str) -> float:
        """Of those who have the modality; where some lack it, drawn toward chance by their share."""
        positive = self.study.cohort.positive_class
        here = {id for id in predictions.ids if self.study.cohort.subject(id).has(modality)}
        if len(here) == len(predictions.ids):
            return score(predictions, positive)
        even = np.full_like(predictions.probabilities, 1 / len(predictions.classes))
        chance, share = score(replace(predictions, probabilities=even), positive), len(here) / len(predictions.ids)
        return share * score(predictions.of(here), positive) + (1 - share) * chance if here else chance

    def _add_solo(self, draft: _Draft, experiment: Experiment, ranker: Ranker, modality: str, split: Split) -> str:
        attention = experiment.protocol.ranking.attention or experiment.attention
        changed = {"fusion": ranker.fusion, "attention": attention, "features": self._features(experiment)}
        solo = experiment.model_copy(update=changed)
        return self._add(draft, solo, (modality,), split)

    def _add(self, draft: _Draft, experiment: Experiment, modalities: tuple[str, ...], split: Split) -> str:
        """Put a fit into the draft, its parents first; its key."""
        settings = (experiment.fusion, experiment.attention, modalities, split, _trained_by(experiment))
        if settings not in self._fits:
            self._fits[settings] = self._jobs(experiment, modalities, split)
        jobs = self._fits[settings]
        draft.jobs.update((job.key, job) for job in jobs if job.key not in draft.jobs)
        draft.asked += len(jobs)
        return jobs[-1].key

    def _jobs(self, experiment: Experiment, modalities: tuple[str, ...], split: Split) -> tuple[Job, ...]:
        """The fit, last, behind all that it needs."""
        strategy: Any = self._component("fusion", experiment.fusion).cls
        ordered = modalities if strategy.uses_order else tuple(sorted(modalities))
        before, parents = _Draft(), []
        for parent in strategy.parents(ordered, **self._options(experiment, "fusion", experiment.fusion)):
            theirs = experiment.model_copy(update={"fusion": parent.fusion, "features": self._features(experiment)})
            splits = (split,) if parent.use == "weights" else self._inner_splits(experiment, split)
            keys = tuple(self._add(before, theirs, parent.modalities, part) for part in splits)
            parents.append(ParentFits(parent.role, parent.use, keys))
        fit = self._fit(experiment, ordered, split, tuple(parents))
        needs = tuple(key for parent in parents for key in parent.keys)
        return (*before.jobs.values(), Job(fit.key, fit, tuple(dict.fromkeys(needs))))

    def _fit(
        self, experiment: Experiment, modalities: tuple[str, ...], split: Split, parents: tuple[ParentFits, ...]
    ) -> Fit:
        cohort = self.study.cohort
        method = Method(experiment.model_copy(update={"modalities": modalities}), cohort, self.study.registry)
        subjects = [cohort.subject(id) for id in (*split.training, *split.test)]
        names = method.stage_names
        outlines = method.needs.outlines
        looked_at = (*modalities, *_neighbours(experiment, method))
        return Fit(
            fusion=built(method.strategy, experiment.options),
            backbones={name: built(backbone, experiment.options) for name, backbone in method.backbones.items()},
            attention=built(method.attention, experiment.options) if method.attention else None,
            features=built(method.extractor, experiment.options) if method.extractor else None,
            outlines=outlines,
            modalities=method.modalities,
            classes=cohort.classes,
            split=split,
            labels={subject.id: subject.label for subject in subjects},
            digests={s.id: (*map(s.digest, looked_at), *([s.seg_digest] * (outlines != "none"))) for s in subjects},
            absent=_absent(subjects, split, modalities),
            preprocessing=_preprocessing(experiment, method.modalities),
            recipe=_fit_recipe(method, bool(names)),
            stages={name: experiment.recipe.stage(name) for name in names},
            seed=experiment.seed,
            parents=parents,
            runtime=runtime(),
        )

    def _features(self, experiment: Experiment) -> str:
        """What makes tables of the images that its strategy sees: parents and models that rank see the same."""
        return Method(experiment, self.study.cohort, self.study.registry).needs.features

    def _inner_splits(self, experiment: Experiment, split: Split) -> tuple[Split, ...]:
        protocol = experiment.protocol
        settings = (split, protocol.inner_folds, protocol.fold_seed)
        if settings not in self._inner:
            subjects = [self.study.cohort.subject(id) for id in split.training]
            seed = derive_seed("inner folds", protocol.fold_seed, split.training)
            try:
                self._inner[settings] = draw_splits(subjects, protocol.inner_folds, seed)
            except CohortError as error:
                raise CohortError(f"inside a training part {error}, or fewer protocol.inner_folds") from None
        return self._inner[settings]

    def _component(self, kind: str, name: str) -> Component:
        return self.study.registry.get(kind, name)

    def _options(self, experiment: Experiment, kind: str, name: str) -> dict[str, Any]:
        return self._component(kind, name).chosen(experiment.options)


def plan(study: Study, known: Mapping[str, Predictions] | None = None, failed: Mapping[str, str] | None = None) -> Plan:
    """What a study needs, given the predictions that are known already."""
    return Planner(study).plan(known or {}, failed)


def _absent(subjects: Sequence[Subject], split: Split, modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    lacks = {subject.id: subject.lacks(modalities) for subject in subjects}
    unseen = unseen_by_all(modalities, split.training, lacks)
    known = {id: tuple(name for name in modalities if name in (*names, *unseen)) for id, names in lacks.items()}
    return {id: names for id, names in known.items() if names}


def _trained_by(experiment: Experiment) -> str:
    return experiment.model_dump_json(exclude={"cohort", "modalities", "fusion", "attention", "label"})


def _preprocessing(experiment: Experiment, modalities: tuple[Modality, ...]) -> dict[str, Any]:
    """What is done to images; nothing where the fit sees none."""
    sees_images = any(modality.kind == "image" for modality in modalities)
    return experiment.preprocessing.model_dump(exclude={"max_voxels"}) if sees_images else {}


def _neighbours(experiment: Experiment, method: Method) -> tuple[str, ...]:
    """The other images of a subject, where what becomes of one depends on them."""
    if not (experiment.preprocessing.joint and any(modality.kind == "image" for modality in method.modalities)):
        return ()
    images = (modality.name for modality in method.cohort.modalities if modality.kind == "image")
    return tuple(name for name in images if name not in method.experiment.modalities)


def _fit_recipe(method: Method, trains: bool) -> dict[str, Any]:
    """What of the recipe may change this fit: not the training of a strategy that trains nothing, for example."""
    recipe = method.experiment.recipe.model_dump(exclude={"epochs", "learning_rate", "weight_decay", "stages"})
    if not any(modality.kind == "image" for modality in method.modalities):
        del recipe["augmentation"], recipe["memory_format"]
    if not method.hides_modalities:
        del recipe["modality_dropout"]
    if recipe["processes"] == 1:
        del recipe["processes"]
    if not trains:
        recipe = {key: recipe[key] for key in ("batch_size", "precision", "device", "threads", "class_weights")}
    return recipe
