"""Where the time of a run went: what the stopwatches of its fits come to together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from fusionbench.jsontext import json_text
from fusionbench.stopwatch import BESIDE, PARTS

if TYPE_CHECKING:
    from fusionbench.engine import Outcome

ALL: Final = "all"
"""The row of all strategies."""


@dataclass(frozen=True)
class Profile:
    """Where the time of a run's own fits went; of fits that the store had nothing is known."""

    kinds: Mapping[str, Mapping[str, float]]
    """Strategy -> part -> seconds, over all its fits in all processes; `all` is their sum. And what was done beside."""
    fits: Mapping[str, int]
    """Strategy -> how many fits that is; and `all`."""
    stored: int
    """Fits that the store had, or that another run did meanwhile."""
    seconds: float
    """Of the whole command, by the clock."""

    @classmethod
    def of(cls, outcome: Outcome, seconds: float) -> Profile:
        """The profile of a run whose fits were watched."""
        kinds: dict[str, Counter[str]] = {}
        fits: Counter[str] = Counter()
        watched = [record for key, record in outcome.records.items() if key not in outcome.stored]
        own = [record for record in watched if "profile" in record]  # another run may have done one meanwhile
        for record in own:
            for kind in (record["fit"]["fusion"]["name"], ALL):
                kinds.setdefault(kind, Counter()).update(record["profile"])
                fits[kind] += 1
        slowest_first = sorted(kinds, key=lambda kind: (kind == ALL, -_whole(kinds[kind]), kind))
        return cls(
            {kind: dict(kinds[kind]) for kind in slowest_first}, dict(fits), len(outcome.records) - len(own), seconds
        )

    @property
    def header(self) -> list[str]:
        """The columns of the table."""
        return ["fits of", "number", "seconds", *PARTS, *BESIDE]

    def rows(self) -> list[list[str]]:
        """A row per strategy, the slowest first, and one for all: seconds, and which share of them each part took.

        The shares of `PARTS` add up to 1.
        """
        return [self._row(kind, parts) for kind, parts in self.kinds.items()]

    def _row(self, kind: str, parts: Mapping[str, float]) -> list[str]:
        total = _whole(parts)
        shares = [f"{parts.get(part, 0) / total:.1%}" for part in (*PARTS, *BESIDE)]
        return [kind, str(self.fits[kind]), f"{total:.1f}", *shares]

    def notes(self) -> list[str]:
        """What the table does not say."""
        fitting = _whole(self.kinds.get(ALL, {}))
        notes = [f"{fitting:.1f} s in fits, summed over processes; the whole command took {self.seconds:.1f} s"]
        notes += ["read is within wait, or beside the other parts where a thread reads ahead"] * bool(self.kinds)
        return notes + [f"{self.stored} fits came from the store: nothing is known of their time"] * bool(self.stored)

    def to_json(self) -> str:
        """The seconds as they were measured."""
        return json_text(asdict(self))


def _whole(parts: Mapping[str, float]) -> float:
    """The seconds of a fit: what was done beside is in its parts."""
    return sum(seconds for part, seconds in parts.items() if part not in BESIDE)
