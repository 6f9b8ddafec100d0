"""The commands on data, before anything trains: `fusionbench data check|card|init|phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fusionbench
from fusionbench.errors import UsageError
from fusionbench_cli import asked

if TYPE_CHECKING:
    from fusionbench import Comparison
    from fusionbench.cards.survey import Candidate
    from fusionbench.registry import Registry

data = typer.Typer(
    name="data",
    help="Look at data before anything trains: check it, describe it, prepare it, or make some up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[Path, typer.Argument(metavar="PATH", help="The folder or table that holds the data.")]
Reader = Annotated[str, typer.Option(help="Reader of the data; without it the one that finds most, with labels.")]


@data.command()
def check(
    path: Place,
    cohort: Reader = "",
    config: asked.Config = "",
    modalities: asked.Modalities = "",
    missing: asked.Missing = "",
    setting: asked.Settings = None,
    store: asked.StoreFolder = None,
    home: asked.Home = None,
) -> None:
    """List every fault of a cohort at once, or show it in short; exit code 1 if there is a fault.

    Every file is read to its last byte, and kept preprocessed for the runs that follow.
    """
    from fusionbench.cards.survey import survey
    from fusionbench_cli import render_data

    registry = fusionbench.load_registry()
    flags = {"modalities": asked.names(modalities) or None, "missing": missing or None}
    comparison, settings = _composed(registry, path, cohort, setting, flags, config)
    place = store or (home or fusionbench.data_home()) / "store"
    found = survey(comparison, registry, place / "volumes", render_data.checking)
    if found.card is None:
        render_data.faults(found.faults)
        raise typer.Exit(1)
    render_data.card(found.card)
    given = {"config": config, "modalities": modalities, "missing": missing}
    render_data.next_run(comparison, settings, given)


@data.command()
def card(
    path: Place,
    out: Annotated[Path, typer.Option(help="Folder for card.md, card.json and the pictures.")],
    cohort: Reader = "",
    modalities: asked.Modalities = "",
    missing: asked.Missing = "",
    setting: asked.Settings = None,
) -> None:
    """Describe a cohort: counts, sizes, intensities, tables, what was left out, and slices of some subjects."""
    from fusionbench.atomic import writable_folder
    from fusionbench.cards.card import card_of, measured, narrowed
    from fusionbench.cards.slices import pictures, shown
    from fusionbench_cli import render_data

    registry = fusionbench.load_registry()
    comparison, _ = _composed(registry, path, cohort, setting, {"missing": missing or None})
    read = narrowed(_read(comparison), asked.names(modalities), missing)
    most = comparison.preprocessing.max_voxels
    found = card_of(read, measured(read, most))
    subjects = shown(read)
    drawn = pictures(read, subjects, most)
    writable_folder(out)
    text = found.to_markdown({p.modality: p.file for p in drawn}, [(s.id, s.label) for s in subjects])
    _write(out, {p.file: p.png for p in drawn} | {"card.json": found.to_json().encode(), "card.md": text.encode()})
    render_data.card(found)
    render_data.written(out, ["card.md", "card.json", *(picture.file for picture in drawn)])


@data.command()
def init(
    path: Place,
    cohort: Reader = "",
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
) -> None:
    """Find out how a folder can be read, and write what its reader needs, for you to look through."""
    from fusionbench.cards.survey import candidates
    from fusionbench_cli import render_data

    found = candidates(path, fusionbench.load_registry(), cohort)
    best, folder = found[0], path if path.is_dir() else path.parent
    needed = list(best.proposal.files)
    wanting = needed if force else list(best.unwritten(folder))
    render_data.proposals(found)
    # a name with bytes that are no UTF-8 goes back into the file as it came
    _write(folder, {name: best.proposal.files[name].encode("utf-8", "surrogateescape") for name in wanting})
    render_data.written(folder, wanting)
    render_data.kept(folder, [name for name in needed if name not in wanting])
    render_data.next_check(path, best.reader, best.proposal.settings)


@data.command()
def phantom(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that does not exist yet.")],
    setting: asked.Settings = None,
) -> None:
    """Write the built-in synthetic cohort as files, to try things on; it shows mechanics, not medicine.

    Example: fusionbench data phantom somewhere --set phantom.subjects=20
    """
    from fusionbench_cli import render_data

    built_in = fusionbench.CohortReader.config
    flags = {"fusion": ["all"], "cohort": {"data": str(path)}}
    comparison = fusionbench.compose(fusionbench.load_registry(), built_in, flags, setting or [])
    render_data.writing(path)
    render_data.made(_read(comparison))
    render_data.next_check(path, comparison.cohort.reader, setting or [])


def _composed(
    registry: Registry, path: Path, reader: str, setting: list[str] | None, flags: dict[str, Any], config: str = ""
) -> tuple[Comparison, list[str]]:
    """What a run on these data would start from, and the settings behind it; says which reader was taken."""
    from fusionbench_cli import render_data

    settings = list(setting or [])
    if not (reader or config):
        best = _best(registry, path)
        reader, settings = best.reader, [*best.proposal.settings, *settings]
    source = {"data": str(path), "reader": reader or None}
    comparison = fusionbench.compose(registry, config, {"fusion": ["all"], "cohort": source, **flags}, settings)
    render_data.reader_line(path, comparison.cohort.reader)
    return comparison, settings


def _best(registry: Registry, path: Path) -> Candidate:
    """The reader that would take the data; UsageError if its files have to be written first."""
    from fusionbench.cards.survey import candidates
    from fusionbench_cli import render_data

    best, *others = candidates(path, registry)
    if wanting := best.unwritten(path if path.is_dir() else path.parent):
        raise UsageError(
            f"{best.reader} would read it, once {', '.join(wanting)} is there: "
            f"{render_data.command('data', 'init', render_data.path_word(path))} writes it"
        )
    render_data.guesses(best)
    render_data.others(others)
    return best


def _read(comparison: Comparison) -> fusionbench.Cohort:
    source = comparison.cohort
    return fusionbench.read_cohort(source.reader, Path(source.data), **comparison.options.get(source.reader, {}))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all; UsageError for a name that leads elsewhere."""
    from fusionbench.atomic import atomic_file

    for name, content in files.items():
        if Path(name).name != name:
            raise UsageError(f"{name!r} is no file name: a reader may write into the folder of the data only")
        with atomic_file(folder / name) as partial:
            partial.write_bytes(content)
