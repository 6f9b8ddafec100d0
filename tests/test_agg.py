"""AGG finds the tumour without being told where it is, and grades what lies in its box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionbench import (
    OUTLINE,
    Batch,
    Cohort,
    CohortError,
    Modality,
    Parts,
    Predictions,
    Store,
    Study,
    Subject,
    load_comparison,
    load_registry,
    open_study,
    plan,
    run,
)
from fusionbench.costs.cost import cost_of
from fusionbench.numerics import seeded
from fusionbench.testing.plugin import contract_test
from fusionbench.testing.requirements import moved, state_of
from fusionbench.testing.toys import Toy
from fusionbench.training import is_trained, set_modes
from fusionbench_plugins.fusion.agg import Agg, Grader
from fusionbench_plugins.fusion.agg.region import (
    central_box,
    cut,
    dice,
    largest_component,
    resampled,
    standardised,
    surrounding_box,
)
from fusionbench_plugins.fusion.agg.unet import Normalise, UNet, segmentation_loss, soft_dice_loss

SMALL: dict[str, Any] = {"width": 2, "size": 8, "margin": 1}

test_contract_of_ground_truth = contract_test("agg", width=2, size=8, roi="ground-truth")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def parts(modalities: int = 2) -> Parts:
    names = ("north", "east", "west", "south")[:modalities]
    return Toy(dict.fromkeys(names, "image")).parts


def mask_of(*voxels: tuple[int, int, int], size: tuple[int, int, int] = (6, 7, 8)) -> np.ndarray[Any, Any]:
    mask = np.zeros(size, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def blobs(subjects: int, size: tuple[int, int, int] = (8, 12, 12), seed: int = 0) -> Batch:
    """Balls that are brighter than noise in one modality and darker in the other, larger for label 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(subjects) % 2
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")).float()
    centres = torch.tensor(size) * (0.3 + 0.4 * torch.rand(subjects, 3, generator=generator))
    distance = (grid[None] - centres[:, :, None, None, None]).norm(dim=1, keepdim=True)
    seg = (distance < (2.0 + labels)[:, None, None, None, None]).long() * 2  # any label above 0 is tumour
    noise = torch.randn(2, subjects, 1, *size, generator=generator) * 0.3
    inputs = {"north": noise[0] + seg / 2, "east": noise[1] - seg / 2}
    return Batch(tuple(map(str, range(subjects))), inputs, labels, torch.ones(subjects), seg=seg)


def train(model: Agg, stage_name: str, batch: Batch, steps: int, learning_rate: float = 1e-2) -> None:
    """A stage as the training loop does it."""
    (stage,) = (stage for stage in model.stages() if stage.name == stage_name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    set_modes(model, stage.trains)
    for _ in range(steps):
        optimizer.zero_grad()
        stage.loss(model, batch, 0.0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


# The U-Net


@pytest.mark.parametrize("size", [(16, 24, 8), (3, 5, 7), (1, 9, 6), (1, 1, 1), (2, 1, 17)], ids=str)
def test_the_unet_says_something_of_each_voxel_of_any_size(size: tuple[int, int, int]) -> None:
    model = UNet(3, width=2)
    logits = model(torch.randn(1, 3, *size))
    assert logits.shape == (1, 1, *size)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_unet_has_as_many_parameters_as_counted_by_hand() -> None:
    # A level from c to w channels: 27 c w + 27 w w for two convolutions without bias, 4 w for two normalisations.
    down = 278 + 664 + 2624 + 10432  # 3 -> 2 -> 4 -> 8 -> 16
    up = 6944 + 1744 + 440  # 16 + 8 -> 8, 8 + 4 -> 4, 4 + 2 -> 2
    assert sum(p.numel() for p in UNet(3, width=2).parameters()) == down + up + 3


def test_the_unet_sees_further_than_a_voxels_neighbours() -> None:
    model, x = UNet(1, width=2).eval(), torch.randn(1, 1, 16, 16, 16, requires_grad=True)
    model(x)[0, 0, 8, 8, 8].backward()
    assert x.grad is not None
    assert x.grad[0, 0, 0, 0, 0] != 0


def test_a_map_of_one_voxel_is_scaled_and_shifted_but_not_normalised_away() -> None:
    norm = Normalise(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0]))
    one_voxel = torch.tensor([5.0, 7.0]).reshape(1, 2, 1, 1, 1)
    assert norm(one_voxel).flatten().tolist() == [10.0, 22.0]
    two_voxels = torch.tensor([[1.0, 3.0], [4.0, 4.0]]).reshape(1, 2, 1, 1, 2)
    torch.testing.assert_close(norm(two_voxels).flatten(), torch.tensor([-2.0, 2.0, 1.0, 1.0]), atol=1e-4, rtol=0)


