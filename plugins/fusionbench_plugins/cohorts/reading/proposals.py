"""What a proposal is made of: settings as `--set` takes them, columns that are likely meant, tables as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionbench import CohortError
from fusionbench_plugins.cohorts.reading.cells import read_cells
from fusionbench_plugins.cohorts.reading.labels import smallest

if TYPE_CHECKING:
    from fusionbench_plugins.cohorts.reading.cells import Table

IDS = ("subject", "subjectid", "participantid", "patient", "patientid", "id", "case", "caseid", "sample", "sampleid")
"""What columns of ids are called, the likeliest first, in lower case and without what is no letter or digit."""
LABELS = (
    "label", "grade", "whocnsgrade", "whograde", "tumorgrade", "class", "diagnosis", "target", "outcome",
    "mgmt", "mgmtvalue", "idh", "idh1", "status",
)  # fmt: skip
"""What columns of labels are called, the likeliest first."""


def setting(name: str, value: str | Sequence[str] | Mapping[str, Sequence[str]]) -> str:
    """`NAME.OPTION=VALUE` with the value as TOML.

    >>> setting("table.modalities", {"clinical": ["Age", "Sex"]})
    'table.modalities={"clinical" = ["Age", "Sex"]}'
    """
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_quoted(key)} = {_quoted(list(item))}" for key, item in value.items())
        return f"{name}={{{pairs}}}"
    return f"{name}={_quoted(value)}"


def likely(columns: Iterable[str], words: Sequence[str]) -> str:
    """The column that is called like the first of these words that there is; empty if there is none.

    >>> likely(["Age", "WHO CNS Grade", "Patient_ID"], LABELS)
    'WHO CNS Grade'
    """
    plain = {_letters(column): column for column in reversed(list(columns))}
    return next((plain[word] for word in words if word in plain), "")


def classes_of(labels: Iterable[str]) -> tuple[tuple[str, ...], str, str]:
    """The classes in alphabetical order, the smallest one and why; nothing where there are fewer than two, or many."""
    counted = Counter(label for label in labels if label)
    if not 2 <= len(counted) <= 12:
        return (), "", ""
    return tuple(sorted(counted)), *smallest(counted)


def readable(path: Path, rows: int | None = None) -> Table | None:
    """A table as text, or its first rows; None for what is none."""
    try:
        return read_cells(path, rows)
    except CohortError:
        return None


def _quoted(value: str | Sequence[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
