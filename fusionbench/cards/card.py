"""The card of a cohort: who is in it, what of whom, and what the images and tables are like."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from fusionbench.cohorts import Cohort, Modality, Subject, completed
from fusionbench.errors import CohortError
from fusionbench.imaging.nifti import MAX_VOXELS, Grid, read_image
from fusionbench.markdown import escaped, markdown_table

PERCENTILES = (0.5, 50.0, 90.0, 99.5)
"""Of the voxels of a volume; the outer two are what intensities are rescaled by if nothing else is set."""
THREADS = min(8, os.cpu_count() or 1)
"""Volumes read at once; each takes about 150 MB, at 155 x 240 x 240."""
SYNTHETIC = "synthetic: made by equations, not measured in patients; it shows mechanics, not medicine"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Scan:
    """What a card tells of one image: its grid, and if the file was read, what is in it."""

    grid: Grid
    axes: str = ""
    """Where the axes of the file point, such as LPS."""
    intensities: tuple[float, ...] = ()
    """The PERCENTILES of its voxels."""


@dataclass(frozen=True)
class Spread:
    """A number over subjects."""

    smallest: float
    median: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.smallest:.4g} to {self.largest:.4g})"


@dataclass(frozen=True)
class ImageFacts:
    """The images of one modality."""

    name: str
    channels: int
    subjects: int
    """How many have it."""
    sizes: Mapping[str, int]
    """Voxels as `D x H x W` -> how many subjects, the most frequent first."""
    spacings: Mapping[str, int]
    """Millimetres between voxels as `D x H x W` -> how many subjects."""
    orientations: Mapping[str, int]
    """Where the axes of the files point, such as LPS -> how many subjects; empty if no file was read."""
    intensities: Mapping[str, Spread]
    """Percentile of the voxels of a volume -> that value over the subjects; empty if no voxel was read."""


@dataclass(frozen=True)
class TableFacts:
    """The features of one modality."""

    name: str
    features: int
    subjects: int
    """How many have it."""
    constant: int
    """Features that are the same for everybody."""
    smallest: float
    largest: float


@dataclass(frozen=True)
class CohortCard:
    """What a cohort is. It names subjects by id, and holds no path and no text of a header."""

    name: str
    synthetic: bool
    subjects: int
    classes: Mapping[str, int]
    positive_class: str
    patients: int
    several_sessions: int
    """Patients with more than one subject."""
    sites: Mapping[str, Mapping[str, int]]
    """Site -> class -> subjects; empty if none is given."""
    present: Mapping[str, Mapping[str, int]]
    """Modality, or `outline` -> class -> subjects who have it."""
    missing: Mapping[str, int]
    """Modalities that the same subjects lack, joined by `, ` -> how many subjects."""
    outlines: int
    """Subjects with a tumour outline."""
    images: tuple[ImageFacts, ...]
    """Of the modalities whose images were looked at."""
    tables: tuple[TableFacts, ...]
    notes: tuple[str, ...]
    """What was excluded, turned or assumed, one line each."""
    fingerprint: str
    """The SHA-256 of the content, as in `run.json`."""

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Name and text, line by line: the card in short."""
        sites = {site: sum(counts.values()) for site, counts in self.sites.items()}
        missing = (f"{n} without {names}" for names, n in self.missing.items())
        return (
            ("cohort", f"{self.name} ({SYNTHETIC})" if self.synthetic else self.name),
            ("subjects", f"{self.subjects} ({_counts(self.classes)}; positive class {self.positive_class})"),
            ("patients", f"{self.patients} ({self.several_sessions} with several sessions)"),
            ("sites", _counts(sites) or "not given"),
            ("missing modalities", "; ".join(missing) or "none"),
            *([("outlines", f"{self.outlines} of {self.subjects}")] if self.images else []),
            *((image.name, _image_line(image)) for image in self.images),
            *((table.name, _table_line(table)) for table in self.tables),
        )

    def to_json(self) -> str:
        """Everything, for programs."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def to_markdown(self, pictures: Mapping[str, str] | None = None, rows: Sequence[tuple[str, str]] = ()) -> str:
        """Everything, to be read; pictures are modality -> file beside it, rows the id and class in each of theirs."""
        parts = [
            f"# Cohort {escaped(self.name)}",
            *([f"**This cohort is {SYNTHETIC}.**"] if self.synthetic else []),
            markdown_table(["", ""], self.facts()),
            *self._class_table("Who has what", "modality", self.present),
            *self._class_table("Sites", "site", self.sites),
            *_image_part(self.images),
            *_picture_part(pictures or {}, rows),
            *(["## Notes", "\n".join(f"- {escaped(note)}" for note in self.notes)] if self.notes else []),
            f"SHA-256 of the content: `{self.fingerprint}`",
        ]
        return "\n\n".join(parts) + "\n"

    def _class_table(self, title: str, column: str, counted: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
        if counted:
            yield f"## {title}"
            rows = [[name, *(str(counts[label]) for label in self.classes)] for name, counts in counted.items()]
            yield markdown_table([column, *self.classes], rows)


def card_of(cohort: Cohort, scans: Mapping[tuple[str, str], Scan]) -> CohortCard:
    """The card of a cohort whose images are known by (subject id, modality)."""
    pictured = {name for _, name in scans}
    tabled = {name for subject in cohort.subjects for name in subject.features}
    groups = Counter(subject.group or subject.id for subject in cohort.subjects)
    names = [modality.name for modality in cohort.modalities]
    lacking = (", ".join(subject.lacks(names)) for subject in cohort.subjects)
    return CohortCard(
        name=cohort.name,
        synthetic=cohort.synthetic,
        subjects=len(cohort.subjects),
        classes=cohort.counts(),
        positive_class=cohort.positive_class,
        patients=len(groups),
        several_sessions=sum(sessions > 1 for sessions in groups.values()),
        sites=_sites(cohort),
        present=_present(cohort),
        missing=_by_frequency(names for names in lacking if names),
        outlines=sum(subject.seg is not None for subject in cohort.subjects),
        images=tuple(_image_facts(m, scans) for m in cohort.modalities if m.name in pictured),
        tables=tuple(_table_facts(m, cohort) for m in cohort.modalities if m.name in tabled),
        notes=cohort.notes,
        fingerprint=cohort.fingerprint,
    )


def narrowed(cohort: Cohort, modalities: Sequence[str] = (), missing: str = "") -> Cohort:
    """The cohort with some of its modalities, and without those whom a policy on missing ones leaves out.

    Everybody if nothing is asked; who has none of the modalities cannot be in it. UsageError for one that is not there.
    """
    if not modalities and not missing:
        return cohort
    names = tuple(modalities) or tuple(modality.name for modality in cohort.modalities)
    wanted = tuple(map(cohort.modality, names))
    return replace(completed(cohort, names, missing or "mask"), modalities=wanted)


def measured(cohort: Cohort, max_voxels: int = MAX_VOXELS) -> dict[tuple[str, str], Scan]:
    """(Subject id, modality) -> its scan, every image read to its last byte; CohortError names all that cannot be."""
    images = [modality for modality in cohort.modalities if modality.kind == "image"]
    wanted = [(s, m) for s in cohort.subjects for m in images if m.name in s.files]
    read = partial(_scan_or_fault, max_voxels)
    with ThreadPoolExecutor(THREADS) as pool:  # zlib and numpy work outside the interpreter's lock
        scans = list(pool.map(read, wanted))
    if faults := [scan for scan in scans if isinstance(scan, str)]:
        raise CohortError.of(cohort.name, faults)
    return {(s.id, m.name): scan for (s, m), scan in zip(wanted, scans, strict=True) if isinstance(scan, Scan)}


def _scan_or_fault(max_voxels: int, wanted: tuple[Subject, Modality]) -> Scan | str:
    subject, modality = wanted
    try:
        image = read_image(subject.files[modality.name], modality.channels, max_voxels)
    except CohortError as error:
        return f"{subject.id!r}, {modality.name}: {error}"
    return Scan(image.frame.grid, image.axes, tuple(np.percentile(image.voxels, PERCENTILES).tolist()))


def _image_facts(modality: Modality, scans: Mapping[tuple[str, str], Scan]) -> ImageFacts:
    mine = [scan for (_, name), scan in scans.items() if name == modality.name]
    columns = zip(*(scan.intensities for scan in mine), strict=True)
    return ImageFacts(
        name=modality.name,
        channels=modality.channels,
        subjects=len(mine),
        sizes=_by_frequency(" x ".join(map(str, scan.grid.size)) for scan in mine),
        spacings=_by_frequency(" x ".join(f"{mm:.3g}" for mm in scan.grid.spacing) for scan in mine),
        orientations=_by_frequency(scan.axes for scan in mine if scan.axes),
        intensities={f"{p:g}": _spread(values) for p, values in zip(PERCENTILES, columns, strict=False)},
    )


def _table_facts(modality: Modality, cohort: Cohort) -> TableFacts:
    rows = [s.features[modality.name] for s in cohort.subjects if modality.name in s.features]
    table = np.array(rows, dtype=float)  # (N, F)
    return TableFacts(
        name=modality.name,
        features=modality.channels,
        subjects=len(rows),
        constant=int((table == table[:1]).all(axis=0).sum()),
        smallest=float(table.min()),
        largest=float(table.max()),
    )


def _present(cohort: Cohort) -> dict[str, dict[str, int]]:
    found = {m.name: _by_class(cohort, [s for s in cohort.subjects if s.has(m.name)]) for m in cohort.modalities}
    outlined = [subject for subject in cohort.subjects if subject.seg]
    return found | ({"outline": _by_class(cohort, outlined)} if outlined else {})


def _sites(cohort: Cohort) -> dict[str, dict[str, int]]:
    names = sorted({subject.site for subject in cohort.subjects})
    if names in ([], [""]):
        return {}
    return {name or "not given": _by_class(cohort, [s for s in cohort.subjects if s.site == name]) for name in names}


def _by_class(cohort: Cohort, subjects: Iterable[Subject]) -> dict[str, int]:
    counted = Counter(subject.label for subject in subjects)
    return {name: counted[name] for name in cohort.classes}


def _by_frequency(found: Iterable[Found]) -> dict[Found, int]:
    return dict(Counter(found).most_common())


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(min(values)), float(np.median(values)), float(max(values)))


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counted.items())


def _image_line(image: ImageFacts) -> str:
    parts = [f"{image.subjects} images", _counted(image.sizes, " voxels"), _counted(image.spacings, " mm")]
    return "; ".join(filter(None, parts))


def _counted(found: Mapping[str, int], unit: str) -> str:
    """`155 x 240 x 240 voxels`, or of several the first few, each with how many subjects have it."""
    if len(found) < 2:
        return "".join(f"{text}{unit}" for text in found)
    shown = [f"{text}{unit} ({n})" for text, n in list(found.items())[:3]]
    rest = [f"{len(found) - 3} others"] if len(found) > 3 else []
    return ", ".join([*shown, *rest])


def _table_line(table: TableFacts) -> str:
    constant = f", {table.constant} of them constant" if table.constant else ""
    return f"{table.subjects} rows of {table.features} features{constant}; {table.smallest:.4g} to {table.largest:.4g}"


def _image_part(images: Sequence[ImageFacts]) -> Iterable[str]:
    rows = [
        [image.name, _counted(image.orientations, ""), *map(str, image.intensities.values())]
        for image in images
        if image.intensities
    ]
    if rows:
        yield "## Images"
        yield (
            "How the files are stored (all are turned to RAS), and percentiles of the voxels of each volume: the "
            "median over subjects, and the smallest to the largest."
        )
        header = ["modality", "stored as", *(f"percentile {percentile:g}" for percentile in PERCENTILES)]
        yield markdown_table(header, rows)


def _picture_part(pictures: Mapping[str, str], rows: Sequence[tuple[str, str]]) -> Iterable[str]:
    if pictures:
        yield "## Slices"
        yield (
            "Three axial slices per subject, the front of the head on top and the patient's left on the left; the "
            "outline of the tumour where there is one. Subjects without the modality have an empty row."
        )
        numbered = [[str(number), id, label] for number, (id, label) in enumerate(rows, start=1)]
        yield markdown_table(["row", "subject", "class"], numbered)
        for modality, file in pictures.items():
            yield f"![{escaped(modality)}]({file})"
