"""The image files of one subject and their place in the cache: read, checked and preprocessed once."""

from __future__ import annotations

import errno
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionbench.atomic import atomic_file, write_text
from fusionbench.cohorts import Subject, file_digest
from fusionbench.errors import CohortError, StoreError
from fusionbench.imaging.nifti import Box, Frame, Grid, Image, Size, mismatch, read_image
from fusionbench.imaging.preprocessing import (
    content_box,
    grid_after,
    preprocess_image,
    preprocess_labels,
    resampled,
    shift_of,
)
from fusionbench.seeds import content_digest

if TYPE_CHECKING:
    from fusionbench.experiment import Preprocessing

VERSION = 2
"""Part of the name of every cached file: raise it when the same file gives another tensor."""
SEG = "seg"
"""What the tumour labels are called among the files of a subject."""

Content = Literal["image", "labels"]
Shape = tuple[int, int, int, int]
"""(C, D, H, W)"""
T = TypeVar("T")

DTYPES: Mapping[Content, np.dtype[Any]] = {"image": np.dtype(np.float16), "labels": np.dtype(np.int16)}
"""As what preprocessed voxels are cached."""
CHUNK = 2**17
"""Voxels that are read at once: few enough to be still in the processor's cache when they are widened."""


@dataclass(frozen=True)
class Facts:
    """What is remembered of a file that was read and found sound."""

    frame: Frame
    axes: str
    """Where the axes of the file point, such as LPS; what is kept is RAS."""
    squeezed: bool
    """Whether the file has further axes of length 1, which were left out."""
    content: Box | None
    """What holds all that is not 0; None where there is nothing."""

    @classmethod
    def of(cls, image: Image) -> Facts:
        """The facts of an image."""
        return cls(image.frame, image.axes, image.squeezed, content_box(image.voxels))

    @classmethod
    def parse(cls, text: str) -> Facts:
        """The facts as they were written; ValueError, KeyError or TypeError if they are broken."""
        told = json.loads(text)
        frame = Frame(tuple(told["frame"]["size"]), tuple(map(tuple, told["frame"]["affine"])))
        content = told["content"] and (tuple(told["content"][0]), tuple(told["content"][1]))
        return cls(frame, told["axes"], told["squeezed"], content)


class ImageFiles:
    """The files of one subject and their place in the cache; an image that was read is kept until it is cached."""

    def __init__(self, subject: Subject, channels: Mapping[str, int], preprocessing: Preprocessing, cache: Path):
        self.subject, self.preprocessing, self.cache = subject, preprocessing, cache
        self.channels = {name: number for name, number in channels.items() if name in subject.files}
        self._read: dict[str, Image] = {}
        self._facts: dict[str, Facts] = {}
        self._entries: dict[str, Path] = {}
        self._aligned = False

    def facts(self, name: str) -> Facts:
        """What is known of a file; it is read if nothing is."""
        if name not in self._facts:
            entry = self.cache / f"{self._key(name)}.json"
            self._facts[name] = _cached(entry, _parsed) or self._examine(name, entry)
        return self._facts[name]

    def fill(self, name: str, row: Tensor) -> None:
        """Copy the preprocessed voxels into `row` (C, D, H, W) from the cache, where they are put if not there yet.

        No file stays open. CohortError for tumour labels that do not lie where the images lie.
        """
        if name == SEG:
            self._check_aligned()
        if not _cached(self._entry(name), partial(_fill, row, DTYPES[_content(name)])):
            row.copy_(torch.from_numpy(self._kept(name)))
            self._read.clear()

    def grid(self, name: str) -> Grid:
        """The grid of the preprocessed voxels."""
        return grid_after(self._frame(name).grid, self.preprocessing)

    def faults(self, names: Sequence[str]) -> list[str]:
        """Everything that is wrong with some of the files, one line each; what is sound is cached afterwards."""
        faults = _faults_of(self.facts, names)
        readable = [name for name in names if name in self._facts]
        faults += self._off_grid(readable)
        faults += _faults_of(self._keep, readable)
        self._read.clear()
        return list(dict.fromkeys(faults))

    def notes(self, name: str) -> list[str]:
        """What was done to the file beside the settings."""
        facts = self.facts(name)
        elsewhere = self.preprocessing.resample and mismatch("", facts.frame, "", self._frame(name))
        return [
            *([f"stored as {facts.axes} and turned to RAS"] if facts.axes != "RAS" else []),
            *(["stored with a further axis of length 1, which was left out"] if facts.squeezed else []),
            *(["resampled to the grid of the subject's first image"] if elsewhere else []),
        ]

    def _check_aligned(self) -> None:
        if not self._aligned and (faults := self._off_grid([*self.channels, SEG])):
            raise CohortError(faults[0])
        self._aligned = True

    def _keep(self, name: str) -> None:
        shape = (self.channels.get(name, 1), *self.grid(name).size)
        if not _cached(self._entry(name), partial(_whole, shape, DTYPES[_content(name)])):
            self._kept(name)

    def _kept(self, name: str) -> NDArray[Any]:
        """The preprocessed voxels, made and put into the cache."""
        made = self._made(name, _content(name))
        with atomic_file(self._entry(name)) as unfinished, unfinished.open("wb") as file:
            np.save(file, made)
        return made

    def _entry(self, name: str) -> Path:
        if name not in self._entries:
            self._entries[name] = self.cache / f"{self._key(name, preprocessed=True)}.npy"
        return self._entries[name]

    def _made(self, name: str, content: Content) -> NDArray[Any]:
        frame, image = self._frame(name), self._image(name)
        voxels, preprocess = image.voxels, preprocess_image if content == "image" else preprocess_labels
        if mismatch("", image.frame, "", frame):
            voxels = resampled(voxels, image.frame, frame, linear=content == "image")
        try:
            return preprocess(voxels, self.preprocessing, self._shift(frame)).astype(DTYPES[content])
        except CohortError as error:
            raise CohortError(f"{self._where(name)}: {self._path(name).name} {error}") from None

    def _examine(self, name: str, entry: Path) -> Facts:
        image = self._image(name)
        if image.constant and name != SEG:
            fault = f"{self._path(name).name} is {'constant' if image.voxels.any() else '0 everywhere'}"
            raise CohortError(f"{self._where(name)}: {fault}; export it again or take the subject out")
        facts = Facts.of(image)
        write_text(entry, json.dumps(asdict(facts), allow_nan=False))
        return facts

    def _image(self, name: str) -> Image:
        if (image := self._read.get(name)) is None:
            path, channels = self._path(name), self.channels.get(name, 1)
            try:
                image = self._read[name] = read_image(path, channels, self.preprocessing.max_voxels)
            except CohortError as error:
                raise CohortError(f"{self._where(name)}: {error}") from None
        return image

    def _frame(self, name: str) -> Frame:
        """Where the voxels of a file lie when they are cropped: where they are, or where the first image is."""
        first = next(iter(self.channels), name)
        return self.facts(first if self.preprocessing.resample else name).frame

    def _shift(self, frame: Frame) -> Size:
        """How far from the middle the window of the crop lies."""
        if self.preprocessing.centre == "volume":
            return (0, 0, 0)
        several = [self.facts(name) for name in self.channels]
        boxes = [frame.box_around(facts.frame.corners(facts.content)) for facts in several if facts.content]
        return shift_of(boxes, frame.size) if boxes else (0, 0, 0)

    def _off_grid(self, names: Sequence[str]) -> list[str]:
        """What to say if files do not lie on one grid."""
        if not names or self.preprocessing.resample:
            return []
        first, *others = names
        found = (mismatch(name, self.facts(name).frame, first, self.facts(first).frame) for name in others)
        mend = "resample to one grid, or set preprocessing.resample=true"
        return [f"{self.subject.id!r}: {fault}; {mend}" for fault in found if fault]

    def _key(self, name: str, *, preprocessed: bool = False) -> str:
        made_of: list[object] = [VERSION, name == SEG, self.channels.get(name, 1), self._digest(name)]
        if not preprocessed:
            return content_digest([*made_of, self.preprocessing.max_voxels])
        others = [self._digest(other) for other in self.channels] if self.preprocessing.joint else []
        return content_digest([*made_of, self.preprocessing.model_dump(exclude={"max_voxels"}), others])

    def _digest(self, name: str) -> str:
        path = self._path(name)
        try:
            return file_digest(path)
        except CohortError as error:
            raise CohortError(f"{self._where(name)}: {error}") from None

    def _path(self, name: str) -> Path:
        path = self.subject.seg if name == SEG else self.subject.files[name]
        if path is None:
            raise CohortError(f"{self.subject.id!r} has no segmentation; add its file or take the subject out")
        return path

    def _where(self, name: str) -> str:
        return f"{self.subject.id!r}, {'segmentation' if name == SEG else name}"


