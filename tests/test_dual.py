"""Dual attention does what its equations say, in any precision and for any size."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionbench import FusionBenchError
from fusionbench_plugins.attention.dual import Attend, DualAttention
from fusionbench_plugins.attention.none import NoAttention


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def awake(channels: int, **options: Any) -> DualAttention:
    """A module whose two scales are not zero, so that both branches show."""
    module = DualAttention(channels, **options)
    with torch.no_grad():
        module.spatial_scale.fill_(0.7)
        module.slice_scale.fill_(-0.4)
    return module.double().eval()


def volume(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64)


def position_attention(module: DualAttention, image: Tensor) -> Tensor:
    """DANet's position attention module from its equations, for images (B, C, H, W)."""

    def pointwise(layer: torch.nn.Conv3d) -> Tensor:
        assert layer.bias is not None
        weight = layer.weight[:, :, 0, 0, 0]
        return torch.einsum("oc,bchw->bohw", weight, image).flatten(2) + layer.bias[:, None]

    query, key, value = pointwise(module.query), pointwise(module.key), pointwise(module.value)
    energy = torch.einsum("bci,bcj->bij", query, key)
    weights = energy.exp() / energy.exp().sum(-1, keepdim=True)
    seen = torch.einsum("bij,bcj->bci", weights, value).reshape(image.shape)
    return module.spatial_scale * seen + image


