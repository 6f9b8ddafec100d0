"""A uni-modal model is one branch, and fits wherever a strategy asks for its weights."""

from __future__ import annotations

import pytest
import torch

from fusionbench import Branch, Parts
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.unimodal import Unimodal


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(*modalities: str, attention: type = DualAttention) -> Parts:
    return Parts(
        modalities,
        ("HGG", "LGG"),
        dict.fromkeys(modalities, 1),
        lambda names, channels: Rmc(channels, width=8),
        attention,
    )


def test_it_is_backbone_then_attention_then_head() -> None:
    model, x = Unimodal(parts("t1ce")).eval(), torch.randn(2, 1, 3, 18, 20)
    features = model.attention(model.backbone.high(model.backbone.low(x)))
    expected = features.mean((2, 3, 4)) @ model.head.linear.weight.T + model.head.linear.bias
    torch.testing.assert_close(model({"t1ce": x}), expected)


def test_its_weights_are_those_of_a_branch_so_that_fusions_can_load_them() -> None:
    model, x = Unimodal(parts("t1ce")).eval(), torch.randn(2, 1, 3, 18, 20)
    branch = Branch(parts("t1ce"), "t1ce").eval()
    branch.load_state_dict(model.state_dict())  # strict: neither more nor fewer tensors
    assert torch.equal(branch(x), model({"t1ce": x}))


def test_it_starts_from_the_same_random_numbers_as_a_branch() -> None:
    torch.manual_seed(1)
    model = Unimodal(parts("t1ce"))
    torch.manual_seed(1)
    branch = Branch(parts("t1ce"), "t1ce")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), branch.parameters(), strict=True))


def test_it_looks_at_its_own_modality_only() -> None:
    model, x = Unimodal(parts("t2")).eval(), torch.randn(2, 1, 3, 18, 20)
    assert torch.equal(model({"t1ce": torch.randn(2, 1, 9, 9, 9), "t2": x}), model({"t2": x}))


def test_several_modalities_are_refused() -> None:
    with pytest.raises(ValueError, match="too many values"):
        Unimodal(parts("t1ce", "t2"))


def test_without_attention_it_has_no_more_weights_than_the_paper_counts() -> None:
    published = Parts(("t1ce",), ("HGG", "LGG"), {"t1ce": 1}, lambda names, channels: Rmc(channels), NoAttention)
    with torch.device("meta"):
        model = Unimodal(published)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_472_450


def test_a_table_is_a_volume_of_one_voxel() -> None:
    table = Parts(("rna",), ("a", "b", "c"), {"rna": 7}, lambda names, channels: Mlp(channels, width=8), NoAttention)
    assert Unimodal(table).eval()({"rna": torch.randn(4, 7, 1, 1, 1)}).shape == (4, 3)


def test_a_batch_of_one_can_be_trained_on() -> None:
    model = Unimodal(parts("t1ce")).train()
    model({"t1ce": torch.randn(1, 1, 3, 18, 20)}).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_one_modality_stands_for_one_row_and_there_is_nothing_to_rank() -> None:
    assert Unimodal.single
    assert not Unimodal.uses_order
    assert Unimodal.parents(("t1ce",)) == ()
