"""Where the time of a run went: a stopwatch for the parts of a fit, and what its fits come to together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from fusionbench.jsontext import json_text

if TYPE_CHECKING:
    from fusionbench.engine import Outcome

Watch = Callable[[str], AbstractContextManager[None]]
"""`with watch("read"):` says what is being done."""

OTHER: Final = "other"
"""What no part says: building, statistics, checkpoints, bookkeeping."""
PARTS: Final = ("read", "augment", "forward", "backward", "predict", OTHER)
"""The parts of a fit: reading inputs, augmenting them, the loss, its gradients and the optimiser's step, the forward
passes over the test part, all else."""
ALL: Final = "all"


def unwatched(part: str) -> AbstractContextManager[None]:
    """The watch of whoever does not ask: it does nothing."""
    return _NOTHING


_NOTHING: Final = nullcontext()


class Stopwatch:
    """Runs from the moment it is made, and sums up the seconds of every part; a part within another counts alone.

    >>> seconds = iter([0, 1, 3, 6, 10])
    >>> watch = Stopwatch(now=lambda: next(seconds))
    >>> with watch("forward"):
    ...     with watch("read"):
    ...         pass
    >>> watch.seconds
    {'other': 1, 'forward': 6, 'read': 3}
    """

    def __init__(self, settle: Callable[[], None] = lambda: None, now: Callable[[], float] = time.perf_counter) -> None:
        """`settle` waits until what was asked of the device is done."""
        self.seconds: dict[str, float] = {}
        self._settle, self._now = settle, now
        self._within = [OTHER]
        self._since = now()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """What happens inside belongs to that part."""
        self._note()
        self._within.append(part)
        try:
            yield
        finally:
            self._note()
            self._within.pop()

    def stop(self) -> dict[str, float]:
        """The seconds of each part until now; they add up to all that went by."""
        self._note()
        return {part: round(seconds, 6) for part, seconds in self.seconds.items()}

    def _note(self) -> None:
        """Give the time since the last change to the part that it was spent in."""
        self._settle()
        now, part = self._now(), self._within[-1]
        self.seconds[part] = self.seconds.get(part, 0) + now - self._since
        self._since = now


@dataclass(frozen=True)
class Profile:
    """Where the time of a run's own fits went; of fits that the store had nothing is known."""

    kinds: Mapping[str, Mapping[str, float]]
    """Strategy -> part -> seconds, over all its fits in all processes; `all` is their sum."""
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
        slowest_first = sorted(kinds, key=lambda kind: (kind == ALL, -kinds[kind].total(), kind))
        return cls(
            {kind: dict(kinds[kind]) for kind in slowest_first}, dict(fits), len(outcome.records) - len(own), seconds
        )

    @property
    def header(self) -> list[str]:
        """The columns of the table."""
        return ["fits of", "number", "seconds", *PARTS]

    def rows(self) -> list[list[str]]:
        """A row per strategy, the slowest first, and one for all: seconds, and which share of them each part took."""
        return [self._row(kind, parts) for kind, parts in self.kinds.items()]

    def _row(self, kind: str, parts: Mapping[str, float]) -> list[str]:
        total = sum(parts.values())
        shares = [f"{parts.get(part, 0) / total:.1%}" for part in PARTS]
        return [kind, str(self.fits[kind]), f"{total:.1f}", *shares]

    def notes(self) -> list[str]:
        """What the table does not say."""
        fitting = sum(self.kinds.get(ALL, {}).values())
        notes = [f"{fitting:.1f} s in fits, summed over processes; the whole command took {self.seconds:.1f} s"]
        return notes + [f"{self.stored} fits came from the store: nothing is known of their time"] * bool(self.stored)

    def to_json(self) -> str:
        """The seconds as they were measured."""
        return json_text(asdict(self))
