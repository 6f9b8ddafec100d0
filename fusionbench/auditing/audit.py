"""Audits of printed score tables: a file or a shipped paper in, findings out. docs/audit.md has rules and format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from fusionbench.auditing.foldcounts import Design
from fusionbench.auditing.rules import (
    Finding,
    accuracy_apart,
    balanced_apart,
    balanced_as_auc,
    impossible_counts,
    impossible_together,
    in_range,
    is_balanced,
    other_digits,
    out_of_range,
    possible_together,
    too_large_deviations,
)
from fusionbench.auditing.scoretables import PrintedRow, ScoreTable, read_scores
from fusionbench.errors import UsageError, nearest
from fusionbench.jsontext import json_text
from fusionbench.published import DATASETS

PAPERS = {
    "xu2024": {
        name: Design(folds=3, positives=counts["LGG"], negatives=counts["HGG"]) for name, counts in DATASETS.items()
    }
}
"""Shipped paper -> its data sets; the positive class and the folds are deduced from its numbers (docs/paper.md)."""


@dataclass(frozen=True)
class Audit:
    """What was found, and in what."""

    findings: tuple[Finding, ...]
    rows: int
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How much was found in how much."""
        found = "nothing" if not self.findings else _count(len(self.findings), "finding")
        return f"{found} in {_count(self.rows, 'row')}"

    def to_markdown(self) -> str:
        """A table of the findings, with the notes below."""
        lines = [["method", "data set", "table", "rule", "finding"], ["---"] * 5]
        lines += [[f.method, f.dataset, f.table, f.rule, f.text] for f in self.findings]
        table = ["| " + " | ".join(map(_escaped, cells)) + " |" for cells in lines if self.findings]
        return "\n".join([*table, "", *(f"- {note}" for note in (self.summary, *self.notes))]) + "\n"

    def to_json(self) -> str:
        """Everything."""
        return json_text({"summary": self.summary, **asdict(self)})


def audit(table: ScoreTable) -> Audit:
    """Every rule on every row."""
    as_auc, digits = balanced_as_auc(table.rows), other_digits(table.rows)
    findings: list[Finding] = []
    untried = 0
    for row in table.rows:
        findings += [*out_of_range(row), *digits(row)]
        sound = in_range(row)
        impossible = [f for rule in IMPOSSIBLE for f in rule(sound)]
        possible = None if impossible else possible_together(sound)
        untried += possible is None and not impossible
        together = [impossible_together(sound, sound.design)] if possible is False and sound.design else []
        findings += [*as_auc(sound), *impossible, *together]
    return Audit(tuple(findings), len(table.rows), (*table.notes, *_notes(table.rows, untried)))


def read_table(where: str) -> ScoreTable:
    """The scores of a file, or of a shipped paper by its name; UsageError, in one line, if there are none."""
    if where in PAPERS:
        text = (files("fusionbench") / "papers" / f"{where}.csv").read_text(encoding="utf-8")
        return read_scores(text, PAPERS[where])
    if not Path(where).exists():
        raise UsageError(f"no file {where!r}, and no shipped paper is called so: {nearest(where, PAPERS)}")
    try:
        return read_scores(Path(where).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {error}; give a CSV in UTF-8") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


IMPOSSIBLE = (too_large_deviations, impossible_counts, accuracy_apart, balanced_apart)
"""The rules of a row alone."""


def _notes(rows: tuple[PrintedRow, ...], untried: int) -> Iterator[str]:
    """What the findings rest on, and what could not be checked."""
    equal = [known[0] for row in rows if (known := is_balanced(row))]
    if any(equal):
        of = f"{sum(equal)} of {_count(len(equal), 'row')}"
        yield f"the AUC is balanced accuracy in {of} that have all three numbers; in a few of many it may be chance"
    if unknown := sum(row.design is None for row in rows):
        yield f"folds, positives and negatives not given for {_count(unknown, 'row')}: counts not checked there"
    if untried:
        yield f"too many counts to search in {_count(untried, 'row')}: only its numbers one by one, and their means"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _escaped(cell: str) -> str:
    """A cell of a Markdown table, whatever it holds."""
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")
