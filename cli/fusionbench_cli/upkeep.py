"""The commands on the store of fits: `fusionbench store gc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fusionbench
from fusionbench_cli import asked

store = typer.Typer(
    name="store",
    help="Look after the store of finished fits.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@store.callback()
def _store() -> None:
    """Look after the store of finished fits."""


@store.command()
def gc(
    keep: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Remove every fit, too, that no such run folder refers to; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and stop.")] = False,
    store: asked.StoreFolder = None,
    home: asked.Home = None,
) -> None:
    """Remove what nothing reads any more: half-written files, damaged fits, checkpoints of finished ones.

    Example: fusionbench store gc --dry-run
    """
    from fusionbench import upkeep
    from fusionbench_cli import render_needs

    place = fusionbench.Store(store or (home or fusionbench.data_home()) / "store")
    found, freed = (upkeep.waste(place, keep or ()), None) if dry_run else upkeep.collect(place, keep or ())
    render_needs.waste(found, freed, upkeep.cached(place))
