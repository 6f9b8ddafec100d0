"""The next thing is read while the present one is worked with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetched(read: Callable[[A], B], items: Iterable[A]) -> Generator[B, None, None]:
    """What `read` makes of each item, in order: while one is worked with, one thread reads the next, and no further.

    An error of `read` is raised where its result was due. When the iterator has ended or was closed, so has the thread.

    >>> list(prefetched(str.upper, "abc"))
    ['A', 'B', 'C']
    """
    thread = ThreadPoolExecutor(1, "prefetch")
    due: Future[B] | None = None
    try:
        for item in items:
            following = thread.submit(read, item)
            if due is not None:
                yield due.result()
            due = following
        if due is not None:
            yield due.result()
    finally:
        thread.shutdown(cancel_futures=True)
