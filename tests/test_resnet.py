"""The three residual networks are torchvision's, split in two, for any number of channels and any width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import video

from fusionbench import FusionBenchError
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.resnet import LoadReport, R2plus1d18, R3d18, Rmc, VideoResNet

PAIRS = [
    pytest.param(Rmc, video.mc3_18, id="rmc"),
    pytest.param(R3d18, video.r3d_18, id="r3d-18"),
    pytest.param(R2plus1d18, video.r2plus1d_18, id="r2plus1d-18"),
]
NETWORKS = [pytest.param(network, id=network.name) for network in (Rmc, R3d18, R2plus1d18)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of mc3_18 as torchvision would save it, with random weights and moved statistics."""
    torch.manual_seed(1)
    network = video.mc3_18().eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "mc3_18.pth"
    torch.save(network.state_dict(), path)
    return path


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "grey", "colour"),
    [(Rmc, 11_472_450, 11_695_440), (R3d18, 33_148_482, 33_371_472), (R2plus1d18, 31_296_741, 31_505_325)],
)
def test_parameter_counts_are_the_published_ones(network: type[VideoResNet], grey: int, colour: int) -> None:
    with torch.device("meta"):
        assert parameters(network(1)) + parameters(torch.nn.Linear(512, 2)) == grey
        assert parameters(network(3)) + parameters(torch.nn.Linear(512, 400)) == colour


def test_blocks_of_rmc_have_the_parameters_of_the_papers_table() -> None:
    with torch.device("meta"):
        blocks = [parameters(block) for block in Rmc(1).children()]
    assert blocks == [9_536, 442_880, 525_568, 2_099_712, 8_393_728]


@pytest.mark.parametrize(
    ("network", "slices"),
    [(Rmc, (150, 150, 150, 150)), (R3d18, (150, 75, 38, 19)), (R2plus1d18, (150, 75, 38, 19))],
)
def test_shapes_at_full_size_are_the_papers(network: type[VideoResNet], slices: tuple[int, ...]) -> None:
    with torch.device("meta"):
        backbone, x = network(1), torch.empty(1, 1, 150, 240, 240)
        x = backbone.stem(x)
        assert x.shape == (1, 64, 150, 120, 120)
        blocks = [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]
        for block, channels, depth, side in zip(blocks, (64, 128, 256, 512), slices, (120, 60, 30, 15), strict=True):
            x = block(x)
            assert x.shape == (1, channels, depth, side, side)


@pytest.mark.parametrize(("network", "reference"), PAIRS)
def test_features_and_names_equal_torchvisions(network: type[VideoResNet], reference: Any) -> None:
    theirs, mine = reference().eval(), network(3).eval()
    features: dict[str, Tensor] = {}
    theirs.layer2.register_forward_hook(lambda _module, _inputs, output: features.update(low=output.clone()))
    theirs.layer4.register_forward_hook(lambda _module, _inputs, output: features.update(high=output.clone()))
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert list(mine.state_dict()) == list(state)
    mine.load_state_dict(state)
    x = torch.randn(2, 3, 5, 24, 20)
    with torch.no_grad():
        logits = theirs(x)
        low = mine.low(x)
        high = mine.high(low.clone())
        torch.testing.assert_close(low, features["low"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(high, features["high"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs.fc(high.mean((2, 3, 4))), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("network", "reference"), PAIRS)
def test_it_starts_as_torchvisions_does(network: type[VideoResNet], reference: Any) -> None:
    theirs = dict(reference().named_parameters())
    for name, mine in network(3).named_parameters():
        spread, expected = float(mine.detach().std()), float(theirs[name].detach().std())
        assert spread == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(1, 16, 16), (5, 17, 23), (9, 33, 20)])
def test_specs_are_the_truth_for_odd_sizes(network: type[VideoResNet], size: tuple[int, int, int]) -> None:
    backbone = network(2, width=4).eval()
    x = torch.randn(2, 2, *size)
    low = backbone.low(x)
    assert low.shape == (2, backbone.low_spec.channels, *backbone.low_spec.size(size))
    before = low.clone()
    high = backbone.high(low)
    assert high.shape == (2, backbone.high_spec.channels, *backbone.high_spec.size(size))
    assert torch.equal(low, before)
    assert torch.equal(backbone(x), high)


def test_a_narrow_factored_network_keeps_the_formula_of_its_middle_channels() -> None:
    backbone = R2plus1d18(1, width=8)
    assert backbone.stem[0].out_channels == 5  # 45 * 8 / 64
    assert backbone.layer2[0].conv1[0][0].out_channels == (8 * 16 * 27) // (8 * 9 + 3 * 16)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_every_parameter(network: type[VideoResNet]) -> None:
    backbone = network(1, width=2)
    backbone(torch.randn(2, 1, 4, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())


def test_the_summed_stem_sees_a_grey_volume_as_three_equal_colours(kinetics: Path) -> None:
    grey, colour = Rmc(1, weights=kinetics, stem="sum").eval(), Rmc(3, weights=kinetics).eval()
    x = torch.randn(1, 1, 3, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1, -1)), rtol=1e-4, atol=1e-5)


