"""The inputs of a cohort as tensors: read, checked and preprocessed once, then kept in a cache on disk.

Axes: a file holds (X, Y, Z) in any orientation; a tensor is (C, D, H, W) = (C, Z, Y, X) of the RAS orientation, axial
slices first, as the paper's 150 x 240 x 240.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fusionbench.atomic import atomic_file, write_text
from fusionbench.cohorts import Cohort, Subject, file_digest
from fusionbench.errors import CohortError

if TYPE_CHECKING:
    from fusionbench.experiment import Preprocessing

VERSION = 1
"""Part of the name of every cached file: raise it when the same file gives another tensor."""
MAX_VOXELS = 512**3
"""A header that declares more is refused before anything is allocated: 16 kB of NIfTI can ask for 4 GB."""

Content = Literal["image", "labels"]
Size = tuple[int, int, int]

_DTYPES: Mapping[Content, type[np.generic]] = {"image": np.float16, "labels": np.int16}


@dataclass(frozen=True)
class Grid:
    """Where voxels lie in RAS orientation: how many along (D, H, W), and how many mm apart.

    >>> Grid((155, 240, 240), (1.0, 1.0, 1.0)).size
    (155, 240, 240)
    """

    size: Size
    spacing: tuple[float, float, float]

    def after(self, preprocessing: Preprocessing) -> Grid:
        """The grid of the preprocessed volume: cropping keeps the spacing, resizing keeps the extent."""
        cropped = preprocessing.crop or self.size
        size = preprocessing.resize or cropped
        depth, height, width = (mm * old / new for mm, old, new in zip(self.spacing, cropped, size, strict=True))
        return Grid(size, (depth, height, width))


class Volumes:
    """The inputs of a cohort as tensors, preprocessed once and cached as half floats that are memory-mapped.

    A cached file is named for the SHA-256 of what it was made of, so a changed image or another preprocessing finds
    nothing stale; a file that cannot be read is made again. Several processes may share one cache.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing, cache: Path) -> None:
        self.cohort = cohort
        self.preprocessing = preprocessing
        self._cache = cache
        self._open: dict[Path, tuple[NDArray[Any], Grid]] = {}

    def inputs(self, ids: Sequence[str], modalities: Sequence[str]) -> dict[str, Tensor]:
        """Modality -> float32 (B, C, D, H, W) in [0, 1]; a table of F features is (B, F, 1, 1, 1), as it was read.

        Zeros for a subject that lacks it.
        """
        return {name: self._input(ids, name) for name in modalities}

    def segmentation(self, ids: Sequence[str]) -> Tensor:
        """Tumour labels (B, 1, D, H, W) through the same crop and resize; CohortError for a subject without."""
        return _stacked(ids, (self._labels(self.cohort.subject(id)) for id in ids))

    def size(self, modality: str) -> Size:
        """The (D, H, W) of a modality after preprocessing; one voxel for a table."""
        if self.cohort.modality(modality).kind == "table":
            return (1, 1, 1)
        names = (modality, *self._image_names)  # where nobody has it any other tells: all images are of one size
        subject, name = next((s, name) for name in names for s in self.cohort.subjects if name in s.files)
        return self._grid(subject, name).after(self.preprocessing).size

    def grids(self, ids: Sequence[str], modalities: Sequence[str]) -> dict[str, Grid]:
        """Subject -> the grid of its images of these modalities after preprocessing, for those that have any."""
        several = {id: self.cohort.subject(id) for id in ids}
        first = {id: [name for name in modalities if name in s.files][:1] for id, s in several.items()}
        return {id: self._grid(several[id], n).after(self.preprocessing) for id, names in first.items() for n in names}

    def grid(self, id: str, modality: str) -> Grid:
        """Where the voxels of an image lie in its file, whatever becomes of them."""
        return self._grid(self.cohort.subject(id), modality)

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
        faults: list[str] = []
        sizes: dict[str, Size] = {}
        for subject in map(self.cohort.subject, ids):
            grids, bad = self._grids(subject, [name for name in images if name in subject.files], segmentation)
            faults += bad
            faults += _unequal_grids(subject.id, grids)
            for grid in list(grids.values())[:1]:
                sizes[subject.id] = grid.after(self.preprocessing).size
        return faults + _unequal_sizes(sizes)

    @property
    def _image_names(self) -> list[str]:
        return [modality.name for modality in self.cohort.modalities if modality.kind == "image"]

    def _grids(self, subject: Subject, images: Sequence[str], segmentation: bool) -> tuple[dict[str, Grid], list[str]]:
        grids: dict[str, Grid] = {}
        faults: list[str] = []
        for name in [*images, *(["seg"] if segmentation else [])]:
            try:
                grids[name] = self._seg(subject)[1] if name == "seg" else self._grid(subject, name)
            except CohortError as error:
                faults.append(str(error))
        return grids, faults

    def _input(self, ids: Sequence[str], name: str) -> Tensor:
        subjects = [self.cohort.subject(id) for id in ids]
        if self.cohort.modality(name).kind == "table":
            blank = (0.0,) * self.cohort.modality(name).channels
            rows = torch.tensor([subject.features.get(name, blank) for subject in subjects], dtype=torch.float32)
            return rows[:, :, None, None, None]  # (B, F) -> (B, F, 1, 1, 1)
        return _stacked(ids, (self._image(s, name)[0] if s.has(name) else self._blank(name) for s in subjects)).float()

    def _blank(self, name: str) -> NDArray[Any]:
        return np.zeros((self.cohort.modality(name).channels, *self.size(name)), _DTYPES["image"])

    def _labels(self, subject: Subject) -> NDArray[Any]:
        labels, grid = self._seg(subject)
        images = {name: self._grid(subject, name) for name in self._image_names if name in subject.files}
        faults = _unequal_grids(subject.id, {**images, "seg": grid})
        if faults:
            raise CohortError(faults[0])
        return labels

    def _grid(self, subject: Subject, name: str) -> Grid:
        return self._image(subject, name)[1]

    def _image(self, subject: Subject, name: str) -> tuple[NDArray[Any], Grid]:
        try:
            return self._cached(subject.files[name], "image", self.cohort.modality(name).channels)
        except CohortError as error:
            raise CohortError(f"{subject.id!r}, {name}: {error}") from None

    def _seg(self, subject: Subject) -> tuple[NDArray[Any], Grid]:
        if subject.seg is None:
            raise CohortError(f"{subject.id!r} has no segmentation; add its file or take the subject out")
        try:
            return self._cached(subject.seg, "labels", 1)
        except CohortError as error:
            raise CohortError(f"{subject.id!r}, segmentation: {error}") from None

    def _cached(self, path: Path, content: Content, channels: int) -> tuple[NDArray[Any], Grid]:
        entry = self._cache / _key(path, content, channels, self.preprocessing)
        if entry not in self._open:
            found = _load(entry, content, self.preprocessing)
            self._open[entry] = found or self._build(entry, path, content, channels)
        return self._open[entry]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # another process maps the files anew

    def _build(self, entry: Path, path: Path, content: Content, channels: int) -> tuple[NDArray[Any], Grid]:
        volume, grid = read_volume(path, channels)
        preprocess = preprocess_image if content == "image" else preprocess_labels
        try:
            array = preprocess(volume, self.preprocessing).astype(_DTYPES[content])
        except CohortError as error:
            raise CohortError(f"{path.name} {error}") from None
        _save(entry, array, grid)
        return array, grid


