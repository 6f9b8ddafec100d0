"""From the files of a cohort to tensors: one grid per subject, crop, resampling, cache, and every fault at once."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import nibabel.processing
import numpy as np
import pytest
import torch

from fusionbench.cohorts import Cohort, Modality, Subject
from fusionbench.errors import CohortError, StoreError
from fusionbench.experiment import Preprocessing
from fusionbench.imaging import imagecache
from fusionbench.imaging.volumes import Volumes, repeated_images

REAL = Path(__file__).parent / "data" / "brats"
SHAPE = (10, 12, 6)  # X, Y, Z


def preprocessing(**settings):
    return Preprocessing(**settings)


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
    with pytest.raises(CohortError, match=r"^'bare' has no segmentation"):
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


def test_images_that_a_large_crop_loses_are_told_in_one_line_with_the_crop_that_fits(tmp_path):
    wide = Volumes(pair(tmp_path), preprocessing(crop=(96, 96, 96)), tmp_path / "cache")
    with pytest.raises(CohortError) as caught:
        wide.prepare(["first", "other"], ["t1"])
    assert str(caught.value) == (
        "made: 2 images are lost in preprocessing.crop=[96, 96, 96]: almost nothing is in the picture; most files are "
        "[6, 12, 10], so set preprocessing.crop=[6, 12, 10]"
    )


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
    for facts in cache.glob("*.json"):
        facts.write_text('{"frame": 3}')
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


def both(folder, t1, t2, seg=None, **settings):
    """One subject with two sequences on affines of their own, among files on disk, and another with one."""
    files = {name: write(folder / f"one_{name}.nii.gz", *image) for name, image in (("t1", t1), ("t2", t2))}
    outline = seg and write(folder / "one_seg.nii.gz", *seg)
    other = {
        "t1": write(folder / "two_t1.nii.gz", voxels(seed=9)),
        "t2": write(folder / "two_t2.nii.gz", voxels(seed=8)),
    }
    made = cohort(("one", files, outline), ("two", other, None), modalities=("t1", "t2"))
    return Volumes(made, preprocessing(**settings), folder / "cache")


def reoriented(data, affine, axes):
    image = nibabel.Nifti1Image(data, affine)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes))
    turned = image.as_reoriented(turn)
    return np.asarray(turned.dataobj), turned.affine


def test_flipped_axes_are_one_grid_and_noted(tmp_path):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    seg = (voxels() > 500).astype(np.int16)
    volumes = both(
        tmp_path,
        (voxels(), affine),
        reoriented(voxels(seed=1), affine, "PIR"),
        reoriented(seg, affine, "LPS"),
    )
    assert volumes.check(["one"], ["t1", "t2"], segmentation=True) == []
    assert np.array_equal(volumes.segmentation(["one"])[0, 0], seg.transpose(2, 1, 0))
    notes = ["stored as LPS and turned to RAS: 'one' seg", "stored as PIR and turned to RAS: 'one' t2"]
    assert volumes.notes(["one"], ["t1", "t2"], segmentation=True) == notes
    again = Volumes(volumes.cohort, preprocessing(), tmp_path / "cache")
    assert again.notes(["one"], ["t1", "t2"], segmentation=True) == notes
    assert again.notes(["one"], ["t1", "t2"]) == notes[1:]


def test_a_trailing_axis_is_noted(tmp_path):
    volumes = both(tmp_path, (voxels()[..., None],), (voxels(seed=1),))
    assert volumes.check(["one"], ["t1", "t2"]) == []
    assert volumes.notes(["one", "two"], ["t1", "t2"]) == [
        "stored with a further axis of length 1, which was left out: 'one' t1"
    ]


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.diag([1.0, 1, 1.5, 1]), "t2 is 6 x 12 x 10 at 1.5 x 1 x 1 mm but t1 is 6 x 12 x 10 at 1 x 1 x 1 mm"),
        (np.array([[1.0, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]),
         "t2 lies up to 5 mm off t1, by another origin"),
        # by 36.87 degrees about x: 2 sin 18.43 degrees of the 12.75 mm to the corner (11.5, 5.5)
        (np.array([[1.0, 0, 0, 0], [0, 0.8, -0.6, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1]]),
         "t2 lies up to 8.06 mm off t1, by another direction"),
    ],
)  # fmt: skip
def test_sequences_on_different_grids_are_refused(tmp_path, affine, says):
    volumes = both(tmp_path, (voxels(),), (voxels(seed=1), affine), (voxels(seed=2) % 2, affine))
    mend = "resample to one grid, or set preprocessing.resample=true"
    assert volumes.check(["one", "two"], ["t1", "t2"]) == [f"'one': {says}; {mend}"]
    with pytest.raises(CohortError, match=r"'one': seg|'one': t2"):
        volumes.segmentation(["one"])


SHIFTED = np.array([[2.0, 0, 0, -1], [0, 1, 0, 2.5], [0, 0, 1.5, -0.25], [0, 0, 0, 1]])


def test_sequences_on_different_grids_are_resampled_when_asked(tmp_path):
    """Linear for images and nearest for labels, as nibabel's processing does, where both have voxels."""
    smooth = np.add.outer(np.add.outer(np.arange(10.0) ** 2, np.arange(12.0) * 3), np.arange(6.0) ** 3).astype("f4")
    labels = (voxels(seed=3) % 3).astype(np.int16)
    here = nibabel.Nifti1Image(voxels(), np.eye(4))
    volumes = both(tmp_path, (voxels(),), (smooth, SHIFTED), (labels, SHIFTED), resample=True, percentiles=(0, 100))
    assert volumes.check(["one"], ["t1", "t2"], segmentation=True) == []
    assert volumes.spacing(["one"]).tolist() == [[1, 1, 1]]
    theirs = nibabel.processing.resample_from_to(nibabel.Nifti1Image(smooth, SHIFTED), here, order=1).get_fdata()
    ours = volumes.inputs(["one"], ["t2"])["t2"][0, 0].permute(2, 1, 0).numpy()
    inside = nibabel.processing.resample_from_to(
        nibabel.Nifti1Image(np.ones_like(smooth), SHIFTED), here, order=1
    ).get_fdata()
    assert (inside > 0.999).mean() > 0.4
    expected = theirs / ours_range(smooth, SHIFTED, here)
    assert np.abs(ours - expected)[inside > 0.999].max() < 2e-3
    nearest = nibabel.processing.resample_from_to(nibabel.Nifti1Image(labels, SHIFTED), here, order=0).get_fdata()
    seg = volumes.segmentation(["one"])[0, 0].permute(2, 1, 0).numpy()
    assert (seg == nearest)[inside > 0.999].mean() > 0.99
    assert volumes.notes(["one"], ["t1", "t2"]) == ["resampled to the grid of the subject's first image: 'one' t2"]


