"""What figures depend on beside the code: the machine, and the versions of all that is measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from fusionbench.runs import PACKAGES

COMPARED = ("simpleitk", "monai", "typer")
FUSILLI = "fusilli"
ASK = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def settings() -> Iterator[str]:
    """One line each."""
    load = os.getloadavg()[0]
    yield f"python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"
    here = [f"{name} {_version(name)}" for name in (*PACKAGES, *COMPARED)]
    there = [f"{name} {_version_there(name)}" for name in (FUSILLI, "torch") if fusilli_python()]
    yield ", ".join(here)
    if there:
        yield f"beside it, in an environment of its own: {', '.join(there)}"


def fusilli_python() -> str:
    """The interpreter of the environment that has fusilli; empty if there is none."""
    return os.environ.get("FUSILLI_PYTHON", "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _version_there(name: str) -> str:
    told = subprocess.run([fusilli_python(), "-c", ASK, name], check=False, capture_output=True, text=True)
    return told.stdout.strip() or "not installed"
