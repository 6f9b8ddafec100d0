"""Tables of features as modalities: omics, radiomics, clinical data, joined by subject id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from fusionbench import Cohort, CohortError, CohortReader, Modality, Subject, hookimpl, nearest, summary

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"
"""As the name of the id column: there is none, so number the rows."""
EXTRA = ("group", "site")
"""Columns of the labels that say more about a subject."""

_NO_MODALITIES: dict[str, list[str]] = {}
_NO_CLASSES: dict[str, str] = {}


class Table(CohortReader):
    """Tables as modalities: a folder with one CSV per modality and labels.csv, or one CSV split by its columns.

    Rows are joined by subject id, never by their order. Every feature is a finite number.
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
        self.classes = classes
        self.positive_class = positive_class

    def read(self, path: Path) -> Cohort:
        """The cohort of a folder of tables or of one table; CohortError lists everything that is wrong with it."""
        truth, features = self._folder(path) if path.is_dir() else self._file(path)
        raw, faults = _labels_of(truth, self.label, self.classes)
        faults += _absent(truth, features)
        faults += [fault for name, table in features.items() for fault in _bad_cells(name, table)]
        if faults:
            raise CohortError.of(path.name, faults)
        return self._cohort(path, truth, raw, {name: _numbers(table) for name, table in features.items()})

    def _folder(self, path: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        """The labels, and modality -> features, of a folder with one CSV each."""
        truth = self._indexed(path / self.labels)
        others = sorted(file for file in path.glob("*.csv") if file.name != self.labels and file.name[0] != ".")
        if not others:
            raise CohortError(f"{path.name} holds no table besides {self.labels}; put one CSV per modality there")
        tables = {file.stem: self._indexed(file) for file in others}
        _same_length({self.labels: truth, **tables}, self.id)
        for name in self.modalities:
            if name not in tables:
                raise CohortError(f"{path.name} has no {name}.csv: {nearest(name, tables)}")
        wanted = self.modalities or {name: ["*"] for name in tables}
        return truth, {name: tables[name][_chosen(name, columns, tables[name], ())] for name, columns in wanted.items()}

    def _file(self, path: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        """The labels, and modality -> features, of one CSV."""
        table = self._indexed(path)
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
        return table, features

    def _indexed(self, path: Path) -> pd.DataFrame:
        """A table as text, its rows named for their subjects; CohortError for an id that is doubled or empty."""
        table = _table(path)
        if self.id == ROW:
            return table.set_axis([f"row-{number:04d}" for number in range(1, len(table) + 1)], axis=0)
        if self.id not in table.columns:
            raise CohortError(
                f"{path.name} has no column {self.id!r}: {nearest(self.id, table.columns)}; "
                f"set table.id to the column of the ids, or table.id={ROW} to number the rows"
            )
        table = table.set_index(self.id)
        faults = [f"{path.name}: {id!r} is in {n} rows" for id, n in Counter(table.index).items() if n > 1]
        if "" in table.index:
            faults.append(f"{path.name}: a row has no {self.id}")
        if faults:
            raise CohortError(summary(faults), faults)
        return table

    def _cohort(
        self, path: Path, truth: pd.DataFrame, labels: Mapping[str, str], features: Mapping[str, pd.DataFrame]
    ) -> Cohort:
        names = tuple(dict.fromkeys(self.classes.values())) or tuple(sorted(set(labels.values())))
        positive, notes = self._positive(labels)
        rows = {
            name: dict(zip(table.index, table.itertuples(index=False, name=None), strict=True))
            for name, table in features.items()
        }
        group, site = (dict(truth[column]) if column in truth.columns else {} for column in EXTRA)
        return Cohort(
            name=path.resolve().stem,
            classes=names,
            positive_class=positive,
            modalities=tuple(Modality(name, "table", len(table.columns)) for name, table in features.items()),
            subjects=tuple(
                Subject(
                    id,
                    label,
                    features={name: rows[name][id] for name in rows},
                    group=group.get(id) or id,
                    site=site.get(id, ""),
                )
                for id, label in labels.items()
            ),
            notes=(*notes, *_equal_rows(features)),
        )

    def _positive(self, labels: Mapping[str, str]) -> tuple[str, list[str]]:
        """The positive class, and a note if nobody said which it is."""
        if self.positive_class:
            return self.positive_class, []
        counted = Counter(labels.values())
        smallest = min(sorted(counted), key=lambda name: counted[name])
        return smallest, [f"positive class {smallest}, the smaller one, as table.positive_class is not set"]


def _table(path: Path) -> pd.DataFrame:
    """A CSV as text, cell by cell as it stands; an absent cell is empty."""
    import pandas as pd

    try:
        # without a header, since pandas renames a doubled column in silence
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig").fillna("")
    except FileNotFoundError:
        raise CohortError(f"{path.name} does not exist; write it or correct its name") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError):
        raise CohortError(f"{path.name} cannot be read as CSV; save it as comma-separated UTF-8") from None
    columns = cells.iloc[0].tolist()
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise CohortError(f"{path.name} has several columns {summary([repr(name) for name in doubled], ', ')}; rename")
    return cells[1:].set_axis(columns, axis=1)


def _chosen(name: str, patterns: Sequence[str], table: pd.DataFrame, taken: Sequence[str]) -> list[str]:
    """The columns that fit a pattern and are not taken, in the order of the table."""
    for pattern in patterns:
        if not any(fnmatchcase(column, pattern) for column in table.columns):
            raise CohortError(f"modality {name}: no column is {pattern!r}: {nearest(pattern, table.columns)}")
    free = [column for column in table.columns if column not in taken]
    columns = [column for column in free if column in patterns or any(fnmatchcase(column, p) for p in patterns)]
    if not columns:
        raise CohortError(f"modality {name} has no column left; name the columns of table.modalities anew")
    return columns


def _labels_of(truth: pd.DataFrame, column: str, classes: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Subject -> class name, and what is wrong with the labels."""
    if column not in truth.columns:
        raise CohortError(f"no column {column!r} of labels: {nearest(column, truth.columns)}; set table.label")
    raw = {id: str(label) for id, label in truth[column].items()}
    known = classes or {label: label for label in raw.values() if label}
    unknown = {label: id for id, label in reversed(raw.items()) if label not in known}
    faults = [f"{id!r} has the label {label!r}: {nearest(label, known)}" for label, id in unknown.items()]
    return {str(id): known.get(label, "") for id, label in raw.items()}, faults


def _absent(truth: pd.DataFrame, features: Mapping[str, pd.DataFrame]) -> list[str]:
    """The subjects that some table lacks."""
    tables = {"the labels": truth, **features}
    everyone = dict.fromkeys(id for table in tables.values() for id in table.index)
    return [f"{id!r} is not in {name}" for name, table in tables.items() for id in everyone if id not in table.index]


def _bad_cells(name: str, table: pd.DataFrame) -> list[str]:
    """The cells that are no finite numbers, one line per column."""
    import numpy as np

    numbers = _numbers(table)
    faults = []
    for column in table.columns:
        bad = table[column][~np.isfinite(numbers[column])]
        if len(bad):
            faults.append(
                f"{name}, column {column!r}: {bad.iloc[0]!r} of {bad.index[0]!r} is no finite number "
                f"({len(bad)} such cells); fill it, code it as a number, or leave the column out"
            )
    return faults


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table as numbers; NaN for what is none."""
    import pandas as pd

    numbers: pd.DataFrame = table.apply(pd.to_numeric, errors="coerce")
    return numbers.astype(float)


def _same_length(tables: Mapping[str, pd.DataFrame], id: str) -> None:
    """Raise CohortError if rows are to be numbered but there are not equally many."""
    lengths = {name: len(table) for name, table in tables.items()}
    if id == ROW and len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise CohortError(f"rows cannot be numbered where tables have unequally many ({counted}); add a column of ids")


def _equal_rows(features: Mapping[str, pd.DataFrame]) -> list[str]:
    """A note if subjects are equal in every feature: perhaps one was entered twice."""
    import pandas as pd

    equal = pd.concat(features.values(), axis=1).duplicated(keep=False)
    names = [repr(id) for id in equal.index[equal]]
    return [f"equal in every feature with another subject: {summary(names, ', ')}"] if names else []


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for tables."""
    return [Table]
