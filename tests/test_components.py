"""The parts that strategies are built from, and the weighted loss that the paper prints."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import Batch, Branch, FeatureSpec, FusionStrategy, Parts, copy_equal_shapes, pool
from fusionbench.cohorts import class_weights
from fusionbench.components import Head, classification_loss
from fusionbench.training import is_trained, set_modes
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.unimodal import Unimodal

PAPER_2018 = (0.2632, 0.7368)  # HGG, LGG


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def batch_of(labels: Tensor, weights: tuple[float, ...] = PAPER_2018, **inputs: Tensor) -> Batch:
    ids = tuple(f"s{n}" for n in range(len(labels)))
    return Batch(ids, inputs, labels, torch.tensor(weights)[labels])


def parts(*modalities: str) -> Parts:
    return Parts(
        modalities,
        ("HGG", "LGG"),
        dict.fromkeys(modalities, 1),
        lambda names, channels: Rmc(channels, width=8),
        DualAttention,
    )


# The weights of the classes


@pytest.mark.parametrize(
    ("sizes", "expected", "ratio"),
    [((75, 210), (0.7368, 0.2632), 2.8), ((76, 259), (0.7731, 0.2269), 3.41)],
    ids=["BraTS2018", "BraTS2019"],
)
def test_class_weights_are_those_of_the_paper(
    sizes: tuple[int, int], expected: tuple[float, float], ratio: float
) -> None:
    found = class_weights(["LGG"] * sizes[0] + ["HGG"] * sizes[1], ("LGG", "HGG"), "paper")
    assert found == pytest.approx(expected, abs=5e-5)
    assert found[0] / found[1] == pytest.approx(ratio, abs=5e-3)


def test_class_weights_follow_the_order_of_the_classes_and_not_of_the_subjects() -> None:
    labels = ["b", "a", "b", "b"]
    assert class_weights(labels, ("a", "b"), "paper") == (0.75, 0.25)
    assert class_weights(reversed(labels), ("b", "a"), "paper") == (0.25, 0.75)


def test_inverse_weights_make_every_class_count_alike() -> None:
    sizes = {"a": 3, "b": 5, "c": 12}
    found = class_weights([name for name, n in sizes.items() for _ in range(n)], tuple(sizes), "inverse")
    assert [weight * n for weight, n in zip(found, sizes.values(), strict=True)] == pytest.approx([20 / 3] * 3)


def test_without_weights_every_class_weighs_one() -> None:
    assert class_weights(["a", "b", "b"], ("a", "b"), "none") == (1.0, 1.0)


def test_inverse_weights_of_a_class_without_training_subjects_are_finite() -> None:
    assert all(0 <= weight < float("inf") for weight in class_weights(["a", "b"], ("a", "b", "c"), "inverse"))


# The weighted loss


@pytest.mark.parametrize("label", [0, 1], ids=["HGG", "LGG"])
def test_in_a_batch_of_one_the_loss_is_the_plain_loss_times_the_class_weight(label: int) -> None:
    logits, labels = torch.randn(1, 2), torch.tensor([label])
    weighted = batch_of(labels).cross_entropy(logits)
    torch.testing.assert_close(weighted, PAPER_2018[label] * F.cross_entropy(logits, labels))
    cancelled = F.cross_entropy(logits, labels, torch.tensor(PAPER_2018))  # what PyTorch does by default
    torch.testing.assert_close(cancelled, F.cross_entropy(logits, labels))
    assert not torch.isclose(weighted, cancelled)


def test_two_batches_of_one_of_either_class_keep_the_ratio_of_their_weights() -> None:
    logits = torch.zeros(1, 2)  # a coin: the plain losses are equal
    lgg, hgg = (batch_of(torch.tensor([label])).cross_entropy(logits) for label in (1, 0))
    assert float(lgg / hgg) == pytest.approx(2.8, abs=1e-3)


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20), st.integers(0, 2)), min_size=1),
    st.tuples(*[st.floats(0.01, 5)] * 3),
)
@settings(deadline=None, max_examples=50, database=None)
def test_the_loss_is_pytorchs_weighted_sum_divided_by_the_number_of_samples(
    rows: list[tuple[float, float, float, int]], weights: tuple[float, ...]
) -> None:
    logits = torch.tensor([row[:3] for row in rows])
    labels = torch.tensor([row[3] for row in rows])
    reference = F.cross_entropy(logits, labels, torch.tensor(weights), reduction="sum") / len(rows)
    torch.testing.assert_close(batch_of(labels, weights).cross_entropy(logits), reference, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_samples() -> None:
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 0])
    alone = [batch_of(labels[[n]]).cross_entropy(logits[[n]]) for n in range(5)]
    torch.testing.assert_close(batch_of(labels).cross_entropy(logits), torch.stack(alone).mean())


def test_a_batch_of_four_has_the_gradients_of_four_batches_of_one() -> None:
    model = Unimodal(parts("t1ce")).eval()  # running statistics, so that subjects do not see one another
    x, labels = torch.randn(4, 1, 3, 18, 20), torch.tensor([0, 0, 0, 1])

    def summed_gradients(groups: list[list[int]]) -> dict[str, Tensor]:
        model.zero_grad()
        for some in groups:
            loss = classification_loss(model, batch_of(labels[some], t1ce=x[some]), 0.0)
            (loss * len(some)).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together, one_by_one = summed_gradients([[0, 1, 2, 3]]), summed_gradients([[0], [1], [2], [3]])
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, one_by_one[name], rtol=1e-3, atol=1e-6, msg=name)


def test_the_loss_is_finite_for_a_confident_mistake_in_half_precision() -> None:
    loss = batch_of(torch.tensor([1])).cross_entropy(torch.tensor([[6e4, -6e4]], dtype=torch.float16))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(0.7368 * 1.2e5, rel=1e-3)


# The parts


def test_the_head_pools_then_maps_linearly() -> None:
    head, x = Head(6, 3, dropout=0.5).eval(), torch.randn(2, 6, 3, 5, 7)
    expected = x.flatten(2).mean(2) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(pool(x)), head(x))


def test_the_head_starts_with_a_weight_near_zero_and_no_bias() -> None:
    head = Head(512, 2, dropout=0.5)
    assert float(head.linear.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not head.linear.bias.any()


def test_dropout_stands_before_the_linear_layer_and_acts_in_training_only() -> None:
    head = Head(1000, 2, dropout=0.5)
    with torch.no_grad():
        head.linear.weight.fill_(1)
    x = torch.ones(1, 1000)
    assert float(head.eval()(x)[0, 0].detach()) == 1000
    assert float(head.train()(x)[0, 0].detach()) % 2 == 0  # what is kept is doubled
    assert 800 < float(head(x)[0, 0].detach()) < 1200


def test_pooling_is_the_global_average_and_leaves_what_is_pooled() -> None:
    x = torch.randn(2, 4, 3, 5, 7)
    torch.testing.assert_close(pool(x), nn.AdaptiveAvgPool3d(1)(x).flatten(1))
    assert pool(pool(x)).shape == (2, 4)


@given(st.tuples(*[st.integers(1, 300)] * 3), st.tuples(*[st.integers(1, 16)] * 3))
@settings(deadline=None, max_examples=50, database=None)
def test_the_size_of_a_feature_is_that_of_the_input_over_the_stride_rounded_up(
    size: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    for n, s, found in zip(size, stride, FeatureSpec(1, stride).size(size), strict=True):
        assert (found - 1) * s < n <= found * s


def test_a_branch_is_backbone_then_attention_then_head() -> None:
    branch, x = Branch(parts("t1ce"), "t1ce").eval(), torch.randn(2, 1, 3, 18, 20)
    expected = branch.head.linear(branch.attention(branch.backbone(x)).mean((2, 3, 4)))
    torch.testing.assert_close(branch(x), expected)


def test_parts_stack_modalities_as_channels_and_remember_them() -> None:
    some = Parts(("a", "b"), ("x", "y"), {"a": 2, "b": 3}, lambda names, n: Rmc(n, width=8), DualAttention)
    together = some.backbone("b", "a")
    assert together.modalities == ("b", "a")
    assert together.get_parameter("stem.0.weight").shape[1] == 5
    assert some.backbone("a").get_parameter("stem.0.weight").shape[1] == 2


def test_parts_make_new_modules_each_time() -> None:
    some = parts("t1ce")
    assert some.backbone("t1ce") is not some.backbone("t1ce")
    assert some.attention(8) is not some.attention(8)
    assert some.branch("t1ce").head.linear.out_features == 2


def test_equal_shapes_are_copied_with_buffers_and_others_left_alone() -> None:
    one = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.Linear(3, 2))
    two = nn.Sequential(nn.Conv3d(2, 4, 1), nn.BatchNorm3d(4), nn.Linear(3, 2))
    assert isinstance(one[1].running_mean, Tensor)
    one[1].running_mean.fill_(5)
    kept = two[0].weight.clone()
    copy_equal_shapes(one, two)
    assert torch.equal(two[0].weight, kept)
    assert torch.equal(two[0].bias, one[0].bias)
    assert torch.equal(two[1].running_mean, one[1].running_mean)
    assert torch.equal(two[2].weight, one[2].weight)
    assert two[2].weight.data_ptr() != one[2].weight.data_ptr()


def test_a_copy_leaves_the_source_and_the_need_for_gradients_as_they_were() -> None:
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    before = one.weight.clone()
    copy_equal_shapes(one, two)
    assert torch.equal(one.weight, before)
    assert two.weight.requires_grad
    assert two.weight.is_leaf


# Stages


@pytest.mark.parametrize(
    ("name", "trains", "expected"),
    [
        ("head", ("head",), True),
        ("head.linear.weight", ("head",), True),
        ("header.weight", ("head",), False),
        ("head.linear", ("head.dropout",), False),
        ("anything.at.all", ("",), True),
        ("", ("",), True),
        ("", ("head",), False),
        ("b", ("a", "b"), True),
        ("a", (), False),
    ],
)
def test_prefixes_name_whole_modules(name: str, trains: tuple[str, ...], expected: bool) -> None:
    assert is_trained(name, trains) == expected


def test_what_a_stage_does_not_train_keeps_its_running_statistics() -> None:
    model = nn.ModuleDict({"kept": nn.BatchNorm3d(2), "moved": nn.BatchNorm3d(2)})
    set_modes(model, ("moved",))
    x = torch.randn(2, 2, 3, 5, 7) + 4
    for part in model.values():
        part(x)
    assert not model["kept"].get_buffer("running_mean").any()
    assert model["moved"].get_buffer("running_mean").all()


def test_modes_can_be_set_again_for_the_next_stage() -> None:
    model = Branch(parts("t1ce"), "t1ce")
    set_modes(model, ("head",))
    assert not model.backbone.training
    set_modes(model, ("",))
    assert all(part.training for part in model.modules())


def test_the_default_strategy_has_one_stage_that_trains_everything() -> None:
    (stage,) = Unimodal(parts("t1ce")).stages()
    assert (stage.name,) == FusionStrategy.stage_names
    assert stage.trains == ("",)
    assert FusionStrategy.parents(("a", "b")) == ()