def test_the_soft_dice_loss_is_that_computed_by_hand() -> None:
    tumour = torch.zeros(2, 1, 2, 2, 2)
    tumour[0].flatten()[:2] = 1
    logits = torch.zeros(2, 1, 2, 2, 2)  # every probability is one half
    first = 1 - (2 * 1.0 + 1) / (4 + 2 + 1)
    second = 1 - (0 + 1) / (4 + 0 + 1)
    torch.testing.assert_close(soft_dice_loss(logits, tumour), torch.tensor((first + second) / 2))
    bce = torch.tensor(2.0).log()
    torch.testing.assert_close(segmentation_loss(logits, tumour), (first + second) / 2 + bce)


def test_the_soft_dice_loss_of_the_truth_is_zero_with_and_without_a_tumour() -> None:
    tumour = torch.zeros(2, 1, 2, 2, 2)
    tumour[0].flatten()[:2] = 1
    assert soft_dice_loss((2 * tumour - 1) * 100, tumour).item() == 0


# From a mask to a cube


def test_the_largest_component_hangs_together_by_corners() -> None:
    diagonal = [(0, 0, 0), (1, 1, 1), (2, 2, 2)]  # three pieces for somebody who counts faces only
    row = [(5, 6, 6), (5, 6, 7)]
    found = largest_component(mask_of(*diagonal, *row))
    assert np.array_equal(found, mask_of(*diagonal))


def test_of_two_equal_components_the_first_is_taken_and_an_empty_mask_stays_empty() -> None:
    assert np.array_equal(largest_component(mask_of((0, 0, 0), (5, 5, 5))), mask_of((0, 0, 0)))
    assert not largest_component(mask_of()).any()


def test_the_box_is_the_tight_one_and_a_margin_clipped_to_the_volume() -> None:
    mask = mask_of((2, 3, 1), (3, 5, 2))
    assert surrounding_box(mask, 0) == (slice(2, 4), slice(3, 6), slice(1, 3))
    assert surrounding_box(mask, 2) == (slice(0, 6), slice(1, 7), slice(0, 5))
    assert surrounding_box(mask_of(), 2) is None


def test_the_central_box_is_half_of_each_axis_and_never_empty() -> None:
    assert central_box((8, 12, 1)) == (slice(2, 6), slice(3, 9), slice(0, 1))


def test_a_box_that_is_a_cube_of_the_right_side_is_cut_out_as_it_is() -> None:
    volume = torch.randn(2, 6, 7, 8)
    box = (slice(1, 5), slice(0, 4), slice(4, 8))
    torch.testing.assert_close(resampled(volume, box, 4), volume[:, 1:5, 0:4, 4:8])