def _faults_of(step: Callable[[str], object], names: Iterable[str]) -> list[str]:
    """Do something for each name, and list what cannot be done."""
    faults = []
    for name in names:
        try:
            step(name)
        except CohortError as error:
            faults.append(str(error))
    return faults


def _content(name: str) -> Content:
    return "labels" if name == SEG else "image"


def _cached(entry: Path, read: Callable[[IO[bytes]], T]) -> T | None:
    """What is read from a file of the cache; None if it is not there or broken, and so has to be made.

    StoreError if it is there and cannot be opened or read: that is no reason to make it again.
    """
    try:
        with entry.open("rb") as file:
            return read(file)
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        return None
    except OSError as error:
        many = error.errno in (errno.EMFILE, errno.ENFILE)
        mend = "allow more with `ulimit -n`" if many else "make it readable or delete it, then it is made again"
        raise StoreError(f"cannot read {entry}: {error.strerror or error}; {mend}") from None


def _parsed(file: IO[bytes]) -> Facts:
    return Facts.parse(file.read().decode())


def _whole(shape: Shape, dtype: np.dtype[Any], file: IO[bytes]) -> bool:
    """Whether a file holds an array of that shape and type, to its last byte."""
    header = _header(shape, dtype)
    begins_so = file.read(len(header)) == header
    return begins_so and file.seek(0, io.SEEK_END) == len(header) + math.prod(shape) * dtype.itemsize


def _fill(row: Tensor, dtype: np.dtype[Any], file: IO[bytes]) -> bool:
    """Fill `row` (C, D, H, W) with the array of that type in a file; False if it holds another one."""
    depth, height, width = row.shape[1:]
    header = _header((row.shape[0], depth, height, width), dtype)
    if file.read(len(header)) != header:
        return False
    chunk = np.empty(min(CHUNK, row.numel()), dtype)
    for part in torch.split(row.view(-1), CHUNK):
        some = chunk[: len(part)]
        if file.readinto(some) < some.nbytes:  # type: ignore[attr-defined]
            return False
        part.copy_(torch.from_numpy(some))
    return True


@lru_cache(maxsize=64)
def _header(shape: Shape, dtype: np.dtype[Any]) -> bytes:
    """What `np.save` writes before the voxels."""
    file = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()
