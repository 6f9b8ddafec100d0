"""A stopwatch for the parts of a fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

Watch = Callable[[str], AbstractContextManager[None]]
"""`with watch("read"):` says what is being done."""

OTHER: Final = "other"
"""What no part says: building, statistics, checkpoints, bookkeeping."""
BESIDE: Final = ("read",)
"""What is done beside the parts, perhaps by another thread: its seconds are theirs, too. Reading inputs."""
PARTS: Final = ("wait", "augment", "forward", "backward", "predict", OTHER)
"""The parts of a fit, which add up to its time: waiting for inputs to be read and on the device, or for other processes
of the fit; augmenting; the loss; its gradients and the optimiser's step; the forward passes over the test part; all
else."""


def unwatched(part: str) -> AbstractContextManager[None]:
    """The watch of whoever does not ask: it does nothing."""
    return _NOTHING


_NOTHING: Final = nullcontext()


class Stopwatch:
    """Runs from the moment it is made, and sums up the seconds of every part; a part within another counts alone.

    >>> seconds = iter([0, 1, 3, 6, 10])
    >>> watch = Stopwatch(now=lambda: next(seconds))
    >>> with watch("forward"):
    ...     with watch("augment"):
    ...         pass
    >>> watch.seconds
    {'other': 1, 'forward': 6, 'augment': 3}

    What is done `BESIDE` is taken from no part; one thread at a time may do it.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None, now: Callable[[], float] = time.perf_counter) -> None:
        """`settle` waits until what was asked of the device is done."""
        self.seconds: dict[str, float] = {}
        self._settle, self._now = settle, now
        self._within = [OTHER]
        self._since = now()

    def __call__(self, part: str) -> AbstractContextManager[None]:
        """What happens inside belongs to that part."""
        return self._beside(part) if part in BESIDE else self._part(part)

    @contextmanager
    def _beside(self, part: str) -> Iterator[None]:
        since = self._now()
        try:
            yield
        finally:
            self._add(part, self._now() - since)

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        self._note()
        self._within.append(part)
        try:
            yield
        finally:
            self._note()
            self._within.pop()

    def stop(self) -> dict[str, float]:
        """The seconds of each part until now, which add up to all that went by, and of what was done beside."""
        self._note()
        return {part: round(seconds, 6) for part, seconds in self.seconds.items()}

    def _note(self) -> None:
        """Give the time since the last change to the part that it was spent in."""
        self._settle()
        now = self._now()
        self._add(self._within[-1], now - self._since)
        self._since = now

    def _add(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0) + seconds
