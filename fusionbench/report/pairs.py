"""Which methods can be told apart: a matrix, every pair in full, and the places that methods may have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fusionbench.comparing import Findings, Pair, Standing
from fusionbench.report.axes import Scale
from fusionbench.report.document import Block, Cell, Figure, Paragraph, Table, number
from fusionbench.report.drawing import Box, Dot, Drawing, Label, Line, Shape, reach, shortened
from fusionbench.report.scores import NAMES, NARROWLY, ends, p_text, readable, signed, why_untested

WIDTH = 640.0
ROW = 24.0
GUTTER = 200.0
"""The most pixels that names may take."""
LETTERS = 28


def differences(findings: Findings) -> Iterator[Block]:
    """The matrix and the diagram where there are folds enough, else why not; then every pair."""
    if len(findings.estimates) < 2:
        yield Paragraph("One method only: there is nothing to compare it with.")
        return
    if findings.untested:
        yield Paragraph(f"{why_untested(findings)} No method is placed before another.", warning=True)
    else:
        yield Figure(
            "ranks",
            "The places that each method may have. A bar begins behind all methods that the tests find better and ends "
            "before all that they find worse; the dot is the place of its mean. Bars may overlap though the tests "
            "separate their methods: the table below has each pair.",
            (rank_diagram(findings.standings),),
        )
        yield _matrix(findings)
    if not findings.undefined:
        yield _in_full(findings)
    if notes := [note for note in findings.notes() if note != findings.untested]:
        yield Paragraph(f"{'; '.join(map(readable, notes))}.")


def rank_diagram(standings: Sequence[Standing]) -> Drawing:
    """A bar per method from its best to its worst possible place."""
    count = len(standings)
    left = min(max(reach(s.method) for s in standings), GUTTER) + 20
    scale = Scale(1, max(count, 2), left + 12, WIDTH - 24)
    bottom = 12 + ROW * count
    return Drawing.of(
        "ranks",
        "Places that each method may have",
        "; ".join(f"{s.method}: {s.ranks}" for s in standings),
        (WIDTH, bottom + 44),
        [*_places(scale, count, bottom), *(shape for row, s in enumerate(standings) for shape in _bar(s, row, scale))],
    )


def _places(scale: Scale, count: int, bottom: float) -> Iterator[Shape]:
    for place in range(1, max(count, 2) + 1):
        yield Line(((scale(place), 8), (scale(place), bottom)), "rule")
        yield Label(scale(place), bottom + 15, str(place), "middle", 11, "muted")
    yield Label((scale.start + scale.end) / 2, bottom + 34, "place", "middle", 11.5, "muted")


def _bar(standing: Standing, row: int, scale: Scale) -> Iterator[Shape]:
    y = 8 + ROW * (row + 0.5)
    low, high = scale(standing.rank_low), scale(standing.rank_high)
    yield Label(scale.start - 20, y + 4, shortened(standing.method, LETTERS), "end")
    yield Box(low - 6, y - 5, high - low + 12, 10, "soft")
    yield Dot(scale(row + 1), y, 4, "accent")


def _matrix(findings: Findings) -> Table:
    names = [estimate.method for estimate in findings.estimates]
    known = {(pair.a, pair.b): pair for pair in findings.pairs}
    rows = []
    for row, a in enumerate(names[:-1]):
        rest = (_difference(known[a, b]) if column > row else Cell("") for column, b in enumerate(names) if column)
        rows.append((Cell(a), *rest))
    return Table(
        name="differences",
        caption=(
            f"Difference in mean {NAMES[findings.metric]}, row minus column, and the p-value of Nadeau and Bengio's "
            "corrected resampled t-test over the folds, adjusted by Holm for all pairs. Bold with a star: below 0.05; "
            f"from {NARROWLY} on that is narrow: of equal methods the test separates more than it should."
        ),
        header=("Row minus column", *names[1:]),
        rows=tuple(rows),
    )


def _difference(pair: Pair) -> Cell:
    star = "*" if pair.separated else ""
    return Cell(f"{signed(pair.difference)}{star}", pair.difference, f"p {p_text(pair.p_holm)}", strong=pair.separated)


def _in_full(findings: Findings) -> Table:
    tested = not findings.untested
    header = ["Pair", "Difference"]
    header += ["95 % interval, unadjusted", "p", "p (Holm)", "P(better)", "P(equal)", "P(worse)"] if tested else []
    return Table(
        name="pairs",
        caption=(
            "Every pair, first minus second."
            + (
                " The interval and p are Nadeau and Bengio's, for the pair alone and not adjusted: an interval may "
                "leave out 0 where p (Holm) separates nothing. P(better), P(equal), P(worse) are of the Bayesian "
                "correlated t-test, equal within ±0.01."
                if tested
                else ""
            )
            + " DeLong's p is conditional on the fitted models, not adjusted, and decides nothing."
        ),
        header=(*header, "p (DeLong)"),
        rows=tuple(tuple(_pair_cells(pair, tested=tested)) for pair in findings.pairs),
        sortable=True,
        folded=True,
    )


def _pair_cells(pair: Pair, *, tested: bool) -> Iterator[Cell]:
    yield Cell(f"{pair.a} − {pair.b}", strong=pair.separated)
    yield Cell(signed(pair.difference), number(pair.difference).value)
    if tested:
        yield Cell(ends((pair.low, pair.high)), pair.low)
        yield _p(pair.p)
        yield _p(pair.p_holm)
        yield from map(number, (pair.better, pair.equal, pair.worse))
    yield _p(pair.delong_p)


def _p(value: float) -> Cell:
    return Cell(p_text(value), None if math.isnan(value) else value)
