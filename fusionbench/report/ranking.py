"""How modalities were ranked, and how certain the order is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusionbench.comparing import Agreement, agreement
from fusionbench.leaderboard import Leaderboard
from fusionbench.report.axes import Scale
from fusionbench.report.document import Block, Cell, Figure, Paragraph, Table, number
from fusionbench.report.drawing import Box, Drawing, Label, Line, Shape, Tone, reach, shortened
from fusionbench.report.scores import readable
from fusionbench.runs import Ranked

WIDTH, ROW, GUTTER, LETTERS = 640.0, 46.0, 160.0, 22
PLACES: tuple[Tone, ...] = ("accent", "soft", "rule", "faint")
"""First, second, third, and all others."""

Order = tuple[int, int, tuple[Ranked, ...]]
"""Repeat, fold, the modalities in the order found."""


@dataclass(frozen=True)
class Ranking:
    """The orders of the same modalities that were found on several folds."""

    orders: tuple[Order, ...]
    agreement: Agreement
    frequency: Mapping[str, tuple[float, ...]]
    """Modality -> the share of folds in which it came first, second, ..."""
    probability: Mapping[str, tuple[float, ...]]
    """Modality -> P(first), P(second), ... if patients were drawn again, the mean over folds; may be empty."""


def rankings(board: Leaderboard) -> list[Ranking]:
    """One for each set of modalities that was ranked on evidence, and is no part of another that was."""
    groups: dict[frozenset[str], list[Order]] = {}
    for order in board.orders():
        groups.setdefault(frozenset(line.modality for line in order[2]), []).append(order)
    whole = {names: orders for names, orders in groups.items() if not any(names < others for others in groups)}
    return [_ranking(tuple(orders)) for names, orders in whole.items() if len(names) > 1]


def ranked(board: Leaderboard) -> Iterator[Block]:
    """A figure and a table for each ranking, and every order; nothing if nothing was ranked."""
    found = rankings(board)
    if found:
        yield Paragraph(f"Modalities were ranked for each test fold ({readable(board.ranked_by)}).")
    for several in found:
        names = list(several.agreement.mean_rank)
        yield Figure(
            f"ranking-{'-'.join(names)}",
            "How often each modality took each place: upper bars over the folds, lower bars when the patients behind "
            "each ranking are drawn again (mean over folds, models not fitted again). The strongest tone is the first.",
            (place_bars(several),),
        )
        yield _places(several)
        yield _orders(several)


def place_bars(ranking: Ranking) -> Drawing:
    """Two bars per modality, divided by place."""
    names = list(ranking.agreement.mean_rank)
    left = min(max(reach(name) for name in names), GUTTER) + 20
    scale, bottom = Scale(0, 1, left, WIDTH - 24), 8 + ROW * len(names)
    shapes: list[Shape] = []
    for row, name in enumerate(names):
        y = 8 + ROW * row
        shapes.append(Label(left - 12, y + 22, shortened(name, LETTERS), "end"))
        shapes += _divided(ranking.frequency[name], y + 4, 14, scale)
        shapes += _divided(ranking.probability.get(name, ()), y + 21, 8, scale)
    for share in scale.ticks(5):
        shapes.append(Label(scale(share), bottom + 14, f"{share:.0%}", "middle", 11, "muted"))
    told = "; ".join(f"{name} first in {ranking.frequency[name][0]:.0%} of folds" for name in names)
    return Drawing.of(f"ranking-{'-'.join(names)}", "Places of the modalities", told, (WIDTH, bottom + 24), shapes)


def agreed(several: Agreement) -> str:
    """Kendall's W in words.

    >>> agreed(agreement([["a", "b"], ["a", "b"]]))
    "Kendall's W 1.00 over 2 orders (1: all the same, 0: no agreement); folds share most training data, so it flatters"
    """
    if math.isnan(several.kendall_w):
        return "Kendall's W needs two orders"
    return (
        f"Kendall's W {several.kendall_w:.2f} over {several.orders} orders (1: all the same, 0: no agreement); folds "
        "share most training data, so it flatters"
    )


def _ranking(orders: tuple[Order, ...]) -> Ranking:
    found = agreement([[line.modality for line in lines] for _, _, lines in orders])
    places = range(1, len(found.mean_rank) + 1)
    taken = {
        name: [line.rank for _, _, lines in orders for line in lines if line.modality == name] for name in found.first
    }
    drawn = {
        name: [line.probabilities for _, _, lines in orders for line in lines if line.modality == name]
        for name in found.first
    }
    return Ranking(
        orders=orders,
        agreement=found,
        frequency={name: tuple(ranks.count(place) / len(ranks) for place in places) for name, ranks in taken.items()},
        probability={
            name: tuple(map(statistics.fmean, zip(*several, strict=True)))
            for name, several in drawn.items()
            if all(several)
        },
    )


def _divided(shares: Sequence[float], y: float, height: float, scale: Scale) -> Iterator[Shape]:
    start = 0.0
    for place, share in enumerate(shares):
        tone = PLACES[min(place, len(PLACES) - 1)]
        yield Box(scale(start), y, scale(start + share) - scale(start), height, tone)
        start += share
        yield Line(((scale(start), y), (scale(start), y + height)), "ground")


def _places(ranking: Ranking) -> Table:
    count = len(ranking.frequency)
    known = bool(ranking.probability)
    rows = []
    for name, mean in ranking.agreement.mean_rank.items():
        first = ranking.agreement.first[name]
        drawn = map(number, ranking.probability.get(name, ()), [2] * count)
        rows.append((Cell(name), Cell(f"{first} of {ranking.agreement.orders}", first), number(mean, 2), *drawn))
    return Table(
        name="places",
        caption=f"Places of the modalities. {agreed(ranking.agreement)}.",
        header=("Modality", "Came first", "Mean rank", *(f"P(rank {n})" for n in range(1, count + 1) if known)),
        rows=tuple(rows),
        sortable=True,
    )


def _orders(ranking: Ranking) -> Table:
    rows = (
        (
            Cell(f"repeat {repeat}, fold {fold}"),
            Cell(" > ".join(f"{line.modality} {line.score:.3f}" for line in lines)),
        )
        for repeat, fold, lines in ranking.orders
    )
    return Table(
        "orders",
        "The order found for each test fold, with the scores that it stands on. Repeats and folds count from 0, as in "
        "the files.",
        ("Fold", "Order"), tuple(rows), left=2, folded=True,
    )  # fmt: skip