def ours_range(smooth, affine, here):
    """What percentile 100 is after resampling: 0 lies outside, so the range begins there."""
    from scipy.ndimage import map_coordinates

    points = np.indices(here.shape).reshape(3, -1)
    places = np.linalg.inv(affine) @ np.vstack([points, np.ones(points.shape[1])])
    return map_coordinates(smooth, places[:3], order=1, mode="grid-constant").max()


def test_an_image_on_its_own_grid_is_not_touched_by_resampling(tmp_path):
    kept = both(tmp_path, (voxels(),), (voxels(seed=1),), resample=True).inputs(["one"], ["t1", "t2"])
    plain = both(tmp_path, (voxels(),), (voxels(seed=1),)).inputs(["one"], ["t1", "t2"])
    assert all(torch.equal(kept[name], plain[name]) for name in plain)


def corner(low, high, seed):
    """Something in a box of (X, Y, Z), and 0 around it."""
    data = np.zeros((20, 24, 16), np.float32)
    window = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    data[window] = np.random.default_rng(seed).uniform(1, 100, data[window].shape)
    return data


def test_the_crop_may_be_centred_on_what_is_in_the_images(tmp_path):
    t1, t2 = corner((2, 10, 1), (10, 20, 7), 0), corner((4, 12, 3), (12, 22, 9), 1)
    seg = (corner((5, 13, 4), (8, 16, 6), 2) > 0).astype(np.uint8)
    volumes = both(tmp_path, (t1,), (t2,), (seg,), crop=(8, 12, 10), centre="content", percentiles=(0, 100))
    assert volumes.check(["one"], ["t1", "t2"], segmentation=True) == []
    inputs = volumes.inputs(["one"], ["t1", "t2"])
    # all images together fill X 2 to 12, Y 10 to 22, Z 1 to 9: just this window
    for name, data in (("t1", t1), ("t2", t2)):
        expected = data[2:12, 10:22, 1:9].transpose(2, 1, 0)
        assert np.allclose(inputs[name][0, 0], expected / expected.max(), atol=5e-4)
    assert np.array_equal(volumes.segmentation(["one"])[0, 0], seg[2:12, 10:22, 1:9].transpose(2, 1, 0))
    middle = both(tmp_path, (t1,), (t2,), crop=(8, 12, 10)).inputs(["one"], ["t1"])["t1"]
    assert not torch.equal(middle, inputs["t1"])


