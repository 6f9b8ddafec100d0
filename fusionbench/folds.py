"""Folds: stratified by label, grouped by patient, drawn once and shared by every method."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusionbench.cohorts import Cohort, Subject
from fusionbench.errors import CohortError
from fusionbench.seeds import content_digest, derive_seed


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
    _check_folds({(0, number): test for number, test in tests.items()}, cohort, cohort.name)
    everyone = {subject.id for subject in cohort.subjects}
    folds = tuple(
        Fold(0, number, Split(tuple(sorted(everyone - set(test))), tuple(sorted(test))))
        for number, test in tests.items()
    )
    _check_training_parts(folds, cohort, cohort.name)
    return folds


def folds_digest(folds: Iterable[Fold]) -> str:
    """The SHA-256 of who is tested where: results are paired only where it is equal."""
    return content_digest([[fold.repeat, fold.number, fold.split.test] for fold in folds])


def folds_rows(folds: Iterable[Fold]) -> list[tuple[int, int, str]]:
    """(repeat, fold, subject) for every test subject, as folds.csv has them."""
    return [(fold.repeat, fold.number, subject) for fold in folds for subject in fold.split.test]


def read_folds(path: Path, cohort: Cohort) -> tuple[Fold, ...]:
    """An official split from a CSV with the columns subject, fold and perhaps repeat.

    Raises CohortError if a subject is unknown, missing, or in two folds of one repeat.
    """
    if not path.is_file():
        raise CohortError(f"no file of folds at {path}: give a number of folds or a CSV with columns subject, fold")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except UnicodeDecodeError:
        raise CohortError(f"{path.name} is not text in UTF-8: save it as CSV UTF-8") from None
    if not rows or not {"subject", "fold"} <= rows[0].keys():
        raise CohortError(f"{path.name} needs the columns subject and fold (and repeat, if there are several)")
    tests: dict[tuple[int, int], list[str]] = defaultdict(list)
    for line, row in enumerate(rows, 2):
        repeat, fold = row.get("repeat") or "0", row["fold"] or ""
        if not (repeat.isdecimal() and fold.isdecimal()):
            raise CohortError(f"{path.name}, line {line}: fold {fold!r} of repeat {repeat!r} is not a whole number")
        tests[int(repeat), int(fold)].append(row["subject"] or "")
    _check_folds(tests, cohort, path.name)
    everyone = {subject.id for subject in cohort.subjects}
    folds = tuple(
        Fold(repeat, number, Split(tuple(sorted(everyone - set(test))), tuple(sorted(test))))
        for (repeat, number), test in sorted(tests.items())
    )
    _check_training_parts(folds, cohort, path.name)
    return folds


def _check_folds(tests: dict[tuple[int, int], list[str]], cohort: Cohort, name: str) -> None:
    everyone = {subject.id for subject in cohort.subjects}
    faults = []
    for repeat in sorted({repeat for repeat, _ in tests}):
        listed = [subject for (r, _), test in tests.items() if r == repeat for subject in test]
        faults += [f"{s} is in no fold" for s in sorted(everyone - set(listed))]
        faults += [f"{s} is not in the cohort" for s in sorted(set(listed) - everyone)]
        faults += [f"{s} is in two folds" for s in sorted({s for s in listed if listed.count(s) > 1})]
        folds_of = defaultdict(set)
        for (r, number), test in tests.items():
            for s in set(test) & everyone if r == repeat else ():
                folds_of[cohort.subject(s).group or s].add(number)
        faults += [f"patient {g} is in folds {sorted(n)}" for g, n in sorted(folds_of.items()) if len(n) > 1]
    if faults:
        raise CohortError.of(name, faults)


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
