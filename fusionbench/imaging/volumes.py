"""The inputs of a cohort as tensors: read, checked and preprocessed once, then kept in a cache on disk.

Axes: a file holds (X, Y, Z) in any orientation; a tensor is (C, D, H, W) = (C, Z, Y, X) of the RAS orientation, axial
slices first, as the paper's 150 x 240 x 240.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionbench.cohorts import Cohort, Subject
from fusionbench.errors import CohortError, summary
from fusionbench.imaging.imagecache import DTYPES, SEG, ImageFiles
from fusionbench.imaging.nifti import Grid, Size

if TYPE_CHECKING:
    from fusionbench.experiment import Preprocessing


class Volumes:
    """The inputs of a cohort as tensors, preprocessed once and cached as half floats that are memory-mapped.

    A cached file is named for the SHA-256 of what it was made of, so a changed image or another preprocessing finds
    nothing stale; a file that cannot be read is made again. Several processes may share one cache.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing, cache: Path) -> None:
        self.cohort = cohort
        self.preprocessing = preprocessing
        self._cache = cache
        self._known: dict[str, ImageFiles] = {}

    def inputs(self, ids: Sequence[str], modalities: Sequence[str]) -> dict[str, Tensor]:
        """Modality -> float32 (B, C, D, H, W) in [0, 1]; a table of F features is (B, F, 1, 1, 1), as it was read.

        Zeros for a subject that lacks it.
        """
        return {name: self._input(ids, name) for name in modalities}

    def segmentation(self, ids: Sequence[str]) -> Tensor:
        """Tumour labels (B, 1, D, H, W) through the same crop and resize; CohortError for a subject without."""
        return _stacked(ids, [self._files(id).labels() for id in ids], torch.int16)

    def size(self, modality: str) -> Size:
        """The (D, H, W) of a modality after preprocessing; one voxel for a table."""
        if self.cohort.modality(modality).kind == "table":
            return (1, 1, 1)
        names = (modality, *self._image_names)  # where nobody has it any other tells: all images are of one size
        subject, name = next((s, name) for name in names for s in self.cohort.subjects if name in s.files)
        return self._files(subject.id).grid(name).size

    def grids(self, ids: Sequence[str], modalities: Sequence[str]) -> dict[str, Grid]:
        """Subject -> the grid of its images of these modalities after preprocessing, for those that have any."""
        first = {id: [name for name in modalities if name in self.cohort.subject(id).files][:1] for id in ids}
        return {id: self._files(id).grid(name) for id, names in first.items() for name in names}

    def grid(self, id: str, modality: str) -> Grid:
        """Where the voxels of an image lie in its file, whatever becomes of them."""
        return self._files(id).facts(modality).frame.grid

    def spacing(self, ids: Sequence[str]) -> Tensor:
        """Millimetres per voxel of each subject's images after preprocessing, (B, 3) in the order (D, H, W).

        One row per subject: equal sizes do not make equal spacings where scanners differ. Ones where it has no image.
        """
        grids = self.grids(ids, self._image_names)
        return torch.tensor([grids[id].spacing if id in grids else (1.0, 1.0, 1.0) for id in ids])

    def prepare(self, ids: Sequence[str], modalities: Sequence[str], *, segmentation: bool = False) -> None:
        """Fill the cache, so that workers only read; CohortError names every bad subject at once."""
        faults = self.check(ids, modalities, segmentation=segmentation)
        if faults:
            raise CohortError.of(self.cohort.name, faults)

    def check(self, ids: Sequence[str], modalities: Sequence[str], *, segmentation: bool = False) -> list[str]:
        """Every fault of these subjects, one line each; what is sound is in the cache afterwards."""
        images = [name for name in modalities if self.cohort.modality(name).kind == "image"]
        subjects = [self.cohort.subject(id) for id in ids]
        faults = repeated_images(subjects, images)
        sizes: dict[str, Size] = {}
        for subject in subjects:
            files = self._files(subject.id)
            wanted = [*(name for name in images if name in subject.files), *([SEG] if segmentation else [])]
            bad = files.faults(wanted)
            if not bad and wanted:
                sizes[subject.id] = files.grid(wanted[0]).size
            faults += bad
        return faults + _unequal_sizes(sizes)

    def notes(self, ids: Sequence[str], modalities: Sequence[str], *, segmentation: bool = False) -> list[str]:
        """What was done to files beside the settings, one line each: turned to RAS, stripped of an axis, resampled."""
        images = [name for name in modalities if self.cohort.modality(name).kind == "image"]
        told: dict[str, list[str]] = {}
        for subject in map(self.cohort.subject, ids):
            seg = [SEG] if segmentation and subject.seg else []
            for name in (*(name for name in images if name in subject.files), *seg):
                for what in self._files(subject.id).notes(name):
                    told.setdefault(what, []).append(f"{subject.id!r} {name}")
        return [f"{what}: {summary(places, ', ', 3)}" for what, places in sorted(told.items())]

    @property
    def _image_names(self) -> list[str]:
        return [modality.name for modality in self.cohort.modalities if modality.kind == "image"]

    def _files(self, id: str) -> ImageFiles:
        if id not in self._known:
            subject = self.cohort.subject(id)
            channels = {name: self.cohort.modality(name).channels for name in self._image_names}
            self._known[id] = ImageFiles(subject, channels, self.preprocessing, self._cache)
        return self._known[id]

    def _input(self, ids: Sequence[str], name: str) -> Tensor:
        subjects = [self.cohort.subject(id) for id in ids]
        if self.cohort.modality(name).kind == "table":
            blank = (0.0,) * self.cohort.modality(name).channels
            rows = torch.tensor([subject.features.get(name, blank) for subject in subjects], dtype=torch.float32)
            return rows[:, :, None, None, None]  # (B, F) -> (B, F, 1, 1, 1)
        volumes = [self._files(s.id).array(name) if s.has(name) else self._blank(name) for s in subjects]
        return _stacked(ids, volumes, torch.float32)

    def _blank(self, name: str) -> NDArray[Any]:
        return np.zeros((self.cohort.modality(name).channels, *self.size(name)), DTYPES["image"])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}  # another process maps the files anew


