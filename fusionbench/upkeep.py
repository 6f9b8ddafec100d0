"""What of a store can go: what nothing will ever read again, and on request the fits that no run refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fusionbench.atomic import abandoned
from fusionbench.errors import StoreError, UsageError
from fusionbench.runs import read_facts
from fusionbench.store import FILES, Store

CACHES = ("volumes", "features")
"""Folders of what is made again when it is needed."""


@dataclass(frozen=True)
class Waste:
    """A file or folder of a store that can go."""

    why: str
    path: Path
    size: int
    """Bytes."""


def waste(store: Store, keep: Sequence[Path] = ()) -> tuple[Waste, ...]:
    """What can go: what the dead left half written, damaged fits, checkpoints and locks of finished ones.

    With run folders to `keep` also every fit, finished or not, that none of them refers to. Raises UsageError for a
    folder that holds no finished run, and StoreError where that would hit a run at work.
    """
    if not (store.root / "fits").is_dir():
        raise UsageError(f"there is no store at {store.root}: name one with --store")
    kept = {key for folder in keep for key in read_facts(folder)["fits"]}  # parents and those that rank among them
    if keep and (busy := [lock.stem for lock in _locks(store) if _held(lock)]):
        raise StoreError(f"a run is at work on fit {busy[0]}: wait until it is done, or leave out --keep")
    return tuple(_found(store, kept if keep else None))


def remove(found: Iterable[Waste]) -> int:
    """Remove it; the bytes that are free now."""
    freed = 0
    for one in found:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)
        freed += one.size * (not one.path.exists())
    return freed


def cached(store: Store) -> int:
    """The bytes of the caches, which are not removed: deleting them costs time, and never a result."""
    return sum(_size(store.root / name) for name in CACHES)


def _found(store: Store, kept: set[str] | None) -> Iterator[Waste]:
    """The waste; with `kept` also the fits that are not in it."""
    for folder in (*store.root.glob("fits/??"), *store.root.glob("working/*/"), *map(store.root.joinpath, CACHES)):
        yield from (_waste("half-written by the dead", partial) for partial in abandoned(folder))
    finished = set()
    for folder in _visible(store.root / "fits", "??/*"):
        if not all((folder / name).is_file() for name in FILES):
            yield _waste("damaged fits", folder)
        elif kept is not None and folder.name not in kept:
            yield _waste("fits of no kept run", folder)
        else:
            finished.add(folder.name)
    for place in _visible(store.root / "working", "*"):
        if place.stem in finished:
            yield _waste("checkpoints and locks of finished fits", place)
        elif kept is not None:
            yield _waste("checkpoints and locks of no kept run", place)


def _visible(folder: Path, pattern: str) -> list[Path]:
    """What matches, but for what is being written."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _waste(why: str, path: Path) -> Waste:
    return Waste(why, path, _size(path))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _locks(store: Store) -> Iterable[Path]:
    return sorted((store.root / "working").glob("*.lock"))


def _held(lock: Path) -> bool:
    """Whether a living process has the lock."""
    try:
        with FileLock(lock, timeout=0, mode=0o666):
            return False
    except Timeout:
        return True
