"""Grad-CAM is the derivative of the prediction, whatever a strategy keeps from its training; attention as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from fusionbench import AttentionModule, Backbone, FeatureSpec, FusionStrategy, Parts
from fusionbench.components import Head, presence
from fusionbench.explaining.gradcam import enlarged, grad_cam, log_odds
from fusionbench.explaining.sights import look
from fusionbench.explaining.watching import watched
from fusionbench.testing.module_checks import check_maps
from fusionbench.testing.toys import randomise
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.attention.slicewise import SliceCbam, SliceNonLocal
from fusionbench_plugins.fusion.feature import Feature
from fusionbench_plugins.fusion.guidance import Guidance
from fusionbench_plugins.fusion.pixel import Pixel
from fusionbench_plugins.fusion.unimodal import Unimodal

SIZE = (3, 8, 6)
CLASSES = ("HGG", "LGG", "other")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Strided(Backbone):
    """Two convolutions."""

    name = "strided"
    low_spec, high_spec = FeatureSpec(4, (1, 2, 2)), FeatureSpec(5, (1, 4, 4))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, 4, 3, (1, 2, 2), 1)
        self.second = nn.Conv3d(4, 5, 3, (1, 2, 2), 1)

    def low(self, x: Tensor) -> Tensor:
        return self.first(x).tanh()

    def high(self, low: Tensor) -> Tensor:
        return self.second(low).tanh()


def parts(*names: str, attention: type[AttentionModule] = NoAttention, dropout: float = 0.5) -> Parts:
    shapes = dict.fromkeys(names, 1)
    return Parts(names, CLASSES, shapes, lambda names, channels: Strided(channels), attention, dropout)


def shaken(strategy: FusionStrategy, seed: int = 0) -> FusionStrategy:
    randomise(strategy, seed)
    return strategy.eval()


def twin(strategy: FusionStrategy, other: FusionStrategy) -> FusionStrategy:
    """The strategy with the weights of another."""
    strategy.load_state_dict(other.state_dict())
    return strategy.eval()


def images(*names: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(1, 1, *SIZE, generator=generator) for name in names}


def test_of_a_linear_head_it_is_the_weighted_sum_of_channels() -> None:
    model = shaken(Unimodal(parts("t1")))
    inputs = images("t1")
    with torch.no_grad():
        features = model.backbone(inputs["t1"])[0]  # (5, 3, 2, 2)
        logits = model(inputs)[0]
    assert isinstance(model.head, Head)
    others = torch.stack([model.head.linear.weight[0], model.head.linear.weight[2]])
    among = logits[[0, 2]].softmax(0)[:, None]  # d log sum exp: how much each other class counts
    weights = (model.head.linear.weight[1] - (among * others).sum(0)) / features[0].numel()
    expected = torch.einsum("c,cdhw->dhw", weights.detach(), features).clamp_min(0)
    found, (sight,) = look(model, inputs, 1)
    assert torch.equal(found, logits)
    assert sight.cam is not None
    assert expected.any()
    torch.testing.assert_close(torch.from_numpy(sight.cam), expected)
    torch.testing.assert_close(torch.from_numpy(sight.high.mean), features.mean(0))


def test_the_score_is_the_log_odds_of_the_probability() -> None:
    logits = torch.tensor([0.3, -1.2, 2.0])
    p = logits.softmax(0)
    torch.testing.assert_close(log_odds(logits, 2), (p[2] / (1 - p[2])).log())


def test_logits_that_predict_the_same_are_explained_the_same() -> None:
    class LogProbabilities(Unimodal):
        def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
            return super().forward(inputs).log_softmax(1)

    plain = shaken(Unimodal(parts("t1")))
    logs = twin(LogProbabilities(parts("t1")), plain)
    (one,), (other,) = (look(model, images("t1"), 0)[1] for model in (plain, logs))
    torch.testing.assert_close(torch.from_numpy(one.cam), torch.from_numpy(other.cam))


def test_dropout_of_a_model_that_was_training_changes_nothing() -> None:
    sure = shaken(Unimodal(parts("t1", dropout=0.0)))
    dropping = twin(Unimodal(parts("t1", dropout=0.9)), sure)
    (one,), (other,) = (look(model.train(), images("t1"), 1)[1] for model in (sure, dropping))
    assert (one.cam == other.cam).all()


def test_what_training_keeps_from_the_primary_is_differentiated_all_the_same() -> None:
    """A finite difference along a direction in the primary's features, through t_0 and every R_i."""
    names = ("t1ce", "t2", "flair")
    model = shaken(Guidance(parts(*names, attention=DualAttention))).double()
    inputs = {name: x.double() for name, x in images(*names).items()}
    with watched(model) as passes:
        score = log_odds(model(inputs)[0], 1)
        gradients = torch.autograd.grad(score, [one.high for one in passes if one.high is not None])
    assert len(gradients) == 3
    for one, gradient in zip(passes, gradients, strict=True):
        assert one.high is not None
        direction = torch.randn(one.high.shape, generator=torch.Generator().manual_seed(1)).double()
        ahead, behind = (_moved(model, one.backbone, inputs, step * direction) for step in (1e-5, -1e-5))
        torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-10)


