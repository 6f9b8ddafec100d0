"""The commands. They parse, call fusionbench, and hand the result to render.py; nothing is computed here."""

from __future__ import annotations

import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

import fusionbench
from fusionbench.errors import FusionBenchError

app = typer.Typer(
    name="fusionbench",
    help="Compare multi-modal fusion strategies fairly: shared folds, automatic modality ranking, one leaderboard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Data home: generated cohorts and the shared store. [env: FUSIONBENCH_HOME]"),
]
NoPluginOption = Annotated[
    list[str] | None, typer.Option("--no-plugin", "-p", metavar="NAME", help="Switch a plugin off.")
]


INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM."""


class TableFormat(StrEnum):
    """How a leaderboard is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    json = "json"


class ListFormat(StrEnum):
    """How a list is printed."""

    table = "table"
    json = "json"


def main() -> None:
    """Run the command line: an error of ours is one line and exit code 2, anything else is our bug."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        code = app(standalone_mode=False)
    except FusionBenchError as error:
        code = _say(str(error), 2)
    except TyperException as error:
        code = _say(error.format_message(), 2)
    except BrokenPipeError:  # `fusionbench list | head`
        sys.stderr.close()
        code = 0
    if code == INTERRUPTED:  # what Typer makes of KeyboardInterrupt
        _say("interrupted; the same command goes on where it stopped", code)
    sys.exit(code)


def _say(text: str, code: int) -> int:
    print("fusionbench:", text, file=sys.stderr)
    return code


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Handle --version."""
    if show:
        print(f"fusionbench {fusionbench.__version__}")
        raise typer.Exit