def preprocess_image(volume: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[Any]:
    """Crop or pad, rescale the percentiles to [0, 1] at full resolution, then resize: (C, D, H, W) -> the same axes.

    Resizing is linear; when it shrinks, the linear filter is as wide as the step between new voxels (as Pillow's and
    torch's `antialias`), so that every old voxel counts and nothing finer than the new grid is aliased into it.
    """
    if volume.min() == volume.max():
        raise CohortError("is constant; export it again or take the subject out")
    import torchio

    rescale = torchio.RescaleIntensity((0, 1), percentiles=preprocessing.percentiles)
    # torchio warns, and leaves the image as it was, where both percentiles are the same number
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            scaled = _apply(rescale, _cropped(torch.from_numpy(volume), preprocessing))
        except RuntimeWarning:
            low, high = preprocessing.percentiles
            raise CohortError(
                f"has one value from percentile {low} to {high}: almost nothing is in the picture; "
                "set another crop or wider percentiles"
            ) from None
    return _resized(scaled, preprocessing.resize).numpy()


def preprocess_labels(volume: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[Any]:
    """Crop or pad, then resize by the nearest voxel: (1, D, H, W) -> the same axes, no label mixed."""
    if (volume != volume.round()).any() or np.abs(volume).max() > np.iinfo(np.int16).max:
        raise CohortError("holds values that are no labels; a segmentation has small whole numbers")
    cropped = _cropped(torch.from_numpy(volume), preprocessing)
    if preprocessing.resize is None:
        return cropped.numpy()
    return F.interpolate(cropped[None], preprocessing.resize, mode="nearest-exact")[0].numpy()


def read_volume(path: Path, channels: int = 1) -> tuple[NDArray[np.float32], Grid]:
    """The voxels of a NIfTI file as (C, Z, Y, X) in RAS orientation, and their grid.

    The file is read to its last byte, so that a gzip checksum is compared: nibabel alone noticed 26 of 150 flipped
    bits. CohortError says in one line what is wrong with the file and how to mend it.
    """
    import nibabel

    header = _header(path)
    _refuse_shape(path, header.shape, channels)
    stored = type(header).from_bytes(_content(path, header))
    image = nibabel.as_closest_canonical(stored)  # type: ignore[no-untyped-call] # nibabel is typed in part
    with np.errstate(over="ignore"):  # what no float32 can hold becomes infinite, and is refused as such
        values = np.asarray(image.dataobj, dtype=np.float32)
    if not np.isfinite(values).all():
        raise CohortError(f"{path.name} holds NaN or infinite voxels; export it again without them")
    volume = values.reshape(*image.shape[:3], channels).transpose(3, 2, 1, 0)  # (X, Y, Z, C) -> (C, Z, Y, X)
    width, height, depth = np.linalg.norm(image.affine[:3, :3], axis=0).tolist()
    return np.ascontiguousarray(volume), Grid(_size(volume.shape), (depth, height, width))


def _header(path: Path) -> Any:
    """The image with its header read and no voxel: a Nifti1Image or Nifti2Image."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        finite = np.isfinite(image.affine).all()
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error):
        raise CohortError(f"{path.name} cannot be read as NIfTI; download or export it again") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise CohortError(f"{path.name} is no single-file NIfTI; convert it to .nii.gz")
    if not finite or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise CohortError(f"{path.name} has an orientation matrix that cannot be inverted; export it again")
    return image


def _refuse_shape(path: Path, shape: tuple[int, ...], channels: int) -> None:
    """Raise CohortError unless there are three spatial axes and, after them, as many frames as channels."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    text = " x ".join(map(str, shape))
    frames = shape[3] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise CohortError(f"{path.name} is {text}, not a volume of three axes; give a 3-D image")
    if frames != channels:
        raise CohortError(f"{path.name} is {text}: {frames} frames, not {channels}; split off the one that counts")
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise CohortError(f"{path.name} declares {text} voxels, more than {MAX_VOXELS}; resample it to 1 mm")


def _content(path: Path, image: Any) -> bytes:
    """Every byte of the file, unpacked: exactly as many as its header declares."""
    import gzip

    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise CohortError(f"{path.name} holds {dtype} voxels; convert it to grey values, whole numbers or floats")
    declared = int(image.dataobj.offset) + int(np.prod(image.shape)) * dtype.itemsize
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(declared + 1)  # one byte more, so that the end of the stream is reached and checked
    except (OSError, EOFError, zlib.error):
        raise CohortError(f"{path.name} is truncated or corrupt; download or export it again") from None
    if len(content) != declared:
        found = f"{len(content)}" if len(content) < declared else "more"
        raise CohortError(f"{path.name} declares {declared} bytes and holds {found}; download or export it again")
    return content


def _cropped(volume: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Centre crop or pad with 0, (C, D, H, W); of an odd surplus the larger half goes first, so 155 -> 3..152."""
    if preprocessing.crop is None:
        return volume
    import torchio

    return _apply(torchio.CropOrPad(preprocessing.crop), volume)


def _apply(transform: Any, volume: Tensor) -> Tensor:
    """A fixed torchio transform of one tensor; its axes may come in any order, as these transforms treat all alike."""
    with torch.random.fork_rng(devices=[]):  # torchio draws whether to apply even what is always applied
        result: Tensor = transform(volume)
    return result


def _resized(volume: Tensor, size: Size | None) -> Tensor:
    """Linear and antialiased: (C, D, H, W) -> (C, *size). Two calls, since torch antialiases two axes at a time."""
    if size is None:
        return volume
    depth, height, width = size
    planes = F.interpolate(volume, (height, width), mode="bilinear", antialias=True)
    columns = planes.flatten(2)[:, None]  # (C, 1, D, H * W)
    columns = F.interpolate(columns, (depth, height * width), mode="bilinear", antialias=True)
    return columns.reshape(-1, depth, height, width)


def _stacked(ids: Sequence[str], volumes: Iterable[NDArray[Any]]) -> Tensor:
    """(C, D, H, W) each -> (B, C, D, H, W)."""
    tensors = [torch.from_numpy(volume) for volume in volumes]
    faults = _unequal_sizes({id: _size(tensor.shape) for id, tensor in zip(ids, tensors, strict=True)})
    if faults:
        raise CohortError(faults[0])
    return torch.stack(tensors)


def equal_grids(one: Grid, other: Grid) -> bool:
    """Whether two images have as many voxels, as far apart (within 1 %)."""
    return one.size == other.size and np.allclose(one.spacing, other.spacing, 0.01)


def _unequal_grids(id: str, grids: Mapping[str, Grid]) -> list[str]:
    """What to say if the images of one subject do not lie on one grid."""
    if not grids:
        return []
    first, *others = grids
    return [
        f"{id!r}: {name} is {_described(grids[name])} but {first} is {_described(grids[first])}; resample to one grid"
        for name in others
        if not equal_grids(grids[name], grids[first])
    ]


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


def _described(grid: Grid) -> str:
    return f"{_text(grid.size)} at {' x '.join(f'{mm:.3g}' for mm in grid.spacing)} mm"


def _text(size: Size) -> str:
    return " x ".join(map(str, size))


def _key(path: Path, content: Content, channels: int, preprocessing: Preprocessing) -> str:
    settings = json.dumps([preprocessing.crop, preprocessing.resize, preprocessing.percentiles])
    made_of = "\0".join([str(VERSION), content, str(channels), settings, file_digest(path)])
    return hashlib.sha256(made_of.encode()).hexdigest()


def _load(entry: Path, content: Content, preprocessing: Preprocessing) -> tuple[NDArray[Any], Grid] | None:
    """What is cached under that name; None if it is not there or broken."""
    try:
        fields = json.loads(entry.with_suffix(".json").read_text())
        grid = Grid(tuple(fields["size"]), tuple(fields["spacing"]))
        # "c": torch wants memory that may be written; what is written stays in this process
        array = np.load(entry.with_suffix(".npy"), mmap_mode="c")
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    sound = array.dtype == _DTYPES[content] and array.shape[1:] == grid.after(preprocessing).size
    return (array, grid) if sound else None


def _save(entry: Path, array: NDArray[Any], grid: Grid) -> None:
    write_text(entry.with_suffix(".json"), json.dumps(asdict(grid)))
    with atomic_file(entry.with_suffix(".npy")) as partial, partial.open("wb") as file:
        np.save(file, array)
