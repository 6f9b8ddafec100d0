"""Subjects, their modalities and labels: what a reader makes of a folder or a table."""

from __future__ import annotations

import hashlib
import re
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from fusionbench.errors import CohortError, UsageError, nearest, summary
from fusionbench.seeds import content_digest

Kind = Literal["image", "table"]


@dataclass(frozen=True)
class Modality:
    """One kind of measurement: an MRI sequence (an image of some channels) or a table of features."""

    name: str
    kind: Kind = "image"
    channels: int = 1
    columns: tuple[str, ...] = ()
    """Of a table: the names of its features, in order, where the reader knows them."""


@dataclass(frozen=True)
class Subject:
    """One row of a cohort: an id, a label, and where each modality is found.

    `group` is what must stay in one fold (a patient with several sessions); the id itself where none is given.
    """

    id: str
    label: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Image modality -> NIfTI file."""
    features: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Table modality -> its values."""
    seg: Path | None = None
    """Tumour labels as NIfTI, on the grid of the images."""
    group: str = ""
    site: str = ""

    def has(self, modality: str) -> bool:
        """Whether the subject has that modality."""
        return modality in self.files or modality in self.features

    def lacks(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Of these modalities those that it has not."""
        return tuple(name for name in modalities if not self.has(name))

    def digest(self, modality: str) -> str:
        """The SHA-256 of what is stored for that modality; empty if it has none."""
        if not self.has(modality):
            return ""
        if modality in self.features:
            values = self.features[modality]
            return hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest()
        return file_digest(self.files[modality])

    @property
    def seg_digest(self) -> str:
        """The SHA-256 of the tumour labels; empty if there are none."""
        return file_digest(self.seg) if self.seg else ""


@dataclass(frozen=True)
class Cohort:
    """Subjects with some of the same modalities and labels from one set of classes.

    Raises CohortError, naming every bad subject at once, for a doubled id, an unknown label, or a subject without any
    modality. What is done about one that lacks some is decided where they are compared.
    """

    name: str
    classes: tuple[str, ...]
    positive_class: str
    modalities: tuple[Modality, ...]
    subjects: tuple[Subject, ...]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """What was excluded or assumed while reading, one line each."""
    labelled: bool = True
    """Whether everybody has a label of the classes; those that a trained model is asked about need none."""

    def __post_init__(self) -> None:
        names = tuple(modality.name for modality in self.modalities)
        faults = [
            *(f"{name!r} appears {n} times" for name, n in Counter(s.id for s in self.subjects).items() if n > 1),
            *(f"{s.id!r} has none of {', '.join(names)}" for s in self.subjects if len(s.lacks(names)) == len(names)),
            *(
                f"{s.id!r} has {len(s.features[m.name])} values of {m.name}, not {m.channels}"
                for s in self.subjects
                for m in self.modalities
                if m.name in s.features and len(s.features[m.name]) != m.channels
            ),
            *(self._bad_labels() if self.labelled else ()),
        ]
        if faults:
            raise CohortError.of(self.name, faults)
        if self.positive_class not in self.classes:
            raise CohortError(f"positive class {self.positive_class!r}: {nearest(self.positive_class, self.classes)}")
        if len(self.classes) < 2:
            raise CohortError(f"{self.name}: {len(self.subjects)} subjects of one class; there is nothing to learn")

    def _bad_labels(self) -> list[str]:
        wrong = [s for s in self.subjects if s.label not in self.classes]
        seen = {subject.label for subject in self.subjects}
        return [
            *(f"{s.id!r} has the label {s.label!r}: {nearest(s.label, self.classes)}" for s in wrong),
            *(f"nobody is of class {name}" for name in self.classes if name not in seen),
        ]

    def modality(self, name: str) -> Modality:
        """The modality of that name; UsageError if there is none."""
        if name not in self._modalities:
            raise UsageError(f"{self.name} has no modality {name!r}: {nearest(name, self._modalities)}")
        return self._modalities[name]

    def subject(self, id: str) -> Subject:
        """The subject of that id."""
        return self._subjects[id]

    def counts(self) -> dict[str, int]:
        """Class -> number of subjects, in the order of the classes."""
        counted = Counter(subject.label for subject in self.subjects)
        return {name: counted[name] for name in self.classes}

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that results may depend on: modalities, classes, ids, labels, groups, content."""
        content = {
            s.id: [s.label, s.group, s.seg_digest, *(s.digest(m.name) for m in self.modalities)] for s in self.subjects
        }
        modalities = [[m.name, m.kind, m.channels] for m in self.modalities]
        return content_digest([modalities, self.classes, self.positive_class, content])

    @cached_property
    def _modalities(self) -> dict[str, Modality]:
        return {modality.name: modality for modality in self.modalities}

    @cached_property
    def _subjects(self) -> dict[str, Subject]:
        return {subject.id: subject for subject in self.subjects}


@dataclass(frozen=True)
class Proposal:
    """How a reader would read a folder: what it needs beside it, what it guessed, and how sure it is."""

    settings: tuple[str, ...] = ()
    """`NAME.OPTION=VALUE`, as `--set` takes them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> text of a file to be written into the folder, such as a manifest to look through."""
    guesses: tuple[str, ...] = ()
    """What was guessed or is still to be filled in, one line each."""
    subjects: int = 0
    """How many it would read."""
    labelled: bool = True
    """Whether it found their labels; a reader that did, and needs no file written, is proposed first."""


def completed(cohort: Cohort, modalities: tuple[str, ...], missing: str) -> Cohort:
    """The cohort after a policy on subjects that lack some of these modalities, with a note of what was done.

    `error` raises CohortError that lists them; `drop-subject` leaves them out; `mask` keeps those that have any.
    """
    lacking = {s.id: lacks for s in cohort.subjects if (lacks := s.lacks(modalities))}
    if not lacking:
        return cohort
    if missing == "error":
        faults = [f"{id!r} has no {', '.join(lacks)}" for id, lacks in lacking.items()]
        mend = "add the files, or choose --missing drop-subject or --missing mask"
        raise CohortError(f"{cohort.name}: {summary(faults)}: {mend}", [f"{fault}: {mend}" for fault in faults])
    if missing == "drop-subject":
        left = tuple(subject for subject in cohort.subjects if subject.id not in lacking)
        told = summary([f"{id!r} (no {', '.join(lacks)})" for id, lacks in lacking.items()], ", ")
        note = f"{len(lacking)} of {len(cohort.subjects)} subjects left out, for they lack a modality: {told}"
    else:
        bare = {id for id, lacks in lacking.items() if len(lacks) == len(modalities)}
        left = tuple(subject for subject in cohort.subjects if subject.id not in bare)
        counts = Counter(name for lacks in lacking.values() for name in lacks)
        told = ", ".join(f"{counts[name]} {name}" for name in modalities if name in counts)
        out = f"; {len(bare)} left out, for they have none" if bare else ""
        note = f"{len(lacking)} of {len(cohort.subjects)} subjects lack a modality ({told}){out}"
    if not left:
        raise CohortError(f"{cohort.name}: nobody has {', '.join(modalities)}: compare fewer --modalities")
    notes = cohort.notes if note in cohort.notes else (*cohort.notes, note)
    return replace(cohort, subjects=left, notes=notes)


def alike_ids(subjects: Iterable[Subject]) -> list[str]:
    """A note if ids differ in nothing but case, blanks or zeros that a spreadsheet drops: one subject, perhaps.

    >>> alike_ids([Subject("01", "a"), Subject("1.0", "b"), Subject("2", "b")])
    ["ids that differ only in case, blanks or zeros are different subjects: '01' and '1.0'"]
    """
    found: dict[str, list[str]] = {}
    for subject in subjects:
        found.setdefault(_plain(subject.id), []).append(repr(subject.id))
    told = [summary(ids, " and ", 4) for ids in found.values() if len(ids) > 1]
    note = f"ids that differ only in case, blanks or zeros are different subjects: {summary(told, '; ', 4)}"
    return [note] if told else []


class CohortReader(ABC):
    """Reads a folder or a table into a Cohort. A subclass has `name`, a docstring and keyword-only options."""

    name: ClassVar[str]
    config: ClassVar[str] = "demo"
    """The shipped configuration that a run on such data starts from; this one is small, for any modalities."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract check -> the reason why it cannot hold for this class."""

    @abstractmethod
    def read(self, path: Path) -> Cohort:
        """The cohort at that path; CohortError lists everything that is wrong with it."""

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """Subjects for a trained model of these classes, who need no label; an unknown one is ''.

        A reader that does not say otherwise reads labelled data only.
        """
        return self.read(path)

    def propose(self, path: Path) -> Proposal | None:
        """How a folder could be read, from its look alone; None if it is not for this reader."""
        return None

    def location(self, home: Path) -> Path | None:
        """Where the data lie if nobody says where; None if somebody must."""
        return None


def class_weights(labels: Iterable[str], classes: tuple[str, ...], scheme: str) -> tuple[float, ...]:
    """The weight of each class in the loss, from the labels of the training part.

    `paper` is Eq. 2, w_j = 1 - S_j / sum S; `inverse` is N / (K * S_j) over the K classes that occur; `none` is 1.

    >>> class_weights(["LGG"] * 75 + ["HGG"] * 210, ("HGG", "LGG"), "paper")
    (0.26315789473684215, 0.736842105263158)
    """
    counted = Counter(labels)
    sizes = [counted[name] for name in classes]
    total = sum(sizes)
    if scheme == "none" or not total:
        return tuple(1.0 for _ in classes)
    if scheme == "inverse":
        present = sum(size > 0 for size in sizes)
        return tuple(total / (present * size) if size else 0.0 for size in sizes)
    return tuple(1 - size / total for size in sizes)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; read once in a process, and again if it was replaced or written to since."""
    try:
        state = path.stat()
        return _file_digest(path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise CohortError(f"cannot read {path.name}: {error.strerror}") from None


def _plain(id: str) -> str:
    """An id without case, blanks, the zeros before a number, and `.0` at its end."""
    text = "".join(id.casefold().split())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"\.0+$", "", text))


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
