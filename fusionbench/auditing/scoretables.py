"""Printed score tables as CSV: each number with how exactly it was printed. docs/audit.md has the format.

Long: a line per number (`method`, `metric`, `mean`, perhaps `std`). Wide: a line per method and a column per metric,
`NAME` with cells such as "0.85 ± 0.03", or `NAME` and `NAME_std`, or `NAME_mean` and `NAME_std` as leaderboard.csv has.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from statistics import median

from fusionbench.auditing.foldcounts import Design, Span
from fusionbench.csvtext import csv_rows
from fusionbench.errors import UsageError, nearest, summary

METRICS = {
    "auc": ("auc", "auroc", "roc_auc"),
    "accuracy": ("accuracy", "acc"),
    "sensitivity": ("sensitivity", "sens", "sen", "tpr"),
    "specificity": ("specificity", "spec", "spe", "tnr"),
    "balanced_accuracy": ("balanced_accuracy", "bacc"),
    "precision": ("precision", "ppv"),
    "npv": ("npv",),
    "recall": ("recall",),
    "f1": ("f1", "f1_score"),
    "average_precision": ("average_precision",),
}
"""Metric in [0, 1] -> the names that mean it."""
FIXED = frozenset({"method", "dataset", "table", "folds", "positives", "negatives", "note", "source"})
"""Columns of a wide table that are no metric."""
MISSING = frozenset({"", "-", "–", "—", "n/a", "na", "nan"})
PERCENT_SIGN = re.compile(r"(?<=[\d.)])\s*%(?=\s|±|\(|$)", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d{1,12}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
CELL = re.compile(r"(?P<mean>[^±()]+)(?:±(?P<std>[^±()]+)|\((?P<bracket>[^±()]+)\))?")
PERCENT_FROM = 2.0
"""If the middle one of a metric's numbers is larger, they are percentages."""
PROGRAM_FROM = 7
"""If a number has so many decimals, a program wrote the table, and the short numbers in it are exact, too."""
MOST_FOLDS = 1000
MOST_SUBJECTS = 1_000_000


@dataclass(frozen=True)
class Number:
    """A printed number as a share, and one unit of its last digit, or 0 if it is exact."""

    text: str
    """As printed."""
    value: float
    unit: float

    @property
    def decimals(self) -> int:
        """How many are printed."""
        return _decimals(self.text)

    @property
    def span(self) -> Span:
        """What it may stand for: it is rounded, cut off or rounded up."""
        return self.value - self.unit, self.value + self.unit


@dataclass(frozen=True)
class Printed:
    """A mean and perhaps a deviation, as shares."""

    mean: Number
    std: Number | None = None
    percent: bool = False
    derived: bool = False
    """Computed from other numbers by whoever made the file, in part or whole."""

    def __str__(self) -> str:
        """As printed."""
        return self.mean.text + (f" ± {self.std.text}" if self.std else "") + (" %" if self.percent else "")


@dataclass(frozen=True)
class PrintedRow:
    """What a table says of a method."""

    method: str
    dataset: str = ""
    table: str = ""
    folds: int | None = None
    design: Design | None = None
    scores: Mapping[str, Printed] = field(default_factory=dict)
    """Metric, by our name -> what was printed."""


