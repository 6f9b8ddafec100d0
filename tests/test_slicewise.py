"""The four modules of timm's see each slice as an image, and nothing of the other slices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import EfficientChannelAttn, NonLocalAttn, SqueezeExcite
from timm.layers.cbam import CbamModule
from torch import nn

from fusionbench import FusionBenchError
from fusionbench_plugins.attention.slicewise import SliceCbam, SliceEca, SliceNonLocal, SliceSe, SliceWise

PAIRS = [
    pytest.param(SliceSe, lambda: SqueezeExcite(32, rd_channels=2), id="slice-se"),
    pytest.param(SliceEca, lambda: EfficientChannelAttn(32), id="slice-eca"),
    pytest.param(SliceCbam, lambda: CbamModule(32, rd_channels=2), id="slice-cbam"),
    pytest.param(SliceNonLocal, lambda: NonLocalAttn(32, rd_channels=4), id="slice-non-local"),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def awake(cls: type[SliceWise], **options: Any) -> SliceWise:
    """A module whose normalisations do not scale by 0, as a non-local block starts."""
    module = cls(32, **options)  # type: ignore[call-arg]
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
    return module


@pytest.mark.parametrize(("cls", "theirs"), PAIRS)
def test_each_slice_is_what_timms_module_makes_of_it(cls: type[SliceWise], theirs: Any) -> None:
    mine, reference = awake(cls).eval(), theirs().eval()
    reference.load_state_dict(mine.module.state_dict())
    x = torch.randn(2, 32, 3, 5, 4)
    with torch.no_grad():
        for depth in range(3):
            torch.testing.assert_close(mine(x)[:, :, depth], reference(x[:, :, depth]))


@pytest.mark.parametrize(("cls", "theirs"), PAIRS)
def test_in_training_the_slices_are_one_batch(cls: type[SliceWise], theirs: Any) -> None:
    mine, reference = awake(cls), theirs()
    reference.load_state_dict(mine.module.state_dict())
    x = torch.randn(2, 32, 3, 5, 4)
    images = x.transpose(1, 2).reshape(6, 32, 5, 4)
    torch.testing.assert_close(mine(x).transpose(1, 2).reshape(6, 32, 5, 4), reference(images))
    torch.testing.assert_close(mine.module.state_dict(), reference.state_dict())


@pytest.mark.parametrize("cls", [SliceCbam, SliceNonLocal])
def test_a_single_voxel_is_normalised_by_the_running_statistics(cls: type[SliceWise]) -> None:
    module, x = awake(cls), torch.randn(1, 32, 1, 1, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trained = module(x)
    assert all(part.training for part in module.modules())
    torch.testing.assert_close(module.state_dict(), before)
    torch.testing.assert_close(trained, module.eval()(x))
    trained.sum().backward()  # and it can be trained on


def test_a_non_local_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 32, 3, 5, 4)
    assert torch.equal(SliceNonLocal(32).eval()(x), x)


@pytest.mark.parametrize("cls", [SliceSe, SliceCbam, SliceNonLocal])
def test_the_reduction_sets_the_hidden_units(cls: Any) -> None:
    sizes = {r: sum(p.numel() for p in cls(32, reduction=r).parameters()) for r in (1, 32, 1000)}
    assert sizes[1] > sizes[32] == sizes[1000]
    with pytest.raises(FusionBenchError, match=f"{cls.name}: reduction is 0"):
        cls(32, reduction=0)
