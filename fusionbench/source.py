"""The source behind a class: what its results depend on, so that changed code is another component."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from fusionbench.errors import PluginError


@dataclass(frozen=True)
class _Module:
    """A module that is a file, imported or not."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]

    def imports(self) -> frozenset[str]:
        """The names of all modules that its source may import."""
        return _imports(self.path.read_bytes(), self.package) if self.path.suffix == ".py" else frozenset()


def source_digest(cls: type) -> str:
    """The SHA-256 of the module that defines a class, and of the modules of the same package that it imports.

    For a class of a notebook it is that of the class itself. PluginError if there is no source to read.
    """
    state = hashlib.sha256()
    for path in (found := sources(cls)):
        state.update(path.read_bytes() + b"\0")
    return state.hexdigest() if found else hashlib.sha256(_source_of(cls).encode()).hexdigest()


def sources(cls: type) -> list[Path]:
    """The file of a class, and those that it imports, directly or through others, at the top or within a function.

    Of its own package, or beside it where it has none; empty for a class of a notebook.
    """
    module = _found(cls.__module__)
    return [related.path for related in sorted(_related(module), key=lambda one: one.name)] if module else []


def _related(module: _Module) -> set[_Module]:
    """The module, and every module of its own that it imports, directly or through others."""
    known, waiting = {module}, [module]
    while waiting:
        new = {other for name in waiting.pop().imports() if (other := _own(module, name))} - known
        known |= new
        waiting.extend(new)
    return known


def _own(module: _Module, name: str) -> _Module | None:
    """The module of that name, if it is of the same package, or if both are files of no package side by side."""
    top, theirs = module.name.partition("."), name.partition(".")
    if top[0] == theirs[0]:
        return _found(name)
    other = None if top[1] or theirs[1] else _found(name)
    return other if other and other.path.parent == module.path.parent else None


@lru_cache(maxsize=512)
def _imports(source: bytes, package: str) -> frozenset[str]:
    """`from a import b` may mean a.b."""
    return frozenset(name for node in ast.walk(ast.parse(source)) for name in _named(node, package))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
        yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _found(name: str) -> _Module | None:
    """The module of that name, if it is a file; it is not imported for it, as its packages may be."""
    try:
        spec = None if name in sys.modules else find_spec(name)
    except (ImportError, ValueError):  # no module has that name, but something in one
        return None
    path = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
    return _Module(name, Path(path)) if path and Path(path).is_file() else None


def _source_of(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        raise PluginError(f"{cls.__name__} has no source that can be read: put it into a file") from None
