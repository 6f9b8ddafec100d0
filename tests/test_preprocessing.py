"""What is done to a volume once: the paper's crop, exact percentiles, resizing that does not alias."""

import numpy as np
import pytest
import torch

from fusionbench.errors import CohortError, UsageError
from fusionbench.experiment import Preprocessing, load_comparison
from fusionbench.imaging.nifti import Frame, Grid
from fusionbench.imaging.preprocessing import (
    content_box,
    cropped,
    grid_after,
    percentiles_of,
    preprocess_image,
    preprocess_labels,
    resampled,
    rescaled,
    shift_of,
)


def preprocessing(**settings):
    return Preprocessing(**settings)


def voxels(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


@pytest.mark.parametrize("size", [(7, 8, 9), (6, 9, 9), (8, 11, 4), (10, 3, 12), (1, 20, 1)])
def test_the_crop_is_torchios(size):
    import torchio

    volume = torch.from_numpy(voxels((2, 7, 8, 9)))
    assert torch.equal(cropped(volume, size), torchio.CropOrPad(size)(volume))


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -1, 3), (-3, 0, 9), (-20, 0, 0)])
def test_a_shifted_crop_is_a_window_of_the_padded_volume(shift):
    volume = torch.from_numpy(voxels((1, 7, 8, 9)))
    far = torch.nn.functional.pad(volume, (40,) * 6)
    # without shift the window begins at 1 of 7 slices, 2 lines before 8, and 2 of 9 columns
    starts = [40 + begin + moved for begin, moved in zip((1, -2, 2), shift, strict=True)]
    expected = far[:, starts[0] : starts[0] + 5, starts[1] : starts[1] + 12, starts[2] : starts[2] + 6]
    assert torch.equal(cropped(volume, (5, 12, 6), shift), expected)


def test_images_and_labels_are_cropped_alike():
    volume = np.zeros((1, 8, 8, 8), np.float32)
    volume[0, 5, 2, 6] = 1
    settings, shift = preprocessing(crop=(4, 6, 5), percentiles=(0, 100)), (1, -2, 2)
    image, labels = (act(volume, settings, shift) for act in (preprocess_image, preprocess_labels))
    assert image.sum() == 1
    assert np.array_equal(image, labels)


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


PERCENTILES = [(0.5, 99.5), (0.0, 100.0), (1.0, 99.0), (33.3, 66.7), (100.0, 100.0)]


@pytest.mark.parametrize("percentiles", PERCENTILES)
@pytest.mark.parametrize("ends", [(0, 1), (0, 3), (-5, 900), (-32768, -32000), (-32768, 32767), (0, 70_000)])
def test_counted_percentiles_are_numpys_to_the_last_bit(ends, percentiles):
    random = np.random.default_rng(7)
    for shape in ((1, 1, 1, 1), (1, 1, 1, 2), (1, 3, 4, 5), (2, 9, 10, 11)):
        volume = random.integers(*ends, shape, endpoint=True).astype(np.float32)
        for values in (volume, volume + np.float32(0.25), volume * np.float32(1.1)):
            assert percentiles_of(values, percentiles).tobytes() == np.percentile(values, percentiles).tobytes()


def test_whole_numbers_are_counted_and_not_sorted(monkeypatch):
    sorted_, percentile = [], np.percentile
    monkeypatch.setattr(np, "percentile", lambda *told: sorted_.append(told) or percentile(*told))
    percentiles_of(voxels((1, 4, 5, 6)), (0.5, 99.5))
    assert not sorted_
    percentiles_of(voxels((1, 4, 5, 6)) / 3, (0.5, 99.5))
    assert len(sorted_) == 1


@pytest.mark.parametrize("scale", [1, -1, 0.37, -1e-3, 1e6])
def test_rescaling_is_torchios_to_the_last_bit(scale):
    import torchio

    volume = voxels((2, 12, 13, 14)) * np.float32(scale)
    volume[np.abs(volume) < np.float32(300 * abs(scale))] = -0.0
    volume[:, :, :5] = np.abs(volume[:, :, :5]) * np.sign(scale)  # some zeros are 0, others -0
    for percentiles in ((0.5, 99.5), (0.0, 100.0), (5.0, 80.0)):
        transform = torchio.RescaleIntensity((0, 1), percentiles=percentiles)
        theirs = transform(torch.from_numpy(volume.copy())).numpy()
        before = volume.copy()
        assert rescaled(volume, percentiles).tobytes() == theirs.tobytes()
        assert np.array_equal(volume, before)


def test_preprocessing_draws_nothing(monkeypatch):
    """Not even inside: it may go on in a thread while another draws."""
    drawn = []
    monkeypatch.setattr(torch, "rand", lambda *told, **more: drawn.append(told))
    monkeypatch.setattr(torch, "set_rng_state", drawn.append)
    preprocess_image(voxels((1, 8, 9, 10)), preprocessing(crop=(6, 6, 6), resize=(4, 4, 4)))
    assert not drawn


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


def test_the_box_of_what_is_there():
    volume = np.zeros((2, 6, 7, 8), np.float32)
    assert content_box(volume) is None
    volume[0, 1, 2, 3] = volume[1, 4, 5, 3] = -1
    assert content_box(volume) == ((1, 2, 3), (5, 6, 4))
    assert shift_of([((1, 2, 3), (5, 6, 4))], (6, 7, 8)) == (0, 0, -1)
    assert shift_of([((0, 0, 0), (1, 1, 1)), ((3, 3, 3), (6, 7, 8))], (6, 7, 8)) == (0, 0, 0)


def test_the_grid_follows():
    after = grid_after(Grid((10, 20, 30), (3.0, 1.0, 2.0)), preprocessing(crop=(8, 20, 24), resize=(4, 10, 24)))
    assert after == Grid((4, 10, 24), (6.0, 2.0, 2.0))


def test_resampling_onto_a_shifted_grid_shifts():
    volume = voxels((2, 6, 7, 8))
    here = Frame((6, 7, 8), ((1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 3, 0)))
    there = Frame((6, 7, 8), ((1, 0, 0, 2), (0, 2, 0, -2), (0, 0, 3, 3)))  # by 2, -1 and 1 voxels (x, y, z)
    for linear in (True, False):
        moved = resampled(volume, here, there, linear=linear)
        assert np.array_equal(moved[:, :5, 1:, :6], volume[:, 1:, :6, 2:])
        assert not moved[:, 5].any()
        assert not moved[:, :, 0].any()


def test_labels_must_be_labels():
    for bad in (0.5, 40_000):
        with pytest.raises(CohortError, match="holds values that are no labels"):
            preprocess_labels(np.full((1, 4, 4, 4), bad, np.float32), preprocessing())


def test_a_centre_needs_a_crop():
    with pytest.raises(UsageError, match=r"centre is that of the crop; set preprocessing\.crop too"):
        load_comparison("demo", {"preprocessing": {"centre": "content"}})
