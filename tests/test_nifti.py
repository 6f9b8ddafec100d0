"""Files of images: every valid variant gives the same voxels, every broken one is refused in its own words."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from fusionbench.errors import CohortError
from fusionbench.imaging.nifti import Frame, Grid, mismatch, read_image, read_volume

SHAPE = (10, 12, 6)  # X, Y, Z
AFFINE = np.array([[1.0, 0, 0, -7], [0, 2, 0, 5], [0, 0, 3, 11], [0, 0, 0, 1]])
ORIENTATIONS = [
    "".join(letters)
    for pairs in itertools.permutations(("LR", "AP", "SI"))
    for letters in itertools.product(*pairs)
]  # fmt: skip


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def sound(dtype: Any = np.int16, affine: Any = AFFINE) -> bytes:
    """A file of NIfTI-1 that nothing is wrong with."""
    return bytes(nibabel.Nifti1Image(voxels(dtype=dtype), affine).to_bytes())


def patched(content: bytes, *changes: tuple[int, str, object]) -> bytes:
    """Some fields of a header written over: (byte, format, value)."""
    out = bytearray(content)
    for offset, kind, value in changes:
        struct.pack_into(kind, out, offset, value)
    return bytes(out)


# ---------------------------------------------------------------- what must pass


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_each_of_48_orientations_gives_the_same_image(tmp_path: Path, axes: str) -> None:
    image = nibabel.Nifti1Image(voxels(), AFFINE)
    there = nibabel.orientations.axcodes2ornt(axes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), there)
    nibabel.save(image.as_reoriented(turn), tmp_path / "v.nii.gz")
    found = read_image(tmp_path / "v.nii.gz")
    assert np.array_equal(found.voxels[0], voxels().transpose(2, 1, 0))
    assert found.axes == axes
    assert found.frame.size == (6, 12, 10)
    assert np.allclose(found.frame.matrix, AFFINE)
    assert found.frame.grid == Grid((6, 12, 10), (3.0, 2.0, 1.0))


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_types_and_byte_orders(tmp_path: Path, kind: str, order: str, name: str) -> None:
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + kind))
    nibabel.save(nibabel.Nifti1Image(voxels().astype(order + kind), AFFINE, header), tmp_path / name)
    stored = tmp_path / name
    assert (gzip.decompress(stored.read_bytes()) if name.endswith("gz") else stored.read_bytes())[:2] in (
        b"\\\x01" if order == "<" else b"\0\0",
    )
    assert np.array_equal(read_volume(stored)[0][0], voxels().transpose(2, 1, 0))


def test_scaled_voxels_are_what_nibabel_says(tmp_path: Path) -> None:
    content = patched(sound(), (112, "<f", 0.25), (116, "<f", -12.5))  # scl_slope, scl_inter
    (tmp_path / "v.nii").write_bytes(content)
    theirs = nibabel.load(tmp_path / "v.nii").get_fdata()
    assert theirs.min() < 0
    assert np.allclose(read_volume(tmp_path / "v.nii")[0][0], theirs.transpose(2, 1, 0), rtol=0, atol=1e-6)


def two_members(content: bytes) -> bytes:
    return gzip.compress(content[:700]) + gzip.compress(content[700:])


def with_extension(content: bytes) -> bytes:
    """A comment of 32 bytes between header and voxels."""
    extension = struct.pack("<4B2i", 1, 0, 0, 0, 32, 6) + b"Jane Doe, 4711".ljust(24, b"\0")
    return gzip.compress(patched(content[:348], (108, "<f", 384.0)) + extension + content[352:])


@pytest.mark.parametrize("packed", [two_members, with_extension])
def test_two_members_of_gzip_and_extensions(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    (tmp_path / "v.nii.gz").write_bytes(packed(sound()))
    assert np.array_equal(read_volume(tmp_path / "v.nii.gz")[0][0], voxels().transpose(2, 1, 0))


def test_nifti_2(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(voxels(), AFFINE), tmp_path / "v.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "v.nii.gz")[0][0], voxels().transpose(2, 1, 0))


@pytest.mark.parametrize("trailing", [(1,), (1, 1)])
def test_a_trailing_axis_of_one_frame_is_left_out_and_said_so(tmp_path: Path, trailing: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels().reshape(*SHAPE, *trailing), AFFINE), tmp_path / "v.nii.gz")
    found = read_image(tmp_path / "v.nii.gz")
    assert np.array_equal(found.voxels[0], voxels().transpose(2, 1, 0))
    assert found.squeezed
    nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), tmp_path / "plain.nii.gz")
    assert not read_image(tmp_path / "plain.nii.gz").squeezed


def test_several_channels_where_the_modality_says_so(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels((*SHAPE, 3)), AFFINE), tmp_path / "v.nii.gz")
    found = read_image(tmp_path / "v.nii.gz", channels=3)
    assert np.array_equal(found.voxels, voxels((*SHAPE, 3)).transpose(3, 2, 1, 0))
    assert not found.squeezed


def test_a_qform_alone_places_the_image(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(voxels(), None)
    image.header.set_qform(AFFINE, code=1)
    nibabel.save(image, tmp_path / "v.nii")
    assert np.allclose(read_image(tmp_path / "v.nii").frame.matrix, AFFINE, atol=1e-5)


# ---------------------------------------------------------------- what must not

AGAIN = "; download or export it again"


def gz(content: bytes) -> bytes:
    return gzip.compress(content, 1)


def flipped(content: bytes, at: int) -> bytes:
    out = bytearray(content)
    out[at] ^= 1
    return bytes(out)


def saved(data: NDArray[Any], affine: Any = AFFINE) -> bytes:
    return gz(nibabel.Nifti1Image(data, affine).to_bytes())


def spoilt(value: float) -> bytes:
    data = voxels(dtype=np.float64)
    data[1, 2, 3] = value
    return saved(data)


def coloured() -> bytes:
    data = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return saved(data)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"is empty{AGAIN}"),
    "page": (b"\n<!DOCTYPE html><title>Please log in</title>", "is a web page, not an image; download it again, log"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "is a Git LFS pointer, not the image; f"),
    "annex": (b"/annex/objects/SHA256E-s1--12.nii.gz\n", "is a git-annex pointer, not the image; fetch it with `git"),
    "not packed": (sound(), f"is not compressed, unlike its name{AGAIN}"),
    "half": (gz(sound())[:400], f"is truncated: its compressed data stop early{AGAIN}"),
    "without trailer": (gz(sound())[:-8], f"is truncated: its compressed data stop early{AGAIN}"),
    "checksum": (flipped(gz(sound()), -6), f"is corrupt: its data do not fit their checksum{AGAIN}"),
    "flipped bit": (flipped(gz(sound()), 600), f"is corrupt: its data do not fit their checksum{AGAIN}"),
    "rubbish behind": (gz(sound()) + b"rubbish", f"is corrupt: its data do not fit their checksum{AGAIN}"),
    "short": (gz(sound()[:-10]), f"declares 1792 bytes and holds 1782{AGAIN}"),
    "long": (gz(sound() + b"\0" * 10), f"declares 1792 bytes and holds more{AGAIN}"),
    "header only": (gz(sound()[:348]), f"declares 1792 bytes and holds 348{AGAIN}"),
    "part of a header": (gz(sound()[:100]), f"is truncated within its header{AGAIN}"),
    "text": (gz(b"subject,label\na,HGG\n" * 100), f"is no NIfTI: it begins with b'subj'{AGAIN}"),
    "magic": (gz(patched(sound(), (344, "3s", b"xyz"))), "has a broken header (magic string 'xyz' is not valid)"),
    "pair": (gz(patched(sound(), (344, "3s", b"ni1"))), "is half of a pair .hdr and .img; convert it to .nii.gz"),
    "offset low": (gz(patched(sound(), (108, "<f", 8.0))), "has a broken header (vox offset 8 too low"),
    "offset wild": (gz(patched(sound(), (108, "<f", 1e12))), "has a broken header (voxels at byte 999999995904)"),
    "offset nan": (gz(patched(sound(), (108, "<f", np.nan))), "has a broken header ("),
    "type": (gz(patched(sound(), (70, "<h", 9999))), "has a broken header (data code 9999 not recognized)"),
    "slope": (gz(patched(sound(), (112, "<f", 1.0), (116, "<f", np.inf))), "has a broken header ("),
    "quaternion": (
        gz(patched(sound(), (252, "<h", 1), (254, "<h", 0), (256, "<f", 9.0))),
        "has a broken header (w2 should be positive",
    ),
    "singular": (gz(patched(sound(), (280, "<f", 0.0))), "has an orientation matrix that cannot be inverted"),
    "affine nan": (gz(patched(sound(), (284, "<f", np.nan))), "has an orientation matrix that cannot be inverted"),
    "nan": (spoilt(np.nan), "holds NaN or infinite voxels; export it again without them"),
    "inf": (spoilt(-np.inf), "holds NaN or infinite voxels; export it again without them"),
    "beyond float32": (spoilt(1e300), "holds NaN or infinite voxels; export it again without them"),
    "2-D": (saved(voxels((10, 12))), "is 10 x 12, not a volume of three axes; give a 3-D image"),
    "one slice": (saved(voxels((10, 12, 1))), "is 10 x 12 x 1, not a volume of three axes; give a 3-D image"),
    "no voxel": (gz(patched(sound(), (46, "<h", 0))), "is 10 x 12 x 0, not a volume of three axes"),
    "4-D": (saved(voxels((*SHAPE, 2))), "is 10 x 12 x 6 x 2: 2 frames, not 1; split off the one that counts"),
    "5-D": (saved(voxels((*SHAPE, 1, 2))), "is 10 x 12 x 6 x 1 x 2, not a volume of three axes"),
    "complex": (saved(voxels().astype(np.complex64)), "holds complex voxels; convert it to grey values"),
    "colour": (coloured(), "holds colour voxels; convert it to grey values"),
    "huge": (
        gz(patched(sound(), (42, "<h", 2000), (44, "<h", 2000), (46, "<h", 2000))),
        "declares 2000 x 2000 x 2000 voxels, more than 134217728; resample it to 1 mm or raise prepr",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_every_broken_file_is_refused_in_its_own_words(tmp_path: Path, kind: str) -> None:
    content, says = BROKEN[kind]
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(CohortError) as error:
        read_image(tmp_path / "v.nii.gz")
    message = str(error.value)
    assert message.startswith(f"v.nii.gz {says}")
    assert "\n" not in message
    assert str(tmp_path) not in message


def test_a_missing_file_and_one_that_is_packed_against_its_name(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"cannot read gone\.nii: No such file"):
        read_image(tmp_path / "gone.nii")
    (tmp_path / "v.nii").write_bytes(gz(sound()))
    with pytest.raises(CohortError, match=r"v\.nii is compressed, unlike its name"):
        read_image(tmp_path / "v.nii")


def peak_of_refusal(path: Path, says: str) -> int:
    """How many bytes Python and numpy held at most."""
    tracemalloc.start()
    try:
        with pytest.raises(CohortError, match=says):
            read_image(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_left_at_what_its_header_declares(tmp_path: Path) -> None:
    read_image_once(tmp_path)
    zeros = gzip.compress(bytes(2**20))
    (tmp_path / "bomb.nii.gz").write_bytes(gz(sound()) + zeros * 1024)
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 1.2e6
    assert peak_of_refusal(tmp_path / "bomb.nii.gz", "declares 1792 bytes and holds more") < 8 * 2**20


def test_a_small_file_that_declares_a_gigabyte_gets_no_memory_for_it(tmp_path: Path) -> None:
    read_image_once(tmp_path)
    (tmp_path / "v.nii.gz").write_bytes(gz(patched(sound(), (42, "<h", 512), (44, "<h", 512), (46, "<h", 512))))
    assert peak_of_refusal(tmp_path / "v.nii.gz", "declares 268435808 bytes and holds 1792") < 8 * 2**20


def read_image_once(folder: Path) -> None:
    """Load what is imported on the first call, so that it is not counted."""
    (folder / "sound.nii.gz").write_bytes(gz(sound()))
    read_image(folder / "sound.nii.gz")


def test_the_cap_of_voxels_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "v.nii.gz").write_bytes(gz(sound()))
    assert read_image(tmp_path / "v.nii.gz", max_voxels=720).voxels.size == 720
    with pytest.raises(CohortError, match="declares 10 x 12 x 6 voxels, more than 719"):
        read_image(tmp_path / "v.nii.gz", max_voxels=719)


def test_a_checksum_is_compared_wherever_the_voxels_end(tmp_path: Path) -> None:
    """Here with the chunk that was read last: 352 bytes and 204 x 53 x 97 voxels are 540 bytes and 1 MiB."""
    content = gz(nibabel.Nifti1Image(np.zeros((204, 53, 97), np.uint8), AFFINE).to_bytes())
    (tmp_path / "v.nii.gz").write_bytes(flipped(content, -6))
    with pytest.raises(CohortError, match="is corrupt: its data do not fit their checksum"):
        read_image(tmp_path / "v.nii.gz")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    content = gz(sound())
    rng = np.random.default_rng(1)
    for at in rng.choice(np.arange(10, len(content)), 60, replace=False):  # behind the header of gzip, without checksum
        (tmp_path / "v.nii.gz").write_bytes(flipped(content, int(at)))
        with pytest.raises(CohortError):
            read_image(tmp_path / "v.nii.gz")


def test_nothing_but_voxels_and_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "v.nii.gz").write_bytes(with_extension(patched(sound(), (148, "12s", b"Jane Doe, 47"))))
    assert b"Jane" in gzip.decompress((tmp_path / "v.nii.gz").read_bytes())
    assert "Jane" not in repr(read_image(tmp_path / "v.nii.gz"))


# ---------------------------------------------------------------- where images lie


def frame(affine: Any = AFFINE, size: tuple[int, int, int] = (6, 12, 10)) -> Frame:
    return Frame(size, tuple(tuple(row) for row in np.asarray(affine)[:3].tolist()))


def turned(degrees: float) -> NDArray[Any]:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0, 0], [np.sin(angle), np.cos(angle), 0, 0],
                     [0, 0, 1, 0], [0, 0, 0, 1]])  # fmt: skip
    return np.asarray(turn @ AFFINE)


def moved(mm: float) -> NDArray[Any]:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (frame(), ""),
        (frame(moved(0.09)), ""),
        (frame(turned(0.15)), ""),
        (frame(moved(0.11)), "t2 lies up to 0.11 mm off t1, by another origin"),
        (frame(moved(-12)), "t2 lies up to 12 mm off t1, by another origin"),
        # the corner (-7.5, 28) mm is 28.99 mm from the axis: 2 sin 10 degrees of that
        (frame(turned(20)), "t2 lies up to 10.1 mm off t1, by another direction"),
        (frame(AFFINE, (6, 12, 11)), "t2 is 6 x 12 x 11 at 3 x 2 x 1 mm but t1 is 6 x 12 x 10 at 3 x 2 x 1 mm"),
        (frame(AFFINE * [1.1, 1, 1, 1]), "t2 is 6 x 12 x 10 at 3 x 2 x 1.1 mm but t1 is 6 x 12 x 10 at 3 x 2 x 1 mm"),
    ],
)
def test_one_grid_is_one_within_a_tenth_of_a_voxel(other: Frame, says: str) -> None:
    assert mismatch("t2", other, "t1", frame()) == says


def test_a_box_is_the_same_place_in_another_frame() -> None:
    here, box = frame(), ((1, 2, 3), (4, 8, 9))
    assert here.box_around(here.corners(box)) == box
    shifted = frame(AFFINE @ np.array([[1, 0, 0, 2], [0, 1, 0, 1], [0, 0, 1, -1], [0, 0, 0, 1]]))  # by voxels (x, y, z)
    assert shifted.box_around(here.corners(box)) == ((2, 1, 1), (5, 7, 7))
    assert replace(here).box_around(here.corners()) == ((0, 0, 0), (6, 12, 10))
