"""One table that names everything: subjects, labels, the file of each image, the columns of each table of features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from fusionbench import Cohort, CohortError, CohortReader, Modality, Proposal, Subject, hookimpl, summary
from fusionbench_plugins.cohorts.manifest.paths import Root, is_image
from fusionbench_plugins.cohorts.manifest.proposing import MANIFESTS, propose
from fusionbench_plugins.cohorts.reading.cells import Features, absent_columns, chosen, column_of, indexed, read_cells
from fusionbench_plugins.cohorts.reading.labels import Labelling

if TYPE_CHECKING:
    import pandas as pd

_NO_FEATURES: dict[str, list[str]] = {}
_NO_CLASSES: dict[str, str] = {}
_ABSENT = ("group", "site", "seg")
"""Columns that need not be there under their ordinary names."""


@dataclass(frozen=True)
class Content:
    """What a manifest says of its subjects, and what is wrong with it."""

    table: pd.DataFrame
    """By subject, every cell as text."""
    images: Mapping[str, Mapping[str, Path]]
    """Modality -> subject -> file."""
    tables: Mapping[str, Features]
    segs: Mapping[str, Path]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Images in the order of their columns, then tables in that of the option."""
        tables = (
            Modality(name, "table", len(table.columns), tuple(map(str, table.columns)))
            for name, table in self.tables.items()
        )
        return (*map(Modality, self.images), *tables)