@dataclass(frozen=True)
class ScoreTable:
    """Rows of printed scores, and how the file was read."""

    rows: tuple[PrintedRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Cell:
    """A score before it is known whether it is a percentage."""

    row: int
    metric: str
    mean: str
    std: str
    percent: bool
    """Whether it says so."""
    derived: bool = False


def read_scores(text: str, designs: Mapping[str, Design] | None = None) -> ScoreTable:
    """The scores of a CSV; with designs, data set -> folds and classes, which the file need not repeat then.

    Raises UsageError, in one line, if the text is no such table.
    """
    lines = _lines(text)
    return (_long if {"metric", "mean"} <= lines[0].keys() else _wide)(lines, designs or {})


def _lines(text: str) -> list[dict[str, str]]:
    """The lines below the header, column in lower case -> cell with plain blanks."""
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
        raw = csv_rows(text)
    except csv.Error as error:
        raise UsageError(f"no CSV: {error}") from error
    names = [_plain(name) for name in header]
    if "method" not in names:
        found = summary([name[:30] for name in names], ", ") or "none"
        raise UsageError(f"no column 'method', separated by commas: the columns are {found}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two columns {twice[0]!r}: rename one")
    if not raw:
        raise UsageError("a header and no line below it")
    return [_line(number, names, list(row.values())) for number, row in enumerate(raw, 1)]


def _line(number: int, names: Sequence[str], cells: Sequence[str | None]) -> dict[str, str]:
    if len(cells) != len(names) or None in cells:
        raise UsageError(f"row {number} has not as many cells as the header has columns, {len(names)}: quote commas")
    line = {name: " ".join((cell or "").split()) for name, cell in zip(names, cells, strict=True)}
    if not line["method"]:
        raise UsageError(f"row {number} names no method")
    if unprintable := [cell for cell in line.values() if not cell.isprintable()]:
        raise UsageError(f"row {number}: {unprintable[0][:40]!r} has characters that cannot be shown: remove them")
    return line


def _long(lines: Sequence[Mapping[str, str]], designs: Mapping[str, Design]) -> ScoreTable:
    """A line per number; the lines of a method in a table of a data set make a row."""
    rows: dict[tuple[str, str, str], PrintedRow] = {}
    places: dict[tuple[str, str, str], int] = {}
    cells: dict[tuple[int, str], _Cell] = {}
    unknown: list[str] = []
    for number, line in enumerate(lines, 1):
        row = _row(number, line, designs)
        key = (row.dataset, row.table, row.method)
        if rows.setdefault(key, row) != row:
            raise UsageError(f"row {number}: {row.method!r} has other folds, positives or negatives than above")
        place = places.setdefault(key, len(places))
        if not (metric := _metric(line["metric"])):
            unknown.append(_plain(line["metric"]))
            continue
        if (place, metric) in cells:
            raise UsageError(f"row {number}: {row.method!r} has two numbers of {metric}: give them different tables")
        cell = _cell(number, metric, line["mean"], line.get("std", ""), percent="%" in line["metric"])
        if cell:
            derived = "derived" in line.get("note", "")
            cells[place, metric] = replace(cell, row=place, derived=derived)
    if len(unknown) == len(lines):
        raise UsageError(f"no metric is known, such as {unknown[0]!r}: {nearest(unknown[0], METRICS)}")
    return _table(list(rows.values()), list(cells.values()), _told("metrics", unknown))


def _wide(lines: Sequence[Mapping[str, str]], designs: Mapping[str, Design]) -> ScoreTable:
    """A line per method, a column per metric."""
    columns = _columns(list(lines[0]))
    cells: list[_Cell] = []
    for number, line in enumerate(lines, 1):
        for metric, (mean, std) in columns.items():
            cell = _cell(number, metric, line[mean], line.get(std, ""), percent="%" in mean)
            cells += [replace(cell, row=number - 1)] if cell else []
    rows = [_row(number, line, designs) for number, line in enumerate(lines, 1)]
    known = FIXED.union(*columns.values())
    return _table(rows, cells, _told("columns", [name for name in lines[0] if name not in known]))


def _columns(header: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Metric -> (column of its means, column of its deviations or nothing)."""
    stds = {_bare(name).removesuffix("_std"): name for name in header if _bare(name).endswith("_std")}
    columns: dict[str, tuple[str, str]] = {}
    for name in header:
        base = _bare(name).removesuffix("_mean")
        if not (metric := _metric(base)):
            continue
        if metric in columns:
            raise UsageError(f"two columns of {metric}: {columns[metric][0]!r} and {name!r}: rename one")
        columns[metric] = (name, stds.get(base, ""))
    if not columns:
        raise UsageError(f"no column is a metric: name one of {', '.join(METRICS)}")
    return columns


def _plain(name: str) -> str:
    """As columns are compared: `Sensitivity (%)` is `sensitivity_%`."""
    return re.sub(r"[\s_()\[\]-]+", "_", name.strip("\ufeff").lower()).strip("_")


def _bare(name: str) -> str:
    return _plain(name.replace("%", ""))


def _metric(name: str) -> str:
    """Our name of a metric; empty if it is not known."""
    return next((metric for metric, names in METRICS.items() if _bare(name) in names), "")


def _row(number: int, line: Mapping[str, str], designs: Mapping[str, Design]) -> PrintedRow:
    dataset = line.get("dataset", "")
    folds = _whole(number, line, "folds", MOST_FOLDS)
    counts = [_whole(number, line, name, MOST_SUBJECTS) for name in ("positives", "negatives")]
    design = _design(number, folds, *counts) if any(counts) else designs.get(dataset)
    return PrintedRow(line["method"], dataset, line.get("table", ""), design.folds if design else folds, design)


def _whole(number: int, line: Mapping[str, str], column: str, most: int) -> int | None:
    text = line.get(column, "")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise UsageError(f"row {number}: {column} {text[:40]!r} is no whole number from 1 to {most}")
    return int(text)


def _design(number: int, folds: int | None, positives: int | None, negatives: int | None) -> Design:
    if not folds or not positives or not negatives:
        raise UsageError(f"row {number}: give folds, positives and negatives together (folds 1: one test set)")
    if min(positives, negatives) < folds:
        raise UsageError(f"row {number}: {positives} positives and {negatives} negatives do not fill {folds} folds")
    return Design(folds, positives, negatives)


def _cell(number: int, metric: str, text: str, std: str, *, percent: bool) -> _Cell | None:
    """The parts of a cell, checked; None if nothing was printed."""
    mean, inside = _parts(text)
    apart = "" if std.lower() in MISSING else _sign_less(std)
    if mean.lower() in MISSING and not inside and not apart:
        return None
    if inside and apart:
        raise UsageError(f"row {number}: {metric} has two deviations, {inside[:40]!r} and {apart[:40]!r}")
    deviation = inside or apart
    for part in (mean, deviation) if deviation else (mean,):
        if not NUMBER.fullmatch(part):
            raise UsageError(f"row {number}: {metric} {part[:40]!r} is no number: write 0.85, 85 % or 0.85 ± 0.03")
    return _Cell(0, metric, mean, deviation, percent or bool(PERCENT_SIGN.search(text)))


def _parts(text: str) -> tuple[str, str]:
    """(mean, deviation or nothing) of a cell, without percent signs; the whole of it if it has another form."""
    bare = _sign_less(text)
    match = CELL.fullmatch(bare)
    return (match["mean"].strip(), (match["std"] or match["bracket"] or "").strip()) if match else (bare, "")


def _sign_less(text: str) -> str:
    """Without percent signs, with plain minus and plus-minus."""
    return PERCENT_SIGN.sub("", text.replace("−", "-").replace("+/-", "±")).strip()


def _table(rows: Sequence[PrintedRow], cells: Sequence[_Cell], notes: Iterable[str]) -> ScoreTable:
    """Rows with their scores; each metric's numbers are percentages or shares, as a sign or their size tells."""
    large = {
        metric for metric in METRICS if _are_large([c.mean for c in cells if c.metric == metric and not c.percent])
    }
    read = [replace(cell, percent=cell.percent or cell.metric in large) for cell in cells]
    exact = any(_decimals(part) >= PROGRAM_FROM for cell in cells for part in (cell.mean, cell.std) if part)
    scores: list[dict[str, Printed]] = [{} for _ in rows]
    for cell in read:
        scores[cell.row][cell.metric] = _printed(cell, exact=exact)
    percent = sorted({cell.metric for cell in read if cell.percent})
    told = [f"read as percentages: {', '.join(percent)}"] if percent else []
    told += ["read as exact: a number has many decimals"] if exact else []
    filled = tuple(replace(row, scores=found) for row, found in zip(rows, scores, strict=True))
    return ScoreTable(filled, (*told, *notes))


def _are_large(means: Sequence[str]) -> bool:
    """Whether numbers without a percent sign are percentages."""
    return bool(means) and median(abs(float(mean)) for mean in means) > PERCENT_FROM


def _printed(cell: _Cell, *, exact: bool) -> Printed:
    return Printed(
        mean=_number(cell.mean, percent=cell.percent, exact=exact),
        std=_number(cell.std, percent=cell.percent, exact=exact) if cell.std else None,
        percent=cell.percent,
        derived=cell.derived,
    )


def _number(text: str, *, percent: bool, exact: bool) -> Number:
    scale = Decimal("0.01") if percent else Decimal(1)
    unit = Decimal((0, (1,), -_decimals(text)))
    return Number(text, float(Decimal(text) * scale), 0.0 if exact else float(unit * scale))


def _decimals(text: str) -> int:
    return -int(Decimal(text).as_tuple().exponent)


def _told(what: str, unknown: Iterable[str]) -> Iterator[str]:
    if names := list(dict.fromkeys(name[:30] for name in unknown)):
        yield f"{what} not looked at: {summary(names, ', ', 12)}"
