"""NIfTI files: read to their last byte, judged, and turned to one orientation.

Axes: a file holds (X, Y, Z) in any orientation; what is read is (C, D, H, W) = (C, Z, Y, X) of the RAS orientation.
"""

from __future__ import annotations

import gzip
import io
import itertools
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from fusionbench.errors import CohortError

MAX_VOXELS = 512**3
"""A header that declares more is refused before anything is allocated: 16 kB of NIfTI can ask for 4 GB."""
OFF_GRID = 0.1
"""By how many voxels a corner may lie elsewhere for two images to be on one grid."""

Size = tuple[int, int, int]
Box = tuple[Size, Size]
"""The first voxel along (D, H, W), and the one after the last."""

_LARGEST_OFFSET = 2**24
_CHUNK = 2**20
_HEADER_BYTES = 540
_AGAIN = "download or export it again"
_PLACEHOLDERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the image; fetch it with `git lfs pull`",
    b"/annex/objects/": "is a git-annex pointer, not the image; fetch it with `git annex get`",
    b"<": "is a web page, not an image; download it again, logged in",
}
_QUIET = logging.Logger(__name__)


@dataclass(frozen=True)
class Grid:
    """The lattice of voxels in RAS orientation: how many along (D, H, W), and how many mm apart.

    >>> Grid((155, 240, 240), (1.0, 1.0, 1.0)).size
    (155, 240, 240)
    """

    size: Size
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Frame:
    """Where a grid lies in space: the affine takes a voxel (x, y, z) to mm in RAS, as three rows of four numbers."""

    size: Size
    """Along (D, H, W), as everywhere but in the affine."""
    affine: tuple[tuple[float, float, float, float], ...]

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The affine with its fourth row, (4, 4)."""
        return np.array([*self.affine, (0, 0, 0, 1)], dtype=np.float64)

    @property
    def grid(self) -> Grid:
        """Its size and spacing."""
        width, height, depth = np.linalg.norm(self.matrix[:3, :3], axis=0).tolist()
        return Grid(self.size, (depth, height, width))

    def corners(self, box: Box | None = None) -> NDArray[np.float64]:
        """The outer corners of a box of voxels, or of all, in mm: (8, 3)."""
        low, high = box or ((0, 0, 0), self.size)
        ends = [(first - 0.5, last - 0.5) for first, last in zip(low[::-1], high[::-1], strict=True)]  # (x, y, z)
        points = np.array([*itertools.product(*ends)])
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    def box_around(self, points: NDArray[np.float64]) -> Box:
        """The box of voxels that holds some points in mm (N, 3), to the nearest voxel border."""
        places = (points - self.matrix[:3, 3]) @ np.linalg.inv(self.matrix[:3, :3]).T + 0.5
        low, high = places.min(0).round().astype(int).tolist(), places.max(0).round().astype(int).tolist()
        return (low[2], low[1], low[0]), (high[2], high[1], high[0])


@dataclass(frozen=True)
class Image:
    """What a NIfTI file holds."""

    voxels: NDArray[np.float32]
    """(C, D, H, W) in RAS orientation."""
    frame: Frame
    axes: str
    """Where the axes of the file point, such as LPS."""
    squeezed: bool
    """Whether the file has further axes of length 1, which were left out."""
    constant: bool
    """Whether all voxels are equal."""


def read_volume(path: Path, channels: int = 1) -> tuple[NDArray[np.float32], Grid]:
    """The voxels of `read_image` (C, D, H, W) and their grid."""
    image = read_image(path, channels)
    return image.voxels, image.frame.grid


def read_image(path: Path, channels: int = 1, max_voxels: int = MAX_VOXELS) -> Image:
    """Read a NIfTI file to its last byte: checksum, size, header and values.

    The checksum of a compressed file is compared, for nibabel alone noticed 26 of 150 flipped bits; no more is
    unpacked than the header declares, and no more is declared than `max_voxels`. CohortError says in one line what
    is wrong and how to mend it.
    """
    _refuse_placeholder(path)
    with _explained(path), _opened(path) as file:
        start = file.read(_HEADER_BYTES)
        header = _header(path, start)
        _refuse_shape(path, header.get_data_shape(), channels, max_voxels)
        content = _content(path, file, start, _declared(path, header))
        affine = _affine(path, header)
    return _image(path, header, content, affine, channels)


def equal_grids(one: Grid, other: Grid) -> bool:
    """Whether two images have as many voxels, as far apart (within 1 %)."""
    return one.size == other.size and np.allclose(one.spacing, other.spacing, 0.01)


def mismatch(name: str, one: Frame, other_name: str, other: Frame) -> str:
    """How two images do not lie on one grid; empty if no corner is further off than OFF_GRID voxels."""
    if not equal_grids(one.grid, other.grid):
        return f"{name} is {described(one.grid)} but {other_name} is {described(other.grid)}"
    apart, tolerated = one.corners() - other.corners(), OFF_GRID * min(one.grid.spacing)
    distance = float(np.linalg.norm(apart, axis=1).max())
    if distance <= tolerated:
        return ""
    cause = "direction" if np.ptp(apart, axis=0).max() > tolerated else "origin"
    return f"{name} lies up to {distance:.3g} mm off {other_name}, by another {cause}"


def described(grid: Grid) -> str:
    """Its size and spacing, as `12 x 24 x 24 at 10 x 8 x 8 mm`."""
    return f"{_text(grid.size)} at {' x '.join(f'{mm:.3g}' for mm in grid.spacing)} mm"


def _refuse_placeholder(path: Path) -> None:
    """Raise CohortError for an empty file, or what stands where an image should be."""
    with _explained(path), path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CohortError(f"{path.name} is empty; {_AGAIN}")
    for beginning, what in _PLACEHOLDERS.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(beginning):
            raise CohortError(f"{path.name} {what}")
    compressed = start.startswith(b"\x1f\x8b")
    if compressed != (path.suffix == ".gz"):
        raise CohortError(f"{path.name} is {'' if compressed else 'not '}compressed, unlike its name; {_AGAIN}")


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading into one line."""
    try:
        yield
    except EOFError:
        raise CohortError(f"{path.name} is truncated: its compressed data stop early; {_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error):
        raise CohortError(f"{path.name} is corrupt: its data do not fit their checksum; {_AGAIN}") from None
    except OSError as error:
        raise CohortError(f"cannot read {path.name}: {error.strerror}") from None


def _header(path: Path, start: bytes) -> Any:
    """The checked header, a Nifti1Header or Nifti2Header, from the first bytes of the content."""
    import nibabel

    kinds: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")} & set(kinds)
    if not sizes:
        raise CohortError(f"{path.name} is no NIfTI: it begins with {start[:4]!r}; {_AGAIN}")
    size = sizes.pop()
    if len(start) < size:
        raise CohortError(f"{path.name} is truncated within its header; {_AGAIN}")
    with _sound_header(path):
        header: Any = kinds[size](start[:size], check=False)
        header.check_fix(logger=_QUIET, error_level=40)
        header.get_slope_inter()
    if header["magic"].item() != header.single_magic:
        raise CohortError(f"{path.name} is half of a pair .hdr and .img; convert it to .nii.gz")
    return header


@contextmanager
def _sound_header(path: Path) -> Iterator[None]:
    """Turn what nibabel says of a header into one line."""
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (HeaderDataError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise CohortError(f"{path.name} has a broken header ({reason}); {_AGAIN}") from None


def _refuse_shape(path: Path, shape: tuple[int, ...], channels: int, max_voxels: int) -> None:
    """Raise CohortError unless there are three spatial axes and, after them, as many frames as channels."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    text = _text(shape)
    frames = shape[3] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise CohortError(f"{path.name} is {text}, not a volume of three axes; give a 3-D image")
    if frames != channels:
        raise CohortError(f"{path.name} is {text}: {frames} frames, not {channels}; split off the one that counts")
    if np.prod(shape, dtype=np.float64) > max_voxels:
        mend = "resample it to 1 mm or raise preprocessing.max_voxels"
        raise CohortError(f"{path.name} declares {text} voxels, more than {max_voxels}; {mend}")


def _declared(path: Path, header: Any) -> int:
    """How many bytes the header declares, itself included."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = {"c": "complex", "V": "colour"}.get(dtype.kind, str(dtype))
        raise CohortError(f"{path.name} holds {kind} voxels; convert it to grey values, whole numbers or floats")
    with _sound_header(path):
        offset = int(header.get_data_offset())
    if not header.single_vox_offset <= offset <= _LARGEST_OFFSET:
        raise CohortError(f"{path.name} has a broken header (voxels at byte {offset}); {_AGAIN}")
    declared: int = offset + math.prod(header.get_data_shape()) * dtype.itemsize
    return declared


def _content(path: Path, file: IO[bytes], start: bytes, declared: int) -> io.BytesIO:
    """Every byte of the file, unpacked: exactly as many as its header declares. Memory grows with what is there."""
    content = io.BytesIO()
    content.write(start)
    while content.tell() <= declared and (chunk := file.read(_CHUNK)):  # to the end, where the checksum is compared
        content.write(chunk)
    if content.tell() != declared:
        found = f"{content.tell()}" if content.tell() < declared else "more"
        raise CohortError(f"{path.name} declares {declared} bytes and holds {found}; {_AGAIN}")
    return content


def _affine(path: Path, header: Any) -> NDArray[np.float64]:
    """What takes a voxel (x, y, z) of the file to mm, (4, 4)."""
    with _sound_header(path):
        affine: NDArray[np.float64] = np.asarray(header.get_best_affine(), dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 1e-3 * lengths.prod():
        raise CohortError(f"{path.name} has an orientation matrix that cannot be inverted; export it again")
    return affine


def _image(path: Path, header: Any, content: io.BytesIO, affine: NDArray[np.float64], channels: int) -> Image:
    import nibabel.arrayproxy

    orientations: Any = nibabel.orientations  # typed in part, as is the rest of nibabel
    proxy: Any = nibabel.arrayproxy.ArrayProxy(content, header)  # type: ignore[no-untyped-call]
    with np.errstate(over="ignore"):  # what no float32 can hold becomes infinite, and is refused as such
        values = np.asarray(proxy, dtype=np.float32)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN goes through both
        raise CohortError(f"{path.name} holds NaN or infinite voxels; export it again without them")
    shape = values.shape[:3]
    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(values.reshape(*shape, channels), turn).transpose(
        3, 2, 1, 0
    )  # (C, Z, Y, X)
    _, depth, height, width = turned.shape
    rows = (affine @ orientations.inv_ornt_aff(turn, shape))[:3].tolist()
    return Image(
        voxels=np.ascontiguousarray(turned),
        frame=Frame((depth, height, width), tuple((a, b, c, d) for a, b, c, d in rows)),
        axes="".join(orientations.aff2axcodes(affine)),
        squeezed=values.ndim > 3 + (channels > 1),
        constant=bool(low == high),
    )


def _text(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