class Manifest(CohortReader):
    """One CSV or TSV with a row per subject: its label, a NIfTI file for each image, columns of features.

    A column whose cells end in .nii or .nii.gz is an image modality of its name; `features` makes tables of other
    columns. A subject lacks what is empty in its row. Paths are relative to the manifest and stay in its folder.
    """

    name: ClassVar[str] = "manifest"
    config: ClassVar[str] = "brats"

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        *,
        subject: Annotated[str, "column of the subject ids"] = "subject",
        label: Annotated[str, "column of the labels"] = "label",
        group: Annotated[str, "column of what stays in one fold, such as the patient; may be absent"] = "group",
        site: Annotated[str, "column of the sites; may be absent"] = "site",
        seg: Annotated[str, "column of the tumour outlines; may be absent"] = "seg",
        features: Annotated[
            dict[str, list[str]], "table modality -> its columns, by name or pattern (mir*); a column goes to the first"
        ] = _NO_FEATURES,
        outside: Annotated[bool, "allow absolute paths and paths that leave the folder of the manifest"] = False,
        classes: Annotated[dict[str, str], "label as written -> class name, in order"] = _NO_CLASSES,
        positive_class: Annotated[str, "the class that sensitivity is about; empty: the smaller one"] = "",
    ) -> None:
        self.columns = {"subject": subject, "label": label, "group": group, "site": site, "seg": seg}
        self.features = features
        self.outside = outside
        self.labelling = Labelling(self.name, classes, positive_class)

    def read(self, path: Path) -> Cohort:
        """The cohort of a manifest, or of the one in a folder; CohortError lists everything that is wrong with it."""
        file = _manifest(path)
        content = self._content(file, ("subject", "label", *self._renamed))
        labels, faults = self.labelling.read(column_of(content.table, self.columns["label"]))
        _refuse(file, (*content.faults, *faults))
        positive, notes = self.labelling.positive_of(labels)
        classes = self.labelling.names(labels)
        return Cohort(
            _name(file),
            classes,
            positive,
            content.modalities,
            self._subjects(content, labels),
            notes=(*notes, *content.notes),
        )

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """The subjects of a manifest, with or without a column of labels."""
        file = _manifest(path)
        content = self._content(file, ("subject",))
        _refuse(file, content.faults)
        known, notes = self.labelling.known(column_of(content.table, self.columns["label"]), classes)
        labels = {str(id): known.get(str(id), "") for id in content.table.index}
        return Cohort(
            _name(file),
            classes,
            positive_class,
            content.modalities,
            self._subjects(content, labels),
            notes=(*notes, *content.notes),
            labelled=False,
        )

    def propose(self, path: Path) -> Proposal | None:
        """A manifest for any folder with NIfTI files, subject and sequence guessed from their names."""
        return propose(path) if path.is_dir() else None

    @property
    def _renamed(self) -> list[str]:
        """Columns that could be absent, but that somebody named."""
        return [option for option in _ABSENT if self.columns[option] != option]

    def _content(self, file: Path, needed: Iterable[str]) -> Content:
        cells = read_cells(file)
        self._check_columns(file, cells, needed)
        table, faults = indexed(cells, self.columns["subject"])
        taken = list(self.columns.values())
        columns = [c for c in table.columns if c not in taken and any(map(is_image, table[c]))]
        taken += columns
        tables: dict[str, Features] = {}
        for name, patterns in self.features.items():
            own = chosen(name, patterns, table, taken, "manifest.features")
            tables[name] = Features.of(table[own])
            faults += tables[name].faults(name)
            taken += own
        root = Root(file.resolve().parent, self.outside)
        read = {name: root.files(name, column_of(table, name)) for name in (*columns, self.columns["seg"])}
        faults += [fault for _, wrong in read.values() for fault in wrong]
        segs, _ = read.pop(self.columns["seg"])
        images = {name: files for name, (files, _) in read.items()}
        if not images and not tables:
            raise CohortError(
                f"{file.name} names no images and no features: a column whose cells end in .nii.gz is an image, and "
                "manifest.features makes tables of columns, as in {clinical = ['Age', 'Sex']}; "
                f"there are {summary(list(cells.columns), ', ')}"
            )
        unused = [repr(column) for column in table.columns if column not in taken]
        notes = [f"columns not used: {summary(unused, ', ')}; manifest.features makes tables of columns"]
        return Content(table, images, tables, segs, tuple(faults), tuple(notes if unused else ()))

    def _check_columns(self, file: Path, cells: pd.DataFrame, needed: Iterable[str]) -> None:
        """Raise CohortError for columns that are needed and not there."""
        options = [option for option in needed if self.columns[option] not in cells.columns]
        if absent := absent_columns([self.columns[option] for option in options], cells):
            settings = " and ".join(f"manifest.{option}" for option in options)
            raise CohortError(f"{file.name} has {absent}; set {settings}")
        for name in self.features:
            if name in cells.columns and any(map(is_image, cells[name])):
                raise CohortError(f"manifest.features: {name!r} is an image already; call the table otherwise")

    def _subjects(self, content: Content, labels: Mapping[str, str]) -> tuple[Subject, ...]:
        rows = {name: table.rows() for name, table in content.tables.items()}
        group, site = (column_of(content.table, self.columns[option]) for option in ("group", "site"))
        return tuple(
            Subject(
                id,
                label,
                files={name: files[id] for name, files in content.images.items() if id in files},
                features={name: values[id] for name, values in rows.items() if id in values},
                seg=content.segs.get(id),
                group=group.get(id) or id,
                site=site.get(id, ""),
            )
            for id, label in labels.items()
        )


def _manifest(path: Path) -> Path:
    """The file itself, or the manifest in a folder."""
    if not path.is_dir():
        return path
    found = [path / name for name in MANIFESTS if (path / name).is_file()]
    if len(found) != 1:
        names = " and ".join(MANIFESTS) if found else f"no {' or '.join(MANIFESTS)}"
        raise CohortError(f"{path.name} holds {names}: give the file itself, or `fusionbench data init` proposes one")
    return found[0]


def _name(file: Path) -> str:
    """The name of the cohort: that of the file, or of its folder if it is called like any manifest."""
    return file.resolve().parent.name if file.name in MANIFESTS else file.stem


def _refuse(file: Path, faults: tuple[str, ...]) -> None:
    if faults:
        raise CohortError.of(file.name, faults)


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for manifests."""
    return [Manifest]