def repeated_images(subjects: Iterable[Subject], modalities: Sequence[str]) -> list[str]:
    """What to say of images that are there twice, byte by byte: under two ids, or as two modalities of one subject."""
    owners: dict[str, list[str]] = {}
    for subject, name in ((s, name) for s in subjects for name in modalities if name in s.files):
        with suppress(CohortError):  # a file that cannot be read is another fault
            owners.setdefault(subject.digest(name), []).append(f"{subject.id!r} {name} ({subject.files[name].name})")
    mend = "give each its own file, or take the subject out"
    return [f"{summary(same, ' and ')} are the same image; {mend}" for same in owners.values() if len(same) > 1]


def _stacked(ids: Sequence[str], volumes: Sequence[NDArray[Any]], dtype: torch.dtype) -> Tensor:
    """(C, D, H, W) each -> (B, C, D, H, W), copied once."""
    faults = _unequal_sizes({id: _size(volume.shape) for id, volume in zip(ids, volumes, strict=True)})
    if faults:
        raise CohortError(faults[0])
    batch = torch.empty((len(volumes), *volumes[0].shape), dtype=dtype)
    for row, volume in zip(batch, volumes, strict=True):
        row.copy_(torch.from_numpy(volume))
    return batch


def _unequal_sizes(sizes: Mapping[str, Size]) -> list[str]:
    """What to say if subjects come out in several sizes."""
    if len(set(sizes.values())) < 2:
        return []
    usual = Counter(sizes.values()).most_common(1)[0][0]
    mend = "set preprocessing.crop or preprocessing.resize"
    return [f"{id!r} is {_text(size)}, most are {_text(usual)}: {mend}" for id, size in sizes.items() if size != usual]


def _size(shape: Sequence[int]) -> Size:
    """The (D, H, W) of (C, D, H, W)."""
    _, depth, height, width = shape
    return depth, height, width


def _text(size: Size) -> str:
    return " x ".join(map(str, size))