def _moved(model: FusionStrategy, backbone: Backbone, inputs: Mapping[str, Tensor], by: Tensor) -> Tensor:
    """The score if the high-level features of a backbone were others."""
    high = backbone.high
    vars(backbone)["high"] = lambda low: high(low) + by
    try:
        with torch.no_grad():
            return log_odds(model(inputs)[0], 1)
    finally:
        del vars(backbone)["high"]


def test_how_guidance_was_trained_does_not_change_its_map() -> None:
    names = ("t1ce", "t2")
    detached = shaken(Guidance(parts(*names)))
    joint = twin(Guidance(parts(*names), train="joint"), detached)
    (logits, sights), (others, other_sights) = (look(model, images(*names), 0) for model in (detached, joint))
    assert torch.equal(logits, others)
    assert [sight.modalities for sight in sights] == [("t1ce",), ("t2",)]
    assert any(one.cam.any() for one in sights)
    for one, other in zip(sights, other_sights, strict=True):
        assert (one.cam == other.cam).all()


@pytest.mark.parametrize("train", ["secondary", "joint"])
def test_features_that_are_computed_twice_are_explained_once(train: str) -> None:
    names = ("t1ce", "t2", "flair")
    kept = shaken(Guidance(parts(*names, attention=DualAttention), train=train))
    again = twin(Guidance(parts(*names, attention=DualAttention), train=train, backward="branchwise"), kept)
    sights, others = (look(model, images(*names), 1)[1] for model in (kept, again))
    assert [sight.modalities for sight in others] == [(name,) for name in names]
    assert any(sight.cam.any() for sight in sights)
    for one, other in zip(sights, others, strict=True):
        assert one.cam == pytest.approx(other.cam, abs=1e-6)
        assert one.attention.keys() == other.attention.keys() == {"spatial", "slices"}


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model = shaken(Guidance(parts("t1ce", "t2")))
    model.primary.requires_grad_(False)
    before = copy.deepcopy(model)
    inputs = images("t1ce", "t2")
    if fails:
        with pytest.raises(RuntimeError):
            look(model, {name: x[..., :0] for name, x in inputs.items()}, 0)
    else:
        look(model, inputs, 0)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any({"low", "high"} & set(vars(one)) for one in model.modules() if isinstance(one, Backbone))
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()


def test_one_backbone_for_all_modalities_gives_one_map() -> None:
    _, (sight,) = look(shaken(Pixel(parts("t1ce", "t2"))), images("t1ce", "t2"), 0)
    assert sight.modalities == ("t1ce", "t2")


def test_one_extractor_for_several_modalities_gives_one_map_each() -> None:
    names = ("t1ce", "t2", "flair")
    model = shaken(Feature(parts(*names), shared=True))
    inputs = images(*names)
    logits, sights = look(model, inputs, 0)
    assert [sight.modalities for sight in sights] == [(name,) for name in names]
    for name, sight in zip(names, sights, strict=True):
        alone = model.extractors[0].backbone(inputs[name])[0].mean(0)
        torch.testing.assert_close(torch.from_numpy(sight.high.mean), alone.detach())
    assert torch.equal(logits, model(inputs)[0])


def test_a_modality_that_is_missing_is_not_seen() -> None:
    names = ("t1ce", "t2")
    inputs = images(*names) | {presence("t1ce"): torch.tensor([True]), presence("t2"): torch.tensor([False])}
    _, sights = look(shaken(Guidance(parts(*names))), inputs, 0)
    assert [sight.modalities for sight in sights] == [("t1ce",)]


def test_features_may_be_changed_in_place_behind_the_backbone() -> None:
    class InPlace(Unimodal):
        def _features(self, x: Tensor) -> Tensor:
            return self.backbone(x).relu_()

    model = shaken(InPlace(parts("t1")))
    _, (sight,) = look(model, images("t1"), 0)
    assert sight.high.mean.min() < 0
    assert sight.cam is not None


def test_where_no_gradient_arrives_there_is_no_map() -> None:
    class Deaf(Unimodal):
        def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
            return super().forward(inputs).detach()

    _, (sight,) = look(shaken(Deaf(parts("t1"))), images("t1"), 0)
    assert sight.cam is None


