"""New subjects before trained models: who can be judged by which method, and what must be known of the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusionbench.cohorts import Cohort, Modality, Subject
from fusionbench.errors import CohortError, UsageError, summary
from fusionbench.experiment import Preprocessing
from fusionbench.fits import Fit, runtime
from fusionbench.imaging.nifti import Grid, described
from fusionbench.imaging.volumes import repeated_images
from fusionbench.registry import Registry, distribution_version
from fusionbench.training import Workplace, features_of
from fusionbench.using.loading import Detached, changed_code, detach

SPACING_TOLERANCE = 0.05
"""By how much of it voxels may be further apart, or closer, than any that the run saw."""

Members = Mapping[str, Mapping[str, Fit]]
"""Method -> key -> fit."""


@dataclass(frozen=True)
class Newcomers:
    """The new subjects as the methods of a run see them."""

    cohort: Cohort
    """Those that have anything of what the methods look at, with these modalities only, and labels where known."""
    asked: Mapping[str, Detached]
    """Method -> one of its fits, asked about the subjects that it can judge."""
    refused: Mapping[str, Mapping[str, str]]
    """Method -> subject -> why it says nothing of it."""
    labels: Mapping[str, str]
    seen: Mapping[str, Any]
    """What the run saw: the cohort's part of its run.json."""
    ignored: tuple[str, ...]
    """Modalities that no method looks at."""

    @classmethod
    def of(cls, cohort: Cohort, members: Members, seen: Mapping[str, Any], registry: Registry) -> Newcomers:
        """The subjects that the methods can judge.

        Raises UsageError for a modality of another kind than the run saw, or if nobody can be judged.
        """
        fits = {method: next(iter(several.values())) for method, several in members.items()}
        looked_at = {name for fit in fits.values() for name in _looked_at(fit, seen)}
        inputs = (Modality(**{**one, "columns": tuple(one["columns"])}) for one in seen["inputs"])
        modalities = tuple(modality for modality in inputs if modality.name in looked_at)
        _check_kinds(cohort, modalities)
        cohort = _in_order(cohort, modalities)
        subjects = [_labelled(subject, seen["classes"]) for subject in cohort.subjects]
        refused = {method: dict(_refusals(fit, subjects, registry)) for method, fit in fits.items()}
        if all(len(several) == len(subjects) for several in refused.values()):
            faults = {f"{id!r} {why}" for several in refused.values() for id, why in several.items()}
            raise UsageError(
                f"{cohort.name} has nobody that can be predicted: {summary(sorted(faults)) or 'no subject'}"
            )
        known = tuple(subject for subject in subjects if any(subject.id not in several for several in refused.values()))
        return cls(
            cohort=replace(
                cohort,
                classes=next(iter(fits.values())).classes,
                positive_class=seen["positive_class"],
                modalities=modalities,
                subjects=known,
                labelled=False,
            ),
            asked={m: detach(fit, [s for s in known if s.id not in refused[m]], registry) for m, fit in fits.items()},
            refused=refused,
            labels={subject.id: subject.label for subject in subjects},
            seen=seen,
            ignored=tuple(modality.name for modality in cohort.modalities if modality.name not in looked_at),
        )

    def accepted(self, method: str) -> tuple[str, ...]:
        """The subjects that a method predicts, sorted."""
        return self.asked[method].split.test

    def notes(self, fits: Sequence[Fit], place: Workplace) -> list[str]:
        """What must be known to read the answers, the loudest first."""
        everyone = [subject.id for subject in self.cohort.subjects]
        images = sorted({name for asked in self.asked.values() for name in _images(asked)})
        return [
            *_overlap(self.cohort, fits),
            *(f"WARNING: {told}" for told in (*changed_code(fits, place.registry), *changed_libraries(fits))),
            *self._unpractised(),
            *self._refusals(),
            *([f"not looked at: {summary(self.ignored, ', ')}"] if self.ignored else []),
            *self.cohort.notes,
            *place.volumes.notes(everyone, images),
        ]

    def _unpractised(self) -> list[str]:
        """Methods that do without a modality for the first time."""
        return [
            f"WARNING: {method} was trained on complete subjects only, and {len(asked.absent)} of these lack a modality"
            for method, asked in self.asked.items()
            if asked.absent and not asked.told_presence
        ]

    def _refusals(self) -> list[str]:
        return [
            f"{method} predicts {len(self.accepted(method))} of {len(self.labels)} subjects: "
            + summary([f"{id!r} {why}" for id, why in several.items()])
            for method, several in self.refused.items()
            if several
        ]


