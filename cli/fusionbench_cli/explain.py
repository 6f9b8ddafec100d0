"""The command that shows what models look at."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import fusionbench
from fusionbench.errors import UsageError, one_line
from fusionbench_cli import asked

if TYPE_CHECKING:
    from fusionbench.explaining import Case, Entry, Explainer


class Selection(StrEnum):
    """Which subjects are looked at."""

    rescued = "rescued"
    wrong = "wrong"


def explain(  # noqa: PLR0913 - a command has as many arguments as flags
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="A new folder: one in it for each subject, and index.html.")],
    subject: Annotated[list[str] | None, typer.Option(help="Id of a subject that was tested; may be repeated.")] = None,
    select: Annotated[
        Selection | None,
        typer.Option(help="rescued: wrong by every uni-modal method, right by the method; wrong: wrong by the method."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of those that are selected, how many at most.")] = 8,
    method: Annotated[str, typer.Option(help="A row of the leaderboard. [default: the first that fuses]")] = "",
    baseline: Annotated[
        str, typer.Option(help="Another row beside it, or none. [default: the modality that ranked first, alone]")
    ] = "",
    target: Annotated[
        str, typer.Option("--class", help="What speaks for this class. [default: the class that the method predicts]")
    ] = "",
    repeat: Annotated[int, typer.Option(min=0, help="Repeat of the cross-validation.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Where the data of the run lie by now.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, mps. [default: that of the run, if it is there]")
    ] = "",
    store: asked.StoreFolder = None,
    home: asked.Home = None,
) -> None:
    """Show what models look at in subjects of their test parts: Grad-CAM, attention, features; pages that load nothing.

    Example: fusionbench explain runs/mine --subject Phantom_003 --out looked-at
    """
    from fusionbench.atomic import writable_folder
    from fusionbench.explaining import Entry, Explainer, explained_files, folder_name, index_page
    from fusionbench_cli import render

    if bool(subject) == bool(select):
        raise UsageError("say whom to look at: --subject ID, or --select rescued or wrong")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists: choose another folder with --out")  # pages of before would stay among the new
    place = fusionbench.Store(store or (home or fusionbench.data_home()) / "store")
    registry = fusionbench.load_registry()
    explainer = Explainer.open(run, place, registry, repeat=repeat, data=data, home=home, device=device)
    cases = _cases(explainer, subject, select, method, baseline)
    shown = cases[:limit] if select else cases
    if not shown:
        render.say(f"Nobody in {run} is {select} by {explainer.method(method)}: nothing is written.")
        return
    writable_folder(out)
    entries: list[Entry] = []
    for case in shown:
        told = explainer.explain(case, target)
        folder = out / folder_name(case.subject)
        _write(folder, explained_files(told))
        entries.append(Entry.of(told))
        render.say(f"{one_line(case.subject)}: {folder / 'index.html'}")
    chosen = _chosen(len(cases), len(shown), select, shown[0].method)
    _write(out, {"index.html": index_page(entries, chosen)})
    render.say(chosen)
    render.say(f"Open {shlex.quote(str(out / 'index.html'))} in a browser; nothing in it is loaded from elsewhere.")


def _cases(
    explainer: Explainer, subjects: list[str] | None, select: Selection | None, method: str, baseline: str
) -> tuple[Case, ...]:
    if select:
        return explainer.select(select.value, method, baseline)
    return tuple(explainer.case(id, method, baseline) for id in dict.fromkeys(subjects or []))


def _chosen(found: int, shown: int, select: Selection | None, method: str) -> str:
    """How the subjects came to be shown."""
    if select is None:
        return "Chosen by id."
    rules = {
        Selection.rescued: f"every uni-modal method was wrong and {method} right",
        Selection.wrong: f"{method} was wrong",
    }
    rest = f", of which the first {shown} by id are here" if shown < found else ""
    return f"All in this repeat where {rules[select]}, each on the fold that tested it: {found}{rest}."


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all."""
    from fusionbench.atomic import atomic_file, writable_folder

    writable_folder(folder)
    for name, content in files.items():
        with atomic_file(folder / name) as partial:
            partial.write_bytes(content)
