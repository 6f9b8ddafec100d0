"""Subjects, their modalities and labels: what a reader makes of a folder or a table."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fusionbench.errors import CohortError, UsageError, nearest, summary
from fusionbench.seeds import content_digest

Kind = Literal["image", "table"]


@dataclass(frozen=True)
class Modality:
    """One kind of measurement: an MRI sequence (an image of some channels) or a table of features."""

    name: str
    kind: Kind = "image"
    channels: int = 1


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

    def digest(self, modality: str) -> str:
        """The SHA-256 of what is stored for that modality."""
        if modality in self.features:
            return hashlib.sha256(np.asarray(self.features[modality], dtype="<f8").tobytes()).hexdigest()
        return file_digest(self.files[modality])

    @property
    def seg_digest(self) -> str:
        """The SHA-256 of the tumour labels; empty if there are none."""
        return file_digest(self.seg) if self.seg else ""


@dataclass(frozen=True)
class Cohort:
    """Subjects with the same modalities and labels from one set of classes.

    Raises CohortError, naming every bad subject at once, for a doubled id, an unknown label or a missing modality.
    """

    name: str
    classes: tuple[str, ...]
    positive_class: str
    modalities: tuple[Modality, ...]
    subjects: tuple[Subject, ...]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """What was excluded or assumed while reading, one line each."""

    def __post_init__(self) -> None:
        faults = [
            *(f"{name!r} appears {n} times" for name, n in Counter(s.id for s in self.subjects).items() if n > 1),
            *(
                f"{s.id!r} has the label {s.label!r}: {nearest(s.label, self.classes)}"
                for s in self.subjects
                if s.label not in self.classes
            ),
            *(f"{s.id!r} has no {m.name}" for s in self.subjects for m in self.modalities if not s.has(m.name)),
            *(
                f"{s.id!r} has {len(s.features[m.name])} values of {m.name}, not {m.channels}"
                for s in self.subjects
                for m in self.modalities
                if m.name in s.features and len(s.features[m.name]) != m.channels
            ),
            *(f"nobody is of class {name}" for name in self.classes if name not in {s.label for s in self.subjects}),
        ]
        if faults:
            raise CohortError(f"{self.name}: {summary(faults)}")
        if self.positive_class not in self.classes:
            raise CohortError(f"positive class {self.positive_class!r}: {nearest(self.positive_class, self.classes)}")
        if len(self.classes) < 2:
            raise CohortError(f"{self.name}: {len(self.subjects)} subjects of one class; there is nothing to learn")

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


class CohortReader(ABC):
    """Reads a folder or a table into a Cohort. A subclass has `name`, a docstring and keyword-only options."""

    name: ClassVar[str]
    config: ClassVar[str] = "demo"
    """The shipped configuration that a run on such data starts from."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract check -> the reason why it cannot hold for this class."""

    @abstractmethod
    def read(self, path: Path) -> Cohort:
        """The cohort at that path; CohortError lists everything that is wrong with it."""

    def location(self, home: Path) -> Path | None:
        """Where the data lie if nobody says where; None if somebody must."""
        return None


def class_weights(labels: Iterable[str], classes: tuple[str, ...], scheme: str) -> tuple[float, ...]:
    """The weight of each class in the loss, from the labels of the training part.

    `paper` is Eq. 2, w_j = 1 - S_j / sum S; `inverse` is N / (K * S_j) over the K classes that occur; `none` is 1.

    >>> class_weights(["LGG"] * 75 + ["HGG"] * 210, ("HGG", "LGG"), "paper")
    (0.26315789473684215, 0.7368421052631579)
    """
    counted = Counter(labels)
    sizes = [counted[name] for name in classes]
    total = sum(sizes)
    if scheme == "none":
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


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
