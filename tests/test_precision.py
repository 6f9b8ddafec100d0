"""Where a CPU's bf16 convolutions return garbage, networks compute in float32, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusionbench import precisely
from fusionbench_plugins.backbones.resnet import R2plus1d18, R3d18, Rmc, VideoResNet

NETWORKS = [pytest.param(network, id=network.name) for network in (Rmc, R3d18, R2plus1d18)]
NARROW = [(6, 48, 16), (3, 64, 17), (5, 12, 2), (4, 9, 1), (2, 40, 5)]
ONE_SLICE = [(1, 48, 32), (1, 20, 16)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [*NARROW, *ONE_SLICE, (4, 48, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_residual_networks_in_bf16_are_near_float32(
    network: type[VideoResNet], size: tuple[int, int, int], channels: int
) -> None:
    backbone, x = network(channels, width=16).eval(), torch.randn(4, channels, *size, requires_grad=True)
    exact = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone(x)
    assert (rough - exact).abs().max() < 0.04 * exact.abs().max()  # 0.015 at most; 0.09 and more, or NaN, unguarded
    (gradient,) = torch.autograd.grad(rough.float().square().mean(), x)
    (expected,) = torch.autograd.grad(exact.square().mean(), x)
    # Rounding turns some ReLUs round: 0.2 for any size, and on CPUs without AMX too.
    assert (gradient - expected).norm() < 0.4 * expected.norm()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_of_one_column_trains_on_the_gradients_of_float32(network: type[VideoResNet]) -> None:
    backbone, x = network(1, width=8), torch.randn(3, 1, 4, 6, 1)
    exact = torch.autograd.grad(backbone(x).square().mean(), list(backbone.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(x)
    rough = torch.autograd.grad(features.square().mean(), list(backbone.parameters()))
    for mine, expected in zip(rough, exact, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_ordinary_sizes_are_computed_as_without_the_guard(
    network: type[VideoResNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, x = network(1, width=8).eval(), torch.randn(2, 1, 4, 40, 33)  # 17, 9, 5 and 3 columns
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        guarded = backbone(x)
        monkeypatch.setattr("fusionbench_plugins.backbones.resnet.precisely", lambda compute, x, columns: compute(x))
        assert torch.equal(backbone(x), guarded)
    assert guarded.dtype == torch.bfloat16


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_maps_of_few_columns_are_computed_in_float32_and_wider_ones_are_not(columns: int) -> None:
    convolution, seen = nn.Conv3d(2, 3, 3, 2, 1), []

    def compute(x: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        result: Tensor = convolution(x)
        return result

    x = torch.randn(1, 2, 3, 5, columns)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            assert precisely(compute, given, 2).dtype == (torch.bfloat16 if columns > 2 else torch.float32)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [columns > 2] * 2


def test_without_autocast_nothing_is_changed() -> None:
    x = torch.randn(1, 1, 1, 1, 1).bfloat16()
    assert precisely(lambda same: same, x, 2) is x
    with torch.device("meta"):
        y = torch.empty(1, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert precisely(lambda same: same, y, 2) is y  # another device's arithmetic is its own
