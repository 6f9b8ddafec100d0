"""Processes that this one starts: Ctrl-C is not for them, and they end when it does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any


def start(target: Callable[..., None], *args: Any) -> SpawnProcess:
    """A new process that calls this; whoever started it is interrupted, and ends it."""
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(target, *args))
    with uninterrupted():
        process.start()
    return process


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Have processes and threads that are started inside never see Ctrl-C, from their first instruction on.

    For this thread it waits until the end. A process of Python would meet it with a traceback while it imports, before
    it can say that it ignores it; what a thread blocks is inherited.
    """
    resource_tracker.ensure_running()  # starting it, which a first process does, would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cause_of_death(process: SpawnProcess) -> str:
    """What a process that has ended died of: the name of a signal, or its exit code."""
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(target: Callable[..., None], *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for libraries that let it through
    threading.Thread(target=_die_with_parent, daemon=True).start()
    target(*args)


def _die_with_parent() -> None:
    """End this process when the one that started it is killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
