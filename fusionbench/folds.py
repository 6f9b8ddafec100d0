"""Folds: stratified by label, grouped by patient, drawn once and shared by every method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusionbench.cohorts import Cohort, Subject
from fusionbench.csvtext import strict_rows
from fusionbench.errors import CohortError
from fusionbench.seeds import content_digest, derive_seed

TRAIN = "train"
"""The fold of those who are never tested, only trained on, in a file of folds."""


@dataclass(frozen=True)
class Split:
    """Subject ids to train on and ids to predict; disjoint, each sorted."""

    training: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """One fold of one repeat of a cross-validation."""

    repeat: int
    number: int
    split: Split


def whole(cohort: Cohort) -> Fold:
    """Everybody to train on and nobody to test."""
    return Fold(0, 0, Split(tuple(sorted(subject.id for subject in cohort.subjects)), ()))


def draw_folds(cohort: Cohort, folds: int, repeats: int = 1, seed: int = 0) -> tuple[Fold, ...]:
    """Draw `repeats` times `folds` folds: disjoint, exhaustive, stratified, patients kept together.

    Class counts differ by at most one between folds where no patient has several subjects. Raises CohortError if a
    class has fewer patients than there are folds.
    """
    return tuple(
        Fold(repeat, number, split)
        for repeat in range(repeats)
        for number, split in enumerate(draw_splits(cohort.subjects, folds, derive_seed("folds", seed, repeat)))
    )


def draw_splits(subjects: Sequence[Subject], folds: int, seed: int) -> tuple[Split, ...]:
    """Split subjects into training and test parts `folds` times, every subject in one test part."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    ordered = sorted(subjects, key=lambda subject: subject.id)
    ids = np.array([subject.id for subject in ordered], dtype=object)
    labels = np.array([subject.label for subject in ordered])
    groups = np.array([subject.group or subject.id for subject in ordered])
    _check_class_sizes(labels, groups, folds)
    grouped = len(set(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed % 2**32)
    parts = splitter.split(ids, labels, groups if grouped else None)
    return tuple(Split(tuple(ids[training]), tuple(ids[test])) for training, test in parts)


def site_folds(cohort: Cohort) -> tuple[Fold, ...]:
    """One fold per site, in the order of their names: tested where nothing was trained.

    Raises CohortError if a subject has no site, if there is one only, if a patient was seen at two, or if a training
    part lacks a class.
    """
    sites = sorted({subject.site for subject in cohort.subjects})
    bare = [subject.id for subject in cohort.subjects if not subject.site]
    if bare:
        raise CohortError(f"{cohort.name}: {len(bare)} subjects have no site, such as {bare[0]!r}: fold without sites")
    if len(sites) < 2:
        raise CohortError(f"{cohort.name}: all subjects are of one site, {sites[0]!r}: fold without sites")
    tests = {number: [s.id for s in cohort.subjects if s.site == site] for number, site in enumerate(sites)}
    return _checked({(0, number): test for number, test in tests.items()}, {}, cohort, cohort.name)


def folds_digest(folds: Iterable[Fold]) -> str:
    """The SHA-256 of who is tested where: results are paired only where it is equal."""
    return content_digest([[fold.repeat, fold.number, fold.split.test] for fold in folds])


def folds_rows(folds: Sequence[Fold]) -> list[tuple[int, int | str, str]]:
    """(repeat, fold, subject) for every subject of a repeat, as folds.csv has them and `read_folds` reads them.

    The fold of a subject that is never tested is `train`.
    """
    rows: list[tuple[int, int | str, str]] = []
    for repeat in sorted({fold.repeat for fold in folds}):
        mine = [fold for fold in folds if fold.repeat == repeat]
        tested = {subject for fold in mine for subject in fold.split.test}
        rows += [(repeat, fold.number, subject) for fold in mine for subject in fold.split.test]
        if tested:
            rows += [(repeat, TRAIN, subject) for subject in mine[0].split.training if subject not in tested]
    return rows


def read_folds(path: Path, cohort: Cohort) -> tuple[Fold, ...]:
    """An official split from a CSV with the columns subject, fold and perhaps repeat.

    A fold that is empty or `train` means trained on and never tested. Raises CohortError if a subject is unknown,
    missing, or in two folds of one repeat, and if nobody is tested.
    """
    if not path.is_file():
        raise CohortError(f"no file of folds at {path}: give a number of folds or a CSV with columns subject, fold")
    try:
        rows = strict_rows(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise CohortError(f"{path.name} is not text in UTF-8: save it as CSV UTF-8") from None
    except ValueError as fault:
        raise CohortError(f"{path.name} {fault}") from None
    if not rows or not {"subject", "fold"} <= rows[0][1].keys():
        raise CohortError(f"{path.name} needs the columns subject and fold (and repeat, if there are several)")
    tests: Tests = defaultdict(list)
    trained: dict[int, list[str]] = defaultdict(list)
    for line, row in rows:
        repeat, fold = row.get("repeat") or "0", row["fold"].strip()
        if not (repeat.isdecimal() and (fold.isdecimal() or fold in ("", TRAIN))):
            raise CohortError(
                f"{path.name}, line {line}: fold {fold!r} of repeat {repeat!r} is no whole number: those who are only "
                f"trained on have the fold {TRAIN!r}"
            )
        (tests[int(repeat), int(fold)] if fold.isdecimal() else trained[int(repeat)]).append(row["subject"])
    if lost := sorted(trained.keys() - {repeat for repeat, _ in tests}):
        raise CohortError(f"{path.name}: nobody is tested in repeat {lost[0]}: number the fold of those who are")
    return _checked(dict(sorted(tests.items())), trained, cohort, path.name)


Tests = dict[tuple[int, int], list[str]]
"""(repeat, number of the fold) -> who is tested."""


def _checked(tests: Tests, trained: Mapping[int, Collection[str]], cohort: Cohort, name: str) -> tuple[Fold, ...]:
    """The folds, everybody else trained on; `trained` is repeat -> who is never tested in it."""
    repeats = sorted({repeat for repeat, _ in tests})
    if faults := [fault for r in repeats for fault in _faults(_folds_of(tests, trained, r), cohort)]:
        raise CohortError.of(name, faults)
    everyone = {subject.id for subject in cohort.subjects}
    folds = tuple(
        Fold(repeat, number, Split(tuple(sorted(everyone - set(test))), tuple(sorted(test))))
        for (repeat, number), test in tests.items()
    )
    _check_training_parts(folds, cohort, name)
    return folds


def _folds_of(tests: Tests, trained: Mapping[int, Collection[str]], repeat: int) -> dict[str, list[str]]:
    """Subject -> the folds of the repeat that it is listed in."""
    listed: dict[str, list[str]] = defaultdict(list)
    for (of, number), test in tests.items():
        for subject in test if of == repeat else ():
            listed[subject].append(str(number))
    for subject in trained.get(repeat, ()):
        listed[subject].append(TRAIN)
    return listed


def _faults(listed: Mapping[str, Sequence[str]], cohort: Cohort) -> list[str]:
    everyone = {subject.id for subject in cohort.subjects}
    of_patient: dict[str, set[str]] = defaultdict(set)
    for subject in everyone & listed.keys():
        of_patient[cohort.subject(subject).group or subject].update(listed[subject])
    return [
        *(f"{s!r} is in no fold" for s in sorted(everyone - listed.keys())),
        *(f"{s!r} is not in the cohort" for s in sorted(listed.keys() - everyone)),
        *(f"{s!r} is in two folds" for s in sorted(listed) if len(listed[s]) > 1),
        *(f"patient {p!r} is in folds {', '.join(sorted(n))}" for p, n in sorted(of_patient.items()) if len(n) > 1),
    ]


def _check_training_parts(folds: Iterable[Fold], cohort: Cohort, name: str) -> None:
    for fold in folds:
        present = {cohort.subject(id).label for id in fold.split.training}
        if lacking := [label for label in cohort.classes if label not in present]:
            raise CohortError(f"{name}: without fold {fold.number} there is no {', '.join(lacking)} left to train on")


def _check_class_sizes(labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    for label in sorted(set(labels)):
        patients = len(set(groups[labels == label]))
        if patients < folds:
            raise CohortError(f"class {label} has {patients} patients, too few for {folds} folds: use fewer folds")
