"""The store of fits: one folder per key, written whole or not at all; what is done is done."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from fusionbench.atomic import atomic_file, atomic_folder, sweep, writable_folder, write_text
from fusionbench.csvtext import csv_rows
from fusionbench.errors import StoreError
from fusionbench.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor


FILES = ("weights.safetensors", "predictions.csv", "history.csv", "job.json")
"""What the folder of a finished fit holds."""
DOOR = "door.lock"
MARK = "mark-"
"""What begins the names of the locks of runs at work."""


class Store:
    """A folder of finished fits, which any number of runs may share at the same time.

    `fits/ab/abcd.../` holds weights.safetensors, predictions.csv, history.csv and job.json of the fit with that key.
    `working/<key>/` holds the checkpoint of an unfinished one, and the lock of whoever works on it: the lock is the
    kernel's (flock), so it falls with its holder, however that dies.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> Store:
        """Make the folders, or say what is in the way; sweep what the dead left half written."""
        for name in ("fits", "working"):
            writable_folder(self.root / name)
        for folder in (self.root / "fits").iterdir():
            sweep(folder)
        for folder in (self.root / "working").iterdir():
            sweep(folder)
        for name in ("volumes", "features"):
            sweep(self.root / name)
        return self

    def folder(self, key: str) -> Path:
        """Where the fit of that key lies, or would."""
        return self.root / "fits" / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the fit of that key is finished; one that somebody has damaged is taken away, to be done again."""
        folder = self.folder(key)
        if not folder.is_dir():
            return False
        if all((folder / name).is_file() for name in FILES):
            return True
        shutil.rmtree(folder)
        return False

    def predictions(self, key: str, classes: tuple[str, ...]) -> Predictions:
        """What a finished fit predicts."""
        return Predictions.from_csv((self.folder(key) / "predictions.csv").read_bytes().decode(), classes)

    def weights(self, key: str) -> dict[str, Tensor]:
        """The state dict of a finished fit."""
        from safetensors.torch import load_file

        return load_file(self.folder(key) / "weights.safetensors")

    def record(self, key: str) -> dict[str, Any]:
        """What is known of a finished fit: what it was, how long it took, how many parameters it has."""
        record: dict[str, Any] = json.loads((self.folder(key) / "job.json").read_text(encoding="utf-8"))
        return record

    def history(self, key: str) -> list[dict[str, str]]:
        """The loss of every epoch of a finished fit, as text: stage, epoch, loss."""
        return csv_rows((self.folder(key) / "history.csv").read_text(encoding="utf-8"))

    def save(
        self,
        key: str,
        weights: Mapping[str, Tensor],
        predictions: Predictions,
        history: Sequence[Mapping[str, Any]],
        record: Mapping[str, Any],
    ) -> None:
        """Keep a finished fit, in one step, and drop its checkpoint."""
        from safetensors.torch import save_file

        with atomic_folder(self.folder(key)) as folder:
            save_file(
                {name: tensor.contiguous().cpu() for name, tensor in weights.items()}, folder / "weights.safetensors"
            )
            (folder / "predictions.csv").write_text(predictions.to_csv(), encoding="utf-8", newline="")
            (folder / "history.csv").write_text(_history_csv(history), encoding="utf-8")
            told = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
            (folder / "job.json").write_text(told, encoding="utf-8")
        self.checkpoint(key).drop()

    def checkpoint(self, key: str) -> Checkpoint:
        """The checkpoint of an unfinished fit."""
        return Checkpoint(self.root / "working" / key)

    def traceback(self, key: str) -> Path:
        """Where a fit failed in the code of others, if it did: a file of text, which goes when the fit is finished."""
        return self.root / "working" / key / "traceback.txt"

    def keep_traceback(self, key: str, text: str) -> None:
        """Keep where a fit failed, for whoever has to mend that code."""
        write_text(self.traceback(key), text)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Wait until nobody else works on that fit, then hold it."""
        folder = self.root / "working"
        with FileLock(folder / f"{key}.lock", mode=0o666) as held:
            Path(held.lock_file).write_text(f"{os.getpid()}\n", encoding="utf-8")
            yield

    @contextmanager
    def marked(self) -> Iterator[str]:
        """Leave a locked file for others to find while this lasts, on other machines too; its name.

        Whoever wants the store alone is refused meanwhile; this waits while somebody has it.
        """
        path = self.root / "working" / f"{MARK}{uuid.uuid4().hex}.lock"
        lock = FileLock(path, mode=0o666)
        with self._door():
            lock.acquire()
        try:
            yield path.name
        finally:
            lock.release()
            path.unlink(missing_ok=True)

    @contextmanager
    def alone(self, *, at_rest: bool) -> Iterator[None]:
        """Keep runs from beginning while this lasts; StoreError if it must be `at_rest` and a run is at work."""
        with self._door():
            locks = (path for path in sorted((self.root / "working").glob("*.lock")) if path.name != DOOR)
            if at_rest and any(map(held, locks)):
                raise StoreError(f"a run is at work in {self.root}: wait until it is done, or leave out --keep")
            yield

    def _door(self) -> FileLock:
        """Held for a moment by whoever comes in, and by whoever wants to be alone."""
        writable_folder(self.root / "working")
        return FileLock(self.root / "working" / DOOR, mode=0o666)

    def fault(self, mark: str) -> str:
        """Why this is not the store that somebody else marked, or not one that both can work in; empty if it is."""
        path = self.root / "working" / mark
        if not path.is_file():
            return f"there is no such store at {self.root}: put it where every worker sees it at the same path"
        if held(path):
            return ""
        return f"a file lock in {self.root} does not hold across machines: choose a file system with flock"

    def await_fit(self, key: str, seconds: float = 120.0) -> bool:
        """Whether a fit that another machine has finished comes into sight: a network file system may lag behind."""
        end = time.monotonic() + seconds
        while not (seen := self.has(key)) and time.monotonic() < end:
            time.sleep(0.2)
        return seen


def held(lock: Path) -> bool:
    """Whether a living process has that lock."""
    try:
        with FileLock(lock, timeout=0, mode=0o666):
            return False
    except Timeout:
        return True


class Checkpoint:
    """The state of an unfinished fit at the end of an epoch, and the one before it in case it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.newest = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint-before.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep this state, and the last one beside it."""
        import torch

        with atomic_file(self.newest) as partial:
            torch.save(dict(state), partial)
            if self.newest.exists():
                self.newest.replace(self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, if there is one."""
        return next(filter(None, map(_read_state, (self.newest, self.previous))), None)

    def drop(self) -> None:
        """Forget both."""
        shutil.rmtree(self.newest.parent, ignore_errors=True)


def _read_state(path: Path) -> dict[str, Any] | None:
    import pickle
    import zipfile

    import torch

    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None  # torn by a crash of the machine: the one before it serves
    return state


def _history_csv(history: Iterable[Mapping[str, Any]]) -> str:
    lines = [f"{row['stage']},{row['epoch']},{row['loss']!r}" for row in history]
    return "\n".join(["stage,epoch,loss", *lines]) + "\n"
