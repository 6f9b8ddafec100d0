"""What a run says last: where its files are, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fusionbench_cli.render import say

if TYPE_CHECKING:
    from fusionbench import Study


def next_steps(folder: Path, store: Path, study: Study) -> None:
    """Where the files are, and what to do next."""
    path = shlex.quote(str(folder))
    predict = f"fusionbench predict {path} --data NEW{_store_flag(store)}"
    if study.comparison.protocol.refit:
        say(f"\nFiles: {folder}/ (experiment.toml, ranking.csv, run.json); fits: {store}\nNext: {predict}")
        return
    say(
        f"\nFiles: {folder}/ (leaderboard.csv, predictions.csv, ranking.csv, folds.csv, history.csv, experiment.toml, "
        f"run.json); fits: {store}"
    )
    say(
        f"Next: fusionbench report {path}\n"
        f"      (one page: what is real, what is tied, curves, checklist)\n"
        f"      {_run_again(folder, store, study)} --fusion NAME\n"
        f"      (adds a method to this table; `fusionbench list fusion` names them)\n"
        f"      {predict}\n"
        f"      (classifies new subjects by these models)"
    )


def steps_after_failure(folder: Path, store: Path, study: Study, strategies: Iterable[str]) -> None:
    """Where the files are, and what to do next where every method failed, each of one of these strategies."""
    names = ", ".join(sorted(set(strategies)))
    say(
        f"\nFiles: {folder}/ (experiment.toml, run.json); fits: {store}\n"
        f"Next: {_run_again(folder, store, study)}\n"
        f"      (tries again; what is in the store is not trained anew)\n"
        f"      fusionbench check NAME\n"
        f"      (which promise of a strategy is broken; these failed: {names})"
    )


def _run_again(folder: Path, store: Path, study: Study) -> str:
    """The command that does the same comparison again, into the same folder."""
    from fusionbench.devices import named

    spans = study.comparison.recipe.processes > 1 and len(study.devices) > 1
    spanned = f" --device {named(study.devices)}" if spans else ""  # experiment.toml says of what kind alone
    path = shlex.quote(str(folder))
    return f"fusionbench run --config {path}/experiment.toml --out {path}{spanned}{_store_flag(store)}"


def _store_flag(store: Path) -> str:
    import fusionbench

    return "" if store == fusionbench.data_home() / "store" else f" --store {shlex.quote(str(store))}"