def test_a_box_is_resampled_by_linear_interpolation_of_itself_alone() -> None:
    volume = torch.randn(2, 6, 7, 8)
    box = (slice(1, 4), slice(2, 7), slice(3, 5))
    alone = F.interpolate(volume[None, :, 1:4, 2:7, 3:5], (4, 4, 4), mode="trilinear", align_corners=False)[0]
    assert torch.equal(resampled(volume, box, 4), alone)
    ramp = torch.tensor([0.0, 4.0]).expand(1, 2, 2, 2)  # along W
    assert resampled(ramp, (slice(0, 2),) * 3, 4)[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_each_modality_of_each_subject_is_standardised_by_itself() -> None:
    cubes = torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[0.0, 0.0], [-100.0, 100.0]]]).reshape(2, 2, 1, 1, 2)
    expected = torch.tensor([[[-1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [-1.0, 1.0]]]).reshape(2, 2, 1, 1, 2)
    torch.testing.assert_close(standardised(cubes), expected, atol=1e-5, rtol=0)


def test_dice_is_that_computed_by_hand() -> None:
    found, truth = mask_of((0, 0, 0), (1, 1, 1), (2, 2, 2)), mask_of((1, 1, 1))
    assert dice(found, truth) == 2 * 1 / (3 + 1)
    assert dice(mask_of(), mask_of()) == 1
    assert dice(mask_of(), truth) == 0


def test_the_cubes_are_what_lies_in_the_box_around_the_outline() -> None:
    model = Agg(parts(), roi="ground-truth", **SMALL)
    inputs = {"north": torch.randn(1, 1, 9, 10, 11), "east": torch.randn(1, 1, 9, 10, 11)}
    outline = torch.zeros(1, 1, 9, 10, 11)
    outline[0, 0, 4:6, 0:3, 7:11] = 4
    outline[0, 0, 0, 9, 0] = 1  # apart from the rest, and smaller
    cubes = model.cubes({**inputs, OUTLINE: outline})
    crop = torch.cat([inputs["north"], inputs["east"]], 1)[:, :, 3:7, 0:4, 6:11]
    torch.testing.assert_close(cubes, standardised(F.interpolate(crop, (8, 8, 8), mode="trilinear")))


def test_the_cut_has_the_shape_that_it_announces_and_writes_to_nothing() -> None:
    tumour = torch.zeros(2, 1, 6, 7, 8, dtype=torch.bool)
    tumour[0, 0, 1:3, 2:4, 5:6] = True
    torch.library.opcheck(
        cut, (torch.randn(2, 3, 6, 7, 8), tumour, 1, 4), test_utils=("test_schema", "test_faketensor")
    )


# The grader


def test_the_grader_has_as_many_parameters_as_counted_by_hand() -> None:
    # A block from c to w channels: 27 c w and 2 w for its normalisation; 32 x 2 weights and 2 biases in the head.
    grader = Grader(parts(3), channels=3, width=2, size=64)
    assert sum(p.numel() for p in grader.parameters()) == 166 + 224 + 880 + 3488 + 13888 + 66


@pytest.mark.parametrize(("size", "pooled"), [(64, 5), (16, 3), (8, 2), (3, 0), (2, 0)])
def test_pooling_stops_at_two_voxels_a_side_so_that_a_subject_alone_can_be_trained_on(size: int, pooled: int) -> None:
    grader = Grader(parts(1), channels=1, width=1, size=size)
    assert sum(isinstance(part, torch.nn.MaxPool3d) for part in grader) == pooled
    assert grader.train()(torch.randn(1, 1, size, size, size)).shape == (1, 2)


# What it asks for, and what it says


def test_with_drawn_outlines_there_is_no_unet_and_the_outlines_of_test_subjects_are_asked_for() -> None:
    model = Agg(parts(), roi="ground-truth", **SMALL)
    assert [stage.name for stage in model.stages()] == ["grade"]
    assert not [name for name, _ in model.named_parameters() if name.startswith("segmenter")]
    assert Agg.needs(roi="ground-truth").outlines == "test"
    assert Agg.needs(roi="predicted").outlines == Agg.needs().outlines == "training"
    assert [stage.name for stage in Agg(parts(), **SMALL).stages()] == list(Agg.stage_names)


def test_where_no_tumour_is_found_the_central_box_is_graded_and_the_subject_is_remarked_on() -> None:
    model, batch = Agg(parts(), **SMALL).eval(), blobs(3)
    assert model.segmenter is not None
    with torch.no_grad():
        model.segmenter.last.bias.fill_(-100)
    assert model.notes(batch) == {"box": ["fallback"] * 3, "dice": ["0.000"] * 3}
    crop = model.stacked(batch.inputs)[:, :, 2:6, 3:9, 3:9]  # half of 8, 12, 12
    torch.testing.assert_close(
        model.cubes(batch.inputs), standardised(F.interpolate(crop, (8, 8, 8), mode="trilinear"))
    )


def test_an_empty_outline_is_remarked_on_and_others_are_not() -> None:
    model, batch = Agg(parts(), roi="ground-truth", **SMALL).eval(), blobs(3)
    assert batch.seg is not None
    outline = batch.seg.float()
    outline[1] = 0
    given = replace(batch, inputs={**batch.inputs, OUTLINE: outline})
    assert model.notes(given) == {"box": ["", "fallback", ""]}


def test_the_dice_is_that_of_the_mask_that_made_the_box() -> None:
    model, batch = Agg(parts(), **SMALL).eval(), blobs(4)
    masks = model.masks(batch.inputs)
    assert batch.seg is not None
    expected = [f"{dice(mask, seg[0].numpy() > 0):.3f}" for mask, seg in zip(masks, batch.seg, strict=True)]
    assert model.notes(batch)["dice"] == expected
    assert len(set(expected)) > 1
    assert "dice" not in model.notes(replace(batch, seg=None))


def test_notes_are_of_the_batch_that_is_given_whatever_was_predicted_last() -> None:
    model, one, other = Agg(parts(), **SMALL).eval(), blobs(3), blobs(3, seed=1)
    plain = model.notes(other)
    model(one.inputs)
    assert model.notes(other) == plain != model.notes(one)


def test_the_documented_options_are_those_of_describe() -> None:
    page = (Path(__file__).parent.parent / "docs" / "agg.md").read_text()
    options = load_registry().get("fusion", "agg").options
    assert [o.name for o in options if f"| `{o.name}` | `{o.default}` |" in page] == ["roi", "width", "size", "margin"]


# Training


def test_the_unet_learns_to_find_blobs_in_subjects_it_has_not_seen() -> None:
    model = Agg(parts(), **SMALL)
    train(model, "segment", blobs(8), steps=60)
    found = [float(value) for value in model.eval().notes(blobs(6, seed=1))["dice"]]
    assert sum(found) / len(found) > 0.8


def test_grading_leaves_the_unet_bit_identical_and_segmenting_the_grader() -> None:
    model, batch = Agg(parts(), **SMALL), blobs(4)
    for stage, owner in (("segment", "segmenter"), ("grade", "grader")):
        before = state_of(model)
        train(model, stage, batch, steps=3)
        assert {name.split(".")[0] for name in moved(before, model)} == {owner}


# Whole runs


def image(path: Path, values: Tensor) -> Path:
    nibabel.save(nibabel.Nifti1Image(values.numpy().T, np.eye(4)), path)  # (D, H, W) -> (X, Y, Z)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Cohort:
    """Twelve subjects with two images and a tumour each."""
    batch = blobs(12)
    assert batch.seg is not None
    folder = tmp_path / "images"
    folder.mkdir()
    subjects = [
        Subject(
            f"s{row:02d}",
            ("HGG", "LGG")[int(batch.labels[row])],
            files={name: image(folder / f"{row}_{name}.nii.gz", x[row, 0]) for name, x in batch.inputs.items()},
            seg=image(folder / f"{row}_seg.nii.gz", batch.seg[row, 0].to(torch.uint8)),
        )
        for row in range(12)
    ]
    return Cohort("blobs", ("HGG", "LGG"), "LGG", (Modality("north", "image"), Modality("east", "image")), (*subjects,))


def short_study(cohort: Cohort, fusion: str = "agg", **options: Any) -> Study:
    """Two folds and two epochs of one strategy."""
    settings = {
        "fusion": [fusion],
        "baselines": [],
        "modalities": [],
        "variants": {},
        "attention": "none",
        "protocol": {"folds": 2, "inner_folds": 2},
        "recipe": {"epochs": 2, "precision": "32", "device": "cpu", "stages": {}},
        "preprocessing": {"resize": [8, 12, 12]},
        "options": {"agg": {**SMALL, **options}, "rmc": {"width": 2}},
    }
    return open_study(load_comparison("demo", settings), cohort=cohort)


def first_fold(cohort: Cohort, folder: Path, fusion: str = "agg", **options: Any) -> Predictions:
    """What a short run says of the test subjects of its first fold."""
    study, store = short_study(cohort, fusion, **options), Store(folder).open()
    run(study, store)
    return store.predictions(plan(study).jobs[0].key, cohort.classes)


@pytest.mark.parametrize("roi", ["predicted", "ground-truth"])
def test_what_it_costs_is_known_before_any_tumour_is(images: Cohort, roi: str) -> None:
    study = short_study(images, roi=roi)
    fit = plan(study).jobs[0].fit
    cost = cost_of(fit, study.registry, dict.fromkeys(("north", "east"), (8, 12, 12)))
    assert cost.unknown == ""
    assert [stage.name for stage in cost.stages] == list(Agg.planned_stages(roi=roi))
    assert cost.flops
    assert all(stage.flops for stage in cost.stages)


@pytest.mark.parametrize(("roi", "same"), [("predicted", True), ("ground-truth", False)])
def test_only_with_drawn_outlines_does_a_prediction_change_when_that_of_its_subject_does(
    images: Cohort, tmp_path: Path, roi: str, same: bool
) -> None:
    before = first_fold(images, tmp_path / "before", roi=roi)
    path = images.subject(before.ids[0]).seg
    assert path is not None
    elsewhere = torch.zeros(8, 12, 12, dtype=torch.uint8)
    elsewhere[0:2, 0:2, 0:2] = 1
    image(path, elsewhere)
    after = first_fold(images, tmp_path / "after", roi=roi)
    assert before.ids == after.ids
    assert np.array_equal(before.probabilities[0], after.probabilities[0]) is same
    assert np.array_equal(before.probabilities[1:], after.probabilities[1:])  # it trains on nobody's but its own
    assert (before.notes[0] != after.notes[0]) is same  # the Dice, where there is one


def test_only_a_strategy_that_asks_for_outlines_reads_them(images: Cohort, tmp_path: Path) -> None:
    for subject in images.subjects:
        assert subject.seg is not None
        subject.seg.write_bytes(b"no NIfTI")
    assert len(first_fold(images, tmp_path / "unimodal", fusion="unimodal").ids) == 6
    with pytest.raises(CohortError, match="seg"):
        first_fold(images, tmp_path / "agg")


def test_a_subject_without_an_outline_is_refused_before_anything_trains(images: Cohort) -> None:
    bare = replace(images, subjects=(replace(images.subjects[0], seg=None), *images.subjects[1:]))
    settings = {"fusion": ["agg"], "baselines": [], "modalities": [], "variants": {}}
    with pytest.raises(Exception, match="needs the segmentation of every subject; 1 have none, such as 's00'"):
        open_study(load_comparison("demo", settings), cohort=bare)
