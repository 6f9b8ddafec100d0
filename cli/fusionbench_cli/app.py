"""The commands. They parse, call fusionbench, and hand the result to render.py; nothing is computed here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

import fusionbench
from fusionbench.errors import FusionBenchError, one_line
from fusionbench_cli import asked, reports, use
from fusionbench_cli.data import data as data_commands
from fusionbench_cli.explain import explain
from fusionbench_cli.upkeep import store as store_commands

if TYPE_CHECKING:
    from fusionbench.leaderboard import Leaderboard
    from fusionbench.subsets import Subsets

app = typer.Typer(
    name="fusionbench",
    help="Compare multi-modal fusion strategies fairly: shared folds, automatic modality ranking, one leaderboard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_commands)
app.add_typer(store_commands)
use.add_to(app)
app.command()(reports.report)
app.command()(explain)

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


class AuditFormat(StrEnum):
    """How findings are printed."""

    table = "table"
    md = "md"
    json = "json"


def main() -> None:
    """Run the command line: an error of ours is one line and exit code 2, anything else is our bug."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        code = app(standalone_mode=False)
    except FusionBenchError as error:
        code = _say(one_line(str(error)), 2)
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
    fusion: Annotated[str, typer.Option(help="Fusion strategies to compare, comma-separated, or all.")] = "",
    modalities: asked.Modalities = "",
    data: asked.Data = "",
    cohort: asked.Reader = "",
    config: asked.Config = "",
    baselines: Annotated[str | None, typer.Option(help="Strategies that come along, comma-separated, or none.")] = None,
    backbone: asked.Backbone = "",
    attention: asked.Attention = "",
    missing: asked.Missing = "",
    folds: asked.Folds = "",
    folds_by: asked.FoldsBy = "",
    repeats: asked.Repeats = None,
    ranking: asked.Ranking = "",
    primary: Annotated[str, typer.Option(help="Modality that comes first whatever the ranking says.")] = "",
    seed: asked.Seed = None,
    fold_seed: asked.FoldSeed = None,
    device: asked.Device = "",
    precision: asked.Precision = "",
    augment: asked.Augment = None,
    jobs: asked.Jobs = 0,
    engine: asked.Engine = "local",
    scheduler: asked.Scheduler = "",
    strategy: asked.Strategy = "",
    setting: asked.Settings = None,
    store: asked.StoreFolder = None,
    out: asked.Out = None,
    home: asked.Home = None,
    no_plugin: asked.NoPlugin = None,
    dry_run: asked.DryRun = False,
    cost: asked.Cost = False,
    profile: asked.Profile = False,
) -> None:
    """Rank the modalities, train and cross-validate fusion strategies, print the leaderboard.

    Example: fusionbench run --fusion guidance --modalities t1ce,t2,flair,t1
    """
    wanted = asked.Asked(**locals())  # first: it takes every name there is
    asked.compare(wanted, wanted.study(wanted.comparison()))


@app.command()
def ablate(  # noqa: PLR0913 - a command has as many arguments as flags
    fusion: Annotated[str, typer.Option(help="The strategy to take apart.")] = "guidance",
    primary: Annotated[str, typer.Option(help="Always there; if not given, what came first in most folds.")] = "",
    modalities: asked.Modalities = "",
    data: asked.Data = "",
    cohort: asked.Reader = "",
    config: asked.Config = "",
    backbone: asked.Backbone = "",
    attention: asked.Attention = "",
    missing: asked.Missing = "",
    folds: asked.Folds = "",
    folds_by: asked.FoldsBy = "",
    repeats: asked.Repeats = None,
    ranking: asked.Ranking = "",
    seed: asked.Seed = None,
    fold_seed: asked.FoldSeed = None,
    device: asked.Device = "",
    precision: asked.Precision = "",
    augment: asked.Augment = None,
    jobs: asked.Jobs = 0,
    engine: asked.Engine = "local",
    scheduler: asked.Scheduler = "",
    strategy: asked.Strategy = "",
    setting: asked.Settings = None,
    store: asked.StoreFolder = None,
    out: asked.Out = None,
    home: asked.Home = None,
    no_plugin: asked.NoPlugin = None,
    dry_run: asked.DryRun = False,
) -> None:
    """Train a strategy on every subset of the secondary modalities, to see what each is worth.

    Example: fusionbench ablate --primary t1ce
    """
    wanted = asked.Asked(**locals())  # first: it takes every name there is
    from fusionbench.ablation import ablation, check_ablation, most_frequent_primary

    comparison = wanted.comparison()
    study = wanted.study(comparison)
    check_ablation(study, given=bool(primary))
    first = primary or most_frequent_primary(asked.ranking(wanted, study))
    chosen = ablation(comparison, study.comparison.modalities, first, given=bool(primary))
    asked.compare(wanted, fusionbench.open_study(chosen, registry=wanted.registry, cohort=study.cohort))


