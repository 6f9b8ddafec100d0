"""Networks of timm see each slice by itself, in two halves that lose nothing, from fresh weights or from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from fusionbench import Batch, Context, FusionBenchError, Parts, load_registry, pool
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.timm import SlicePool, Timm, Transformer
from fusionbench_plugins.fusion.guidance import Guidance
from fusionbench_plugins.fusion.unimodal import Unimodal

SMALL = "test_resnet"
CHAINS = ["resnet18", "mobilenetv3_small_050", "test_efficientnet", "convnext_atto", "test_nfnet"]
TRANSFORMERS = ["test_vit", "test_vit2", "test_vit3", "vit_tiny_r_s16_p8_224"]
"""With a class token; a register token, and the norm behind a mean; a register token and pooling; convolutions."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def features_of(network: str, backbone: Timm, image: Tensor) -> Tensor:
    """What timm's own network of these weights makes of images (N, C, H, W), as (N, channels, rows, columns)."""
    state = backbone.network.body.state_dict()
    if isinstance(backbone.network, Transformer):
        plain = timm.create_model(network, in_chans=image.shape[1], num_classes=0, dynamic_img_size=True).eval()
        plain.load_state_dict(state, strict=False)
        tokens = plain.fc_norm(plain.forward_features(image))[:, plain.num_prefix_tokens :]
        return tokens.mT.unflatten(2, [side // backbone.high_spec.stride[1] for side in image.shape[2:]])
    sized = {"dynamic_img_size": True} if "swin" in network else {}
    plain = timm.create_model(network, in_chans=image.shape[1], features_only=True, **sized).eval()
    plain.load_state_dict(state)
    last: Tensor = plain(image)[-1]
    return last.permute(0, 3, 1, 2) if "swin" in network else last


def require_each_slice_alone(network: str) -> None:
    backbone = Timm(2, network=network).eval()
    x = torch.randn(2, 2, 3, 64, 96)
    with torch.no_grad():
        features = backbone(x)
        for depth in range(3):
            expected = features_of(network, backbone, x[:, :, depth])
            torch.testing.assert_close(features[:, :, depth], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", CHAINS + TRANSFORMERS)
def test_features_are_those_of_the_plain_network_for_each_slice(network: str) -> None:
    require_each_slice_alone(network)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", ["swin_tiny_patch4_window7_224", "efficientnet_b0", "densenet121", "vit_medium_patch16_gap_256"]
)
def test_features_of_large_networks_are_those_of_the_plain_one(network: str) -> None:
    require_each_slice_alone(network)


@pytest.mark.parametrize("network", [SMALL, "mobilenetv3_small_050", "test_convnext", "test_vit"])
@pytest.mark.parametrize("size", [(3, 33, 20), (1, 16, 24), (6, 17, 31), (2, 1, 1), (2, 47, 64)])
def test_specs_are_the_truth_for_odd_and_small_sizes(network: str, size: tuple[int, int, int]) -> None:
    backbone = Timm(4, network=network).eval()
    low = backbone.low(torch.randn(2, 4, *size))
    before = low.clone()
    high = backbone.high(low)
    assert low.shape == (2, backbone.low_spec.channels, *backbone.low_spec.size(size))
    assert high.shape == (2, backbone.high_spec.channels, *backbone.high_spec.size(size))
    assert torch.equal(low, before)


def test_a_network_that_rounds_up_is_not_padded() -> None:
    backbone, x = Timm(1, network=SMALL).eval(), torch.randn(2, 1, 1, 47, 33)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[:, :, 0], features_of(SMALL, backbone, x[:, :, 0]))


def test_a_network_that_rounds_down_sees_zeros_at_the_right_and_the_bottom() -> None:
    backbone, x = Timm(1, network="test_convnext").eval(), torch.randn(1, 1, 2, 20, 17)
    filled = torch.nn.functional.pad(x, (0, 7, 0, 4))  # to multiples of 8, where its low-level features end
    with torch.no_grad():
        assert torch.equal(backbone.low(x), backbone.low(filled))


@pytest.mark.parametrize("network", ["resnet50", "swin_tiny_patch4_window7_224", "vit_medium_patch16_gap_256"])
def test_the_meta_device_will_do(network: str) -> None:
    with torch.device("meta"):  # on which a run builds everything once, before it trains
        backbone, x = Timm(1, network=network), torch.empty(1, 1, 3, 96, 100)
        features = backbone(x)
    assert features.shape == (1, backbone.high_spec.channels, *backbone.high_spec.size((3, 96, 100)))


def test_low_level_features_end_at_a_stride_of_eight() -> None:
    resnet, vit = Timm(1, network="resnet18"), Timm(1, network="test_vit")
    assert (resnet.low_spec.channels, resnet.low_spec.stride) == (128, (1, 8, 8))
    assert (resnet.high_spec.channels, resnet.high_spec.stride) == (512, (1, 32, 32))
    assert (vit.low_spec.channels, vit.low_spec.stride) == (128, (1, 16, 16))  # the class token doubles the channels
    assert (vit.high_spec.channels, vit.high_spec.stride) == (64, (1, 16, 16))


@pytest.mark.parametrize("network", [SMALL, "test_vit"])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_reordered_slices_give_reordered_features(network: str, pooling: Any) -> None:
    backbone = Timm(1, network=network, pool=pooling).eval()
    if pooling == "attention":
        torch.nn.init.normal_(backbone.pool.score.weight)
    x, order = torch.randn(2, 1, 5, 32, 32), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(backbone(x[:, :, order]), backbone(x)[:, :, order], rtol=1e-5, atol=1e-5)


def test_building_a_network_leaves_its_statistics_and_mode_alone() -> None:
    backbone = Timm(1, network=SMALL)
    assert all(module.training for module in backbone.modules())
    assert all((b == 0).all() for name, b in backbone.named_buffers() if name.endswith("running_mean"))


@pytest.mark.parametrize("network", [SMALL, "test_efficientnet", "test_vit", "test_vit2"])
def test_gradients_reach_every_parameter(network: str) -> None:
    backbone = Timm(1, network=network, pool="attention")
    backbone(torch.randn(2, 1, 3, 64, 64)).square().mean().backward()
    assert not [name for name, parameter in backbone.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("size", [(2, 80, 96), (3, 33, 20), (2, 40, 8)])
def test_bf16_autocast_gives_about_the_same(size: tuple[int, int, int]) -> None:
    backbone, x = Timm(1).eval(), torch.randn(3, 1, *size, requires_grad=True)
    exact = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone(x)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    (gradient,) = torch.autograd.grad(rough.float().square().mean(), x)
    assert gradient.isfinite().all()


# Attention over slices


def test_attention_over_slices_starts_as_the_mean() -> None:
    x = torch.randn(2, 6, 5, 3, 4)
    torch.testing.assert_close(SlicePool(6)(x), x)
    torch.testing.assert_close(SlicePool(6).weights(x), torch.full((2, 5), 0.2))


def test_attention_over_slices_learns_which_slice_counts() -> None:
    x, y = torch.randn(32, 4, 5, 2, 2), torch.randn(32)
    marked = torch.arange(32) % 5
    x[torch.arange(32), 0, marked] += 6  # one slice is marked in a channel, and holds the answer in another
    x[torch.arange(32), 1, marked] = y[:, None, None]
    module = SlicePool(4)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(60):
        loss = (pool(module(x))[:, 1] - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    weights = module.weights(x)
    torch.testing.assert_close(weights.sum(1), torch.ones(32))
    assert losses[-1] < 0.2 * losses[0]
    assert weights[torch.arange(32), marked].mean() > 0.8
    by_hand = torch.einsum("bd,bcd->bc", weights, x.mean((3, 4)))
    torch.testing.assert_close(pool(module(x)), by_hand)


# Weights


@pytest.fixture(scope="module", params=[SMALL, "test_convnext", "test_efficientnet", "test_vit"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A checkpoint as timm publishes them, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    safetensors.torch.save_file(timm.create_model(request.param).state_dict(), path)
    return request.param, path


def test_a_checkpoint_loads_whole_but_for_the_classifier(checkpoint: tuple[str, Path]) -> None:
    network, path = checkpoint
    backbone = Timm(3, network=network, weights=path).eval()
    state = safetensors.torch.load_file(path)
    x = torch.randn(1, 3, 2, 64, 64)
    if network == "test_vit":
        plain = timm.create_model(network, dynamic_img_size=True).eval()
        plain.load_state_dict(state)
        expected = plain.forward_features(x[:, :, 1])[:, 1:].mT.unflatten(2, (4, 4))
    else:
        how: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
        expected = timm.create_model(network, features_only=True, **how).eval()(x[:, :, 1])[-1]
    torch.testing.assert_close(backbone(x)[:, :, 1], expected, rtol=1e-5, atol=1e-5)
    assert backbone.loaded is not None
    assert backbone.loaded.startswith(f"{path.name}: {len(backbone.network.body.state_dict())} tensors loaded; ")
    assert "; 0 missing; " in backbone.loaded


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_stem_is_adapted_as_timm_does(checkpoint: tuple[str, Path], channels: int) -> None:
    network, path = checkpoint
    how: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    theirs = timm.create_model(network, in_chans=channels, **how).state_dict()
    first = timm.get_pretrained_cfg(network).first_conv
    mine = Timm(channels, network=network, weights=path).network.body.state_dict()
    assert torch.equal(mine[f"{first.replace('stem.', 'stem_')}.weight"], theirs[f"{first}.weight"])


def test_a_new_stem_is_fresh_and_reported(checkpoint: tuple[str, Path]) -> None:
    network, path = checkpoint
    torch.manual_seed(5)
    plain = Timm(1, network=network).state_dict()
    torch.manual_seed(5)
    backbone = Timm(1, network=network, weights=path, stem="reinit")
    same = [name for name, value in backbone.state_dict().items() if torch.equal(value, plain[name])]
    first = str(timm.get_pretrained_cfg(network).first_conv)
    assert f"network.body.{first.replace('stem.', 'stem_')}.weight" in same
    assert backbone.loaded is not None
    assert f"; 1 missing ({first}.weight); " in backbone.loaded


def test_a_pth_loads_too(tmp_path: Path) -> None:
    state = timm.create_model(SMALL).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "trained.pth")
    backbone = Timm(3, network=SMALL, weights=tmp_path / "trained.pth")
    assert torch.equal(backbone.network.body.conv1.get_parameter("0.weight"), state["conv1.0.weight"])


def test_no_weights_means_no_report() -> None:
    assert Timm(1, network=SMALL).loaded is None


def test_a_checkpoint_of_another_network_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(timm.create_model("test_convnext").state_dict(), path)
    with pytest.raises(FusionBenchError, match=r"does not fit test_resnet: \d+ of its \d+ tensors are missing"):
        Timm(1, network=SMALL, weights=path)
    wide = {
        name: torch.cat([value, value]) for name, value in timm.create_model(SMALL).state_dict().items() if value.dim()
    }
    safetensors.torch.save_file(wide, path)
    with pytest.raises(FusionBenchError, match=r"does not fit test_resnet: \S+ is \(\d+, .*, not \("):
        Timm(1, network=SMALL, weights=path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"<html>\n404</html>"])
def test_a_file_that_is_no_checkpoint_is_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(FusionBenchError, match="is not a checkpoint") as caught:
        Timm(1, network=SMALL, weights=path)
    assert "\n" not in str(caught.value)


def test_a_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FusionBenchError, match=r"there is no file .*nowhere\.safetensors"):
        Timm(1, network=SMALL, weights=tmp_path / "nowhere.safetensors")


def test_asking_for_pretrained_weights_says_where_they_are() -> None:
    with pytest.raises(
        FusionBenchError, match=r"huggingface\.co/timm/resnet18\.a1_in1k .* timm\.weights=PATH"
    ) as caught:
        Timm(1, network="resnet18", pretrained=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(FusionBenchError, match=r"resnet18\.fb_swsl_ig1b_ft_in1k"):
        Timm(1, network="resnet18.fb_swsl_ig1b_ft_in1k", pretrained=True)


# Names


@pytest.mark.parametrize("network", ["resnet_18", "hf-hub:timm/resnet18", "resnet18.nothing", ""])
def test_an_unknown_network_is_an_error_with_the_nearest_spelling(network: str) -> None:
    with pytest.raises(FusionBenchError, match="timm has no network") as caught:
        Timm(1, network=network)
    assert "\n" not in str(caught.value)
    assert not network.startswith("resnet") or "did you mean 'resnet18" in str(caught.value)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("hrnet_w18_small", "cannot be split in two; networks whose modules run in a row can"),
        ("test_coatnet", "cannot be built for 1 channels and slices of any size"),
    ],
)
def test_a_network_that_will_not_do_is_an_error(network: str, says: str) -> None:
    with pytest.raises(FusionBenchError, match=says):
        Timm(1, network=network)


def test_a_member_of_the_family_is_the_network_of_that_name() -> None:
    component = load_registry().get("backbone", "timm:test_resnet")
    assert component.chosen({})["network"] == SMALL
    assert "timm:test_resnet" in {member.name for member in load_registry().members("timm:test*")}


def test_timm_is_imported_only_when_a_network_is_built() -> None:
    code = (
        "import sys\n"
        "from fusionbench import load_registry\n"
        "assert {'timm', 'slice-se'} <= {c.name for c in load_registry().components}, load_registry().broken\n"
        "assert 'timm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# In a strategy


def test_guidance_trains_on_slices() -> None:
    parts = Parts(
        ("t1ce", "t2"),
        ("a", "b"),
        {"t1ce": 1, "t2": 1},
        lambda names, channels: Timm(channels, network=SMALL),
        NoAttention,
    )
    model = Guidance(parts)
    alone = Parts(("t1ce",), parts.classes, {"t1ce": 1}, parts.make_backbone, NoAttention)
    parent = Unimodal(alone).state_dict()
    model.begin(Context({"primary": parent}, lambda: iter(())))
    batch = Batch(
        ("one", "two"), {name: torch.randn(2, 1, 3, 32, 32) for name in parts.modalities},
        torch.tensor([0, 1]), torch.ones(2),
    )  # fmt: skip
    for stage in model.stages():
        loss = stage.loss(model, batch, 0.0)
        loss.backward()
        assert loss.isfinite()
    assert model.eval()(batch.inputs).shape == (2, 2)
