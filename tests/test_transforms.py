"""Transforms of torchio on request: read without executing anything, tried first, drawn from the seed of each item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from fusionbench import Cohort, Modality, Store, Subject, open_study
from fusionbench.engine import prepare
from fusionbench.errors import UsageError
from fusionbench.experiment import Augmentation, load_comparison
from fusionbench.imaging.augmentation import augment
from fusionbench.imaging.transforms import rehearse, transformed, transforms_of

STILL = {"flip": 0.0, "degrees": 0.0, "scales": (1.0, 1.0)}
SIZE = (8, 12, 10)
SPACINGS = torch.tensor([[3.0, 1.0, 2.0]] * 4)
SEVERAL = ("RandomNoise(std=0.05)", "RandomBiasField(coefficients=0.3, p=0.7)", "RandomAffine(degrees=(0, 0, 9))")


def volume(seed: int = 0, items: int = 4) -> Tensor:
    return torch.rand(items, 1, *SIZE, generator=torch.Generator().manual_seed(seed))


def extra(*texts: str) -> Augmentation:
    return Augmentation(**STILL, extra=texts)


# ---------------------------------------------------------------- what is written


def test_a_transform_is_made_of_what_is_written() -> None:
    noise, flip = transforms_of([" RandomNoise(std=(0, 0.05)) ", "RandomFlip(axes=['LR'], flip_probability=1, p=.25)"])
    assert type(noise).__name__ == "RandomNoise"
    assert noise.std_range == (0, 0.05)
    assert flip.probability == 0.25
    assert transforms_of(["RandomBlur()"])[0].std_ranges == (0, 2, 0, 2, 0, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RandomNoize(std=1)", "torchio has no transform 'RandomNoize': did you mean 'RandomNoise'?"),
        ("Transform()", "torchio has no transform 'Transform': "),
        ("train_histogram()", "torchio has no transform 'train_histogram': "),
        ("RandomNoise(sdt=1)", "RandomNoise has no option 'sdt': did you mean 'std'?"),
        ("RandomNoise(std='wide')", "RandomNoise(std='wide') cannot be made: "),
        ("RandomNoise(p=2)", "RandomNoise(p=2) cannot be made: "),
        ("RandomNoise(0.1)", "'RandomNoise(0.1)' is no transform; write it with named plain values"),
        ("RandomNoise", "is no transform; write it with named plain values, as RandomNoise(std=0.05)"),
        ("RandomNoise(**{'std': 1})", "is no transform; write it with named"),
        ("RandomNoise(std=open('/etc/passwd'))", "is no transform; write it with named"),
        ("RandomNoise(std=1) or print()", "is no transform; write it with named"),
        ("__import__('os').system('true')", "is no transform; write it with named"),
        ("torchio.RandomNoise(std=1)", "is no transform; write it with named"),
        ("Lambda(function=lambda x: x)", "is no transform; write it with named"),
        ("RandomNoise(std=1", "is no transform; write it with named"),
        ("(" * 5000, "is no transform; write it with named"),
        ("a\0b", "is no transform; write it with named"),
    ],
)
def test_what_is_no_transform_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        transforms_of([text])
    assert str(error.value).startswith("recipe.augmentation.extra: ")
    assert says in str(error.value)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_a_wrong_one_stops_a_run_before_its_data_are_read(tmp_path: Path) -> None:
    wrong = load_comparison(
        "brats", {"cohort": {"data": str(tmp_path / "nowhere")}, "fusion": ["ensemble"]},
        {"recipe": {"augmentation": {"extra": ["RandomNoize()"]}}},
    )  # fmt: skip
    with pytest.raises(UsageError, match="did you mean 'RandomNoise'"):
        open_study(wrong)


# ---------------------------------------------------------------- what it does


def test_the_axes_are_those_of_the_body() -> None:
    values = volume()
    for axes, ours in ((0, -1), (1, -2), (2, -3)):  # torchio counts x, y, z
        flip = extra(f"RandomFlip(axes={axes}, flip_probability=1)")
        result, seg = augment({"t1": values}, values.round(), [1, 2, 3, 4], SPACINGS, flip)
        assert torch.equal(result["t1"], values.flip(ours))
        assert seg is not None
        assert torch.equal(seg, values.round().flip(ours))


def test_an_item_is_what_torchio_makes_of_it_in_its_spacing() -> None:
    """A fixed transform, so that nothing is drawn: 20 degrees about z of voxels of 2 x 1 x 3 mm (x, y, z)."""
    import torchio

    values, seg = volume(), (volume(1) * 5).to(torch.int16)
    text = "Affine(scales=(1, 1, 1), degrees=(0, 0, 20), translation=(1, 0, 2))"
    result, labels = transformed(transforms_of([text]), {"t1": values}, seg, [1, 2, 3, 4], SPACINGS)
    assert labels is not None
    assert labels.dtype == torch.int16
    turn = torchio.Affine(scales=(1, 1, 1), degrees=(0, 0, 20), translation=(1, 0, 2))
    affine = torch.diag(torch.tensor([2.0, 1, 3, 1])).numpy()
    for item in range(4):
        image = torchio.ScalarImage(tensor=values[item].permute(0, 3, 2, 1), affine=affine)
        assert torch.equal(result["t1"][item], turn(image).data.permute(0, 3, 2, 1))
        outline = torchio.LabelMap(tensor=seg[item].permute(0, 3, 2, 1), affine=affine)
        assert torch.equal(labels[item], turn(outline).data.permute(0, 3, 2, 1))


def test_all_modalities_of_an_item_move_alike_and_intensities_leave_labels_alone() -> None:
    values, seg = volume(), volume(1).round()
    turned, _ = augment({"t1": values, "t2": values}, None, [1, 2, 3, 4], SPACINGS, extra(SEVERAL[2]))
    assert torch.equal(turned["t1"], turned["t2"])
    assert not torch.equal(turned["t1"], values)
    noisy, same = augment(
        {"t1": values, "t2": values}, seg, [1, 2, 3, 4], SPACINGS, extra("RandomNoise(std=(0.05, 0.05))")
    )
    assert same is not None
    assert torch.equal(same, seg)
    assert (noisy["t1"] - values).std() == pytest.approx(0.05, rel=0.1)
    assert not torch.equal(noisy["t1"] - values, noisy["t2"] - values)


def test_they_come_after_the_built_in_augmentation() -> None:
    values, seeds = volume(), [1, 2, 3, 4]
    plain, _ = augment({"t1": values}, None, seeds, SPACINGS, Augmentation())
    both, _ = augment({"t1": values}, None, seeds, SPACINGS, Augmentation(extra=SEVERAL))
    after, _ = transformed(transforms_of(SEVERAL), plain, None, seeds, SPACINGS)
    assert torch.equal(both["t1"], after["t1"])
    assert not torch.equal(both["t1"], plain["t1"])


def test_a_missing_image_stays_missing_and_inputs_are_not_written_to() -> None:
    values, table = volume(), torch.rand(4, 9, 1, 1, 1)
    values[1] = 0
    kept = values.clone()
    result, _ = augment({"t1": values, "t2": volume(2), "omics": table}, None, [1, 2, 3, 4], SPACINGS, extra(*SEVERAL))
    assert torch.equal(values, kept)
    assert not result["t1"][1].any()
    assert result["t1"][0].ne(values[0]).any()
    assert result["omics"] is table


# ---------------------------------------------------------------- what it depends on


class Items(torch.utils.data.Dataset[NDArray[Any]]):
    """Each item transformed on its own, wherever a loader does it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> NDArray[Any]:
        values = volume()[item : item + 1]
        return augment({"t1": values}, None, [item + 1], SPACINGS[:1], extra(*SEVERAL))[0]["t1"].numpy()


