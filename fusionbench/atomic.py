"""Files and folders that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusionbench.errors import StoreError

SUFFIX = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is synced to disk and replaces `path`."""
    partial = _partial(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path.name}: {error.strerror or error}; free some space or move it") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, unless another writer was first."""
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        _sync(partial)
        if not path.exists():
            partial.replace(path)
            _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path.name}: {error.strerror or error}; free some space or move it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 and with line ends as given."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def sweep(folder: Path) -> None:
    """Remove what dead processes of this host left half written in a folder."""
    for partial in folder.glob(f".*{SUFFIX}"):
        host, pid = partial.name.removesuffix(SUFFIX).split("~")[-3:-1]
        if host == _host() and not _alive(int(pid)):
            shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def writable_folder(path: Path) -> Path:
    """Make a folder if need be and try it; StoreError says what is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = _partial(path / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); choose another folder") from None
    return path


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name[:80]}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}{SUFFIX}")


def _host() -> str:
    return socket.gethostname().replace("~", "-").replace("/", "-")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