@app.command()
def run(  # noqa: PLR0913 - a command has as many arguments as flags
    fusion: Annotated[str, typer.Option(help="Fusion strategies to compare, comma-separated.")] = "",
    modalities: Annotated[str, typer.Option(help="Which, comma-separated; the order breaks ties.")] = "",
    data: Annotated[str, typer.Option(help="Path of the data; without it the built-in synthetic cohort is used.")] = "",
    cohort: Annotated[str, typer.Option(help="Reader of the data: brats, table, phantom, ...")] = "",
    config: Annotated[str, typer.Option(help="A shipped configuration by name, or a TOML file.")] = "",
    baselines: Annotated[str | None, typer.Option(help="Strategies that come along, comma-separated, or none.")] = None,
    backbone: Annotated[str, typer.Option(help="Backbone, or kind=NAME / modality=NAME, comma-separated.")] = "",
    attention: Annotated[str, typer.Option(help="Attention module.")] = "",
    folds: Annotated[str, typer.Option(help="Number of folds, or a CSV with an official split.")] = "",
    repeats: Annotated[int | None, typer.Option(help="Repeats of the cross-validation.")] = None,
    ranking: Annotated[str, typer.Option(help="nested, fixed or outer, or a plugin's.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    fold_seed: Annotated[int | None, typer.Option(help="Seed of the folds.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "",
    precision: Annotated[str, typer.Option(help="auto, 32, bf16 or 16.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Fits at once; 0 is one per core, or one on a GPU.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.OPTION=VALUE", help="Any other setting; may be repeated.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of finished fits, shared by runs. [default: in the home]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/COHORT-HASH]")] = None,
    home: HomeOption = None,
    no_plugin: NoPluginOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, check all names, options and files, and stop.")
    ] = False,
) -> None:
    """Rank the modalities, train and cross-validate fusion strategies, print the leaderboard.

    Example: fusionbench run --fusion guidance --modalities t1ce,t2,flair,t1
    """
    from fusionbench import engine, runs
    from fusionbench_cli import render

    started = time.monotonic()
    registry = fusionbench.load_registry(frozenset(no_plugin or ()))
    flags: dict[str, Any] = {
        "fusion": _names(fusion) if fusion else None,
        "modalities": _names(modalities) if modalities else None,
        "baselines": None if baselines is None else [] if baselines == "none" else _names(baselines),
        "backbone": _names(backbone) or None,
        "attention": attention or None,
        "seed": seed,
        "cohort": {"data": str(data) or None, "reader": cohort or None},
        "protocol": {
            "folds": int(folds) if folds.isdecimal() else folds or None,
            "repeats": repeats,
            "fold_seed": fold_seed,
            "ranking": {"ranker": ranking or None},
        },
        "recipe": {"device": device or None, "precision": precision or None},
    }
    comparison = fusionbench.compose(registry, config, flags, setting or [])
    render.cohort_line(comparison, registry, home)
    study = fusionbench.open_study(comparison, home=home, registry=registry)
    folder = out or Path("runs") / runs.run_name(study)
    study = runs.join_run(study, folder)
    place = fusionbench.Store(store or (home or fusionbench.data_home()) / "store")
    render.plan_lines(study, engine.forecast(study, place))
    render.reading_line(study)
    engine.prepare(study, place)
    if dry_run:
        return
    runs.begin_run(study, folder)
    workers = jobs or (1 if study.comparison.recipe.device != "cpu" else os.cpu_count() or 1)
    with render.Live(study) as live:
        outcome = fusionbench.run(study, place, jobs=workers, listener=live)
    result = runs.Run.of(outcome, folder.name, time.monotonic() - started)
    board = fusionbench.Leaderboard.of(result)
    runs.write_run(result, folder, {"leaderboard.csv": board.to_csv()})
    render.leaderboard(board)
    render.next_steps(folder, place.root, study)
    if any(method["failed"] for method in result.facts["methods"].values()):
        raise typer.Exit(1)


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(help="backbone, attention, fusion, cohort or ranker; all if not given.")] = "",
    format: Annotated[ListFormat, typer.Option(help="table or json.")] = ListFormat.table,
    no_plugin: NoPluginOption = None,
) -> None:
    """List every installed component with the plugin that it comes from."""
    from fusionbench_cli import render

    render.components(fusionbench.load_registry(frozenset(no_plugin or ())), kind, as_json=format is ListFormat.json)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A component, as `fusionbench list` names it.")],
    no_plugin: NoPluginOption = None,
) -> None:
    """Show a component: what it is, where it comes from, and its options."""
    from fusionbench_cli import render

    render.component(fusionbench.load_registry(frozenset(no_plugin or ())).named(name))


@app.command()
def plugins(
    format: Annotated[ListFormat, typer.Option(help="table or json.")] = ListFormat.table,
) -> None:
    """List the installed plugins, from their metadata alone: nothing of them is imported."""
    from fusionbench.registry import installed_plugins
    from fusionbench_cli import render

    render.plugins(installed_plugins(), as_json=format is ListFormat.json)


@app.command()
def check(name: Annotated[str, typer.Argument(help="A component, as `fusionbench list` names it.")]) -> None:
    """Check that a component keeps the promises of its kind; exit code 1 if it does not."""
    from fusionbench.testing.checks import check_component
    from fusionbench_cli import render

    if not render.checks(check_component(fusionbench.load_registry().named(name))):
        raise typer.Exit(1)


@app.command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    format: Annotated[TableFormat, typer.Option(help="table, csv, md or json.")] = TableFormat.table,
) -> None:
    """Print the leaderboard of one or more runs on the same folds."""
    from fusionbench_cli import render

    board = fusionbench.Leaderboard.read(*folders)
    match format:
        case TableFormat.table:
            render.leaderboard(board)
        case TableFormat.csv:
            print(board.to_csv(), end="")
        case TableFormat.md:
            print(board.to_markdown(), end="")
        case TableFormat.json:
            print(board.to_json(), end="")


@app.command()
def doctor(home: HomeOption = None) -> None:
    """Say what this installation has: versions, device, plugins and their faults, the data home."""
    from fusionbench.doctor import examine
    from fusionbench_cli import render

    if not render.findings(examine(home or fusionbench.data_home())):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