def test_another_image_of_the_subject_moves_the_centre(tmp_path):
    t1, settings = corner((2, 10, 1), (10, 20, 7), 0), {"crop": (8, 12, 10), "centre": "content"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    near = both(tmp_path / "a", (t1,), (corner((2, 10, 1), (10, 20, 7), 1),), **settings)
    far = both(tmp_path / "b", (t1,), (corner((8, 10, 1), (18, 20, 7), 1),), **settings)
    far._cache = near._cache
    assert not torch.equal(near.inputs(["one"], ["t1"])["t1"], far.inputs(["one"], ["t1"])["t1"])


def test_a_subject_without_a_sequence_is_centred_on_what_it_has(tmp_path):
    files = {"t1": write(tmp_path / "t1.nii.gz", corner((2, 10, 1), (10, 20, 7), 0))}
    made = cohort(("one", files, None), ("two", {"t2": write(tmp_path / "t2.nii.gz", corner((0, 0, 0), (9, 9, 9), 1))},
                  None), modalities=("t1", "t2"))  # fmt: skip
    volumes = Volumes(made, preprocessing(crop=(6, 10, 8), centre="content"), tmp_path / "cache")
    inputs = volumes.inputs(["one", "two"], ["t1", "t2"])
    assert (inputs["t1"][0] > 0).float().mean() > 0.98  # the box of the content; the least voxel becomes 0
    assert not inputs["t2"][0].any()


def counted(monkeypatch):
    """The names of the files that are read from now on."""
    read, actual = [], imagecache.read_image
    monkeypatch.setattr(imagecache, "read_image", lambda path, *more: read.append(path.name) or actual(path, *more))
    return read


@pytest.mark.parametrize("settings", [{}, {"crop": (4, 4, 4), "centre": "content"}, {"resample": True}])
def test_a_file_is_read_once_and_an_unchanged_one_never_again(tmp_path, monkeypatch, settings):
    read = counted(monkeypatch)
    volumes = both(tmp_path, (voxels(),), (voxels(seed=1),), (voxels(seed=2) % 2,), **settings)
    assert volumes.check(["one"], ["t1", "t2"], segmentation=True) == []
    assert sorted(read) == ["one_seg.nii.gz", "one_t1.nii.gz", "one_t2.nii.gz"]
    read.clear()
    again = Volumes(volumes.cohort, preprocessing(**settings), tmp_path / "cache")
    assert again.check(["one"], ["t1", "t2"], segmentation=True) == []
    again.inputs(["one"], ["t1", "t2"])
    again.spacing(["one"])
    again.notes(["one"], ["t1", "t2"], segmentation=True)
    assert read == []


@contextmanager
def open_files(most: int) -> Iterator[None]:
    """This process may have descriptors below `most` only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def next_descriptor() -> int:
    with Path("/dev/null").open() as file:
        return file.fileno()


def test_a_cohort_may_have_more_images_than_files_may_be_open(tmp_path, monkeypatch):
    names = [f"s{n:02d}" for n in range(24)]
    files = {name: write(tmp_path / f"{name}.nii.gz", voxels(seed=n)) for n, name in enumerate(names)}
    made = cohort(*[(name, {"t1": files[name]}, None) for name in names])
    with open_files(next_descriptor() + 8):
        volumes = Volumes(made, preprocessing(), tmp_path / "cache")
        volumes.prepare(names, ["t1"])
        read = counted(monkeypatch)
        batches = [volumes.inputs([name], ["t1"])["t1"] for name in (*names, *names)]
    assert read == []
    assert len({float(batch.sum()) for batch in batches}) == len(names)


def test_an_entry_that_cannot_be_opened_now_is_not_broken(tmp_path, monkeypatch):
    made, cache = pair(tmp_path), tmp_path / "cache"
    volumes = Volumes(made, preprocessing(), cache)
    volumes.prepare(["first"], ["t1"])
    read = counted(monkeypatch)
    entries = {entry: entry.stat().st_mtime_ns for entry in cache.iterdir()}
    for asked in (volumes, Volumes(made, preprocessing(), cache)):  # with and without the facts of the file
        with (
            open_files(0),
            pytest.raises(StoreError, match="Too many open files; allow more with `ulimit") as error,
        ):
            asked.inputs(["first"], ["t1"])
        assert "\n" not in str(error.value)
    assert read == []
    assert {entry: entry.stat().st_mtime_ns for entry in cache.iterdir()} == entries
    (entry,) = cache.glob("*.npy")
    entry.unlink()
    entry.mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*npy: Is a directory; make it readable or delete it"):
        volumes.inputs(["first"], ["t1"])


def other_array(content):
    shape = content.shape
    return {
        "another type": content.astype(np.float32),
        "another shape": content.reshape(*shape[:3], shape[4 - 1] // 2, 2),
        "other axes": np.asfortranarray(content),
        "one voxel less": content.ravel()[1:],
    }


@pytest.mark.parametrize("kind", ["another type", "another shape", "other axes", "one voxel less"])
def test_an_entry_that_holds_something_else_is_made_again(tmp_path, kind):
    made, cache = pair(tmp_path), tmp_path / "cache"
    volumes = Volumes(made, preprocessing(), cache)
    fresh = volumes.inputs(["first"], ["t1"])["t1"]
    (entry,) = cache.glob("*.npy")
    good = entry.read_bytes()
    for mend in (lambda: volumes.inputs(["first"], ["t1"]), lambda: volumes.prepare(["first"], ["t1"])):
        np.save(entry, other_array(np.load(entry))[kind])
        mend()
        assert entry.read_bytes() == good
    assert torch.equal(volumes.inputs(["first"], ["t1"])["t1"], fresh)


@pytest.mark.parametrize("chunk", [1, 7, 719, 720, 721])
def test_images_are_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    volumes = both(tmp_path, (voxels((*SHAPE[:2], 6)),), (voxels(seed=1),), (voxels(seed=2) % 5,))
    volumes.prepare(["one"], ["t1", "t2"], segmentation=True)
    monkeypatch.setattr(imagecache, "CHUNK", chunk)
    files = counted(monkeypatch)
    cached = {array.tobytes(): array for array in map(np.load, (tmp_path / "cache").glob("*.npy"))}
    read = {**volumes.inputs(["one"], ["t1", "t2"]), "seg": volumes.segmentation(["one"])}
    for values in read.values():
        stored = values[0].numpy().astype(np.int16 if values.dtype == torch.int16 else np.float16)
        assert np.array_equal(cached[stored.tobytes()], values[0])
    assert {values.dtype for values in read.values()} == {torch.float32, torch.int16}
    assert files == []


def test_no_image_is_kept_in_memory(tmp_path):
    volumes = both(tmp_path, (voxels(),), (voxels(seed=1),), (voxels(seed=2) % 2,))
    for made in (volumes, Volumes(volumes.cohort, preprocessing(), tmp_path / "cache")):
        assert made.check(["one", "two"], ["t1", "t2"]) == []
        made.inputs(["one", "two"], ["t1", "t2"])
        made.segmentation(["one"])
        kept = [value for id in ("one", "two") for value in vars(made._files(id)).values()]
        held = [one for value in kept for one in (value.values() if isinstance(value, dict) else [value])]
        assert not any(isinstance(one, (np.ndarray, torch.Tensor, imagecache.Image)) for one in held)


def test_a_changed_file_is_read_again(tmp_path, monkeypatch):
    volumes = both(tmp_path, (voxels(),), (voxels(seed=1),))
    before = volumes.inputs(["one"], ["t1"])["t1"]
    write(tmp_path / "one_t1.nii.gz", voxels(seed=5))
    read = counted(monkeypatch)
    after = Volumes(volumes.cohort, preprocessing(), tmp_path / "cache").inputs(["one"], ["t1"])["t1"]
    assert read == ["one_t1.nii.gz"]
    assert not torch.equal(before, after)


def test_the_cap_of_voxels_holds_for_cached_files_too(tmp_path):
    made = pair(tmp_path)
    Volumes(made, preprocessing(), tmp_path / "cache").prepare(["first"], ["t1"])
    capped = Volumes(made, preprocessing(max_voxels=100), tmp_path / "cache")
    with pytest.raises(CohortError, match=r"first_t1.*declares 10 x 12 x 6 voxels, more than 100"):
        capped.prepare(["first"], ["t1"])


def test_the_cache_names_nobody(tmp_path):
    image = nibabel.Nifti1Image(voxels(), np.eye(4))
    image.header["descrip"] = b"Jane Doe, 4711"
    (tmp_path / "Jane").mkdir()
    nibabel.save(image, tmp_path / "Jane" / "Doe_t1.nii.gz")
    Volumes(pair(tmp_path, file=tmp_path / "Jane" / "Doe_t1.nii.gz"), preprocessing(), tmp_path / "cache").prepare(
        ["other"], ["t1"]
    )
    found = list((tmp_path / "cache").iterdir())
    assert len(found) == 2
    assert not [entry for entry in found if b"Jane" in entry.read_bytes() or "Doe" in entry.name]
    (facts,) = (json.loads(entry.read_text()) for entry in found if entry.suffix == ".json")
    assert set(facts) == {"frame", "axes", "squeezed", "content"}


def test_the_same_image_twice_is_refused(tmp_path):
    one, two, three = (write(tmp_path / f"{seed}.nii.gz", voxels(seed=seed)) for seed in range(3))
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(one.read_bytes())
    made = cohort(("a", {"t1": one, "t2": two}, None), ("b", {"t1": copy, "t2": three}, None),
                  ("c", {"t1": write(tmp_path / "3.nii.gz", voxels(seed=3)), "t2": three}, None),
                  ("d", {"t1": tmp_path / "gone.nii.gz", "t2": tmp_path / "gone.nii.gz"}, None),
                  modalities=("t1", "t2"))  # fmt: skip
    mend = "are the same image; give each its own file, or take the subject out"
    same_t1 = f"'a' t1 (0.nii.gz) and 'b' t1 (copy.nii.gz) {mend}"
    assert repeated_images(made.subjects, ["t1"]) == [same_t1]
    assert repeated_images(made.subjects, ["t1", "t2"]) == [
        same_t1,
        f"'b' t2 (2.nii.gz) and 'c' t2 (2.nii.gz) {mend}",
    ]
    twice = cohort(("a", {"t1": one, "t2": copy}, None), ("b", {"t1": two, "t2": three}, None), modalities=("t1", "t2"))
    with pytest.raises(CohortError, match=r"'a' t1 \(0.nii.gz\) and 'a' t2 \(copy.nii.gz\) are the same image"):
        Volumes(twice, preprocessing(), tmp_path / "cache").prepare(["a", "b"], ["t1", "t2"])


def test_equal_rows_of_a_table_are_no_fault(tmp_path):
    subjects = tuple(Subject(name, name, features={"omics": (1.0, 2.0)}) for name in "ab")
    made = Cohort("tables", ("a", "b"), "a", (Modality("omics", "table", 2),), subjects)
    assert Volumes(made, preprocessing(), tmp_path).check(["a", "b"], ["omics"]) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.full(SHAPE, 7, np.int16), "'other', t1: other_t1.nii.gz is constant; export it again"),
        (np.zeros(SHAPE, np.int16), "'other', t1: other_t1.nii.gz is 0 everywhere; export it again"),
        (np.pad(np.ones((1, 1, 1), np.int16), 5), "other_t1.nii.gz has one value from percentile 0.5 to 99.5"),
        (voxels((4, 4, 4)), "'other' is 4 x 4 x 4, most are 6 x 12 x 10: set preprocessing.crop"),
        (voxels((*SHAPE, 2)), "'other', t1: other_t1.nii.gz is 10 x 12 x 6 x 2: 2 frames, not 1"),
    ],
)  # fmt: skip
def test_bad_volumes_are_refused_by_name(tmp_path, data, says):
    made = pair(tmp_path, data=data)
    with pytest.raises(CohortError) as error:
        Volumes(made, preprocessing(), tmp_path / "cache").prepare(["first", "other"], ["t1"])
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_all_bad_subjects_are_named_at_once(tmp_path):
    bad = write(tmp_path / "bad.nii.gz", np.zeros(SHAPE, np.int16))
    gone = tmp_path / "gone.nii.gz"
    sound = [write(tmp_path / f"{seed}.nii.gz", voxels(seed=seed)) for seed in range(3)]
    other = write(tmp_path / "t2.nii.gz", voxels((4, 4, 4)))
    made = cohort(
        ("black", {"t1": sound[0], "t2": bad}, None),
        ("new\nline", {"t1": gone, "t2": sound[1]}, None),
        ("=grid", {"t1": sound[2], "t2": other}, None),
        modalities=("t1", "t2"),
    )
    faults = Volumes(made, preprocessing(), tmp_path / "c").check(["black", "new\nline", "=grid"], ["t1", "t2"])
    assert faults == [
        "'black', t2: bad.nii.gz is 0 everywhere; export it again or take the subject out",
        "'new\\nline', t1: cannot read gone.nii.gz: No such file or directory",
        "'=grid': t2 is 4 x 4 x 4 at 1 x 1 x 1 mm but t1 is 6 x 12 x 10 at 1 x 1 x 1 mm; "
        "resample to one grid, or set preprocessing.resample=true",
    ]


def test_the_tensor_is_what_torchio_makes_of_the_file(tmp_path):
    """Read, turned, cropped and rescaled by torchio itself, to the width of half floats."""
    import torchio

    data = np.random.default_rng(4).gamma(2, 300, (31, 28, 20)).astype(np.float32)
    write(tmp_path / "t1.nii.gz", *reoriented(data, np.diag([1.0, 1.2, 2.0, 1.0]), "LPS"))
    made = cohort(("a", {"t1": tmp_path / "t1.nii.gz"}, None), ("b", {"t1": write(tmp_path / "b.nii", voxels())}, None))
    ours = Volumes(made, preprocessing(crop=(15, 32, 24)), tmp_path / "cache").inputs(["a"], ["t1"])["t1"][0]
    steps = [torchio.ToCanonical(), torchio.CropOrPad((24, 32, 15)), torchio.RescaleIntensity((0, 1), (0.5, 99.5))]
    theirs = torchio.Compose(steps)(torchio.ScalarImage(tmp_path / "t1.nii.gz")).data.permute(0, 3, 2, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2.5e-4)  # half of the last bit of a half float below 1


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