def read_and_check(new: Newcomers, place: Workplace, report: Callable[[int, int], None]) -> None:
    """Read, preprocess and keep all that the methods look at, telling how many subjects are done, of how many.

    CohortError names every bad subject at once; UsageError those whose images lie on a grid that the run never saw.
    """
    everyone = new.cohort.subjects
    images = sorted({name for asked in new.asked.values() for name in _images(asked)})
    faults = repeated_images(everyone, images)
    for done, subject in enumerate(everyone, 1):
        faults += _read(subject, new, place)
        report(done, len(everyone))
    if faults:
        raise CohortError.of(new.cohort.name, list(dict.fromkeys(faults)))
    grids = place.volumes.grids([subject.id for subject in everyone], images)
    _check_grids(new.cohort.name, grids, [Grid(tuple(g["size"]), tuple(g["spacing"])) for g in new.seen["grids"]])


def changed_libraries(fits: Iterable[Fit]) -> list[str]:
    """The libraries, and the code of fusionbench itself, that are not what the fits were trained with."""
    now = runtime()
    then = {library for fit in fits for library in fit.runtime.items()}
    then |= {library for fit in fits for _, built in fit.components for library in built.libraries.items()}
    return [
        "the code of fusionbench that computes changed since" if name == "core" else f"{name} was {old}, is {new}"
        for name, old in sorted(then)
        if (new := now.get(name) or distribution_version(name)) != old
    ]


def _read(subject: Subject, new: Newcomers, place: Workplace) -> Iterator[str]:
    """Fill the caches with one subject, and say what is wrong with it."""
    mine = [asked for method, asked in new.asked.items() if subject.id not in new.refused[method]]
    images = list(dict.fromkeys(name for asked in mine for name in _images(asked)))
    outlined = any(asked.outlines != "none" and asked.features is None for asked in mine)
    yield from place.volumes.check([subject.id], images, segmentation=outlined)
    for asked in mine:
        if features := features_of(asked, place):
            try:
                features.prepare([subject.id], _names(asked))
            except CohortError as error:
                yield from error.faults


def _looked_at(fit: Fit, seen: Mapping[str, Any]) -> list[str]:
    """The modalities that have a say in a prediction: those of the fit, and images that others are placed by."""
    joint = bool(fit.preprocessing) and Preprocessing(**fit.preprocessing).joint
    return [*_names(fit), *(one["name"] for one in seen["inputs"] if joint and one["kind"] == "image")]


def _check_kinds(cohort: Cohort, expected: Iterable[Modality]) -> None:
    known = {modality.name: modality for modality in expected}
    for modality in cohort.modalities:
        trained = known.get(modality.name, modality)
        if (trained.kind, trained.channels) == (modality.kind, modality.channels) and trained != modality:
            _check_columns(cohort.name, modality, trained)
        elif trained != modality:
            raise UsageError(
                f"{cohort.name}: {modality.name} is {_described(modality)}; "
                f"the run was trained on {_described(known[modality.name])}"
            )


def _check_columns(cohort: str, found: Modality, trained: Modality) -> None:
    """UsageError unless the columns are those that were trained on, in any order, where both are named."""
    strange = [repr(name) for name in found.columns if name not in trained.columns]
    absent = [repr(name) for name in trained.columns if name not in found.columns]
    if found.columns and trained.columns and (strange or absent):
        raise UsageError(
            f"{cohort}: {found.name} has the columns {summary(strange, ', ')}, which the run was not trained with; "
            f"it was trained with {summary(absent, ', ')}: rename or replace them"
        )


def _in_order(cohort: Cohort, expected: Iterable[Modality]) -> Cohort:
    """The cohort with the columns of its tables in the order that was trained on, and a note of those that moved."""
    for trained in expected:
        found = {modality.name: modality for modality in cohort.modalities}.get(trained.name, trained)
        if found.columns and trained.columns and found.columns != trained.columns:
            places = [found.columns.index(name) for name in trained.columns]
            cohort = replace(
                cohort,
                subjects=tuple(_moved(subject, trained.name, places) for subject in cohort.subjects),
                notes=(*cohort.notes, f"columns of {trained.name} brought into the order that was trained on"),
            )
    return cohort


