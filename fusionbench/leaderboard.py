"""The leaderboard: runs in, one table of methods out; refuses to compare what was tested on different folds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench.comparing import KNOWN, Interval, compare, pooled_score, undefined
from fusionbench.csvtext import csv_text
from fusionbench.imported import check_free, with_imported
from fusionbench.jsontext import json_text
from fusionbench.markdown import escaped, markdown_table
from fusionbench.metrics import METRICS
from fusionbench.rows import Row, failure_notes, mark_notes, rows_of
from fusionbench.runs import Ranked, Run, read_runs

if TYPE_CHECKING:
    from fusionbench.comparing import Findings, Standing
    from fusionbench.published import Published, Score

__all__ = ["NARROW", "SHOWN", "Leaderboard", "Row", "mean_std"]

SHOWN = ("roc_auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity")
"""The metrics of a narrow table."""
NARROW = 100
"""Characters that a line needs for all of them."""
UNKNOWN = Interval(math.nan, math.nan, "")
PUBLISHED = "published"
"""Before the name of a metric: the column of what a paper printed."""


ONE_FOLD = "scores of the one test fold; decisions at .5"
SYNTHETIC = "synthetic data: this shows that the machinery works, and nothing about medicine"


@dataclass(frozen=True)
class Leaderboard:
    """Methods by descending ROC-AUC, with what makes them comparable.

    Where a test fold has no ROC-AUC they come in the order of that of all test folds of a repeat together.
    """

    rows: tuple[Row, ...]
    cohort: dict[str, Any]
    folds: int
    ranking: tuple[Ranked, ...]
    sites: Mapping[str, str] = field(default_factory=dict)
    """Number of a fold -> its site, where each fold is a site."""
    ranked_by: str = ""
    """What the modalities were ranked by: the score, and whose."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Method that `all` would have meant -> why the cohort has not the data for it."""
    published: Published | None = None
    """What a paper printed, to stand beside ours."""

    @classmethod
    def of(cls, *runs: Run) -> Leaderboard:
        """The leaderboard of some runs; UsageError as `rows_of`, for runs that are not paired or names that clash."""
        positive = runs[0].facts["cohort"]["positive_class"]
        ordered = sorted(rows_of(runs), key=lambda row: (_descending(_placed_by(row, positive)), row.method))
        ranking = {(r.experiment, r.repeat, r.fold, r.rank): r for run in runs for r in run.ranking}
        by = dict.fromkeys(told["ranked_by"] for run in runs for told in run.facts["methods"].values())
        return cls(
            rows=tuple(ordered),
            cohort=runs[0].facts["cohort"],
            folds=runs[0].facts["folds"]["count"],
            ranking=tuple(ranking.values()),
            sites=runs[0].facts["folds"].get("sites", {}),
            ranked_by="; ".join(filter(None, by)),
            left_out={method: why for run in runs for method, why in run.facts["left_out"].items()},
        )

    @classmethod
    def read(cls, *folders: Path, imported: Mapping[str, Path] | None = None) -> Leaderboard:
        """The leaderboard of some run folders, and of predictions made elsewhere: method -> CSV."""
        runs = read_runs(folders)
        for method, path in (imported or {}).items():
            for run in runs:
                check_free(run, method, path)
            runs[0] = with_imported(runs[0], method, path)
        return cls.of(*runs)

    @cached_property
    def findings(self) -> Findings | None:
        """Which differences are real, and how well each score is known; None if nothing was tested."""
        tested = {row.method: row.tested for row in self.rows if row.tested and not row.failed}
        if not tested:
            return None
        told = {"groups": self.cohort["groups"], "subjects": self.cohort["subjects"]}
        return compare(tested, self.cohort["positive_class"], **told)

    @property
    def standings(self) -> dict[str, Standing]:
        """Method -> the places that it may have; empty where no test over folds can tell."""
        findings = self.findings
        return {} if findings is None or findings.untested else {s.method: s for s in findings.standings}

    def beside(self, published: Published) -> Leaderboard:
        """The same table with what a paper printed about these methods beside our scores."""
        return replace(self, published=published)

    def to_csv(self) -> str:
        """method, experiment, marks, places, <metric>_low and _high, <metric>_mean and _std; floats by repr.

        `rank_low`, `rank_high` and `tied_with` are empty where no test over folds can tell; `_low` and `_high` are the
        95 % intervals of `compare`, conditional on the fitted models. What is not defined is empty.

        With published scores also published_<metric>_mean and published_<metric>_std, empty where nothing is known.
        """
        header = ["method", "experiment", "marks", "failed", "rank_low", "rank_high", "tied_with"]
        header += [f"{metric}_{end}" for metric in KNOWN for end in ("low", "high")]
        header += [f"{column.replace(' ', '_')}_{s}" for column in self.columns(METRICS) for s in ("mean", "std")]
        rows = [
            [row.method, row.experiment, "; ".join(row.marks), row.failed, *self._place(row)]
            + [end for interval in self._intervals(row) for end in (interval.low, interval.high)]
            + [number for column in self.columns(METRICS) for number in self._numbers(row, column)]
            for row in self.rows
        ]
        return csv_text(header, rows)

    def to_markdown(self) -> str:
        """The table of the metrics shown, with its notes below."""
        header = ["method", *self.ranked(), *self.columns()]
        rows = [[row.title, *self.ranked(row), *self.cells(row)] for row in self.rows]
        notes = "\n".join(f"- {escaped(note)}" for note in self.notes())
        return f"{markdown_table(header, rows)}\n\n{notes}\n"

    def to_json(self) -> str:
        """Everything, with the score of every fold; null where one is not defined."""
        rows = [
            {"method": r.method, "experiment": r.experiment, "marks": r.marks, "failed": r.failed, "scores": r.scores}
            | dict(zip(("rank_low", "rank_high", "tied_with"), self._place(r), strict=True))
            | {"intervals": dict(zip(KNOWN, map(asdict, self._intervals(r)), strict=True))}
            | ({"published": [_told(score) for score in self._printed(r).values()]} if self.published else {})
            for r in self.rows
        ]
        told = {"cohort": self.cohort, "folds": self.folds, "notes": self.notes(), "rows": rows}
        return json_text(told, sort_keys=True)

    def columns(self, metrics: Iterable[str] = SHOWN) -> tuple[str, ...]:
        """These metrics, each with `published <metric>` behind it if a paper printed it."""
        printed = {score.our_metric for score in self.published.scores} if self.published else set()
        return tuple(c for m in metrics for c in (m, *([f"{PUBLISHED} {m}"] if m in printed else [])))

    def narrow_columns(self, width: int = NARROW) -> tuple[str, ...]:
        """The columns for a terminal: what was published, or the places, or nothing, stand where the accuracy does."""
        if self.published:
            return (*SHOWN[:2], f"{PUBLISHED} {SHOWN[1]}", *SHOWN[3:])
        return (*SHOWN[:2], *SHOWN[3:]) if self.standings or width < NARROW else SHOWN

    def ranked(self, row: Row | None = None) -> list[str]:
        """The cell of the places that a row may have, or of the header; none where there are too few folds to tell."""
        if not self.standings:
            return []
        if row is None:
            return ["rank"]
        return [self.standings[row.method].ranks if row.method in self.standings else ""]

    def _place(self, row: Row) -> list[Any]:
        standing = self.standings.get(row.method)
        return [standing.rank_low, standing.rank_high, "; ".join(standing.tied_with)] if standing else [None, None, ""]

    def _intervals(self, row: Row) -> list[Interval]:
        known = {e.method: e.intervals for e in self.findings.estimates} if self.findings else {}
        return [known.get(row.method, {}).get(name, UNKNOWN) for name in KNOWN]

    def cells(self, row: Row, columns: Sequence[str] = ()) -> list[str]:
        """The scores of a row as text: mean ± std, or `failed`, with the reason among the notes."""
        columns = columns or self.columns()
        texts = ["" if row.failed and c in METRICS else mean_std(*self._numbers(row, c)) for c in columns]
        return ["failed", *texts[1:]] if row.failed else texts

    def _numbers(self, row: Row, column: str) -> tuple[float | None, float | None]:
        """Mean and deviation of a column; of a published one what is known of them."""
        if column in METRICS:
            return row.mean(column), row.std(column)
        score = self._printed(row).get(column.removeprefix(f"{PUBLISHED} "))
        return (score.mean, score.std) if score else (None, None)

    def _printed(self, row: Row) -> dict[str, Score]:
        if self.published is None or row.altered:
            return {}
        return self.published.of(row.fusion, row.modalities, row.attention, row.backbones)

    def notes(self) -> list[str]:
        """What must be known to read the table, one line each."""
        cohort = self.cohort
        counts = ", ".join(f"{n} {name}" for name, n in cohort["classes"].items())
        scores = max((len(row.scores.get(SHOWN[0], ())) for row in self.rows), default=0)
        remarks = [f"{row.method}: {text}" for row in self.rows for text in row.remarks]
        left_out = [f"left out: {method} {reason}" for method, reason in self.left_out.items()]
        return [
            f"positive class {cohort['positive_class']}; {cohort['subjects']} subjects ({counts}) of {cohort['name']}",
            f"mean ± sample std over {scores} test folds; decisions at .5" if scores != 1 else ONE_FOLD,
            *self._folds_notes(),
            *([SYNTHETIC] if cohort["synthetic"] and not any("synthetic" in note for note in cohort["notes"]) else []),
            *self._tied(),
            *(self.findings.notes() if self.findings else []),
            *cohort["notes"],
            *mark_notes(self.rows),
            *remarks,
            *failure_notes(self.rows),
            *left_out,
            *self._published_notes(),
        ]

    def _folds_notes(self) -> list[str]:
        """Who was never tested, what is not defined on which folds, and how methods are placed then."""
        tested = [row for row in self.rows if row.tested and not row.failed]
        if not tested:
            return []
        positive = self.cohort["positive_class"]
        ids = {id for part in tested[0].tested.values() for id in part.ids}
        never = self.cohort["subjects"] - len(ids)
        notes = [f"{len(ids)} subjects were tested, {never} only trained on"] if never else []
        notes += undefined(tested[0].tested, positive, SHOWN, self.sites)
        if not math.isnan(tested[0].mean(SHOWN[0])):
            return notes
        places = ", ".join(f"{row.method} {_placed_by(row, positive):.3f}" for row in tested)
        return [
            *notes,
            f"in the order of {SHOWN[0]} over all test folds of a repeat pooled, which mixes models: {places}",
        ]

    def _tied(self) -> list[str]:
        """Who could not be told from the first."""
        first = next(iter(self.standings.values()), None)
        if first is None:
            return []
        told = ", ".join(first.tied_with) or "nobody"
        return [f"tied with {first.method} in {SHOWN[0]}: {told}; rank is the places that a method may have"]

    def _published_notes(self) -> list[str]:
        """What the published column is, whether it can be compared, and what is odd about its numbers."""
        if self.published is None:
            return []
        name, counts = self.published.name, self.published.subjects
        printed = [(row.method, score) for row in self.rows for score in self._printed(row).values()]
        shown = [(method, score) for method, score in printed if score.our_metric == SHOWN[1]]
        of = f"{sum(counts.values())} subjects ({', '.join(f'{n} {c}' for c, n in counts.items())})"
        same = dict(self.cohort["classes"]) == dict(counts)
        return [
            f"{PUBLISHED}: {'; '.join(self.published.sources)}, on {name}",
            *self.published.notes,
            *(
                [f"synthetic data here: the {PUBLISHED} column is not comparable at all"]
                if self.cohort["synthetic"]
                else [f"{PUBLISHED} on {of}, here {'as many' if same else 'others'}: comparable on the same data only"]
            ),
            *(["nothing is known to be published about these methods"] if not printed else []),
            *(f"{PUBLISHED} {method}: {score.note}" for method, score in shown if score.note),
        ]

    def orders(self) -> list[tuple[int, int, tuple[Ranked, ...]]]:
        """(repeat, fold, the modalities in the order found), for the experiments that rank on evidence."""
        groups: dict[tuple[str, int, int], list[Ranked]] = {}
        for line in self.ranking:
            if not line.inner_scores:
                continue
            groups.setdefault((line.experiment, line.repeat, line.fold), []).append(line)
        distinct = {(r, f, tuple(x.modality for x in lines)): tuple(lines) for (_, r, f), lines in groups.items()}
        return [(repeat, fold, lines) for (repeat, fold, _), lines in sorted(distinct.items())]


def mean_std(mean: float | None, std: float | None) -> str:
    """A mean with its deviation as text, without what is not known or not defined.

    >>> mean_std(0.9, 0.1), mean_std(0.9, None), mean_std(math.nan, math.nan)
    ('0.900 ± 0.100', '0.900', '')
    """
    return " ± ".join(f"{number:.3f}" for number in (mean, std) if number is not None and not math.isnan(number))


def _placed_by(row: Row, positive: str) -> float:
    """The mean ROC-AUC, or that of the folds pooled where one has none; NaN if the method failed."""
    mean = row.mean(SHOWN[0])
    return pooled_score(row.tested, METRICS[SHOWN[0]], positive) if math.isnan(mean) and not row.failed else mean


def _told(score: Score) -> dict[str, Any]:
    names = ("source", "table", "dataset", "method", "metric", "our_metric", "mean", "std", "note")
    return {name: getattr(score, name) for name in names}


def _descending(value: float) -> float:
    return math.inf if math.isnan(value) else -value
