"""One draw per item, physical rotations, the same for every modality, equal to torchio's."""

import pytest
import torch
from torch.nn.functional import grid_sample

from fusionbench.experiment import Augmentation
from fusionbench.imaging.augmentation import augment, draw, sampling_grid, transform_matrix

PAPER = Augmentation(flip=0.25, degrees=10.0, scales=(0.9, 1.2))
STILL = Augmentation(flip=0.0, degrees=0.0, scales=(1.0, 1.0))
MIRROR = Augmentation(flip=1.0, degrees=0.0, scales=(1.0, 1.0))
ONE_MM = (1.0, 1.0, 1.0)


def smooth(*size: int) -> torch.Tensor:
    """A volume (1, 1, *size) without edges: interpolation of it is nearly exact."""
    coarse = torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size, mode="trilinear", align_corners=True)


def moved(volume, matrix, spacing, mode="bilinear"):
    grid = sampling_grid(matrix[None], volume.shape[2:], torch.tensor([spacing]), volume.device)
    return grid_sample(volume, grid, mode=mode, align_corners=False)


def test_a_quarter_is_flipped():
    flipped = [bool(torch.linalg.det(draw(seed, PAPER)) < 0) for seed in range(4000)]
    assert sum(flipped) / 4000 == pytest.approx(0.25, abs=0.02)


def test_angles_and_scales_fill_their_ranges():
    matrices = torch.stack([draw(seed, PAPER) for seed in range(2000)])
    scales = torch.linalg.det(matrices).abs() ** (1 / 3)
    assert 0.9 <= scales.min() < 0.91
    assert 1.19 < scales.max() <= 1.2
    about_x = torch.rad2deg(torch.asin(matrices[:, 2, 1] / scales)).abs()  # Rz Rx Ry has sin x there
    assert 9.9 < about_x.max() <= 10.0


def test_a_flip_reverses_left_and_right_and_nothing_else():
    volume = torch.rand(2, 1, 4, 5, 6)
    result, seg = augment({"t1": volume}, volume.round(), [0, 1], ONE_MM, MIRROR)
    torch.testing.assert_close(result["t1"], volume.flip(-1), rtol=0, atol=1e-5)
    assert torch.equal(seg, volume.round().flip(-1))


def test_without_augmentation_the_very_input_comes_back():
    volume, seg = torch.rand(2, 1, 4, 5, 6), torch.ones(2, 1, 4, 5, 6)
    result, same = augment({"t1": volume}, seg, [0, 1], ONE_MM, STILL)
    assert result["t1"] is volume
    assert same is seg


def test_all_modalities_and_channels_of_an_item_move_alike():
    volume = torch.rand(3, 1, 6, 8, 8)
    result, _ = augment({"t1": volume, "t2": volume, "both": volume.expand(-1, 2, -1, -1, -1)}, None, [5, 6, 7],
                        ONE_MM, PAPER)  # fmt: skip
    assert not torch.equal(result["t1"], volume)
    assert torch.equal(result["t1"], result["t2"])
    assert torch.equal(result["both"][:, :1], result["t1"])
    assert torch.equal(result["both"][:, 1:], result["t1"])


def test_an_item_depends_on_its_seed_alone():
    volume, seg = torch.rand(4, 1, 6, 8, 8), torch.randint(0, 5, (4, 1, 6, 8, 8))
    seeds, order = [11, 12, 13, 14], [2, 0, 3, 1]
    together, together_seg = augment({"t1": volume}, seg, seeds, ONE_MM, PAPER)
    turned, turned_seg = augment({"t1": volume[order]}, seg[order], [seeds[i] for i in order], ONE_MM, PAPER)
    alone, _ = augment({"t1": volume[3:]}, None, seeds[3:], ONE_MM, PAPER)
    assert torch.equal(together["t1"][order], turned["t1"])
    assert torch.equal(together_seg[order], turned_seg)
    assert torch.equal(together["t1"][3:], alone["t1"])


def test_an_item_that_stays_is_exact_beside_one_that_is_flipped():
    only_flips = Augmentation(flip=0.5, degrees=0.0, scales=(1.0, 1.0))
    stays, flips = (next(s for s in range(99) if (draw(s, only_flips)[0, 0] < 0) == turned) for turned in (False, True))
    volume = torch.rand(2, 1, 4, 4, 4)
    result, _ = augment({"t1": volume}, None, [stays, flips], ONE_MM, only_flips)
    assert torch.equal(result["t1"][0], volume[0])
    assert not torch.equal(result["t1"][1], volume[1])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    augment({"t1": torch.ones(1, 1, 4, 4, 4)}, None, [3], ONE_MM, PAPER)
    assert torch.equal(before, torch.get_rng_state())


