"""How to get the same numbers again: commands, seeds, versions, code."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator

import tomli_w

from fusionbench.experiment import Comparison
from fusionbench.places import without_places
from fusionbench.report.document import Block, Code, Paragraph, Table, cells
from fusionbench.report.sources import Sources
from fusionbench.runs import Run

DATA = "PATH/TO/DATA"
"""Where the data lie is not told: a path may name a person."""
PREDICTIONS = "PREDICTIONS.csv"


def reproduce(sources: Sources) -> Iterator[Block]:
    """Commands, and what they were run with."""
    whose = "run folder" if len(sources.runs) == 1 else "run folders"
    needs = "" if sources.made_up else f" {DATA} stands for the place of the data."
    theirs = f" {PREDICTIONS} stands for predictions made elsewhere, which no command here makes again."
    yield Paragraph(
        f"With the {whose}, on the same data (same SHA-256) and versions:{needs}{theirs if sources.elsewhere else ''}"
    )
    yield Code("\n".join(commands(sources)))
    yield Paragraph(
        "On one machine type, device, precision and number of threads the tables come out the same, byte for byte; "
        "elsewhere they differ by rounding."
    )
    yield _circumstances(sources.runs)
    yield _plugins(sources.runs)
    for run, comparison in zip(sources.runs, sources.settings, strict=True):
        yield Paragraph(f"Every setting of {run.name} (experiment.toml, without the place of the data):")
        yield Code(shown(comparison))


def commands(sources: Sources) -> list[str]:
    """What trains everything again, each run by its own version, and what makes this report of it."""
    lines, installed = list[str](), ""
    for run, comparison, built_in in zip(sources.runs, sources.settings, sources.built_in, strict=True):
        if (version := run.facts["versions"]["fusionbench"]) != installed:
            lines.append(f"pip install fusionbench=={version}")
        lines.append(_run(run, comparison, built_in=built_in))
        installed = version
    return [*lines, _report(sources)]


def shown(comparison: Comparison) -> str:
    """The settings as TOML, without telling where anything lies."""
    return tomli_w.dumps(without_places(tomllib.loads(comparison.to_toml())))


def _report(sources: Sources) -> str:
    again = " ".join(shlex.quote(f"again/{run.name}") for run in sources.runs)
    published = f" --published {shlex.quote(sources.board.published.name)}" if sources.board.published else ""
    imported = "".join(f" --import {shlex.quote(f'{name}={PREDICTIONS}')}" for name in sources.elsewhere)
    return f"fusionbench report {again}{published}{imported} --out report.html"


def _run(run: Run, comparison: Comparison, *, built_in: bool) -> str:
    data = "" if built_in else f" --data {DATA} --cohort {shlex.quote(comparison.cohort.reader)}"
    config = shlex.quote(f"{run.name}/experiment.toml")
    return f"fusionbench run --config {config}{data} --out {shlex.quote(f'again/{run.name}')}"


def _circumstances(runs: tuple[Run, ...]) -> Table:
    rows = []
    for run in runs:
        facts = run.facts
        machine, seeds = facts["machine"], facts["seeds"]
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        rows += [
            cells(run.name, "seeds", f"{seeds['seed']} for weights and order, {seeds['fold_seed']} for the folds"),
            cells(run.name, "machine", f"{machine['system']}, {machine['cores']} cores, device {machine['device']}"),
            cells(run.name, "versions", versions),
            cells(run.name, "time of the last command", f"{facts['seconds']} s"),
        ]
    return Table("circumstances", "Seeds, machine, versions.", ("Run", "What", "Value"), tuple(rows), left=3)


def _plugins(runs: tuple[Run, ...]) -> Table:
    found = {(p["kind"], p["name"], p["sha256"]): p for run in runs for p in run.facts["plugins"]}
    rows = tuple(
        cells(p["name"], p["kind"], p["plugin"], f"{p['distribution']} {p['version']}", p["sha256"])
        for _, p in sorted(found.items())
    )
    header = ("Component", "Kind", "Plugin", "Distribution", "SHA-256 of its code")
    return Table("plugins", "Components, and the code that they were.", header, rows, left=5, folded=True)
