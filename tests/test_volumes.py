"""From NIfTI files to tensors: axes, crop, percentiles, resize, cache; and every file that must be refused."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from fusionbench.cohorts import Cohort, Modality, Subject
from fusionbench.errors import CohortError
from fusionbench.volumes import Volumes, preprocess_image, read_volume

REAL = Path(__file__).parent / "data" / "brats"
SHAPE = (10, 12, 6)  # X, Y, Z


def preprocessing(crop=None, resize=None, percentiles=(0.5, 99.5)):
    return SimpleNamespace(crop=crop, resize=resize, percentiles=percentiles)


def voxels(shape=SHAPE, seed=0, dtype=np.int16):
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def write(path, data, affine=None):
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def cohort(*subjects, modalities=("t1",)):
    labelled = tuple(Subject(name, "ab"[i % 2], files=files, seg=seg) for i, (name, files, seg) in enumerate(subjects))
    return Cohort("made", ("a", "b"), "a", tuple(Modality(name) for name in modalities), labelled)


def pair(folder, **second):
    """Two subjects with one sequence each; the second one may be anything."""
    first = write(folder / "first_t1.nii.gz", voxels())
    other = second.get("file") or write(folder / "other_t1.nii.gz", second.get("data", voxels(seed=1)))
    return cohort(("first", {"t1": first}, None), ("other", {"t1": other}, None))


def test_one_bright_axial_slice_lights_one_index_of_depth(tmp_path):
    data = np.zeros(SHAPE, np.float32)
    data[:, :, 4] = 100  # axial slice 4 of a RAS file
    made = pair(tmp_path, data=data)
    volume = Volumes(made, preprocessing(), tmp_path / "cache").inputs(["other"], ["t1"])["t1"]
    assert volume.shape == (1, 1, 6, 12, 10)
    assert volume.dtype == torch.float32
    assert (volume.amax((0, 1, 3, 4)) > 0).nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA"])
def test_any_orientation_gives_the_same_tensor(tmp_path, axes):
    data, affine = voxels(), np.diag([1.0, 2.0, 3.0, 1.0])
    image = nibabel.Nifti1Image(data, affine)
    there = nibabel.orientations.axcodes2ornt(axes)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), there)),
                 tmp_path / "t1.nii.gz")  # fmt: skip
    volume, grid = read_volume(tmp_path / "t1.nii.gz")
    assert np.array_equal(volume[0], data.transpose(2, 1, 0))
    assert grid.size == (6, 12, 10)
    assert grid.spacing == pytest.approx((3, 2, 1))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4", ">f8"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_valid_variants_pass(tmp_path, dtype, name):
    data = voxels(dtype=dtype) if dtype != "u1" else (voxels() % 200).astype("u1")
    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), header), tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / name)[0][0], data.transpose(2, 1, 0))


def test_scaled_values_two_gzip_members_nifti2_and_a_trailing_axis_pass(tmp_path):
    data = voxels()
    scaled = nibabel.Nifti1Image(data[..., None, None], np.eye(4))
    scaled.header.set_slope_inter(0.5, 10)
    content = scaled.to_bytes()
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    stored = nibabel.load(tmp_path / "two.nii.gz").get_fdata()[..., 0, 0]
    assert np.allclose(read_volume(tmp_path / "two.nii.gz")[0][0], stored.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti2Image(data, np.eye(4)), tmp_path / "second.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "second.nii.gz")[0][0], data.transpose(2, 1, 0))


def test_several_channels_are_read_where_the_modality_says_so(tmp_path):
    data = voxels((*SHAPE, 3))
    volume, _ = read_volume(write(tmp_path / "rgb.nii.gz", data), channels=3)
    assert np.array_equal(volume, data.transpose(3, 2, 1, 0))


def test_the_crop_of_155_slices_is_the_papers():
    volume = np.arange(155, dtype=np.float32)[None, :, None, None] * np.ones((1, 155, 4, 4), np.float32)
    cropped = preprocess_image(volume, preprocessing(crop=(150, 6, 4), percentiles=(0, 100)))
    assert cropped.shape == (1, 150, 6, 4)
    assert np.allclose(cropped[0, :, 2, 2], np.arange(3, 153) / 152)  # slices 3..152; the padding is 0
    assert (cropped[0, :, [0, 5]] == 0).all()


def test_percentiles_of_the_whole_volume_become_0_and_1():
    volume = voxels((1, 20, 30, 30), dtype=np.float32)
    low, high = np.percentile(volume, (0.5, 99.5))
    expected = (volume.clip(low, high) - low) / (high - low)
    assert np.allclose(preprocess_image(volume, preprocessing()), expected, atol=1e-6)


def test_resizing_is_linear_and_does_not_alias():
    stripes = np.zeros((1, 32, 32, 32), np.float32)
    stripes[:, :, :, ::2] = 1
    small = preprocess_image(stripes, preprocessing(resize=(8, 8, 8), percentiles=(0, 100)))
    assert small.shape == (1, 8, 8, 8)
    assert np.allclose(small[..., 1:-1], 0.5, atol=0.01)  # plain linear interpolation keeps 0.5 or stripes by chance
    ramp = np.arange(32, dtype=np.float32)[None, :, None, None] * np.ones((1, 32, 8, 8), np.float32)
    resized = preprocess_image(ramp, preprocessing(resize=(8, 16, 4), percentiles=(0, 100)))
    centres = (np.arange(8) + 0.5) * 4 - 0.5
    assert np.allclose(resized[0, 1:-1, 0, 0], centres[1:-1] / 31, atol=1e-5)


def test_spacing_follows_crop_and_resize(tmp_path):
    affine = np.diag([1.0, 1.5, 3.0, 1.0])  # X, Y, Z
    files = [write(tmp_path / f"{i}.nii.gz", voxels(seed=i), affine * [1, 1, i + 1, 1]) for i in range(2)]
    made = cohort(("one", {"t1": files[0]}, None), ("two", {"t1": files[1]}, None))
    volumes = Volumes(made, preprocessing(crop=(4, 12, 10), resize=(8, 6, 10)), tmp_path / "cache")
    assert torch.allclose(volumes.spacing(["two", "one"]), torch.tensor([[3.0, 3.0, 1.0], [1.5, 3.0, 1.0]]))
    assert volumes.size("t1") == (8, 6, 10)


def test_the_segmentation_follows_the_image_and_keeps_its_labels(tmp_path):
    data = voxels()
    seg = np.zeros(SHAPE, np.uint8)
    seg[2:6, 3:9, 1:4] = 4
    files = {"t1": write(tmp_path / "t1.nii.gz", data)}
    made = cohort(("marked", files, write(tmp_path / "seg.nii.gz", seg)), ("bare", files, None))
    whole = Volumes(made, preprocessing(), tmp_path / "cache")
    assert np.array_equal(whole.segmentation(["marked"])[0, 0], seg.transpose(2, 1, 0))
    small = Volumes(made, preprocessing(crop=(4, 12, 10), resize=(2, 6, 5)), tmp_path / "cache").segmentation(
        ["marked"]
    )
    assert small.shape == (1, 1, 2, 6, 5)
    assert set(small.unique().tolist()) == {0, 4}
    with pytest.raises(CohortError, match="'bare' has no segmentation"):
        whole.segmentation(["bare"])
    with pytest.raises(CohortError, match="'bare' has no segmentation"):
        whole.prepare(["marked", "bare"], ["t1"], segmentation=True)


def test_a_segmentation_on_another_grid_or_without_labels_is_refused(tmp_path):
    files = {"t1": write(tmp_path / "t1.nii.gz", voxels())}
    other = write(tmp_path / "grid.nii.gz", np.ones((4, 4, 4), np.uint8))
    mixed = write(tmp_path / "mixed.nii.gz", np.full(SHAPE, 0.5, np.float32))
    volumes = Volumes(cohort(("grid", files, other), ("mixed", files, mixed)), preprocessing(), tmp_path / "cache")
    with pytest.raises(CohortError, match="'grid': seg is 4 x 4 x 4 at 1 x 1 x 1 mm but t1 is 6 x 12 x 10"):
        volumes.segmentation(["grid"])
    with pytest.raises(CohortError, match=r"'mixed', segmentation: mixed.* holds values that are no labels"):
        volumes.segmentation(["mixed"])


def test_tables_are_volumes_of_one_voxel(tmp_path):
    subjects = tuple(Subject(name, name, features={"omics": (1.0, float(i))}) for i, name in enumerate("ab"))
    made = Cohort("tables", ("a", "b"), "a", (Modality("omics", "table", 2),), subjects)
    volumes = Volumes(made, preprocessing(), tmp_path)
    volumes.prepare(["a", "b"], ["omics"])
    assert volumes.inputs(["b", "a"], ["omics"])["omics"].tolist() == [[[[[1]]], [[[1]]]], [[[[1]]], [[[0]]]]]
    assert volumes.size("omics") == (1, 1, 1)
    assert volumes.spacing(["a"]).tolist() == [[1, 1, 1]]


def test_the_cache_is_read_and_its_broken_files_are_made_again(tmp_path):
    made, cache = pair(tmp_path), tmp_path / "cache"
    fresh = Volumes(made, preprocessing(), cache).inputs(["first", "other"], ["t1"])["t1"]
    entries = sorted(cache.glob("*.npy"))
    assert len(entries) == 2
    before = [entry.stat().st_ino for entry in entries]
    assert torch.equal(Volumes(made, preprocessing(), cache).inputs(["first", "other"], ["t1"])["t1"], fresh)
    assert [entry.stat().st_ino for entry in entries] == before
    for content in (b"", b"rubbish", entries[0].read_bytes()[:-100]):
        entries[0].write_bytes(content)
        assert torch.equal(Volumes(made, preprocessing(), cache).inputs(["first", "other"], ["t1"])["t1"], fresh)
    entries[0].with_suffix(".json").write_text('{"size": 3}')
    assert torch.equal(Volumes(made, preprocessing(), cache).inputs(["first", "other"], ["t1"])["t1"], fresh)
    assert not list(cache.glob(".*"))


def test_another_preprocessing_finds_nothing_stale(tmp_path):
    made, cache = pair(tmp_path), tmp_path / "cache"
    sizes = {Volumes(made, preprocessing(**change), cache).inputs(["first"], ["t1"])["t1"].shape[2:]
             for change in ({}, {"crop": (4, 4, 4)}, {"resize": (4, 8, 8)})}  # fmt: skip
    Volumes(made, preprocessing(percentiles=(5, 95)), cache).inputs(["first"], ["t1"])
    assert len(sizes) == 3
    assert len(list(cache.glob("*.npy"))) == 4


def test_what_is_done_to_a_tensor_never_reaches_the_cache(tmp_path):
    volumes = Volumes(pair(tmp_path), preprocessing(), tmp_path / "cache")
    volumes.inputs(["first"], ["t1"])["t1"].zero_()
    assert volumes.inputs(["first"], ["t1"])["t1"].max() == 1


def test_preprocessing_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    Volumes(pair(tmp_path), preprocessing(crop=(4, 4, 4)), tmp_path / "cache").inputs(["first"], ["t1"])
    assert torch.equal(before, torch.get_rng_state())


def not_a_number(value):
    data = voxels(dtype=np.float64)
    data[1, 2, 3] = value
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (not_a_number(np.nan), "holds NaN or infinite voxels"),
        (not_a_number(np.inf), "holds NaN or infinite voxels"),
        (not_a_number(1e300), "holds NaN or infinite voxels"),
        (np.full(SHAPE, 7, np.int16), "is constant"),
        (np.pad(np.ones((1, 1, 1), np.int16), 5), "has one value from percentile 0.5 to 99.5"),
        (voxels((*SHAPE, 2)), "10 x 12 x 6 x 2: 2 frames, not 1"),
        (voxels((10, 12)), "10 x 12, not a volume of three axes"),
        (voxels((10, 12, 1)), "10 x 12 x 1, not a volume of three axes"),
        (voxels().astype(np.complex64), "holds complex64 voxels"),
        (voxels((4, 4, 4)), "'other' is 4 x 4 x 4, most are 6 x 12 x 10: set preprocessing.crop"),
    ],
)
def test_bad_volumes_are_refused_by_name(tmp_path, data, says):
    made = pair(tmp_path, data=data)
    with pytest.raises(CohortError) as error:
        Volumes(made, preprocessing(), tmp_path / "cache").prepare(["first", "other"], ["t1"])
    assert says in str(error.value)
    assert "'other'" in str(error.value)
    assert "\n" not in str(error.value)


def broken(kind, sound):
    content = gzip.decompress(sound)
    flipped = bytearray(sound)
    flipped[-6] ^= 1  # in the checksum: nibabel would not notice
    return {
        "empty": b"",
        "page": b"<html>Please log in</html>",
        "truncated": sound[: len(sound) // 2],
        "checksum": bytes(flipped),
        "short": gzip.compress(content[:-10]),
        "long": gzip.compress(content + b"\0" * 10),
        "header only": gzip.compress(content[:100]),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "page", "truncated", "checksum", "short", "long", "header only"])
def test_broken_files_are_refused_by_name(tmp_path, kind):
    sound = write(tmp_path / "sound.nii.gz", voxels()).read_bytes()
    file = tmp_path / "other_t1.nii.gz"
    file.write_bytes(broken(kind, sound))
    with pytest.raises(CohortError, match=r"'other', t1: other_t1\.nii\.gz .*; download or export it again"):
        Volumes(pair(tmp_path, file=file), preprocessing(), tmp_path / "cache").prepare(["first", "other"], ["t1"])


def test_a_header_that_asks_for_too_much_or_turns_nowhere_is_refused(tmp_path):
    image = nibabel.Nifti1Image(voxels(), np.eye(4))
    content = bytearray(image.to_bytes())
    content[42:48] = np.array([2000, 2000, 2000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(content)
    with pytest.raises(CohortError, match="declares 2000 x 2000 x 2000 voxels"):
        read_volume(tmp_path / "huge.nii")
    flat = nibabel.Nifti1Image(voxels(), np.eye(4))
    flat.header["srow_x"] = flat.header["srow_y"]
    flat.header["sform_code"] = 1
    content = bytearray(flat.to_bytes())
    content[280:296] = content[296:312]
    (tmp_path / "flat.nii").write_bytes(content)
    with pytest.raises(CohortError, match="orientation matrix that cannot be inverted"):
        read_volume(tmp_path / "flat.nii")


def test_all_bad_subjects_are_named_at_once(tmp_path):
    bad = write(tmp_path / "bad.nii.gz", np.zeros(SHAPE, np.int16))
    gone = tmp_path / "gone.nii.gz"
    sound, other = write(tmp_path / "t1.nii.gz", voxels()), write(tmp_path / "t2.nii.gz", voxels((4, 4, 4)))
    gone.touch()
    made = cohort(
        ("black", {"t1": sound, "t2": bad}, None),
        ("new\nline", {"t1": gone, "t2": sound}, None),
        ("=grid", {"t1": sound, "t2": other}, None),
        modalities=("t1", "t2"),
    )
    gone.unlink()
    faults = Volumes(made, preprocessing(), tmp_path / "c").check(["black", "new\nline", "=grid"], ["t1", "t2"])
    assert faults == [
        "'black', t2: bad.nii.gz is constant; export it again or take the subject out",
        "'new\\nline', t1: cannot read gone.nii.gz: No such file or directory",
        "'=grid': t2 is 4 x 4 x 4 at 1 x 1 x 1 mm but t1 is 6 x 12 x 10 at 1 x 1 x 1 mm; resample to one grid",
    ]


def test_real_images_load(tmp_path):
    names = ["Brats18_TCIA10_130_1", "Brats18_TCIA12_101_1"]
    sequences = ["t1ce", "t2", "flair", "t1"]
    made = cohort(
        *[(name, {kind: REAL / name / f"{name}_{kind}.nii.gz" for kind in sequences},
           REAL / name / f"{name}_seg_auto.nii.gz") for name in names],
        modalities=sequences,
    )  # fmt: skip
    volumes = Volumes(made, preprocessing(crop=(50, 80, 80), resize=(25, 40, 40)), tmp_path)
    volumes.prepare(names, sequences, segmentation=True)
    inputs = volumes.inputs(names, sequences)
    assert all(values.shape == (2, 1, 25, 40, 40) for values in inputs.values())
    assert all(values.min() == 0 and 0.5 < values.max() <= 1 for values in inputs.values())
    assert torch.allclose(volumes.spacing(names), torch.tensor([6.0, 6.0, 6.0]))
    assert {0, 2} <= set(volumes.segmentation(names).unique().tolist()) <= {0, 1, 2, 4}
