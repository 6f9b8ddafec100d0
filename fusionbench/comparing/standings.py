"""Which places a method can have, given which differences are real: rank intervals instead of 1, 2, 3."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """The best and the worst place that a method may have, and whom it could not be told from."""

    method: str
    rank_low: int
    """The best: one behind those that are really better."""
    rank_high: int
    """The worst: before none but those that are really worse."""
    tied_with: tuple[str, ...]

    @property
    def ranks(self) -> str:
        """As a table shows it: `2` or `1-3`."""
        return str(self.rank_low) if self.rank_low == self.rank_high else f"{self.rank_low}-{self.rank_high}"


def standings(methods: Sequence[str], better: Collection[tuple[str, str]]) -> tuple[Standing, ...]:
    """The standing of each method, in the order given, from pairs (better, worse) that a test has separated.

    If the pairs hold together with a given confidence, as Holm's do, then so do all intervals (Mogstad, Romano, Shaikh
    and Wilhelm, Rev. Econ. Stud. 91, 2024). "Tied" is not an equivalence: a may be tied with b, and b with c, while a
    is better than c. No pair at all leaves everybody tied on 1 to the last place.

    >>> [(s.method, s.ranks, s.tied_with) for s in standings("abc", {("a", "c")})]
    [('a', '1-2', ('b',)), ('b', '1-3', ('a', 'c')), ('c', '2-3', ('b',))]
    """
    above = {name: {a for a, b in better if b == name} for name in methods}
    below = {name: {b for a, b in better if a == name} for name in methods}
    return tuple(
        Standing(
            method=name,
            rank_low=1 + len(above[name]),
            rank_high=len(methods) - len(below[name]),
            tied_with=tuple(other for other in methods if other not in above[name] | below[name] | {name}),
        )
        for name in methods
    )
