"""What a command that trains is asked for: its flags, once for all such commands, and what they come to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fusionbench
from fusionbench.errors import UsageError

if TYPE_CHECKING:
    from fusionbench import Comparison, Store, Study
    from fusionbench.engine import Outcome
    from fusionbench.planning import Decision
    from fusionbench.registry import Registry

Modalities = Annotated[str, typer.Option(help="Which, comma-separated; the order breaks ties.")]
Data = Annotated[str, typer.Option(help="Path of the data; without it the built-in synthetic cohort is used.")]
Reader = Annotated[str, typer.Option(help="Reader of the data: brats, table, phantom, ...")]
Config = Annotated[str, typer.Option(help="A shipped configuration by name, or a TOML file.")]
Backbone = Annotated[str, typer.Option(help="Backbone, or kind=NAME / modality=NAME, comma-separated.")]
Attention = Annotated[str, typer.Option(help="Attention module.")]
Folds = Annotated[str, typer.Option(help="Number of folds, or a CSV with an official split.")]
FoldsBy = Annotated[str, typer.Option(help="site: one fold per site, tested where nothing was trained.")]
Missing = Annotated[
    str, typer.Option(help="A subject that lacks a modality: error, drop-subject or mask. [default: error]")
]
Repeats = Annotated[int | None, typer.Option(help="Repeats of the cross-validation.")]
Ranking = Annotated[str, typer.Option(help="nested, fixed or outer, or a plugin's.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")]
FoldSeed = Annotated[int | None, typer.Option(help="Seed of the folds.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; cuda:0,1 spreads fits over GPUs.")]
Precision = Annotated[str, typer.Option(help="auto, 32, bf16 or 16.")]
Augment = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRANSFORM", help="A transform of torchio in training, RandomNoise(std=0.05); may be repeated."
    ),
]
Jobs = Annotated[int, typer.Option(min=0, help="Fits at once; 0 is one per core, or one per GPU.")]
Engine = Annotated[str, typer.Option(help="Who does the fits: local processes, or the workers of dask.")]
Strategy = Annotated[
    str, typer.Option(help="ddp: one fit spans the GPUs that --device names, or recipe.processes on the CPU.")
]
Scheduler = Annotated[
    str, typer.Option(metavar="ADDRESS", help="A dask scheduler that is there already, such as tcp://login1:8786.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME.OPTION=VALUE", help="Any other setting; may be repeated.")
]
StoreFolder = Annotated[
    Path | None, typer.Option(help="Folder of finished fits, shared by runs. [default: in the home]")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/COHORT-HASH]")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Data home: generated cohorts and the shared store. [env: FUSIONBENCH_HOME]"),
]
NoPlugin = Annotated[list[str] | None, typer.Option("--no-plugin", "-p", metavar="NAME", help="Switch a plugin off.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, check all names, options and files, and stop.")
]
Cost = Annotated[
    bool, typer.Option("--cost", help="What training needs: parameters, FLOPs, memory, disk; best with --dry-run.")
]
Profile = Annotated[bool, typer.Option("--profile", help="Say in the end where the time of the fits went.")]


@dataclass(frozen=True)
class Asked:
    """The flags of a command that trains, by their names."""

    fusion: str
    modalities: str
    data: str
    cohort: str
    config: str
    backbone: str
    attention: str
    missing: str
    folds: str
    folds_by: str
    repeats: int | None
    ranking: str
    primary: str
    seed: int | None
    fold_seed: int | None
    device: str
    precision: str
    augment: list[str] | None
    jobs: int
    setting: list[str] | None
    store: Path | None
    out: Path | None
    home: Path | None
    no_plugin: list[str] | None
    dry_run: bool
    baselines: str | None = "none"
    refit: bool = False
    cost: bool = False
    profile: bool = False
    engine: str = "local"
    scheduler: str = ""
    strategy: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def registry(self) -> Registry:
        """Every component, but for the plugins that are switched off."""
        return fusionbench.load_registry(frozenset(self.no_plugin or ()))

    @property
    def place(self) -> Store:
        """The store of fits."""
        return fusionbench.Store(self.store or (self.home or fusionbench.data_home()) / "store")

    def comparison(self) -> Comparison:
        """The configuration with the flags laid over it; UsageError if nobody could do its fits."""
        from fusionbench.engine import check_engine

        flags: dict[str, Any] = {
            "fusion": names(self.fusion) if self.fusion else None,
            "modalities": names(self.modalities) if self.modalities else None,
            "baselines": None if self.baselines is None else [] if self.baselines == "none" else names(self.baselines),
            "backbone": names(self.backbone) or None,
            "attention": self.attention or None,
            "missing": self.missing or None,
            "seed": self.seed,
            "cohort": {"data": self.data or None, "reader": self.cohort or None},
            "protocol": {
                "folds": int(self.folds) if self.folds.isdecimal() else self.folds or None,
                "folds_by": self.folds_by or None,
                "repeats": self.repeats,
                "fold_seed": self.fold_seed,
                "refit": self.refit or None,
                "ranking": {"ranker": self.ranking or None, "primary": self.primary or None},
            },
            "recipe": {
                "device": self.device or None,
                "precision": self.precision or None,
                "augmentation": {"extra": self.augment or None},
            },
        }
        asked = fusionbench.compose(self.registry, self.config, flags, self.setting or [])
        spanned = fusionbench.spanning(asked, self.strategy)
        check_engine(spanned, jobs=self.jobs, engine=self.engine, scheduler=self.scheduler)
        return spanned

    def study(self, comparison: Comparison) -> Study:
        """The comparison bound to its cohort, which is announced first."""
        from fusionbench_cli import render

        render.cohort_line(comparison, self.registry, self.home)
        return fusionbench.open_study(comparison, home=self.home, registry=self.registry)

    def train(self, study: Study) -> Outcome:
        """Do what the study needs, with its progress on the screen."""
        from fusionbench_cli import render

        with render.Live(study) as live:
            return fusionbench.run(
                study,
                self.place,
                jobs=self.jobs,
                engine=self.engine,
                scheduler=self.scheduler,
                listener=live,
                profile=self.profile,
            )


def compare(asked: Asked, study: Study) -> None:
    """Plan, train, write the run folder and show its leaderboard; exit code 1 if a method failed."""
    from fusionbench import engine, runs
    from fusionbench.profiling import Profile
    from fusionbench_cli import render, render_needs, render_next

    folder = asked.out or Path("runs") / runs.run_name(study)
    study = runs.join_run(study, folder)
    render.plan_lines(study, engine.forecast(study, asked.place))
    render.reading_line(study)
    if asked.cost:
        from fusionbench.costs.budget import Budget

        render_needs.budget(Budget.of(study, asked.place))
    engine.prepare(study, asked.place)
    if asked.dry_run:
        return
    runs.begin_run(study, folder)
    outcome = asked.train(study)
    result = runs.Run.of(outcome, folder.name, time.monotonic() - asked.started)
    profile = Profile.of(outcome, result.facts["seconds"]) if asked.profile else None
    tables = {"profile.json": profile.to_json()} if profile else {}
    if study.comparison.protocol.refit:
        runs.write_run(result, folder, tables)
    else:
        board = fusionbench.Leaderboard.of(result)
        runs.write_run(result, folder, {"leaderboard.csv": board.to_csv(), **tables})
        render.leaderboard(board)
    if profile:
        render_needs.profile(profile)
    methods = result.facts["methods"].values()
    failed = [method["fusion"] for method in methods if method["failed"]]
    if len(failed) == len(methods):
        render_next.steps_after_failure(folder, asked.place.root, study, failed)
    else:
        render_next.next_steps(folder, asked.place.root, study)
    if failed:
        raise typer.Exit(1)


def ranking(asked: Asked, study: Study) -> tuple[Decision, ...]:
    """The order of the modalities per fold; stops after the plan in a dry run, for subsets wait for a ranking."""
    from fusionbench import engine
    from fusionbench_cli import render

    render.plan_lines(study, engine.forecast(study, asked.place))
    engine.prepare(study, asked.place)
    if asked.dry_run:
        render.say("The primary, and with it the subsets, are known after this; or give --primary NAME.")
        raise typer.Exit
    return asked.train(study).decisions


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def imported(texts: list[str]) -> dict[str, Path]:
    """Method -> file, from `NAME=FILE.csv`."""
    pairs = [text.partition("=")[::2] for text in texts]
    for text, (name, file) in zip(texts, pairs, strict=True):
        if not name or not file:
            raise UsageError(f"--import {text!r}: write it as NAME=FILE.csv")
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--import {twice[0]}=FILE.csv is given twice: give each file a NAME of its own")
    return {name: Path(file) for name, file in pairs}
