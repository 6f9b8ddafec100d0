"""Whatever the result of a class may depend on in its own code is in its digest, and nothing else is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusionbench.errors import PluginError
from fusionbench.source import source_digest, sources

PLUGIN = """
import json
import torch
{imports}

class Scaled:
    def forward(self, x):
        {within}
        return x
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place that modules are imported from, and forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    importlib.invalidate_caches()


def digest(module: str) -> str:
    return source_digest(importlib.import_module(module).Scaled)


@pytest.mark.parametrize(
    ("imports", "within", "edited"),
    [
        ("from constants import FACTOR", "pass", "constants.py"),
        ("import constants", "pass", "constants.py"),
        ("import constants as others", "pass", "constants.py"),
        ("", "from lazily import late", "lazily.py"),
        ("from between import thing", "pass", "constants.py"),
    ],
    ids=["a constant", "a module", "under another name", "in a function", "through another"],
)
@pytest.mark.parametrize("package", ["", "mine"], ids=["files side by side", "a package"])
def test_an_edit_of_what_is_imported_changes_the_digest(
    folder: Path, package: str, imports: str, within: str, edited: str
) -> None:
    files = {
        "plug.py": PLUGIN.format(imports=imports, within=within),
        "constants.py": "FACTOR = 51\n",
        "lazily.py": "late = 1\n",
        "between.py": "from constants import FACTOR\nthing = 1\n",
        "stranger.py": "x = 1\n",
    }
    if package:
        own = ("constants", "lazily", "between")
        for word in own:
            files = {name: text.replace(f"from {word}", f"from .{word}") for name, text in files.items()}
            files = {name: text.replace(f"import {word}", f"from . import {word}") for name, text in files.items()}
        files = {f"mine/{name}": text for name, text in files.items()} | {"mine/__init__.py": ""}
    write(folder, files)
    module = f"{package}.plug" if package else "plug"
    before = digest(module)
    write(folder, {f"{package}/stranger.py" if package else "stranger.py": "x = 2\n"})
    assert digest(module) == before
    place = folder / package
    write(place, {edited: (place / edited).read_text() + "# edited\n"})
    assert digest(module) != before


def test_other_packages_are_not_part_of_it(folder: Path) -> None:
    write(folder, {"plug.py": PLUGIN.format(imports="import other.part\nimport single", within="pass")})
    write(folder, {"other/__init__.py": "", "other/part.py": "", "single.py": ""})
    module = importlib.import_module("plug")
    assert [path.name for path in sources(module.Scaled)] == ["plug.py", "single.py"]


def test_the_parent_package_counts_where_it_is_asked(folder: Path) -> None:
    write(
        folder,
        {
            "mine/__init__.py": "SCALE = 3\n",
            "mine/a/b.py": PLUGIN.format(imports="from .. import SCALE", within="pass"),
        },
    )
    module = importlib.import_module("mine.a.b")
    assert [path.name for path in sources(module.Scaled)] == ["__init__.py", "b.py"]


def test_a_class_without_source_is_refused() -> None:
    made = type("Made", (), {"__module__": "nowhere"})
    with pytest.raises(PluginError, match="Made has no source that can be read: put it into a file"):
        source_digest(made)