def loaded(workers: int) -> Tensor:
    torch.manual_seed(workers)
    context = "fork" if workers else None
    loader = DataLoader(Items(), num_workers=workers, multiprocessing_context=context, collate_fn=np.concatenate)
    return torch.cat([torch.from_numpy(values) for values in loader])


def test_order_company_and_workers_change_no_voxel() -> None:
    def batch(order: Sequence[int]) -> Tensor:
        return augment({"t1": volume()[list(order)]}, None, [i + 1 for i in order], SPACINGS, extra(*SEVERAL))[0]["t1"]

    together = batch([0, 1, 2, 3])
    torch.rand(7)
    assert torch.equal(batch([2, 0, 3, 1]), together[[2, 0, 3, 1]])
    assert torch.equal(loaded(0), together)
    assert torch.equal(loaded(2), together)
    other = augment({"t1": volume()}, None, [5, 6, 7, 8], SPACINGS, extra(*SEVERAL))[0]["t1"]
    assert not any(torch.equal(one, two) for one, two in zip(together, other, strict=True))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    augment({"t1": volume()}, None, [1, 2, 3, 4], SPACINGS, extra(*SEVERAL))
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- what is tried first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CropOrPad(target_shape=4)", "CropOrPad changes the size or number of images; take it out"),
        ("RandomSwap(patch_size=50, p=0.001)", "RandomSwap fails: "),
        ("RandomNoise(keep={'t1': 'before'})", "RandomNoise changes the size or number of images; take it out"),
    ],
)
def test_one_that_does_not_suit_is_found_in_the_rehearsal(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        rehearse([text], {"t1": volume()}, None, SPACINGS)
    assert says in str(error.value)
    rehearse(SEVERAL, {"t1": volume()}, volume(1).round(), SPACINGS)
    assert transforms_of(SEVERAL)[1].probability == 0.7


def test_a_run_tries_them_on_its_own_images_before_it_trains(tmp_path: Path) -> None:
    subjects = []
    for n in range(8):
        file = tmp_path / f"{n}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume(n)[0, 0].numpy(), np.eye(4)), file)
        subjects.append(Subject(f"s{n}", "ab"[n % 2], files={"t1": file}))
    cohort = Cohort("made", ("a", "b"), "a", (Modality("t1"),), tuple(subjects))
    settings = {"fusion": ["unimodal"], "baselines": [], "modalities": ["t1"], "preprocessing": {"resize": SIZE}}
    for text, suits in (("RandomSwap(patch_size=4)", True), ("RandomSwap(patch_size=50, p=0.001)", False)):
        asked = load_comparison("demo", settings, {"recipe": {"augmentation": {"extra": [text]}}})
        study = open_study(asked, cohort=cohort)
        if suits:
            prepare(study, Store(tmp_path / "store"))
        else:
            with pytest.raises(UsageError, match="RandomSwap fails"):
                prepare(study, Store(tmp_path / "store"))
