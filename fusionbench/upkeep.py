"""What of a store can go: what nothing will ever read again, and on request the fits that no run refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusionbench.atomic import abandoned
from fusionbench.errors import UsageError
from fusionbench.runs import read_facts
from fusionbench.store import DOOR, FILES, MARK, Store, held

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
    folder that holds no finished run or one of another store, and StoreError where that would hit a run at work.
    """
    with _alone(store, keep):
        return tuple(_found(store, keep))


def collect(store: Store, keep: Sequence[Path] = ()) -> tuple[tuple[Waste, ...], int]:
    """Remove that waste, no run beginning meanwhile: what it was, and the bytes that are free now."""
    with _alone(store, keep):
        found = tuple(_found(store, keep))
        return found, sum(map(_remove, found))


def cached(store: Store) -> int:
    """The bytes of the caches, which are not removed: deleting them costs time, and never a result."""
    return sum(_size(store.root / name) for name in CACHES)


@contextmanager
def _alone(store: Store, keep: Sequence[Path]) -> Iterator[None]:
    """No run begins; with runs to `keep` none is at work, either."""
    if not (store.root / "fits").is_dir():
        raise UsageError(f"there is no store at {store.root}: name one with --store")
    with store.alone(at_rest=bool(keep)):
        yield


def _kept(store: Store, keep: Sequence[Path]) -> set[str]:
    """The keys of the fits that these runs stand on, parents and those that rank among them."""
    kept: set[str] = set()
    for folder in keep:
        keys = set(read_facts(folder)["fits"])
        if missing := sum(not store.folder(key).is_dir() for key in keys):
            raise UsageError(
                f"{missing} of the {len(keys)} fits of {folder} are not in the store {store.root}: "
                "name the run's own with --store, or run it again"
            )
        kept |= keys
    return kept


def _remove(one: Waste) -> int:
    """Remove it; the bytes that are free now."""
    if one.path.is_dir():
        shutil.rmtree(one.path, ignore_errors=True)
    else:
        one.path.unlink(missing_ok=True)
    return one.size * (not one.path.exists())


def _found(store: Store, keep: Sequence[Path]) -> Iterator[Waste]:
    """The waste; with runs to `keep` also the fits that are not theirs."""
    kept = _kept(store, keep) if keep else None
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
    yield from _leftovers(store, finished, only=kept is not None)


def _leftovers(store: Store, finished: set[str], *, only: bool) -> Iterator[Waste]:
    """Checkpoints and locks of these fits, or of all if there are to be `only` these, and marks of runs that died."""
    for place in _visible(store.root / "working", "*"):
        if place.name.startswith(MARK):
            if not held(place):
                yield _waste("half-written by the dead", place)
        elif place.stem in finished:
            yield _waste("checkpoints and locks of finished fits", place)
        elif only and place.name != DOOR:
            yield _waste("checkpoints and locks of no kept run", place)


def _visible(folder: Path, pattern: str) -> list[Path]:
    """What matches, but for what is being written."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _waste(why: str, path: Path) -> Waste:
    return Waste(why, path, _size(path))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
