"""What an installation has and lacks."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fusionbench.atomic import writable_folder
from fusionbench.errors import FusionBenchError
from fusionbench.registry import installed_plugins, load_registry
from fusionbench.runs import PACKAGES


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    value: str
    fine: bool = True


def examine(home: Path) -> list[Finding]:
    """Look at versions, device, plugins and the data home."""
    return [
        Finding("python", platform.python_version()),
        *(Finding(name, version(name)) for name in (*PACKAGES, "pluggy")),
        *_devices(),
        *_plugins(),
        _home(home),
    ]


def _devices() -> list[Finding]:
    from fusionbench.devices import resolve_device, resolve_precision

    device = resolve_device("auto")
    return [
        Finding("cores", str(os.cpu_count())),
        Finding("device", device),
        Finding("precision for images", resolve_precision("auto", device, {"image"})),
    ]


def _plugins() -> list[Finding]:
    try:
        broken = load_registry().broken
    except FusionBenchError as error:
        return [Finding("plugins", str(error), fine=False)]
    plugins = [plugin for plugin in installed_plugins() if plugin.enabled]
    return [
        Finding("plugins", f"{len(plugins) - len(broken)} of {len(plugins)} work"),
        *(Finding(f"plugin {name}", why, fine=False) for name, why in broken.items()),
    ]


def _home(home: Path) -> Finding:
    try:
        free = shutil.disk_usage(writable_folder(home)).free / 2**30
    except FusionBenchError as error:
        return Finding("data home", str(error), fine=False)
    return Finding("data home", f"{home}, {free:.0f} GiB free")
