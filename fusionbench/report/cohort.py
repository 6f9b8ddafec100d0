"""Who was in it: counts, what was left out, how it was divided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fusionbench.report.document import Block, Cell, Paragraph, Points, Table, cells, number
from fusionbench.report.scores import MAIN, NAMES, classes_line
from fusionbench.report.sources import Sources
from fusionbench.subsets import FEWEST, SubsetScores, by_available


def cohort(sources: Sources) -> Iterator[Block]:
    """Facts of the cohort, its card if there is one, and the notes of its reader."""
    if sources.synthetic:
        made = (
            "Made by equations, nobody's images."
            if sources.made_up
            else "How they were made their reader does not say."
        )
        yield Paragraph(f"Synthetic data. {made} Nothing here is about patients.", warning=True)
    yield Table("cohort", "The cohort.", ("", ""), tuple(cells(*line) for line in facts(sources)), left=2)
    if sources.card:
        yield from _card(sources.card)
    else:
        yield Paragraph(
            "No card of the cohort lies in the run folder: what fusionbench data card writes as card.json is shown "
            "here if it is put there."
        )
    if notes := sources.board.cohort["notes"]:
        yield Paragraph("What the reader of the data said, exclusions and assumptions among it:")
        yield Points(tuple(notes))


def facts(sources: Sources) -> list[tuple[str, str]]:
    """Name and value, line by line."""
    told = sources.board.cohort
    groups: Mapping[str, str] = told.get("groups", {})
    patients = told["subjects"] - len(groups) + len(set(groups.values()))
    lacking: Mapping[str, Any] = told.get("lacking", {})
    facts = sources.runs[0].facts
    return [
        ("Name", told["name"]),
        ("Synthetic", "yes" if told["synthetic"] else "not marked as such by the reader"),
        ("Subjects", f"{told['subjects']} ({classes_line(told['classes'])})"),
        ("Patients", f"{patients}{' (their subjects are never in two folds of a repeat)' if groups else ''}"),
        ("Positive class", told["positive_class"]),
        ("Modalities", ", ".join(f"{name} ({_input(*sources.inputs[name])})" for name in told["modalities"])),
        ("Subjects that lack a modality", str(len(lacking)) if lacking else "none"),
        ("Test folds", f"{facts['folds']['count']}; SHA-256 of who is tested where: {facts['folds']['digest']}"),
        ("SHA-256 of the data", told["fingerprint"]),
    ]


def available(sources: Sources) -> Iterator[Block]:
    """How methods do on the subjects that have the same modalities; nothing where everybody has all."""
    for run in sources.runs:
        if run.facts["cohort"].get("lacking"):
            yield Table(
                name=f"available-{run.name}",
                caption=(
                    "Subjects by the modalities that they have: scores pooled over the test folds of a repeat, mean "
                    "over repeats; empty where a score is not defined; others: sets with fewer than "
                    f"{FEWEST} subjects of a class, together. Groups are small: no interval is given."
                ),
                header=("Method", "Has", "Subjects", *(NAMES[name] for name in MAIN)),
                rows=tuple(map(_available_row, by_available(run))),
                sortable=True,
                left=3,
            )


def _available_row(line: SubsetScores) -> tuple[Cell, ...]:
    counted = Cell(classes_line(line.counts), sum(line.counts.values()))
    return Cell(line.method), Cell(line.has), counted, *(number(line.scores[name]) for name in MAIN)


def _input(kind: str, channels: int) -> str:
    return f"{kind}, {'features' if kind == 'table' else 'channels'}: {channels}"


def _card(card: Mapping[str, Any]) -> Iterator[Block]:
    """What `fusionbench data card` found; a card of another version may have other parts."""
    classes = list(card.get("classes", {}))
    for name, what, title in (("present", "Has", "Who has what."), ("sites", "Site", "Sites.")):
        counted: Mapping[str, Mapping[str, int]] = card.get(name) or {}
        if counted:
            rows = tuple(cells(one, *(str(counts.get(c, 0)) for c in classes)) for one, counts in counted.items())
            yield Table(f"card-{name}", f"{title} Subjects of each class.", (what, *classes), rows)
    if images := card.get("images"):
        rows = tuple(cells(i["name"], str(i["subjects"]), _first(i["sizes"]), _first(i["spacings"])) for i in images)
        header = ("Images", "Subjects", "Voxels", "Spacing, mm")
        yield Table("card-images", "Images; of several grids the most frequent.", header, rows)


def _first(counted: Mapping[str, int]) -> str:
    first = next(iter(counted), "")
    return f"{first} ({len(counted)} kinds)" if len(counted) > 1 else first
