"""The source behind a class: what its results depend on, so that changed code is another component."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from fusionbench.errors import PluginError


def source_digest(cls: type) -> str:
    """The SHA-256 of the module that defines a class, and of the modules of the same package that it builds on.

    For a class of a notebook it is that of the class itself. PluginError if there is no source to read.
    """
    module = sys.modules.get(cls.__module__)
    if module is None or not _file(module):
        return hashlib.sha256(_source_of(cls).encode()).hexdigest()
    state = hashlib.sha256()
    for _, found in sorted(_related(module).items()):
        if path := _file(found):
            state.update(path.read_bytes() + b"\0")
    return state.hexdigest()


def _related(module: ModuleType) -> dict[str, ModuleType]:
    """The module, and every module of its own that it refers to, directly or through others."""
    found, waiting = {module.__name__: module}, [module]
    while waiting:
        for value in vars(waiting.pop()).values():
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            other = sys.modules.get(name) if isinstance(name, str) else None
            if other is not None and other.__name__ not in found and _same_owner(module, other):
                found[other.__name__] = other
                waiting.append(other)
    return found


def _same_owner(module: ModuleType, other: ModuleType) -> bool:
    """Whether two modules are of one package, or lie side by side as single files."""
    top, theirs = module.__name__.partition("."), other.__name__.partition(".")
    here, there = _file(module), _file(other)
    if here is None or there is None:
        return False
    return top[0] == theirs[0] or (not top[1] and not theirs[1] and here.parent == there.parent)


def _file(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


def _source_of(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        raise PluginError(f"{cls.__name__} has no source that can be read: put it into a file") from None
