"""Squeeze-excitation scales channels by a gate that sees the mean of each."""

from __future__ import annotations

import pytest
import torch
from timm.layers import SqueezeExcite
from torch import nn

from fusionbench import FusionBenchError
from fusionbench_plugins.attention.squeeze import SqueezeExcitation


def test_it_is_what_the_equation_says() -> None:
    module = SqueezeExcitation(2, reduction=2)
    first, second = module.gate[0], module.gate[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0]]))
        first.bias.fill_(-1)
        second.weight.copy_(torch.tensor([[0.5], [-1.0]]))
        second.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.stack([torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])]).reshape(1, 2, 2, 1, 1)
    # The means are 2 and 0.5, the hidden unit is 2 + 1 - 1 = 2, so the gates are sigmoid(1) and sigmoid(-1).
    gates = [0.7310585786300049, 0.2689414213699951]
    expected = torch.tensor([[gates[0], 3 * gates[0]], [0, gates[1]]]).reshape(1, 2, 2, 1, 1)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("reduction", [1, 4, 16, 100])
def test_of_one_slice_it_is_timms(reduction: int) -> None:
    torch.manual_seed(0)
    mine, theirs = SqueezeExcitation(32, reduction=reduction), SqueezeExcite(32, rd_channels=max(1, 32 // reduction))
    names = dict(zip(mine.state_dict(), theirs.state_dict(), strict=True))
    theirs.load_state_dict(
        {names[n]: v.reshape(theirs.state_dict()[names[n]].shape) for n, v in mine.state_dict().items()}
    )
    x = torch.randn(3, 32, 1, 5, 4)
    torch.testing.assert_close(mine(x)[:, :, 0], theirs(x[:, :, 0]))


def test_every_position_counts_alike_whatever_its_slice() -> None:
    torch.manual_seed(0)
    module, x = SqueezeExcitation(32), torch.randn(2, 32, 4, 5, 6)
    torch.testing.assert_close(module(x).reshape(2, 32, 1, 20, 6), module(x.reshape(2, 32, 1, 20, 6)))


def test_a_reduction_below_one_is_an_error() -> None:
    with pytest.raises(FusionBenchError, match="se: reduction is 0"):
        SqueezeExcitation(8, reduction=0)