def test_attention_is_read_where_the_features_enter_it() -> None:
    model = shaken(Unimodal(parts("t1", attention=DualAttention)))
    _, (sight,) = look(model, images("t1"), 0)
    with torch.no_grad():
        features = model.backbone(images("t1")["t1"])
        rows = model.attention.spatial_map(features)[0].sum(1).reshape(features.shape[2:])
        out = model.attention(features)
    torch.testing.assert_close(torch.from_numpy(sight.attention["spatial"]), rows)
    cosine = torch.nn.functional.cosine_similarity(features.flatten(), out.flatten(), 0).item()
    assert sight.changed == pytest.approx((1 - cosine**2) ** 0.5, abs=1e-3)
    assert sight.changed > 0.01


def test_attention_that_only_scales_changes_nothing() -> None:
    _, (sight,) = look(Unimodal(parts("t1", attention=DualAttention)), images("t1"), 0)  # untrained: 2x
    assert sight.changed == pytest.approx(0, abs=1e-6)


def test_the_weight_of_a_channel_is_its_mean_gradient() -> None:
    features = torch.tensor([[[[1.0, 2.0]]], [[[0.0, -4.0]]]])  # two channels of two positions
    gradient = torch.tensor([[[[5.0, 1.0]]], [[[2.0, 0.0]]]])  # on average 3 and 1
    assert grad_cam(features, gradient).flatten().tolist() == [3, 2]


def test_a_map_is_enlarged_between_the_middles_of_its_positions() -> None:
    larger = enlarged(torch.tensor([[[0.0, 1.0]]]), (1, 1, 4))
    assert larger.flatten().tolist() == [0, 0.25, 0.75, 1]
    assert not grad_cam(torch.ones(2, 1, 1, 1), -torch.ones(2, 1, 1, 1)).any()


# What attention modules tell of themselves


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_dual_tells_the_share_that_each_position_gets(scope: str) -> None:
    torch.manual_seed(0)
    module, x = DualAttention(8, scope=scope), torch.randn(2, 8, 3, 4, 5)
    with torch.no_grad():
        found, weights = module.maps(x), module.spatial_map(x)
    shares = torch.stack([row.sum(0) for row in weights.flatten(0, 1)])  # what each gets from all
    torch.testing.assert_close(found["spatial"].flatten(), shares.flatten(), rtol=1e-4, atol=1e-5)
    assert found["spatial"].mean().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found["slices"][:, 0, :, 0, 0], module.slice_map(x).sum(1))


@pytest.mark.parametrize(("scope", "size"), [("slice", (2, 8, 3, 1, 1)), ("volume", (2, 8, 1, 1, 1))])
def test_dual_tells_the_share_of_channels(scope: str, size: tuple[int, ...]) -> None:
    module, x = DualAttention(8, scope=scope, second="channels"), torch.randn(2, 8, 3, 4, 5)
    found = module.maps(x)["channels"]
    assert found.shape == size
    torch.testing.assert_close(found[0, :, 0, 0, 0], module.channel_map(x)[0, 0].sum(0))


def test_the_gates_of_cbam_are_those_that_it_multiplies_by() -> None:
    torch.manual_seed(0)
    module, x = SliceCbam(8).eval(), torch.rand(2, 8, 3, 4, 5) + 0.1
    with torch.no_grad():
        gates = module.maps(x)["spatial"]
        gated = torch.stack([module.module.channel(x[:, :, d]) for d in range(3)], 2)
        torch.testing.assert_close(gated * gates, module(x))


def test_the_shares_of_the_non_local_block() -> None:
    torch.manual_seed(0)
    module, x = SliceNonLocal(8).eval(), torch.randn(2, 8, 3, 4, 5)
    with torch.no_grad():
        t, p = (module.module.get_submodule(name)(x[1:, :, 2]).flatten(2)[0] for name in "tp")
        expected = torch.einsum("ci,cj->ij", t, p).div(8**0.5).softmax(1).sum(0)
        torch.testing.assert_close(module.maps(x)["spatial"][1, 0, 2].flatten(), expected)


@pytest.mark.parametrize("shape", [(3, 1, 3, 5), (3, 8, 2, 1, 1)])
def test_maps_of_another_shape_break_the_contract(shape: tuple[int, ...]) -> None:
    class Wrong(NoAttention):
        def maps(self, x: Tensor) -> Mapping[str, Tensor]:
            return {"spatial": torch.zeros(shape)}

    with pytest.raises(AssertionError, match="map spatial is"):
        check_maps(Wrong)
