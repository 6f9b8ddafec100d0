"""How long the light commands take to start, beside a bare Typer app.

    python -m benchmarks start_up

Medians of the processor's seconds over ten calls each, alternating. The bare app has two commands, one of them with an
option, and prints plain help as ours does: `bare hello` pays for Typer's own import of pydantic, as any command with
options does. Modules are counted in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.targets import Target, alternating

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
    print(*{modules} & sys.modules.keys(), file=sys.stderr)
"""
PAIRS = {"--help": "--help", "plugins": "hello"}
"""Our command -> that of the bare app."""
HEAVY = {"--help": ("torch", "pandas"), "plugins": ("torch", "pandas"), "leaderboard --help": ("torch",)}


def call(command: list[str]) -> None:
    """Run a command, its output dropped."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def spent() -> float:
    """Processor's seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def heavy(arguments: str, modules: tuple[str, ...]) -> list[str]:
    """Which of these modules a command of ours imports."""
    code = IMPORTS.format(arguments=arguments.split(), modules={*modules})
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return told.stderr.split()


def measure() -> Iterator[Target]:
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
    found = {arguments: heavy(arguments, modules) for arguments, modules in HEAVY.items()}
    for arguments, names in found.items():
        print(f"  {arguments} imports {' and '.join(names) or 'neither torch nor pandas'}")
    yield Target("light commands that import torch or pandas", sum(map(bool, found.values())), 0, False, unit="")
