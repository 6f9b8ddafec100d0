"""How much memory a process has in use, as Linux tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20


def peak_resident() -> int:
    """Bytes of this process that were resident at most; getrusage goes on from the process that started it."""
    return _status(Path("/proc/self"), "VmHWM")


def resident(process: int) -> int:
    """Bytes of a process and all below it that are resident now; pages that several of them share count for each."""
    return sum(_status(Path(f"/proc/{each}"), "VmRSS") for each in (process, *_below(process)))


def _below(process: int) -> Iterator[int]:
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, _text(path).split()):
            yield child
            yield from _below(child)


def _status(folder: Path, name: str) -> int:
    """A line of a process's status in bytes; 0 if the process has gone."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(folder / "status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
