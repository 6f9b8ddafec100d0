"""Tables of features as modalities: omics, radiomics, clinical data, joined by subject id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from fusionbench import Cohort, CohortError, CohortReader, Modality, Proposal, Subject, hookimpl, nearest, summary
from fusionbench_plugins.cohorts.reading import cells, proposals
from fusionbench_plugins.cohorts.reading.labels import Labelling

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"
"""As the name of the id column: there is none, so number the rows."""
EXTRA = ("group", "site")
"""Columns of the labels that say more about a subject."""

_NO_MODALITIES: dict[str, list[str]] = {}
_NO_CLASSES: dict[str, str] = {}


@dataclass(frozen=True)
class Tables:
    """What a folder or a file of tables holds, by subject."""

    truth: pd.DataFrame | None
    """Labels and more about a subject; None if there is no such table."""
    features: Mapping[str, cells.Features]
    faults: tuple[str, ...] = ()

    @property
    def everyone(self) -> list[str]:
        """The subjects of any table."""
        known = [] if self.truth is None else [str(id) for id in self.truth.index]
        return list(dict.fromkeys([*known, *(id for table in self.features.values() for id in table.ids)]))


class Table(CohortReader):
    """Tables as modalities: a folder with one CSV per modality and labels.csv, or one CSV split by its columns.

    Rows are joined by subject id, never by their order. Every feature is a finite number. A subject lacks a modality
    if its table has no row of it, or one in which nothing is written.
    """

    name: ClassVar[str] = "table"
    config: ClassVar[str] = "table"

    def __init__(
        self,
        *,
        labels: Annotated[str, "in a folder, the CSV that holds the labels"] = "labels.csv",
        id: Annotated[str, "column of the subject ids; row: there is none, number the rows"] = "subject",
        label: Annotated[str, "column of the labels"] = "label",
        modalities: Annotated[
            dict[str, list[str]], "modality -> its columns, by name or pattern (mir*); a column goes to the first"
        ] = _NO_MODALITIES,
        classes: Annotated[dict[str, str], "label as written -> class name, in order"] = _NO_CLASSES,
        positive_class: Annotated[str, "the class that sensitivity is about; empty: the smaller one"] = "",
    ) -> None:
        self.labels = labels
        self.id = id
        self.label = label
        self.modalities = modalities
        self.labelling = Labelling(self.name, classes, positive_class)

    def read(self, path: Path) -> Cohort:
        """The cohort of a folder of tables or of one table; CohortError lists everything that is wrong with it."""
        tables = self._tables(path)
        truth = tables.truth
        if truth is None:
            raise CohortError(cells.absent_table(path / self.labels))
        if self.label not in truth.columns:
            raise CohortError(
                f"no column {self.label!r} of labels: {nearest(self.label, truth.columns)}; set table.label"
            )
        labels, faults = self.labelling.read(cells.column_of(truth, self.label))
        unlabelled = [f"{id!r} is not in the labels" for id in tables.everyone if id not in truth.index]
        _refuse(path, (*tables.faults, *faults, *unlabelled, *_bad_cells(tables)))
        positive, notes = self.labelling.positive_of(labels)
        return _cohort(path, tables, labels, self.labelling.names(labels), positive, notes)

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """The subjects of any table; neither a table nor a column of labels is needed."""
        tables = self._tables(path)
        _refuse(path, (*tables.faults, *_bad_cells(tables)))
        written = cells.column_of(tables.truth, self.label) if tables.truth is not None else {}
        known, notes = self.labelling.known(written, classes)
        labels = {id: known.get(id, "") for id in tables.everyone}
        return _cohort(path, tables, labels, classes, positive_class, notes, labelled=False)

    def propose(self, path: Path) -> Proposal | None:
        """How one CSV, or a folder of them without images, could be read."""
        if path.is_dir():
            found = {file: table for file in _csvs(path) if (table := proposals.readable(file)) is not None}
            return _proposed_folder(found)
        table = proposals.readable(path) if path.suffix.lower() in (".csv", ".tsv") else None
        return _proposed_file(table) if table is not None else None

    def _tables(self, path: Path) -> Tables:
        return self._folder(path) if path.is_dir() else self._file(path)

    def _folder(self, path: Path) -> Tables:
        """The labels, and modality -> features, of a folder with one CSV each."""
        others = [file for file in _csvs(path) if file.name != self.labels]
        if not others:
            raise CohortError(f"{path.name} holds no table besides {self.labels}; put one CSV per modality there")
        labels = [path / self.labels] if (path / self.labels).is_file() else []
        read = {file: self._indexed(file) for file in [*labels, *others]}
        _same_length({file.name: table for file, (table, _) in read.items()}, self.id)
        tables = {file.stem: read[file][0] for file in others}
        for name in self.modalities:
            if name not in tables:
                raise CohortError(f"{path.name} has no {name}.csv: {nearest(name, tables)}")
        wanted = self.modalities or {name: ["*"] for name in tables}
        features = {name: tables[name][_chosen(name, columns, tables[name], ())] for name, columns in wanted.items()}
        return Tables(read[labels[0]][0] if labels else None, _features(features), _faults(read))

    def _file(self, path: Path) -> Tables:
        """The labels, and modality -> features, of one CSV."""
        table, faults = self._indexed(path)
        if not self.modalities:
            raise CohortError(
                f"{path.name} does not say which columns make which modality: set table.modalities, as in "
                f"{{clinical = ['Age', 'Sex'], genes = ['g*']}}; there are {summary(list(table.columns), ', ')}"
            )
        taken = [self.label, *EXTRA]
        features = {}
        for name, patterns in self.modalities.items():
            columns = _chosen(name, patterns, table, taken)
            features[name] = table[columns]
            taken += columns
        return Tables(table, _features(features), tuple(faults))

    def _indexed(self, path: Path) -> tuple[pd.DataFrame, list[str]]:
        """A table as text, its rows named for their subjects, and what is wrong with their ids."""
        table = cells.read_cells(path)
        if self.id == ROW:
            return table.set_axis([f"row-{number:04d}" for number in range(1, len(table) + 1)], axis=0), []
        if self.id not in table.columns:
            raise CohortError(
                f"{path.name} has no column {self.id!r}: {nearest(self.id, table.columns)}; "
                f"set table.id to the column of the ids, or table.id={ROW} to number the rows"
            )
        return cells.indexed(table, self.id)


def _cohort(
    path: Path,
    tables: Tables,
    labels: Mapping[str, str],
    classes: tuple[str, ...],
    positive_class: str,
    notes: Iterable[str],
    labelled: bool = True,
) -> Cohort:
    rows = {name: table.rows() for name, table in tables.features.items()}
    group, site = ({} if tables.truth is None else cells.column_of(tables.truth, column) for column in EXTRA)
    subjects = tuple(
        Subject(
            id,
            label,
            features={name: rows[name][id] for name in rows if id in rows[name]},
            group=group.get(id) or id,
            site=site.get(id, ""),
        )
        for id, label in labels.items()
    )
    return Cohort(
        name=path.resolve().name if path.is_dir() else path.stem,
        classes=classes,
        positive_class=positive_class,
        modalities=tuple(
            Modality(name, "table", len(table.columns), tuple(map(str, table.columns)))
            for name, table in tables.features.items()
        ),
        subjects=subjects,
        notes=(*notes, *_equal_rows(subjects)),
        labelled=labelled,
    )


def _csvs(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.csv") if file.name[0] != ".")


def _chosen(name: str, patterns: list[str], table: pd.DataFrame, taken: Iterable[str]) -> list[str]:
    return cells.chosen(name, patterns, table, list(taken), "table.modalities")


def _features(tables: Mapping[str, pd.DataFrame]) -> dict[str, cells.Features]:
    return {name: cells.Features.of(table) for name, table in tables.items()}


def _faults(read: Mapping[Path, tuple[pd.DataFrame, list[str]]]) -> tuple[str, ...]:
    return tuple(f"{file.name}: {fault}" for file, (_, faults) in read.items() for fault in faults)


def _bad_cells(tables: Tables) -> list[str]:
    return [fault for name, table in tables.features.items() for fault in table.faults(name)]


def _refuse(path: Path, faults: tuple[str, ...]) -> None:
    if faults:
        raise CohortError.of(path.name, faults)


def _same_length(tables: Mapping[str, pd.DataFrame], id: str) -> None:
    """Raise CohortError if rows are to be numbered but there are not equally many."""
    lengths = {name: len(table) for name, table in tables.items()}
    if id == ROW and len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise CohortError(f"rows cannot be numbered where tables have unequally many ({counted}); add a column of ids")


def _equal_rows(subjects: Iterable[Subject]) -> list[str]:
    """A note if subjects are equal in every feature: perhaps one was entered twice."""
    alike: dict[object, list[str]] = {}
    for subject in subjects:
        alike.setdefault(tuple(subject.features.items()), []).append(repr(subject.id))
    names = [id for ids in alike.values() if len(ids) > 1 for id in ids]
    return [f"equal in every feature with another subject: {summary(names, ', ')}"] if names else []


def _proposed_folder(tables: Mapping[Path, pd.DataFrame]) -> Proposal | None:
    """One modality per table, and the labels in the one that has a column that is called like labels."""
    found = {file: proposals.likely(table.columns, proposals.LABELS) for file, table in tables.items()}
    labels = next((file for file in tables if file.name == "labels.csv"), None)
    labels = labels or next((file for file, column in found.items() if column), None)
    others = [file for file in tables if file != labels]
    if not others:
        return None
    shared = [c for c in tables[others[0]].columns if all(c in table.columns for table in tables.values())]
    id = proposals.likely(shared, proposals.IDS) or next(iter(shared), "")
    guesses = [f"modalities {', '.join(file.stem for file in others)}, one for each table"]
    guesses += [f"ids in the column {id!r}"] if id else ["no column is in all tables: give each one of subject ids"]
    settings = [proposals.setting("table.id", id)] if id and id != "subject" else []
    if labels is None:
        guesses.append("no labels: write labels.csv with the columns subject, label")
        return Proposal(tuple(settings), {}, tuple(guesses), len(tables[others[0]]), labelled=False)
    column = found[labels]
    guesses.append(f"labels in the column {column!r} of {labels.name}" if column else f"no labels in {labels.name}")
    settings += [proposals.setting("table.labels", labels.name)] if labels.name != "labels.csv" else []
    settings += [proposals.setting("table.label", column)] if column not in ("", "label") else []
    return Proposal(tuple(settings), {}, tuple(guesses), len(tables[labels]), labelled=bool(column))


def _proposed_file(table: pd.DataFrame) -> Proposal | None:
    """All columns of numbers as one modality; ids and labels where columns are called so."""
    id = proposals.likely(table.columns, proposals.IDS)
    label = proposals.likely([column for column in table.columns if column != id], proposals.LABELS)
    numbers = dict(zip(table.columns, np.isfinite(cells.Features.of(table).numbers).mean(axis=0), strict=True))
    features = [c for c in table.columns if c not in (id, label, *EXTRA) and numbers[c] > 0.5]
    if not features:
        return None
    others = [repr(c) for c in table.columns if c not in (*features, id, label, *EXTRA)]
    guesses = [
        f"ids in the column {id!r}" if id else "no column of ids, so rows are numbered",
        f"labels in the column {label!r}" if label else "no column of labels: set table.label",
        f"one modality of {len(features)} columns: split it in table.modalities, such as clinical and genes",
        *([f"no numbers, so left out: {summary(others, ', ')}"] if others else []),
    ]
    columns = features if len(features) <= 30 or others else ["*"]
    settings = [
        *([] if id == "subject" else [proposals.setting("table.id", id or ROW)]),
        *([] if label in ("", "label") else [proposals.setting("table.label", label)]),
        proposals.setting("table.modalities", {"features": columns}),
    ]
    return Proposal(tuple(settings), {}, tuple(guesses), len(table), labelled=bool(label))


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for tables."""
    return [Table]
