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


def reproduce(sources: Sources) -> Iterator[Block]:
    """Commands, and what they were run with."""
    needs = "" if all(built_in(run) for run in sources.runs) else f" {DATA} stands for the place of the data."
    yield Paragraph(f"With the run folder, on the same data (same SHA-256) and versions:{needs}")
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
    """What trains everything again, and what makes this report of it."""
    named = [run.name for run in sources.runs]
    trained = [_run(run, comparison) for run, comparison in zip(sources.runs, sources.settings, strict=True)]
    again = " ".join(shlex.quote(f"again/{name}") for name in named)
    pip = f"pip install fusionbench=={sources.runs[0].facts['versions']['fusionbench']}"
    return [pip, *trained, f"fusionbench report {again} --out report.html"]


def shown(comparison: Comparison) -> str:
    """The settings as TOML, without telling where anything lies."""
    return tomli_w.dumps(without_places(tomllib.loads(comparison.to_toml())))


def built_in(run: Run) -> bool:
    """Whether the data are made up by their reader, so that nobody has to have them."""
    return bool(run.facts["cohort"]["synthetic"])


def _run(run: Run, comparison: Comparison) -> str:
    data = "" if built_in(run) else f" --data {DATA} --cohort {shlex.quote(comparison.cohort.reader)}"
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
