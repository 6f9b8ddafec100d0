"""Tables as text: read cell by cell, rows named for their subjects, columns chosen, features as numbers."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionbench import CohortError, nearest, summary

if TYPE_CHECKING:
    import pandas as pd

    Table = pd.DataFrame

_SURPLUS = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
"""What pandas says of a row that is longer than the header."""


def read_cells(path: Path, rows: int | None = None) -> Table:
    """A CSV, or a TSV by its name, as text as it stands, or its first rows; an absent cell is empty.

    CohortError if there is no such file, if it is no table, or if a column has the name of another.
    """
    import pandas as pd

    separator, kind, spoken = (
        ("\t", "TSV", "tab-separated") if path.suffix.lower() == ".tsv" else (",", "CSV", "comma-separated")
    )
    last = None if rows is None else rows + 1
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file it survives names of any length
        raise CohortError(absent_table(path))
    try:
        # without a header, since pandas renames a doubled column in silence
        cells = pd.read_csv(
            path, sep=separator, header=None, nrows=last, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        ).fillna("")
    except pd.errors.EmptyDataError:
        raise CohortError(f"{path.name} is empty; write a header and a row per subject") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        if surplus := _SURPLUS.search(str(error)):
            wanted, line, found = surplus.groups()
            raise CohortError(
                f"{path.name}: line {line} has {found} cells, the header {wanted}; put cells with a comma into quotes"
            ) from None
        raise CohortError(f"{path.name} cannot be read as {kind}; save it as {spoken} UTF-8") from None
    columns = cells.iloc[0].tolist()
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise CohortError(f"{path.name} has several columns {summary([repr(name) for name in doubled], ', ')}; rename")
    if len(columns) == 1 and any(other in columns[0] for other in ",;\t"):
        raise CohortError(f"{path.name} has one column, {columns[0]!r}; save it as {spoken} UTF-8")
    if len(cells) == 1:
        raise CohortError(f"{path.name} has no rows; its columns are {summary(columns, ', ')}")
    return cells[1:].set_axis(columns, axis=1).reset_index(drop=True)


def absent_table(path: Path) -> str:
    """What to say of a table that is not there: the nearest name among those that are."""
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    tables = [other.name for other in there if other.suffix.lower() in (".csv", ".tsv") and other.name[0] != "."]
    return f"{path.name} does not exist: {nearest(path.name, tables)}; write it or correct its name"


def absent_columns(wanted: Iterable[str], table: Table) -> str:
    """What to say of columns that a table has not, all at once; empty if it has them."""
    absent = [column for column in wanted if column not in table.columns]
    if not absent:
        return ""
    told = ", ".join(map(repr, absent))
    return f"no column{'s' * (len(absent) > 1)} {told}: {nearest(absent[0], table.columns)}"


def indexed(table: Table, column: str) -> tuple[Table, list[str]]:
    """A table whose rows are named by a column of ids, each once, and what is wrong with the ids."""
    ids = table[column].tolist()
    faults = [f"{id!r} is in {n} rows" for id, n in Counter(ids).items() if n > 1 and id]
    faults += [f"row {number} has no {column}" for number, id in enumerate(ids, 1) if not id]
    named = table.set_index(column)
    return named[~named.index.duplicated() & (named.index != "")], faults


def chosen(name: str, patterns: Sequence[str], table: Table, taken: Sequence[str], option: str) -> list[str]:
    """The columns that fit a pattern and are not taken, in the order of the table.

    CohortError, which mentions the option, if a pattern fits none or nothing is left.
    """
    for pattern in patterns:
        if not any(fnmatchcase(column, pattern) for column in table.columns):
            raise CohortError(f"modality {name}: no column is {pattern!r}: {nearest(pattern, table.columns)}")
    free = [column for column in table.columns if column not in taken]
    columns = [column for column in free if column in patterns or any(fnmatchcase(column, p) for p in patterns)]
    if not columns:
        raise CohortError(f"modality {name} has no column left; name the columns of {option} anew")
    return columns


@dataclass(frozen=True)
class Features:
    """The table of one modality: a row for each subject that has it."""

    ids: tuple[str, ...]
    columns: tuple[str, ...]
    written: NDArray[Any]
    """(subjects, columns), as text."""
    numbers: NDArray[Any]
    """(subjects, columns); NaN for what is no number."""

    @classmethod
    def of(cls, table: Table) -> Features:
        """Those of a table by subject; a row in which nothing is written is none."""
        import pandas as pd

        cells = table.to_numpy(dtype=object)
        full = np.array(["".join(row).strip() != "" for row in cells.tolist()], dtype=bool)
        written = cells[full]
        numbers = np.asarray(pd.to_numeric(written.ravel(), errors="coerce"), np.float64).reshape(written.shape)
        return cls(tuple(table.index[full]), tuple(table.columns), written, numbers)

    def faults(self, name: str) -> list[str]:
        """The cells of a modality of that name that are no finite numbers, one line per column."""
        bad = ~np.isfinite(self.numbers)
        faults = []
        for column in np.flatnonzero(bad.any(axis=0)):
            first = np.flatnonzero(bad[:, column])[0]
            faults.append(
                f"{name}, column {self.columns[column]!r}: {self.written[first, column]!r} of {self.ids[first]!r} is "
                f"no finite number ({bad[:, column].sum()} such cells); fill it, code it as a number, or leave the "
                "column out"
            )
        return faults

    def rows(self) -> dict[str, tuple[float, ...]]:
        """Subject -> its numbers."""
        return dict(zip(self.ids, map(tuple, self.numbers.tolist()), strict=True))


def column_of(table: Table, column: str) -> dict[str, str]:
    """Subject -> cell of that column; nothing if there is no such column."""
    return {str(id): str(cell) for id, cell in table[column].items()} if column in table.columns else {}