def _moved(subject: Subject, table: str, places: Sequence[int]) -> Subject:
    """The subject with the features of a table at other places."""
    if table not in subject.features:
        return subject
    values = subject.features[table]
    return replace(subject, features={**subject.features, table: tuple(values[place] for place in places)})


def _described(modality: Modality) -> str:
    """
    >>> _described(Modality("t1")), _described(Modality("genes", "table", 4))
    ('an image of 1 channel', 'a table of 4 columns')
    """
    article, word = ("an", "channel") if modality.kind == "image" else ("a", "column")
    return f"{article} {modality.kind} of {modality.channels} {word}{'s' * (modality.channels != 1)}"


def _labelled(subject: Subject, classes: Iterable[str]) -> Subject:
    """The subject with its label, if it is of these classes."""
    return subject if subject.label in classes else replace(subject, label="")


def _refusals(fit: Fit, subjects: Iterable[Subject], registry: Registry) -> Iterator[tuple[str, str]]:
    """(subject, why) for each that a method cannot judge."""
    names = _names(fit)
    takes_missing = registry.get("fusion", fit.fusion.name).cls.takes_missing  # type: ignore[attr-defined]
    for subject in subjects:
        lacks = subject.lacks(names)
        if len(lacks) == len(names):
            yield subject.id, f"has none of {', '.join(names)}"
        elif lacks and not takes_missing:
            yield subject.id, f"lacks {', '.join(lacks)}"
        elif fit.outlines == "test" and subject.seg is None:
            yield subject.id, "has no tumour outline"


def _check_grids(name: str, found: Mapping[str, Grid], seen: Sequence[Grid]) -> None:
    strange = {id: grid for id, grid in found.items() if not any(_alike(grid, other) for other in seen)}
    if strange:
        came = [f"{id!r} is {described(grid)}" for id, grid in sorted(strange.items())]
        known = summary([described(grid) for grid in seen], " or ", 4) or "no image"
        raise UsageError(f"{name}: {summary(came, shown=4)} after preprocessing; the run saw {known}: resample them")


def _alike(grid: Grid, other: Grid) -> bool:
    pairs = zip(grid.spacing, other.spacing, strict=True)
    return grid.size == other.size and all(abs(mm - known) <= SPACING_TOLERANCE * known for mm, known in pairs)


def _overlap(cohort: Cohort, fits: Sequence[Fit]) -> list[str]:
    """Whom some fit was trained on, by the bytes of their data; an exported fit does not know whom it was."""
    if not any(fit.digests for fit in fits):
        return ["not checked: whether the models were trained on some of these subjects, for an export does not say"]
    trained: dict[str, dict[str, str]] = {}
    for fit in fits:
        for id in fit.split.training:
            trained.setdefault(id, {}).update(zip(_names(fit), fit.digests[id], strict=False))
    known = set().union(*(_traces(digests, cohort) for digests in trained.values()))
    names = [modality.name for modality in cohort.modalities]
    found = [repr(s.id) for s in cohort.subjects if known & _traces({n: s.digest(n) for n in names}, cohort)]
    told = f"WARNING: {len(found)} subjects have the data of training subjects ({summary(found, ', ')})"
    return [f"{told}: this tests nothing"] if found else []


def _traces(digests: Mapping[str, str], cohort: Cohort) -> set[frozenset[tuple[str, str]]]:
    """What a subject is known by again: each of its images, or, if it has none, all of its tables together."""
    have = {(name, digest) for name, digest in digests.items() if digest}
    images = {frozenset([pair]) for pair in have if cohort.modality(pair[0]).kind == "image"}
    return images or {frozenset(have)} - {frozenset()}


def _names(fit: Fit) -> list[str]:
    return [modality.name for modality in fit.modalities]


def _images(fit: Fit) -> list[str]:
    """The modalities that it sees as images."""
    return [modality.name for modality in fit.modalities if modality.kind == "image"]