def test_stems_of_one_and_four_channels_share_out_the_colour_kernels(kinetics: Path) -> None:
    kernels = torch.load(kinetics, weights_only=True)["stem.0.weight"]
    average = kernels.mean(1)

    def stem(channels: int, rule: Any) -> Tensor:
        return Rmc(channels, weights=kinetics, stem=rule).stem[0].weight.detach()

    torch.testing.assert_close(stem(1, "sum")[:, 0], kernels.sum(1))
    torch.testing.assert_close(stem(1, "mean")[:, 0], average)
    tiled = stem(4, "sum")
    for channel in range(4):
        torch.testing.assert_close(tiled[:, channel], average * 3 / 4)
    torch.testing.assert_close(stem(4, "mean"), tiled / 3)
    assert torch.equal(stem(3, "sum"), kernels)


def test_a_new_stem_keeps_all_else_and_says_so(kinetics: Path) -> None:
    torch.manual_seed(5)
    plain = Rmc(1)
    torch.manual_seed(5)
    backbone = Rmc(1, weights=kinetics)
    checkpoint = torch.load(kinetics, weights_only=True)
    for name, value in backbone.state_dict().items():
        expected = plain.state_dict()[name] if name.startswith("stem.") else checkpoint[name]
        assert torch.equal(value, expected), name
    report = backbone.loaded
    assert isinstance(report, LoadReport)
    assert all(name.startswith("stem.") for name in report.missing)
    assert [name for name in report.skipped if not name.startswith("stem.")] == ["fc.weight", "fc.bias"]
    assert len(report.loaded) + len(report.missing) == len(backbone.state_dict())
    assert f"{kinetics.name}: {len(report.loaded)} tensors loaded; 6 missing (stem.0.weight, " in str(report)


def test_with_three_channels_everything_but_the_classifier_is_loaded(kinetics: Path) -> None:
    report = Rmc(3, weights=kinetics).loaded
    assert report is not None
    assert str(report).endswith("tensors loaded; 0 missing; 2 skipped (fc.weight, fc.bias)")


def test_safetensors_load_too_and_without_batch_counters(kinetics: Path, tmp_path: Path) -> None:
    old = {
        name: value
        for name, value in torch.load(kinetics, weights_only=True).items()
        if not name.endswith("num_batches_tracked")
    }
    safetensors.torch.save_file(old, tmp_path / "old.safetensors")
    backbone = Rmc(3, weights=tmp_path / "old.safetensors")
    assert torch.equal(backbone.layer4[1].conv2[0].weight, old["layer4.1.conv2.0.weight"])
    assert backbone.loaded is not None
    assert all(name.endswith("num_batches_tracked") for name in backbone.loaded.missing)


def test_no_weights_means_no_report() -> None:
    assert Rmc(1, width=2).loaded is None


def test_a_checkpoint_of_another_network_is_an_error_and_never_half_loaded(kinetics: Path, tmp_path: Path) -> None:
    with pytest.raises(FusionBenchError, match=r"does not fit r3d-18: layer2\.0\.conv1\.0\.weight is \(128, 64, 1, 3"):
        R3d18(1, weights=kinetics)
    with pytest.raises(FusionBenchError, match=r"does not fit r2plus1d-18: \d+ of its \d+ tensors are missing"):
        R2plus1d18(1, weights=kinetics)
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(FusionBenchError, match="does not fit rmc: 100 of its 100 tensors are missing"):
        Rmc(1, weights=tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"<html>\n404</html>", bytes(range(256))])
def test_a_file_that_is_no_checkpoint_is_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(FusionBenchError, match="is not a checkpoint") as caught:
        Rmc(1, weights=path)
    assert "\n" not in str(caught.value)


def test_a_download_that_broke_off_is_an_error(tmp_path: Path) -> None:
    tensors = {"stem.0.weight": torch.zeros(64, 3, 3, 7, 7)}
    safetensors.torch.save_file(tensors, tmp_path / "whole.safetensors")
    torch.save(tensors, tmp_path / "whole.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        for end in (3, 20, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:end])
            with pytest.raises(FusionBenchError, match="is not a checkpoint"):
                Rmc(1, weights=path)


def test_a_file_that_holds_more_than_tensors_is_an_error(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "wrapped.pth")
    with pytest.raises(FusionBenchError, match="no plain mapping"):
        Rmc(1, weights=tmp_path / "wrapped.pth")
    torch.save(Rmc(1, width=1), tmp_path / "whole.pth")  # a pickled object could run code: refused
    with pytest.raises(FusionBenchError, match="is not a checkpoint"):
        Rmc(1, weights=tmp_path / "whole.pth")


def test_a_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FusionBenchError, match=r"there is no file .*nowhere\.pth"):
        Rmc(1, weights=tmp_path / "nowhere.pth")


def test_weights_and_another_width_are_an_error(kinetics: Path) -> None:
    with pytest.raises(FusionBenchError, match="width 64, not 8"):
        Rmc(1, width=8, weights=kinetics)
    with pytest.raises(FusionBenchError, match="width is 0"):
        Rmc(1, width=0)


def test_a_run_records_what_was_loaded(kinetics: Path) -> None:
    from fusionbench import Parts
    from fusionbench.components import Branch
    from fusionbench.training import pretrained

    parts = Parts(("t1",), ("a", "b"), {"t1": 1}, lambda names, channels: Rmc(channels, weights=kinetics), NoAttention)
    assert pretrained(Branch(parts, "t1")) == {"backbone": str(Rmc(1, weights=kinetics).loaded)}
    assert pretrained(Rmc(1, width=2)) == {}