def channel_attention(rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """DANet's channel attention module as it is coded: what is seen, and the map; rows are (B, channels, positions)."""
    energy = scale * torch.einsum("bin,bjn->bij", rows, rows)
    inverted = energy.max(-1, keepdim=True).values - energy
    weights = inverted.exp() / inverted.exp().sum(-1, keepdim=True)
    return torch.einsum("bij,bjn->bin", weights, rows), weights


def test_there_are_as_many_parameters_as_in_danet() -> None:
    module = DualAttention(512)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    assert sizes.pop("slice_scale") == 1
    assert sum(sizes.values()) == 328_321


@pytest.mark.parametrize("channels", [1, 7, 8])
def test_queries_have_at_least_one_channel(channels: int) -> None:
    assert DualAttention(channels).query.out_channels == 1


@pytest.mark.parametrize(("combine", "factor"), [("sum", 2.0), ("mean", 1.0)])
@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_it_starts_as_a_multiple_of_its_input(combine: Any, factor: float, scope: Any) -> None:
    x = torch.randn(2, 8, 3, 4, 5)
    assert torch.equal(DualAttention(8, combine=combine, scope=scope)(x), factor * x)


def test_the_spatial_branch_is_position_attention_in_each_slice() -> None:
    module, x = awake(16), volume(2, 16, 3, 4, 5)
    with torch.no_grad():
        module.slice_scale.zero_()
        slices = [position_attention(module, x[:, :, depth]) for depth in range(3)]
        torch.testing.assert_close(module(x), torch.stack(slices, 2) + x, rtol=1e-12, atol=1e-12)


def test_the_volume_scope_is_position_attention_over_all_voxels() -> None:
    module, x = awake(16, scope="volume"), volume(2, 16, 3, 4, 5)
    with torch.no_grad():
        module.slice_scale.zero_()
        flat = position_attention(module, x.reshape(2, 16, 12, 5)).reshape(x.shape)
        torch.testing.assert_close(module(x), flat + x, rtol=1e-10, atol=1e-10)
        seen = module.spatial_map(x)[:, 0] @ module.value(x).flatten(2).mT  # (B, D*H*W, C)
        by_map = x + module.spatial_scale * seen.mT.reshape(x.shape)
        torch.testing.assert_close(module(x), by_map + x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("energy", "scale"), [("dot", 1.0), ("mean", 1 / (6 * 4 * 5))])
def test_the_slice_branch_is_channel_attention_with_slices_as_channels(energy: Any, scale: float) -> None:
    module, x = awake(6, energy=energy), volume(2, 6, 3, 4, 5)
    with torch.no_grad():
        module.spatial_scale.zero_()
        seen, weights = channel_attention(x.transpose(1, 2).reshape(2, 3, -1), scale)
        expected = module.slice_scale * seen.reshape(2, 3, 6, 4, 5).transpose(1, 2) + x
        torch.testing.assert_close(module(x), expected + x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(module.slice_map(x), weights, rtol=1e-12, atol=1e-12)


def test_cosine_energies_are_cosines_of_the_angles_between_slices() -> None:
    x = volume(1, 6, 3, 4, 5)
    rows = x[0].transpose(0, 1).reshape(3, -1)
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
    expected = cosines.exp() / cosines.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(awake(6, energy="cosine", invert=False).slice_map(x)[0], expected)


def test_invert_attends_to_the_slice_that_is_least_alike() -> None:
    x = torch.ones(1, 4, 3, 2, 2, dtype=torch.float64)
    x[:, :, 2] = -1  # slices 0 and 1 are alike
    assert awake(4).slice_map(x)[0, 0].argmax() == 2
    assert awake(4, invert=False).slice_map(x)[0, 0].argmin() == 2


def test_one_slice_and_one_voxel_are_enough() -> None:
    module, table = awake(8), volume(3, 8, 1, 1, 1)
    alone = module.spatial_scale * module.value(table) + table
    torch.testing.assert_close(module(table), alone + (1 + module.slice_scale) * table)


@pytest.mark.parametrize("energy", ["dot", "mean", "cosine"])
@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_reordered_slices_give_reordered_slices(scope: Any, energy: Any) -> None:
    module, x, order = awake(8, scope=scope, energy=energy), volume(2, 8, 5, 3, 4) / 8, torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(x[:, :, order]), module(x)[:, :, order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_turned_and_mirrored_volumes_give_turned_and_mirrored_volumes(scope: Any) -> None:
    module, x = awake(8, scope=scope), volume(2, 8, 3, 4, 5)
    torch.testing.assert_close(module(x.transpose(3, 4)), module(x).transpose(3, 4), rtol=1e-10, atol=1e-10)
    for axis in (3, 4):
        torch.testing.assert_close(module(x.flip(axis)), module(x).flip(axis), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("scope", "shape"), [("slice", (2, 3, 20, 20)), ("volume", (2, 1, 60, 60))])
def test_rows_of_both_maps_sum_to_one(scope: Any, shape: tuple[int, ...]) -> None:
    module, x = awake(8, scope=scope), volume(2, 8, 3, 4, 5)
    spatial, slices = module.spatial_map(x), module.slice_map(x)
    assert spatial.shape == shape
    assert slices.shape == (2, 3, 3)
    for weights in (spatial, slices):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@pytest.mark.parametrize("energy", ["dot", "mean", "cosine"])
@pytest.mark.parametrize("scope", ["slice", "volume"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_large_features_stay_finite_under_autocast(scope: Any, energy: Any, kind: torch.dtype) -> None:
    module = awake(16, scope=scope, energy=energy).float().train()
    x = (1e3 * torch.randn(1, 16, 6, 8, 8)).requires_grad_()
    with torch.autocast("cpu", dtype=kind):
        out = module(x)
    out.mean().backward()  # the energies, up to 1e9 here, are far beyond the 65,504 of half precision
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


def test_half_precision_features_give_what_full_precision_gives() -> None:
    module = awake(16).float()
    x = torch.randn(1, 16, 6, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert torch.equal(out, module(x.float()))


def test_gradients_reach_every_parameter() -> None:
    module, x = awake(8), volume(2, 8, 3, 4, 5)
    module(x).square().mean().backward()
    largest = {
        name: float(parameter.grad.abs().max())
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    assert len(largest) == len(list(module.parameters()))
    # The softmax cancels what is equal for every key, so this bias, which DANet has, can never matter.
    assert largest.pop("key.bias") < 1e-12
    assert min(largest.values()) > 1e-6


def test_published_energies_see_one_slice_and_mean_energies_see_all() -> None:
    x = torch.randn(1, 64, 12, 8, 8).relu()  # 4,096 numbers a slice; the paper's features have 115,200
    assert DualAttention(64, energy="dot").slice_map(x).max(-1).values.mean() > 0.95
    assert DualAttention(64, energy="mean").slice_map(x).max() < 0.12  # 1/12 is equal shares


def test_the_meta_device_will_do() -> None:
    with torch.device("meta"):
        x = torch.empty(1, 512, 150, 15, 15)
        assert DualAttention(512)(x).shape == x.shape


def test_a_reduction_below_one_is_an_error() -> None:
    with pytest.raises(FusionBenchError, match="reduction is 0"):
        DualAttention(8, reduction=0)


def test_no_attention_is_the_identity() -> None:
    x = torch.randn(1, 3, 2, 2, 2)
    assert NoAttention(3)(x) is x


def test_between_channels_it_is_danets_channel_attention_in_each_slice() -> None:
    module, x = awake(6, second="channels", energy="dot"), volume(2, 6, 3, 4, 5)
    with torch.no_grad():
        module.spatial_scale.zero_()
        for depth in range(3):
            image = x[:, :, depth]
            seen, weights = channel_attention(image.flatten(2), 1.0)
            expected = module.slice_scale * seen.reshape(image.shape) + image
            torch.testing.assert_close(module(x)[:, :, depth], expected + image, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(module.channel_map(x)[:, depth], weights, rtol=1e-12, atol=1e-12)


def test_between_channels_of_the_volume_all_slices_describe_a_channel() -> None:
    module, x = awake(6, second="channels", scope="volume"), volume(2, 6, 3, 4, 5)
    with torch.no_grad():
        module.spatial_scale.zero_()
        seen, weights = channel_attention(x.flatten(2), 1 / (3 * 4 * 5))
        expected = module.slice_scale * seen.reshape(x.shape) + x
        torch.testing.assert_close(module(x), expected + x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(module.channel_map(x)[:, 0], weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("energy", ["dot", "mean", "cosine"])
def test_between_channels_slices_may_be_reordered_and_rows_sum_to_one(energy: Any) -> None:
    module, x, order = awake(8, second="channels", energy=energy), volume(2, 8, 5, 3, 4), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(x[:, :, order]), module(x)[:, :, order], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(module.channel_map(x).sum(-1), torch.ones(2, 5, 8, dtype=torch.float64))


# Attention over the whole volume without its map


@pytest.mark.parametrize("numbers", [1, 2000, 2**21])  # a row at a time; three, and two at the end; all at once
def test_attention_without_the_map_is_attention_with_it_and_so_are_its_gradients(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusionbench_plugins.attention.dual.MAP_NUMBERS", numbers)
    inputs = tuple(torch.randn(2, 302, width, requires_grad=True) for width in (3, 3, 7))
    query, key, value = inputs
    out, expected = Attend.apply(*inputs), (query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)  # float32
    above = torch.randn(out.shape)
    gradients = (torch.autograd.grad(result, inputs, above) for result in (out, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_without_the_map_are_those_of_small_steps() -> None:
    inputs = tuple(torch.randn(2, 5, width, dtype=torch.float64, requires_grad=True) for width in (2, 2, 3))
    assert torch.autograd.gradcheck(Attend.apply, inputs)


def bytes_kept_for_backward(side: int) -> int:
    module, x = DualAttention(16, scope="volume"), torch.randn(1, 16, 8, side, side)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x)
    return sum(kept.values())


def test_the_volume_scope_keeps_memory_in_proportion_to_the_positions() -> None:
    few, many = bytes_kept_for_backward(8), bytes_kept_for_backward(16)  # 512 and 2,048 positions
    assert many < 4.2 * few
    assert many < 2048**2  # a quarter of one map of four bytes a number


MEASURE = """
import resource, sys, torch
from fusionbench_plugins.attention.dual import DualAttention

def peak(side):
    module, x = DualAttention(16, scope="volume"), torch.randn(1, 16, 8, side, side)
    torch.nn.init.ones_(module.spatial_scale)
    module(x).square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

peak(8)
before = peak(16)
print(peak(32) - before, peak(45) - before)
"""


def test_the_peak_of_the_volume_scope_grows_with_the_positions_and_not_with_their_square() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=240)
    once, twice = map(float, done.stdout.split())  # MiB for 8,192 and 16,200 positions: maps of 256 and 1,001 MiB
    assert once < 64
    assert twice < 128