@app.command("list")
def list_components(
    kind: Annotated[
        str,
        typer.Argument(
            help="A kind, such as backbone or fusion, or a pattern, such as timm:resnet*; all if not given."
        ),
    ] = "",
    format: Annotated[ListFormat, typer.Option(help="table or json.")] = ListFormat.table,
    no_plugin: asked.NoPlugin = None,
) -> None:
    """List every installed component with the plugin that it comes from."""
    from fusionbench_cli import render

    render.components(fusionbench.load_registry(frozenset(no_plugin or ())), kind, as_json=format is ListFormat.json)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A component, as `fusionbench list` names it.")],
    no_plugin: asked.NoPlugin = None,
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
def check(
    name: Annotated[str, typer.Argument(help="A component, as `fusionbench list` names it.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.OPTION=VALUE", help="An option of it; may be repeated.")
    ] = None,
) -> None:
    """Check that a component keeps the promises of its kind; exit code 1 if it does not."""
    from fusionbench.experiment import parse_options
    from fusionbench.testing.checks import check_component
    from fusionbench_cli import render

    component = fusionbench.load_registry().named(name)
    options = parse_options(component.name, settings or (), "for the rest is made up")
    if not render.checks(check_component(component, **options)):
        raise typer.Exit(1)


@app.command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    format: Annotated[TableFormat, typer.Option(help="table, csv, md or json.")] = TableFormat.table,
    published: Annotated[str, typer.Option(help="A data set whose printed scores stand beside: brats2018, ...")] = "",
    by_available: Annotated[
        bool, typer.Option("--by-available", help="Score each set of modalities that subjects have on its own.")
    ] = False,
    imported: Annotated[
        list[str] | None, typer.Option("--import", metavar="NAME=FILE.csv", help="Predictions made elsewhere.")
    ] = None,
) -> None:
    """Print the leaderboard of one or more runs on the same folds."""
    from fusionbench import published as papers
    from fusionbench_cli import render

    if by_available:
        from fusionbench.runs import read_run
        from fusionbench.subsets import Subsets

        found = Subsets.of(*map(read_run, folders))
        _print_table(found, format, partial(render.subsets, found))
        return
    printed = papers.published(published) if published else None
    board = fusionbench.Leaderboard.read(*folders, imported=asked.imported(imported or []))
    board = board.beside(printed) if printed else board
    _print_table(board, format, partial(render.leaderboard, board))


def _print_table(table: Leaderboard | Subsets, format: TableFormat, render: Callable[[], None]) -> None:
    match format:
        case TableFormat.table:
            render()
        case TableFormat.csv:
            print(table.to_csv(), end="")
        case TableFormat.md:
            print(table.to_markdown(), end="")
        case TableFormat.json:
            print(table.to_json(), end="")


@app.command()
def audit(
    table: Annotated[str, typer.Argument(help="A CSV of printed scores, or a shipped paper: xu2024.")],
    format: Annotated[AuditFormat, typer.Option(help="table, md or json.")] = AuditFormat.table,
) -> None:
    """Check a table of published scores for numbers that cannot be, and an AUC that is none.

    Exit code 0 if nothing is found, 1 if something is, 2 if the table cannot be read.
    """
    from fusionbench.auditing.audit import audit as check_scores
    from fusionbench.auditing.audit import read_table
    from fusionbench_cli import render

    found = check_scores(read_table(table))
    match format:
        case AuditFormat.table:
            render.audit(found)
        case AuditFormat.md:
            print(found.to_markdown(), end="")
        case AuditFormat.json:
            print(found.to_json(), end="")
    if found.findings:
        raise typer.Exit(1)


@app.command()
def doctor(home: asked.Home = None) -> None:
    """Say what this installation has: versions, device, plugins and their faults, the data home."""
    from fusionbench.doctor import examine
    from fusionbench_cli import render

    if not render.findings(examine(home or fusionbench.data_home())):
        raise typer.Exit(1)
