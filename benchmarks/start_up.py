"""How long the light commands take to start, beside a bare Typer app.

    python -m benchmarks start_up

Medians of the processor's seconds over ten calls each, alternating. The bare app has two commands, one of them with an
option, and prints plain help as ours does: `bare hello` pays for Typer's own import of pydantic, as any command with
options does. Which modules a command imports is asked in a process of its own; `leaderboard` prints the table of a run
of two methods on tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fusionbench
from benchmarks.fusilli_epoch import study
from benchmarks.targets import Row, Target, alternating
from fusionbench import Run, Store
from fusionbench.runs import begin_run, write_run

CALLS = 10
BARE = """
from typing import Annotated
import typer
app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
@app.command()
def hello(name: Annotated[str, typer.Option(help="Whom.")] = "you"):
    "Greet."
    print(name)
@app.command()
def bye():
    "Leave."
app()
"""
IMPORTS = """
import sys
from fusionbench_cli.app import app
try:
    app({arguments}, standalone_mode=False)
finally:
    print(*{modules} & sys.modules.keys())
"""
PAIRS = {"--help": "--help", "plugins": "hello"}
"""Our command -> that of the bare app."""
HEAVY = {"--help": ("torch", "pandas"), "plugins": ("torch", "pandas"), "leaderboard": ("torch",)}
"""Command -> what it must not import."""


def call(command: list[str]) -> None:
    """Run a command, its output dropped."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def spent() -> float:
    """Processor's seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def heavy(arguments: list[str], modules: tuple[str, ...]) -> list[str]:
    """Which of these modules a command of ours imports; SystemExit if it fails or prints nothing."""
    code = IMPORTS.format(arguments=arguments, modules={*modules})
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    *printed, found = told.splitlines()
    if not any(printed):
        raise SystemExit(f"{' '.join(arguments)} printed nothing")
    return found.split()


def finished(folder: Path) -> Path:
    """The folder of a run that is done."""
    asked = study(epochs=1)
    outcome = fusionbench.run(asked, Store(folder / "store"))
    begin_run(asked, folder / "run")
    write_run(Run.of(outcome), folder / "run")
    return folder / "run"


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        program = str(Path(sys.executable).with_name("fusionbench"))
        ways = {f"fusionbench {name}": partial(call, [program, *name.split()]) for name in PAIRS}
        ways |= {f"bare {name}": partial(call, [sys.executable, str(bare), name]) for name in PAIRS.values()}
        taken = alternating(ways, CALLS, spent)
    for ours, theirs in PAIRS.items():
        ratio = taken[f"fusionbench {ours}"] / taken[f"bare {theirs}"]
        yield Target(f"processor's time of fusionbench {ours} / a bare Typer app's {theirs}", ratio, 2, at_least=False)
    with tempfile.TemporaryDirectory() as folder:
        run = str(finished(Path(folder)))
        more = {"leaderboard": [run]}
        found = {command: heavy([command, *more.get(command, [])], modules) for command, modules in HEAVY.items()}
    for command, names in found.items():
        print(f"  {command} imports {' and '.join(names) or 'nothing of ' + ', '.join(HEAVY[command])}")
    count = sum(map(bool, found.values()))
    yield Target(f"of {', '.join(HEAVY)}: those that import what is heavy", count, 0, at_least=False, unit="")
