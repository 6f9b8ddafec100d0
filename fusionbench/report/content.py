"""What a report says, in its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from fusionbench.report.checklist import checklist
from fusionbench.report.cohort import available, cohort
from fusionbench.report.contributions import contributions
from fusionbench.report.curves import calibration_panel, fold_dots, roc_panel
from fusionbench.report.document import Block, Document, Figure, Paragraph, Points, Section
from fusionbench.report.pairs import differences
from fusionbench.report.ranking import ranked
from fusionbench.report.reliability import reliability_table
from fusionbench.report.reproduce import reproduce
from fusionbench.report.scores import NAMES, costs, further, performance, readable
from fusionbench.report.sources import Sources
from fusionbench.report.summary import brief
from fusionbench.report.training import loss_panel
from fusionbench.rows import failure_notes, mark_notes

NO_CLINICAL_USE = "For research. Not for clinical use: nothing here was tested on new patients."


def document(sources: Sources) -> Document:
    """The whole report; sections without anything to say are left out."""
    parts: list[tuple[str, str, Iterable[Block]]] = [
        ("scores", "Leaderboard", _scores(sources)),
        ("differences", "Which methods can be told apart", _differences(sources)),
        ("folds", "Scores fold by fold", _folds(sources)),
        ("curves", "Discrimination and calibration", _curves(sources)),
        ("modalities", "Modalities", _modalities(sources)),
        ("training", "Training", _training(sources)),
        ("cohort", "Cohort and folds", cohort(sources)),
        ("failures", "What failed, and what was left out", _failures(sources)),
        ("checklist", "Reporting checklist", checklist(sources)),
        ("reproduction", "Reproduction", reproduce(sources)),
    ]
    sections = (Section(id, title, tuple(blocks)) for id, title, blocks in parts)
    return Document(
        title=f"Fusion strategies compared on {sources.board.cohort['name']}",
        brief=brief(sources),
        sections=tuple(section for section in sections if section.blocks),
        version=version("fusionbench"),
        stamp="SYNTHETIC DATA" if sources.synthetic else "",
    )


def _scores(sources: Sources) -> Iterator[Block]:
    yield performance(sources)
    findings = sources.board.findings
    rows = sources.board.rows  # their marks stand in them
    of_rows = (*mark_notes(rows), *failure_notes(rows))
    elsewhere = {*sources.board.cohort["notes"], *of_rows, *(findings.notes() if findings else [])}
    told = [note for note in sources.board.notes() if note not in elsewhere and not _said_elsewhere(note)]
    if told:
        yield Points(tuple(map(readable, told)))
    yield further(sources)
    yield costs(sources)


def _said_elsewhere(note: str) -> bool:
    """In the summary, the caption or a later section."""
    return note.startswith(("positive class", "mean ±", "scores of", "tied with", "synthetic data", "left out"))


def _differences(sources: Sources) -> Iterator[Block]:
    if sources.board.findings:
        yield from differences(sources.board.findings)


def _folds(sources: Sources) -> Iterator[Block]:
    if sources.tested:
        yield Figure(
            "folds",
            "ROC-AUC on each test fold (rings) and its mean (bar). Folds share training subjects: their spread is no "
            "confidence interval.",
            (fold_dots(sources.tested, "roc_auc", NAMES["roc_auc"]),),
        )


def _curves(sources: Sources) -> Iterator[Block]:
    if not sources.tested:
        return
    classes = sources.shown_classes
    of = f"positive class {sources.positive}" if len(classes) == 1 else "each class against the rest"
    panels = [
        (row, name, row.method if len(classes) == 1 else f"{row.method}: {name}")
        for row in sources.tested
        for name in classes
    ]
    yield Figure(
        "roc",
        f"ROC curves, {of}. Thin: each test fold. Thick: the test folds of a repeat pooled, a line per repeat; pooling "
        "mixes models, so it is a picture and no score. Number: mean area over the folds.",
        tuple(roc_panel(*panel) for panel in panels),
    )
    yield Figure(
        "calibration",
        f"Calibration, {of}: the share observed among subjects given a probability, in ten bins. Thin: each test fold. "
        "Thick: the test folds of a repeat pooled. Whiskers: Wilson's 95 % intervals of the first repeat. On the "
        "diagonal probabilities can be taken at their word.",
        tuple(calibration_panel(*panel) for panel in panels),
    )
    yield reliability_table(sources)


def _modalities(sources: Sources) -> Iterator[Block]:
    yield from ranked(sources.board)
    yield from contributions(sources.board, sources.setup)
    yield from available(sources)


def _training(sources: Sources) -> Iterator[Block]:
    histories = [(row.method, sources.history(row)) for row in sources.tested]
    panels = tuple(loss_panel(method, history) for method, history in histories if history)
    if panels:
        yield Figure(
            "loss",
            "Training loss per subject, a line per fold, stages one after the other. Losses of different methods and "
            "stages cannot be compared. The last epoch is used; no test subject had a say in when to stop.",
            panels,
        )


def _failures(sources: Sources) -> Iterator[Block]:
    failed = [f"{row.method} failed: {row.failed}" for row in sources.board.rows if row.failed]
    left_out = [f"{method} was left out: it {reason}" for method, reason in sources.board.left_out.items()]
    if failed or left_out:
        yield Points((*failed, *left_out))
    else:
        yield Paragraph("No method failed, and none was left out.")
