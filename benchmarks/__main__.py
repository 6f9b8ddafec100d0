"""Measure every target of performance, both sides of each ratio in the same run.

    python -m benchmarks [CASE ...] [--long]

Without names all cases but the long ones, in some minutes. Run it from the root of a checkout, on a machine with
nothing else to do: seconds of one machine say nothing of another, and where others work the ratios waver, too.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from benchmarks.targets import Target
from fusionbench.runs import PACKAGES

CASES = (
    "sharing",
    "guidance_step",
    "branchwise",
    "input_pipeline",
    "engine_overhead",
    "fusilli_epoch",
    "start_up",
    "jobs",
    "cohort_size",
    "volume_attention",
)
"""Each is a module here with `measure() -> Iterator[Target]`, and says in its docstring what it does and with what."""
LONG = ("default_run",)
COMPARED = ("monai", "typer")


def settings() -> Iterator[str]:
    """What the figures depend on beside the code, one line each."""
    load = os.getloadavg()[0]
    yield f"python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"
    yield ", ".join(f"{name} {_version(name)}" for name in (*PACKAGES, *COMPARED))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def measured(case: str) -> Iterator[Target]:
    """The targets of a case, printed as they come, below what it does."""
    module = import_module(f"benchmarks.{case}")
    print(f"\n{case}: {module.__doc__.partition(chr(10))[0]}", flush=True)
    for target in module.measure():
        print(target, flush=True)
        yield target


def main() -> None:
    """Measure, then print all targets as one table in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", help=f"any of {', '.join((*CASES, *LONG))}")
    parser.add_argument("--long", action="store_true", help=f"also {', '.join(LONG)}")
    asked = parser.parse_args()
    if strangers := sorted({*asked.case} - {*CASES, *LONG}):
        parser.error(f"no case {', '.join(strangers)}: choose from {', '.join((*CASES, *LONG))}")
    print("\n".join(settings()))
    cases = asked.case or CASES
    targets = [target for case in (*cases, *LONG * asked.long) for target in measured(case)]
    print("\n| what | ratio | target | |\n|---|---|---|---|")
    for target in targets:
        print(f"| {' | '.join(target.cells)} |")


if __name__ == "__main__":
    main()
