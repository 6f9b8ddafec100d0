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

import torch
from torch import Tensor

from fusionbench.cohorts import Cohort, Subject
from fusionbench.errors import CohortError, summary
from fusionbench.imaging.imagecache import SEG, ImageFiles
from fusionbench.imaging.nifti import Grid, Size
from fusionbench.imaging.preprocessing import EMPTY

if TYPE_CHECKING:
    from fusionbench.experiment import Preprocessing


class Volumes:
    """The inputs of a cohort as tensors, preprocessed once, cached as half floats and read from there each time.

    A cached file is named for the SHA-256 of what it was made of, so a changed image or another preprocessing finds
    nothing stale; a broken one is made again. Neither open files nor memory grow with the cohort. Several processes
    and threads may share one cache.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing, cache: Path) -> None:
        self.cohort = cohort
        self.preprocessing = preprocessing
        self._cache = cache
        self._known: dict[str, ImageFiles] = {}

    def inputs(self, ids: Sequence[str], modalities: Sequence[str], *, pinned: bool = False) -> dict[str, Tensor]:
        """Modality -> float32 (B, C, D, H, W) in [0, 1]; a table of F features is (B, F, 1, 1, 1), as it was read.

        Zeros for a subject that lacks it. Images may be put into pinned memory, from which a GPU copies by itself.
        """
        return {name: self._input(ids, name, pinned=pinned) for name in modalities}

    def segmentation(self, ids: Sequence[str], *, pinned: bool = False) -> Tensor:
        """Tumour labels (B, 1, D, H, W), int16, through the same crop and resize; CohortError for a subject without."""
        return self._images(ids, SEG, 1, torch.int16, pinned=pinned)

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
            raise CohortError.of(self.cohort.name, self.crop_told_once(faults, modalities))

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

    def crop_told_once(self, faults: Iterable[str], modalities: Sequence[str]) -> list[str]:
        """The faults; where images are lost in a crop that is larger than they are, one that says which would fit."""
        crop, size = self.preprocessing.crop, self._usual_size(modalities)
        faults = list(dict.fromkeys(faults))
        lost = [fault for fault in faults if EMPTY in fault]
        if len(lost) < 2 or not crop or not size or all(own >= window for own, window in zip(size, crop, strict=True)):
            return faults
        told = (
            f"{len(lost)} images are lost in preprocessing.crop={list(crop)}: {EMPTY}; most files are {list(size)}, "
            f"so set preprocessing.crop={list(size)}"
        )
        return [told, *(fault for fault in faults if fault not in lost)]

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

    def _usual_size(self, modalities: Sequence[str]) -> Size | None:
        """The (D, H, W) of most files that can be read; None if there is none."""
        sizes: Counter[Size] = Counter()
        for subject in self.cohort.subjects:
            for name in (name for name in modalities if name in subject.files):
                with suppress(CohortError):  # told already
                    sizes[self.grid(subject.id, name).size] += 1
        return sizes.most_common(1)[0][0] if sizes else None

    @property
    def _image_names(self) -> list[str]:
        return [modality.name for modality in self.cohort.modalities if modality.kind == "image"]

    def _files(self, id: str) -> ImageFiles:
        if id not in self._known:
            subject = self.cohort.subject(id)
            channels = {name: self.cohort.modality(name).channels for name in self._image_names}
            self._known[id] = ImageFiles(subject, channels, self.preprocessing, self._cache)
        return self._known[id]

    def _input(self, ids: Sequence[str], name: str, *, pinned: bool) -> Tensor:
        modality = self.cohort.modality(name)
        if modality.kind == "image":
            return self._images(ids, name, modality.channels, torch.float32, pinned=pinned)
        blank = (0.0,) * modality.channels
        rows = [self.cohort.subject(id).features.get(name, blank) for id in ids]
        return torch.tensor(rows, dtype=torch.float32)[:, :, None, None, None]  # (B, F) -> (B, F, 1, 1, 1)

    def _images(self, ids: Sequence[str], name: str, channels: int, dtype: torch.dtype, *, pinned: bool) -> Tensor:
        """The images of that name, or the labels, each copied once into its row of (B, C, D, H, W)."""
        here = [name == SEG or self.cohort.subject(id).has(name) for id in ids]
        sizes = {
            id: self._files(id).grid(name).size if there else self.size(name)
            for id, there in zip(ids, here, strict=True)
        }
        if faults := _unequal_sizes(sizes):
            raise CohortError(faults[0])
        batch = torch.empty((len(ids), channels, *sizes[ids[0]]), dtype=dtype, pin_memory=pinned)
        for row, id, there in zip(batch, ids, here, strict=True):
            if there:
                self._files(id).fill(name, row)
            else:
                row.zero_()
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}  # another process looks at the files anew


def repeated_images(subjects: Iterable[Subject], modalities: Sequence[str]) -> list[str]:
    """What to say of images that are there twice, byte by byte: under two ids, or as two modalities of one subject."""
    owners: dict[str, list[str]] = {}
    for subject, name in ((s, name) for s in subjects for name in modalities if name in s.files):
        with suppress(CohortError):  # a file that cannot be read is another fault
            owners.setdefault(subject.digest(name), []).append(f"{subject.id!r} {name} ({subject.files[name].name})")
    mend = "give each its own file, or take the subject out"
    return [f"{summary(same, ' and ')} are the same image; {mend}" for same in owners.values() if len(same) > 1]


def _unequal_sizes(sizes: Mapping[str, Size]) -> list[str]:
    """What to say if subjects come out in several sizes."""
    if len(set(sizes.values())) < 2:
        return []
    usual = Counter(sizes.values()).most_common(1)[0][0]
    mend = "set preprocessing.crop or preprocessing.resize"
    return [f"{id!r} is {_text(size)}, most are {_text(usual)}: {mend}" for id, size in sizes.items() if size != usual]


def _text(size: Size) -> str:
    return " x ".join(map(str, size))
