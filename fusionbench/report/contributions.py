"""What each modality is worth to a strategy: every subset of its modalities, and exact Shapley values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fusionbench.comparing import shapley
from fusionbench.errors import summary
from fusionbench.leaderboard import Leaderboard, Row, mean_std
from fusionbench.report.axes import Scale, span, told
from fusionbench.report.document import Block, Cell, Figure, Paragraph, Table, listed, number
from fusionbench.report.drawing import Box, Drawing, Label, Line, Shape, reach, shortened
from fusionbench.report.scores import signed
from fusionbench.report.sources import Setup

METRIC = "roc_auc"
CHANCE = 0.5
"""The ROC-AUC of no modality at all."""
FEWEST = 3
"""Subsets that are worth a table."""
WIDTH, ROW = 300.0, 26.0

Names = frozenset[str]


@dataclass(frozen=True)
class Lattice:
    """One strategy on several sets of modalities, and nothing else that differs."""

    fusion: str
    order: tuple[str, ...]
    """All its modalities."""
    own: Mapping[Names, Row]
    alone: Mapping[Names, Row]
    """What stands for the strategy on a single modality, where it was not tried on one."""
    otherwise: frozenset[Names]
    """The sets that it was tried on with other settings only: nothing is made of these."""

    @property
    def rows(self) -> dict[Names, Row]:
        """Both together."""
        return {**self.alone, **self.own}

    @property
    def label(self) -> str:
        """The name of the row that has every modality."""
        return self.own[frozenset(self.order)].method

    @property
    def base(self) -> Names | None:
        """The set that all subsets between it and the whole are known of: none, or one modality; None if neither is."""
        return next((base for base in self._bases() if not self._lacks(base)), None)

    @property
    def missing(self) -> list[Names]:
        """The sets without a score that Shapley values would need, by the base that needs the fewest; none if none."""
        return min((self._lacks(base) for base in self._bases()), key=len, default=[])

    def gains(self) -> dict[str, float]:
        """Modality -> its exact Shapley value, of all modalities or of those beside the one that is always there."""
        base, rows = self.base, self.rows
        if base is None:
            return {}
        others = [name for name in self.order if name not in base]
        scores = {some: rows[some | base].mean(METRIC) for some in _subsets(others) if some | base}
        found = shapley({frozenset(): CHANCE} | scores if not base else scores)
        return {name: found[name] for name in others}

    def _bases(self) -> list[Names]:
        return [frozenset[str](), *(frozenset([name]) for name in self.order)]

    def _lacks(self, base: Names) -> list[Names]:
        """The sets between the base and the whole that have no score."""
        rows = self.rows
        needed = [some | base for some in _subsets([name for name in self.order if name not in base]) if some | base]
        return [some for some in needed if some not in rows or math.isnan(rows[some].mean(METRIC))]


def lattices(board: Leaderboard, setup: Callable[[Row], Setup]) -> list[Lattice]:
    """One for each strategy that was tried on a set of several modalities and on parts of it, all else being equal.

    `setup` says of a row what else that is.
    """
    built: dict[tuple[object, ...], dict[Setup, dict[Names, Row]]] = {}
    for row in board.rows:
        if row.modalities and not row.failed:
            alike = built.setdefault((row.fusion, row.attention, row.backbones, row.altered), {})
            alike.setdefault(setup(row), {}).setdefault(frozenset(row.modalities), row)
    singles = [(asked, own) for alike in built.values() for asked, own in alike.items()]
    found = []
    for alike in built.values():
        for asked, own in alike.items():
            whole = max(own.values(), key=lambda row: len(row.modalities))
            if len(whole.modalities) > 1 and all(some <= set(whole.modalities) for some in own):
                order = _ordered([name for name in board.cohort["modalities"] if name in whole.modalities], own)
                within = {some for other in alike.values() for some in other if some < set(whole.modalities)}
                alone = _alone(whole, [rows for their, rows in singles if their[1] == asked[1]], own)
                found.append(Lattice(whole.fusion, order, own, alone, frozenset(within - {*own, *alone})))
    return found


def _ordered(names: Sequence[str], own: Iterable[Names]) -> tuple[str, ...]:
    """What is in most sets first: so what is always there."""
    sets = list(own)
    return tuple(sorted(names, key=lambda name: -sum(name in some for some in sets)))


def contributions(board: Leaderboard, setup: Callable[[Row], Setup]) -> Iterator[Block]:
    """A table of subsets for each strategy that was taken apart, and Shapley values where all subsets are known.

    Where one was taken apart and some subset is missing, which.
    """
    found = lattices(board, setup)
    for lattice in found:
        if len(lattice.own) >= FEWEST:
            yield _subset_table(lattice)
        if lattice.base is None and len({*lattice.own, *lattice.otherwise}) >= FEWEST:
            yield Paragraph(_why_none(lattice))
    known = [(lattice, lattice.gains()) for lattice in found if lattice.gains()]
    if known:
        yield Figure("shapley", _caption([lattice for lattice, _ in known]), tuple(gain_bars(*one) for one in known))
        yield _gain_table(known)


def gain_bars(lattice: Lattice, gains: Mapping[str, float]) -> Drawing:
    """A bar per modality from nought to its Shapley value."""
    left = min(max(map(reach, gains)), 110.0) + 14
    scale = Scale(*span([0.0, *gains.values()]), left, WIDTH - 56)
    bottom = 26 + ROW * len(gains)
    shapes: list[Shape] = [Label(8, 14, shortened(lattice.label, 34), "start", 12.5, "ink", bold=True)]
    for value in scale.ticks(4):
        shapes += [Line(((scale(value), 26), (scale(value), bottom)), "rule")]
        shapes += [Label(scale(value), bottom + 14, told(value), "middle", 10.5, "muted")]
    for row, (name, gain) in enumerate(gains.items()):
        y = 26 + ROW * row
        start, end = sorted((scale(0.0), scale(gain)))
        shapes += [Label(left - 8, y + 17, shortened(name, 16), "end"), Box(start, y + 6, end - start, 14, "accent")]
        shapes += [Label(scale.end + 8, y + 17, signed(gain), "start", 11.5)]
    shapes.append(Line(((scale(0.0), 26), (scale(0.0), bottom)), "ink"))
    words = "; ".join(f"{name} {signed(gain)}" for name, gain in gains.items())
    return Drawing.of(
        f"shapley-{lattice.label}", f"Shapley values, {lattice.label}", words, (WIDTH, bottom + 24), shapes
    )


def _alone(whole: Row, groups: Iterable[Mapping[Names, Row]], own: Mapping[Names, Row]) -> dict[Names, Row]:
    """Rows of another strategy, built alike, for the single modalities that this one has no row of its own for."""
    missing = [frozenset([name]) for name in whole.modalities if frozenset([name]) not in own]
    for group in groups:
        first = next(iter(group.values()))
        alike = (first.attention, first.backbones) == (whole.attention, whole.backbones) and not first.altered
        if group is not own and alike and all(one in group for one in missing):
            return {one: group[one] for one in missing}
    return {}


def _why_none(lattice: Lattice) -> str:
    """Which rows Shapley values would need."""
    named = {some: " + ".join(name for name in lattice.order if name in some) for some in lattice.missing}
    other = [name for some, name in named.items() if some in lattice.otherwise]
    tried = f" {summary(other, ', ')} is there with other settings only, which are not mixed." if other else ""
    return (
        f"No Shapley values of {lattice.label}: they need the ROC-AUC of every subset with all other settings alike, "
        f"and there is none of {summary(list(named.values()), ', ')}.{tried}"
    )


def _subsets(names: Sequence[str]) -> list[Names]:
    return [frozenset(some) for size in range(len(names) + 1) for some in combinations(names, size)]


def _subset_table(lattice: Lattice) -> Table:
    whole = lattice.own[frozenset(lattice.order)]
    rows = sorted(lattice.own.items(), key=lambda item: (len(item[0]), [name not in item[0] for name in lattice.order]))
    return Table(
        name=f"subsets-{lattice.label}",
        caption=(
            f"{lattice.fusion} on subsets of its modalities, mean over the test folds ± sample standard deviation. "
            "Last column: against all modalities."
        ),
        header=("Method", *lattice.order, "ROC-AUC", "Balanced accuracy", "Difference"),
        rows=tuple(
            (
                Cell(row.method),
                *(Cell("●", 1.0) if name in some else Cell("", 0.0) for name in lattice.order),
                _score(row, METRIC),
                _score(row, "balanced_accuracy"),
                Cell("") if row is whole else _gap(row.mean(METRIC) - whole.mean(METRIC)),
            )
            for some, row in rows
        ),
        sortable=True,
    )


def _gap(value: float) -> Cell:
    return Cell(signed(value), number(value).value)


def _score(row: Row, metric: str) -> Cell:
    return Cell(mean_std(row.mean(metric), row.std(metric)), number(row.mean(metric)).value)


def _caption(known: Sequence[Lattice]) -> str:
    based = {base for lattice in known if (base := lattice.base)}
    always = sorted(name for base in based for name in base)
    empty = (
        f"the modalities beside {listed(always)}, which is always there; the value of no further modality is "
        f"{listed(always)} alone"
        if based
        else f"all modalities; the value of no modality is {CHANCE}, the ROC-AUC of chance"
    )
    borrowed = {row.method for lattice in known for row in lattice.alone.values()}
    singles = f" A single modality is scored by {listed(sorted(borrowed))}." if borrowed else ""
    return (
        f"Exact Shapley values of mean ROC-AUC: the mean gain over every order in which modalities may be added, of "
        f"{empty}. They describe these models on these folds; no interval is known.{singles}"
    )


def _gain_table(known: Sequence[tuple[Lattice, Mapping[str, float]]]) -> Table:
    names = list(dict.fromkeys(name for _, gains in known for name in gains))
    rows = []
    for lattice, gains in known:
        base = lattice.base or frozenset()
        start = lattice.rows[base].mean(METRIC) if base else CHANCE
        worth = (_gap(gains[name]) if name in gains else Cell("") for name in names)
        rows.append(
            (Cell(lattice.label), number(start), *worth, number(lattice.own[frozenset(lattice.order)].mean(METRIC)))
        )
    return Table(
        "shapley", "Shapley values: they lead from the value of the empty set to that of all modalities.",
        ("Method", "Empty set", *names, "All"), tuple(rows),
    )  # fmt: skip
