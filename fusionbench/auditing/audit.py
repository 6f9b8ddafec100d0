"""Audits of printed score tables: a file or a shipped paper in, findings out. docs/audit.md has rules and format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

from fusionbench.auditing.coverage import RULES, checked
from fusionbench.auditing.equality import THREE, Likeness, balanced_as_auc, coarsest, has_three, likeness
from fusionbench.auditing.foldcounts import Design
from fusionbench.auditing.rules import (
    Finding,
    accuracy_apart,
    balanced_apart,
    impossible_counts,
    in_range,
    out_of_range,
    too_large_deviations,
)
from fusionbench.auditing.scoretables import PrintedRow, ScoreTable, read_scores
from fusionbench.auditing.together import Search, search
from fusionbench.auditing.wholetable import keeps_zeros, other_digits, same_deviations
from fusionbench.errors import UsageError, nearest
from fusionbench.jsontext import json_text
from fusionbench.markdown import escaped, markdown_table
from fusionbench.published import DATASETS

PAPERS = {
    "xu2024": {
        name: Design(folds=3, positives=counts["LGG"], negatives=counts["HGG"]) for name, counts in DATASETS.items()
    }
}
"""Shipped paper -> its data sets; the positive class and the folds are deduced from its numbers (docs/paper.md)."""
IMPOSSIBLE = (too_large_deviations, impossible_counts, accuracy_apart, balanced_apart)
"""The rules of a row alone."""


@dataclass(frozen=True)
class Audit:
    """What was found, and in what."""

    findings: tuple[Finding, ...]
    rows: int
    checked: Mapping[str, int]
    """Rule -> how many rows have the numbers that it needs."""
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How much was found in how much."""
        found = "nothing" if not self.findings else _count(len(self.findings), "finding")
        return f"{found} in {_count(self.rows, 'row')}"

    def to_markdown(self) -> str:
        """A table of the findings, with the notes below."""
        header = ("method", "data set", "table", "rule", "finding")
        rows = [(f.method, f.dataset, f.table, f.rule, f.text) for f in self.findings]
        notes = "\n".join(f"- {escaped(note)}" for note in (self.summary, *self.notes))
        return "\n\n".join([*([markdown_table(header, rows)] if rows else []), notes]) + "\n"

    def to_json(self) -> str:
        """Everything."""
        return json_text({"summary": self.summary, **asdict(self)})


@dataclass(frozen=True)
class Judged:
    """A row held to every rule of a row alone."""

    row: PrintedRow
    likeness: Likeness | None
    search: Search
    findings: tuple[Finding, ...]
    doubts: tuple[Finding, ...]
    """Those by which its AUC, sensitivity or specificity cannot be."""
    checked: tuple[str, ...]
    """The rules whose numbers it has."""


def audit(table: ScoreTable) -> Audit:
    """Every rule on every row."""
    rows, digits, strict = table.rows, other_digits(table.rows), keeps_zeros(table.rows)
    limit = coarsest(list(map(in_range, rows)))
    judged = [_judged(row, limit, strict=strict) for row in rows]
    found = [f for one in judged for f in (*out_of_range(one.row), *digits(one.row), *one.findings)]
    held = Counter(rule for one in judged for rule in one.checked)
    counts = {rule: held[rule] for rule in RULES}
    notes = (*table.notes, *_equalities(judged, limit), *_lacking(judged), _coverage(counts, len(rows)))
    return Audit((*found, *same_deviations(rows)), len(rows), counts, notes)


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


def _judged(row: PrintedRow, limit: float, *, strict: bool) -> Judged:
    sound = in_range(row)
    alone = [f for rule in IMPOSSIBLE for f in rule(sound)]
    searched = Search() if alone else search(sound)
    impossible = [*alone, *([searched.finding] if searched.finding else [])]
    doubts = tuple(f for f in impossible if set(f.metrics) <= set(THREE))
    equal = (_doubted(f, doubts, searched) for f in balanced_as_auc(sound, limit))
    held = tuple(checked(row, searched, limit, strict=strict))
    return Judged(row, likeness(sound), searched, (*equal, *impossible), doubts, held)


def _doubted(equality: Finding, doubts: Sequence[Finding], searched: Search) -> Finding:
    """An AUC that is balanced accuracy, with what speaks against it in its own row."""
    told = equality.text
    if doubts:
        told += f"; not all three can be as printed, though: {', '.join(dict.fromkeys(f.rule for f in doubts))}"
    if searched.auc_apart:
        told += "; but no counts that give the rest of the row give such a balanced accuracy: chance, or a misprint"
    return replace(equality, text=told)


def _equalities(judged: Sequence[Judged], limit: float) -> Iterator[str]:
    """In how many rows the AUC is balanced accuracy, what chance would give, and what speaks against them."""
    known = [(one, like) for one in judged if (like := one.likeness)]
    if not known:
        return
    equal = [(one, like) for one, like in known if like.equal]
    against = {
        "printed too coarsely to be told from chance": sum(like.rounding > limit for _, like in equal),
        "with an impossible number among the three": sum(bool(one.doubts) for one, _ in equal),
        "that the counts of the rest of the row speak against": sum(one.search.auc_apart for one, _ in equal),
    }
    told = ", ".join(f"{number} {what}" for what, number in against.items() if number)
    chance = sum(like.chance for _, like in known)
    yield (
        f"the AUC is (sensitivity + specificity) / 2 within rounding in {len(equal)} of {_count(len(known), 'row')} "
        f"that have all three numbers; chance would give {f'about {chance:.1f}' if chance >= 0.1 else 'less than 0.1'}"
        + (f"; of these {len(equal)}: {told}" if told else "")
    )


def _lacking(judged: Sequence[Judged]) -> Iterator[str]:
    """What could not be checked, and why."""
    sound = (in_range(one.row) for one in judged if not one.likeness)
    if all_or_nothing := sum(map(has_three, sound)):
        told = _count(all_or_nothing, "row")
        yield f"sensitivity and specificity are 0 or 1 in {told}: a real AUC may be their mean there"
    if unknown := sum(one.row.design is None for one in judged):
        yield f"folds, positives and negatives not given for {_count(unknown, 'row')}: counts not checked there"
    if untried := sum(one.search.too_many for one in judged):
        yield f"too many counts to search in {_count(untried, 'row')}: only its numbers one by one, and their means"


def _coverage(counts: Mapping[str, int], rows: int) -> str:
    return f"checked, of {_count(rows, 'row')}: " + ", ".join(f"{rule} {number}" for rule, number in counts.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
