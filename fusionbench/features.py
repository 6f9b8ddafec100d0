"""The tables that an extractor makes of images and outlines: each row computed once and kept in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionbench.atomic import atomic_file
from fusionbench.cohorts import Cohort, Subject, file_digest
from fusionbench.errors import CohortError, PluginError
from fusionbench.extraction import FeatureExtractor
from fusionbench.imaging.nifti import mismatch, read_image
from fusionbench.imaging.volumes import repeated_images
from fusionbench.seeds import content_digest

if TYPE_CHECKING:
    from fusionbench.fits import Built


class Features:
    """The features of a cohort's images inside the tumour outlines, from the files as they are, at full resolution.

    A cached row is named for the SHA-256 of image, outline, options and code, so that nothing stale is found. Several
    processes may share one cache.
    """

    def __init__(self, cohort: Cohort, extractor: FeatureExtractor, built: Built, cache: Path) -> None:
        self.cohort, self.extractor, self.built, self.cache = cohort, extractor, built, cache
        self._rows: dict[tuple[str, str], NDArray[np.float64]] = {}

    def inputs(self, ids: Sequence[str], modalities: Sequence[str]) -> dict[str, Tensor]:
        """Modality -> (B, F, 1, 1, 1): features of an image, and the values of a table as they were read."""
        return {name: self._input(ids, name) for name in modalities}

    def prepare(self, ids: Sequence[str], modalities: Sequence[str]) -> None:
        """Fill the cache, so that workers only read; CohortError names every bad subject at once."""
        subjects = [self.cohort.subject(id) for id in ids]
        faults = repeated_images(subjects, modalities)
        faults += [fault for subject in subjects for fault in self._faults(subject, modalities)]
        if faults:
            raise CohortError.of(self.cohort.name, faults)

    def missing(self, ids: Sequence[str], modalities: Sequence[str]) -> int:
        """How many rows are not in the cache yet."""
        subjects = [self.cohort.subject(id) for id in ids]
        return sum(not self._entry(s, name).is_file() for s in subjects for name in modalities if name in s.files)

    def _input(self, ids: Sequence[str], modality: str) -> Tensor:
        subjects = [self.cohort.subject(id) for id in ids]
        rows = np.stack([self._values(subject, modality) for subject in subjects])
        return torch.from_numpy(rows).float()[:, :, None, None, None]  # (B, F) -> (B, F, 1, 1, 1)

    def _values(self, subject: Subject, modality: str) -> Sequence[float] | NDArray[np.float64]:
        if modality in subject.features:
            return subject.features[modality]
        if modality in subject.files:
            return self._row(subject, modality)
        seen = self.cohort.modality(modality)
        return (0.0,) * (seen.channels if seen.kind == "table" else len(self.extractor.names))

    def _faults(self, subject: Subject, modalities: Sequence[str]) -> Iterator[str]:
        for modality in modalities:
            if modality in subject.files:
                try:
                    self._row(subject, modality)
                except CohortError as error:
                    yield f"{subject.id!r}, {modality}: {error}"

    def _row(self, subject: Subject, modality: str) -> NDArray[np.float64]:
        where = (subject.id, modality)
        if where not in self._rows:
            entry = self._entry(subject, modality)
            found = _load(entry, len(self.extractor.names))
            self._rows[where] = self._extract(entry, subject, modality) if found is None else found
        return self._rows[where]

    def _extract(self, entry: Path, subject: Subject, modality: str) -> NDArray[np.float64]:
        if subject.seg is None:
            raise CohortError("has no outline; add its segmentation or take the subject out")
        image, labels = read_image(subject.files[modality]), read_image(subject.seg)
        if mismatch("", image.frame, "", labels.frame):
            raise CohortError("image and outline lie on different grids; resample to one grid")
        mask = labels.voxels[0] > 0
        if not mask.any():
            raise CohortError("the outline is empty; draw it or take the subject out")
        row = self._checked(self.extractor.extract(image.voxels[0].astype(np.float64), mask, image.frame.grid.spacing))
        entry.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(entry) as partial, partial.open("wb") as file:
            np.save(file, row)
        return row

    def _checked(self, row: Any) -> NDArray[np.float64]:
        values = np.asarray(row, dtype=np.float64)
        if values.shape != (len(self.extractor.names),):
            raise PluginError(
                f"extractor {self.built.name} returned {values.shape}, not one number for each of its "
                f"{len(self.extractor.names)} names"
            )
        if not np.isfinite(values).all():
            bad = [name for name, value in zip(self.extractor.names, values, strict=True) if not np.isfinite(value)]
            raise PluginError(f"extractor {self.built.name} returned no number for {', '.join(bad[:4])}")
        return values

    def _entry(self, subject: Subject, modality: str) -> Path:
        made_of = [self.built.content(), file_digest(subject.files[modality]), subject.seg_digest]
        return self.cache / f"{content_digest(made_of)}.npy"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": {}}  # another process reads the cache


def _load(entry: Path, length: int) -> NDArray[np.float64] | None:
    """What is cached under that name; None if it is not there or broken."""
    try:
        row: NDArray[np.float64] = np.load(entry)
    except (OSError, ValueError, EOFError):
        return None
    return row if row.shape == (length,) and row.dtype == np.float64 else None
