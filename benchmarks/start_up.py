"""How long the light commands take to start, beside a bare Typer app: the figures of docs/performance.md.

    python benchmarks/start_up.py

Medians of processor and wall seconds over ten calls each, alternating. The bare app has two commands, one of them
with an option, and prints plain help as ours does: `bare hello` pays for Typer's own import of pydantic, as any command
with options does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
TARGET = 2.0


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


def main() -> None:
    """Print a line per command, then the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        program = str(Path(sys.executable).with_name("fusionbench"))
        commands = {
            "bare --help": [sys.executable, str(bare), "--help"],
            "fusionbench --help": [program, "--help"],
            "bare hello": [sys.executable, str(bare), "hello"],
            "fusionbench plugins": [program, "plugins"],
        }
        for command in commands.values():
            seconds(command)  # bytecode is compiled once
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(CALLS):
            for name, command in commands.items():
                taken[name].append(seconds(command))
    medians = {name: [statistics.median(column) for column in zip(*t, strict=True)] for name, t in taken.items()}
    for name, (wall, spent) in medians.items():
        print(f"{name:20} {wall:.3f} s, {spent:.3f} s of processor")
    for ours, theirs in (("fusionbench --help", "bare --help"), ("fusionbench plugins", "bare hello")):
        ratio = medians[ours][1] / medians[theirs][1]
        print(
            f"{ours} / {theirs}: {ratio:.2f}x of processor, target {TARGET}x: {'met' if ratio <= TARGET else 'not met'}"
        )


if __name__ == "__main__":
    main()
