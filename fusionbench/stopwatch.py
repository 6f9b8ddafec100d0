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
PARTS: Final = ("read", "augment", "forward", "backward", "predict", OTHER)
"""The parts of a fit: reading inputs, augmenting them, the loss, its gradients and the optimiser's step, the forward
passes over the test part, all else."""


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
