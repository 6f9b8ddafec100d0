"""The command that writes reports."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusionbench.errors import UsageError
from fusionbench_cli import asked

if TYPE_CHECKING:
    from fusionbench.report import Sources


class ReportFormat(StrEnum):
    """How a report is written."""

    html = "html"
    md = "md"
    latex = "latex"
    csv = "csv"
    json = "json"
    card = "card"


class FigureFormat(StrEnum):
    """How a figure is written."""

    svg = "svg"
    png = "png"


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; with --figures, a folder. [default: report.html in the run, else printed]"),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="html, md, latex, csv, json, or card: a card of the models.")
    ] = ReportFormat.html,
    figures: Annotated[
        FigureFormat | None, typer.Option(help="Write every figure as svg or png, and nothing else.")
    ] = None,
    published: Annotated[str, typer.Option(help="A data set whose printed scores stand beside: brats2018, ...")] = "",
    imported: Annotated[
        list[str] | None, typer.Option("--import", metavar="NAME=FILE.csv", help="Predictions made elsewhere.")
    ] = None,
) -> None:
    """Write what runs on the same folds found: one page that loads nothing, or tables, figures, a model card.

    Example: fusionbench report runs/mine
    """
    from fusionbench import published as papers
    from fusionbench.report import Sources

    printed = papers.published(published) if published else None
    sources = Sources.read(*folders, published=printed, imported=asked.imported(imported or []))
    if figures:
        _write_figures(sources, figures, out)
    elif format is ReportFormat.html:
        _write(_told(sources, format), out or _in_the_run(folders))
    elif out:
        _write(_told(sources, format), out)
    else:
        print(_told(sources, format), end="")


def _told(sources: Sources, format: ReportFormat) -> str:
    from fusionbench import report as reports

    match format:
        case ReportFormat.html:
            return reports.to_html(reports.document(sources))
        case ReportFormat.md:
            return reports.to_markdown(reports.document(sources))
        case ReportFormat.latex:
            return reports.to_latex(sources, reports.document(sources))
        case ReportFormat.csv:
            return reports.to_csv(sources)
        case ReportFormat.json:
            return reports.to_json(sources, reports.document(sources))
        case ReportFormat.card:
            return reports.model_card(sources)


def _in_the_run(folders: list[Path]) -> Path:
    if len(folders) > 1:
        raise UsageError("a report of several runs belongs to none of them: say where to write it with --out FILE.html")
    return folders[0] / "report.html"


def _write(text: str, file: Path) -> None:
    from fusionbench.atomic import write_text
    from fusionbench_cli import render

    if file.is_dir():
        raise UsageError(f"{file} is a folder: give --out a file")
    write_text(file, text)
    render.say(f"Written: {file}")


def _write_figures(sources: Sources, kind: FigureFormat, folder: Path | None) -> None:
    from fusionbench.atomic import atomic_file, writable_folder
    from fusionbench.report import document, figure_files
    from fusionbench_cli import render

    if folder is None:
        raise UsageError("--figures writes several files: say into which folder with --out FOLDER")
    if folder.is_file():
        raise UsageError(f"{folder} is a file: give --out a folder")
    found = figure_files(document(sources), kind)
    for name, content in found.items():
        with atomic_file(writable_folder(folder) / name) as partial:
            partial.write_bytes(content)
    render.say(f"Written: {len(found)} figures to {folder}")