def test_tables_pass_unchanged_and_inputs_are_not_written_to():
    table, volume = torch.rand(1, 9, 1, 1, 1), torch.rand(1, 1, 4, 4, 4)
    kept = volume.clone()
    result, _ = augment({"omics": table, "t1": volume}, None, [3], ONE_MM, PAPER)
    assert result["omics"] is table
    assert list(result) == ["omics", "t1"]
    assert torch.equal(volume, kept)
    assert augment({"omics": table}, None, [3], ONE_MM, PAPER)[0]["omics"] is table


def test_labels_are_never_mixed():
    seg = torch.zeros(1, 1, 12, 12, 12, dtype=torch.int16)
    seg[..., 4:8, 4:8, 4:8] = 4
    _, result = augment({"t1": torch.rand(1, 1, 12, 12, 12)}, seg, [3], ONE_MM, PAPER)
    assert result.dtype == torch.int16
    assert set(result.unique().tolist()) == {0, 4}


def test_a_sphere_in_millimetres_stays_a_sphere():
    spacing = (5.0, 1.0, 2.0)  # mm along D, H, W
    centres = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip((20, 100, 50), spacing, strict=True)]
    depth, height, width = torch.meshgrid(*centres, indexing="ij")
    ball = ((depth**2 + height**2 + width**2).sqrt() < 30).float()[None, None]
    turned = moved(ball, transform_matrix(False, (40.0, 25.0, 60.0), 1.0), spacing)
    extents = [(turned[0, 0] > 0.5).any(1 if axis == 0 else 0).any(0 if axis == 2 else -1).sum() * spacing[axis]
               for axis in range(3)]  # fmt: skip
    assert turned.sum() == pytest.approx(ball.sum().item(), rel=0.02)
    assert (turned - ball).abs().mean() < 0.02
    assert all(abs(float(extent) - 60) <= 2 * mm for extent, mm in zip(extents, spacing, strict=True))


def test_each_item_may_have_its_own_spacing():
    volume = smooth(8, 16, 12).expand(2, -1, -1, -1, -1)
    apart = torch.tensor([[5.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    both, _ = augment({"t1": volume}, None, [4, 4], apart, PAPER)
    alone, _ = augment({"t1": volume[:1]}, None, [4], (5.0, 1.0, 1.0), PAPER)
    assert torch.equal(both["t1"][:1], alone["t1"])
    assert not torch.allclose(both["t1"][0], both["t1"][1])


@pytest.mark.parametrize("degrees", [(10.0, 0.0, 0.0), (0.0, 10.0, 0.0), (0.0, 0.0, 10.0), (8.0, -6.0, 9.0)])
@pytest.mark.parametrize("scale", [0.9, 1.2])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_torchio(degrees, scale, flip):
    """Linear interpolation, voxels away from the border, to 1e-3 of the range; the axes of torchio are (X, Y, Z)."""
    import torchio

    spacing = (3.0, 1.0, 2.0)
    volume = smooth(14, 30, 22) + 0.02 * torch.rand(1, 1, 14, 30, 22)
    image = torchio.ScalarImage(tensor=volume[0].permute(0, 3, 2, 1), affine=torch.diag(torch.tensor([2.0, 1, 3, 1])))
    turn = torchio.Affine(scales=(scale,) * 3, degrees=degrees, translation=(0, 0, 0), default_pad_value=0)
    theirs = turn(torchio.Flip(axes=(0,))(image) if flip else image).data.permute(0, 3, 2, 1)
    ours = moved(volume, transform_matrix(flip, degrees, scale), spacing)[0]
    inside = moved(torch.ones_like(volume), transform_matrix(flip, degrees, scale), spacing)[0] > 0.999
    assert inside.float().mean() > 0.5
    assert (ours - theirs)[inside].abs().max() < 1e-3


def test_equals_torchio_for_labels():
    import torchio

    seg = torch.zeros(1, 16, 20, 24)
    seg[:, 4:12, 6:12, 8:18] = 4
    turn = torchio.Affine(scales=(1.1,) * 3, degrees=(7.0, -9.0, 5.0), translation=(0, 0, 0))
    theirs = turn(torchio.LabelMap(tensor=seg.permute(0, 3, 2, 1))).data.permute(0, 3, 2, 1)
    ours = moved(seg[None], transform_matrix(False, (7.0, -9.0, 5.0), 1.1), ONE_MM, "nearest")[0]
    assert (ours != theirs).float().mean() < 1e-3  # a centre that lies on the edge of two voxels may go either way
