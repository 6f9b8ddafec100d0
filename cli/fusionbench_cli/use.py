"""The commands that use what was trained: predict, evaluate, fit, export."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fusionbench
from fusionbench.errors import UsageError
from fusionbench_cli import asked

if TYPE_CHECKING:
    from fusionbench.cohorts import Cohort
    from fusionbench.using.answers import Answers
    from fusionbench.using.evaluation import Evaluation
    from fusionbench.using.inference import TrainedRun


class Format(StrEnum):
    """How answers are printed."""

    table = "table"
    csv = "csv"
    json = "json"


Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or one that was exported.")]
New = Annotated[Path, typer.Option(help="Path of the new data.")]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="A row of its leaderboard; may be repeated. [default: all]"),
]
Reader = Annotated[str, typer.Option(help="Reader of the new data. [default: that of the run, with its options]")]
ReaderOptions = Annotated[
    list[str] | None, typer.Option("--set", metavar="READER.OPTION=VALUE", help="An option of the reader.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps. [default: that of the run, if it is there]")]
Printed = Annotated[Format, typer.Option(help="table, csv or json.")]
File = Annotated[Path | None, typer.Option(help="A file to write as well, .csv or .json.")]


def predict(  # noqa: PLR0913 - a command has as many arguments as flags
    run: Folder,
    data: New,
    method: Methods = None,
    cohort: Reader = "",
    setting: ReaderOptions = None,
    device: Device = "",
    store: asked.StoreFolder = None,
    out: File = None,
    home: asked.Home = None,
    format: Printed = Format.table,
) -> None:
    """Classify new subjects by the models of a run: the mean over their fits, and how far apart these are.

    Example: fusionbench predict runs/mine --data new/ --out new.csv
    """
    from fusionbench_cli import render_use

    _check_file(out)
    trained = _open(run, store, home)
    new = _read(trained, method, data, cohort, setting)
    with render_use.Steps() as steps:
        answers = trained.predict(new, method or (), device=device, listener=steps)
    _show(answers, format, out, render_use.answers)


def evaluate(  # noqa: PLR0913 - a command has as many arguments as flags
    run: Folder,
    data: New,
    method: Methods = None,
    cohort: Reader = "",
    setting: ReaderOptions = None,
    device: Device = "",
    store: asked.StoreFolder = None,
    out: File = None,
    home: asked.Home = None,
    format: Printed = Format.table,
) -> None:
    """Score the models of a run on another cohort with labels, with intervals.

    Example: fusionbench evaluate runs/mine --data other-hospital/
    """
    from fusionbench_cli import render_use

    _check_file(out)
    trained = _open(run, store, home)
    new = _read(trained, method, data, cohort, setting)
    with render_use.Steps() as steps:
        scores = trained.evaluate(new, method or (), device=device, listener=steps)
    _show(scores, format, out, render_use.evaluation)


def fit(  # noqa: PLR0913 - a command has as many arguments as flags
    fusion: Annotated[str, typer.Option(help="Fusion strategies to train, comma-separated, or all.")] = "",
    modalities: asked.Modalities = "",
    data: asked.Data = "",
    cohort: asked.Reader = "",
    config: asked.Config = "",
    baselines: Annotated[str, typer.Option(help="Strategies that come along, comma-separated, or none.")] = "none",
    backbone: asked.Backbone = "",
    attention: asked.Attention = "",
    missing: asked.Missing = "",
    augment: asked.Augment = None,
    ranking: asked.Ranking = "",
    primary: Annotated[str, typer.Option(help="Modality that comes first whatever the ranking says.")] = "",
    seed: asked.Seed = None,
    fold_seed: asked.FoldSeed = None,
    device: asked.Device = "",
    precision: asked.Precision = "",
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
    """Train on every subject, with nobody left to test: models to predict with, after a run has compared them.

    Example: fusionbench fit --config runs/mine/experiment.toml --fusion guidance --out runs/final
    """
    wanted = asked.Asked(**locals(), folds="", folds_by="", repeats=None, refit=True)
    asked.compare(wanted, wanted.study(wanted.comparison()))


def export(
    run: Folder,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    method: Methods = None,
    store: asked.StoreFolder = None,
    home: asked.Home = None,
) -> None:
    """Write models into a folder that predicts without the store and says nothing of whom they were trained on.

    Example: fusionbench export runs/mine --method guidance --out guidance-model
    """
    from fusionbench.using.exporting import export_run
    from fusionbench_cli import render_use

    render_use.exported(out, export_run(run, _open(run, store, home), out, method or ()))


def add_to(app: typer.Typer) -> None:
    """Make these the commands of a program."""
    for command in (predict, evaluate, fit, export):
        app.command()(command)


def _open(folder: Path, store: Path | None, home: Path | None) -> TrainedRun:
    place = fusionbench.Store(store or (home or fusionbench.data_home()) / "store")
    return fusionbench.TrainedRun.open(folder, place, fusionbench.load_registry())


def _read(run: TrainedRun, methods: list[str] | None, data: Path, reader: str, settings: list[str] | None) -> Cohort:
    """The new data, once the methods are known to be there."""
    run.methods(methods or ())
    return run.read_new(data, reader, settings or ())


def _check_file(out: Path | None) -> None:
    from fusionbench.atomic import writable_folder

    if out and (out.suffix not in (".csv", ".json") or out.is_dir()):
        raise UsageError(f"--out {out}: give a file that ends in .csv or .json")
    if out:
        writable_folder(out.parent)


def _show(found: Answers | Evaluation, format: Format, out: Path | None, draw: Callable[[Any], None]) -> None:
    from fusionbench.atomic import write_text

    if out:
        write_text(out, found.to_json() if out.suffix == ".json" else found.to_csv())
    match format:
        case Format.table:
            draw(found)
        case Format.csv:
            print(found.to_csv(), end="")
        case Format.json:
            print(found.to_json(), end="")
