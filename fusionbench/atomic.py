"""Files and folders that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import errno
import hashlib
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
    with _writing(path):
        partial = _partial(path)
    try:
        yield partial
        with _writing(path):
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, unless another writer was first."""
    with _writing(path):
        partial = _partial(path)
        sweep(path.parent)
        partial.mkdir()
    try:
        yield partial
        with _writing(path):
            for file in (*partial.rglob("*"), partial):
                _sync(file)
            _rename(partial, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what could not be written, instead of how the system calls it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {reason}; free some space or choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 and with line ends as given."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def sweep(folder: Path) -> None:
    """Remove what dead processes of this host left half written in a folder."""
    for partial in abandoned(folder):
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def abandoned(folder: Path) -> Iterator[Path]:
    """What dead processes of this host left half written in a folder."""
    for partial in sorted(folder.glob(f".*{SUFFIX}")):
        *_, host, pid, _ = ("", "", *partial.name.removesuffix(SUFFIX).split("~"))
        if host == _host() and pid.isdecimal() and not _alive(int(pid)):
            yield partial


def writable_folder(path: Path) -> Path:
    """Make a folder if need be and try it; StoreError says what is in the way."""
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = _partial(path / "probe")
        probe.touch()
        probe.unlink()
    return path


def _rename(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another writer was first, and is as good
            raise


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name[:80]}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}{SUFFIX}")


def _host() -> str:
    """Which machine it is, without its name: a file that a killed process leaves says nothing of it."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


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
