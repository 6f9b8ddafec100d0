"""The perceptron for tables standardises with what the training part knew, and starts as a linear model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionbench import FusionBenchError
from fusionbench_plugins.backbones.mlp import Mlp


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def table(subjects: int, features: int) -> Tensor:
    scales = torch.logspace(-2, 3, features)
    return (torch.randn(subjects, features) * scales + 5 * scales)[:, :, None, None, None]


def test_statistics_are_those_of_the_batches_that_were_given() -> None:
    backbone, training = Mlp(6), table(50, 6)
    backbone.fit_statistics(training.split(7))  # the last batch has one subject
    torch.testing.assert_close(backbone.mean, training.mean((0, 2, 3, 4)))
    torch.testing.assert_close(backbone.std, training.std((0, 2, 3, 4), correction=0))


def test_the_order_of_the_subjects_does_not_matter_to_the_last_bit() -> None:
    one, two, training = Mlp(6), Mlp(6), table(500, 6)
    one.fit_statistics([training])
    two.fit_statistics(training.flip(0).split(32))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.std, two.std)


def test_neither_forward_nor_training_moves_the_statistics() -> None:
    backbone = Mlp(6)
    backbone.fit_statistics([table(20, 6)])
    before = backbone.mean.clone(), backbone.std.clone()
    optimiser = torch.optim.SGD(backbone.parameters(), lr=0.1)
    backbone.train()(1000 * table(20, 6)).square().mean().backward()
    optimiser.step()
    assert torch.equal(backbone.mean, before[0])
    assert torch.equal(backbone.std, before[1])


def test_the_unit_of_a_feature_does_not_matter() -> None:
    backbone, x = Mlp(6).eval(), table(20, 6)
    backbone.fit_statistics([x])
    before = backbone(x)
    backbone.fit_statistics([x * 100 - 3])
    torch.testing.assert_close(backbone(x * 100 - 3), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_feature_has_a_deviation_of_one(value: float) -> None:
    backbone, x = Mlp(3).eval(), table(11, 3)
    x[:, 1] = value
    backbone.fit_statistics([x])
    assert backbone.std[1] == 1
    assert backbone.mean[1] == value or backbone.mean[1] == pytest.approx(value)
    assert backbone(x).isfinite().all()


def test_no_subject_is_an_error() -> None:
    with pytest.raises(FusionBenchError, match="no training subject"):
        Mlp(3).fit_statistics([])


def test_a_batch_of_one_can_be_trained_on() -> None:
    backbone = Mlp(5).train()
    out = backbone(table(1, 5))
    out.sum().backward()
    assert out.shape == (1, 64, 1, 1, 1)
    assert out.isfinite().all()


def test_a_saved_state_holds_the_statistics() -> None:
    backbone, x = Mlp(5, width=8).eval(), table(9, 5)
    backbone.fit_statistics([x])
    again = Mlp(5, width=8).eval()
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again.mean, backbone.mean)
    assert torch.equal(again(x), backbone(x))


def test_it_is_a_linear_model_until_it_is_trained() -> None:
    backbone = Mlp(5).double().eval()
    one, two = torch.randn(2, 4, 5, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(backbone((one + two) / 2), (backbone(one) + backbone(two)) / 2)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4)])
def test_specs_are_the_truth_and_forward_is_high_of_low(size: tuple[int, int, int]) -> None:
    backbone, x = Mlp(5, width=12).eval(), torch.randn(3, 5, *size)
    low = backbone.low(x)
    assert low.shape == (3, backbone.low_spec.channels, *backbone.low_spec.size(size))
    assert backbone.high(low).shape == (3, backbone.high_spec.channels, *backbone.high_spec.size(size))
    assert torch.equal(backbone(x), backbone.high(low))


def test_gradients_reach_every_parameter_once_it_has_moved() -> None:
    backbone = Mlp(5, dropout=0.0)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter)
    backbone(torch.randn(8, 5, 1, 1, 1)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())


def test_it_learns_what_no_linear_model_can() -> None:
    x = torch.randn(256, 2)
    target = (x[:, 0] * x[:, 1] > 0).long()  # exclusive or
    backbone, head = Mlp(2, dropout=0.0), torch.nn.Linear(64, 2)
    optimiser = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(head(backbone(x[:, :, None, None, None]).flatten(1)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2


@pytest.mark.parametrize(("options", "message"), [({"width": 0}, "width is 0"), ({"dropout": 1.0}, "dropout is 1.0")])
def test_impossible_options_are_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(FusionBenchError, match=message):
        Mlp(3, **options)  # type: ignore[arg-type]
