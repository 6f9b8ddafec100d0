"""Feature fusion is one linear classifier on the features of all modalities, at whichever level they are joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor

from fusionbench import Backbone, Batch, FusionBenchError, Parts, Store, open_study, plan, pool, run
from fusionbench.testing.plugin import contract_test
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.backbones.resnet import R3d18, Rmc
from fusionbench_plugins.fusion.feature import Feature
from fusionbench_plugins.fusion.unimodal import Unimodal

IMAGES = ("flair", "t1", "t1ce", "t2")
TABLES = {"rna": 5, "clinical": 3}

test_contract_of_a_shared_extractor = contract_test("feature", shared=True)
test_contract_of_maps = contract_test("feature", level="map")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(*modalities: str, others: type[Backbone] = Rmc, dropout: float = 0.5) -> Parts:
    """Images with narrow networks, of another kind from the second on if asked; tables with perceptrons."""

    def backbone(names: tuple[str, ...], channels: int) -> Backbone:
        if names[0] in TABLES:
            return Mlp(channels, width=16)
        return (Rmc if names[0] == modalities[0] else others)(channels, width=4)  # type: ignore[call-arg]

    shapes = {name: TABLES.get(name, 1) for name in modalities}
    return Parts(modalities, ("HGG", "LGG"), shapes, backbone, DualAttention, dropout)


def shaken(*modalities: str, others: type[Backbone] = Rmc, dropout: float = 0.5, **options: Any) -> Feature:
    model = Feature(parts(*modalities, others=others, dropout=dropout), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter += torch.randn_like(parameter) * fan_in**-0.5
    return model.eval()


def draw(*modalities: str, subjects: int = 3) -> dict[str, Tensor]:
    sizes = {name: (TABLES[name], 1, 1, 1) if name in TABLES else (1, 3, 18, 20) for name in modalities}
    return {name: torch.randn(subjects, *size) for name, size in sizes.items()}


def double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() for name, x in inputs.items()}


def features(model: Feature, inputs: dict[str, Tensor]) -> list[Tensor]:
    """f_m of each modality, from its own extractor or the one there is."""
    extractors = list(model.extractors) * (len(inputs) if model.shared else 1)
    pairs = zip(model.modalities, extractors, strict=True)
    return [extractor.attention(extractor.backbone(inputs[name])) for name, extractor in pairs]


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_a_linear_classifier_on_the_concatenated_pooled_features(shared: bool) -> None:
    model, inputs = shaken(*IMAGES, shared=shared).double(), double(draw(*IMAGES))
    joined = torch.cat([f.mean((2, 3, 4)) for f in features(model, inputs)], 1)
    assert joined.shape == (3, 4 * 32)
    by_hand = joined @ model.head.linear.weight.T + model.head.linear.bias
    torch.testing.assert_close(model(inputs), by_hand, rtol=1e-10, atol=1e-10)


def test_images_and_tables_of_other_widths_are_fused_too() -> None:
    model, inputs = shaken("t1ce", "rna", "clinical"), draw("t1ce", "rna", "clinical")
    assert model.head.linear.in_features == 32 + 16 + 16
    assert model(inputs).shape == (3, 2)


@pytest.mark.parametrize("shared", [False, True])
def test_with_matching_weights_fusing_maps_is_fusing_pooled_features(shared: bool) -> None:
    maps, inputs = shaken(*IMAGES, level="map", shared=shared).double(), double(draw(*IMAGES))
    pooled = shaken(*IMAGES, shared=shared).double()
    pooled.extractors.load_state_dict(maps.extractors.state_dict())
    outer, mix = maps.head.linear, maps.mix
    with torch.no_grad():  # W (C f + c) + w = (W C) f + (W c + w), and pooling commutes with both
        pooled.head.linear.weight.copy_(outer.weight @ mix.weight.flatten(1))
        pooled.head.linear.bias.copy_(outer.weight @ mix.bias + outer.bias)
    torch.testing.assert_close(maps(inputs), pooled(inputs), rtol=1e-10, atol=1e-10)


def test_of_one_modality_it_is_the_unimodal_model() -> None:
    model, unimodal, inputs = shaken("t1"), Unimodal(parts("t1")).eval(), draw("t1")
    (extractor,) = model.extractors
    for mine, theirs in ((unimodal.backbone, extractor.backbone), (unimodal.attention, extractor.attention)):
        mine.load_state_dict(theirs.state_dict())
    unimodal.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(model(inputs), unimodal(inputs))


def test_a_modality_whose_weights_are_zero_does_not_count_and_all_others_do() -> None:
    model, inputs = shaken(*IMAGES), draw(*IMAGES)
    with torch.no_grad():
        model.head.linear.weight[:, 32:64] = 0  # the second, t1
    plain, other = model(inputs), draw(*IMAGES)
    for name in IMAGES:
        assert torch.equal(model({**inputs, name: other[name]}), plain) == (name == "t1")


def test_gradients_are_those_of_plain_torch() -> None:
    model, inputs = shaken(*IMAGES, dropout=0).double(), double(draw(*IMAGES, subjects=4))
    labels, weights = torch.tensor([0, 1, 1, 0]), torch.tensor([0.3, 0.7])
    batch = Batch(("a", "b", "c", "d"), inputs, labels, weights[labels].double())
    (stage,) = model.stages()
    stage.loss(model, batch, 0.0).backward()
    joined = torch.cat([pool(f) for f in features(model, inputs)], 1).detach()
    error = (joined @ model.head.linear.weight.T + model.head.linear.bias).softmax(1)
    error[range(4), labels] -= 1  # the gradient of the loss in the logits is w_y (softmax - one-hot) / N
    expected = (batch.weights[:, None] * error / 4).T @ joined
    torch.testing.assert_close(model.head.linear.weight.grad, expected, rtol=1e-6, atol=1e-10)
    assert all(p.grad is not None for p in model.extractors.parameters())


# One extractor for all


def test_a_shared_extractor_is_there_once_and_gives_what_equal_ones_give() -> None:
    shared, own, inputs = shaken(*IMAGES, shared=True), shaken(*IMAGES), draw(*IMAGES)
    assert len(shared.extractors) == 1
    for extractor in own.extractors:
        extractor.load_state_dict(shared.extractors[0].state_dict())
    own.head.load_state_dict(shared.head.state_dict())
    torch.testing.assert_close(shared(inputs), own(inputs))


def test_the_running_statistics_of_a_shared_extractor_are_those_of_all_modalities_together() -> None:
    model, inputs = Feature(parts("t1", "t2"), shared=True), draw("t1", "t2")
    inputs["t2"] = 5 * inputs["t2"] + 3
    model.train()(inputs)
    stem = model.extractors[0].backbone.stem
    seen = stem[0](torch.cat([inputs["t1"], inputs["t2"]]))
    torch.testing.assert_close(stem[1].running_mean, 0.1 * seen.mean((0, 2, 3, 4)))


@pytest.mark.parametrize(
    ("modalities", "others", "options", "says"),
    [
        (("t1", "rna"), Rmc, {"shared": True}, "those of t1 and rna differ"),
        (("t1", "t2"), R3d18, {"shared": True}, "those of t1 and t2 differ"),
        (("rna", "clinical"), Rmc, {"shared": True}, "mlp standardises the columns of one table"),
        (("t1", "rna"), Rmc, {"level": "map"}, "maps of one size, and t1 has rmc, rna has mlp"),
        (("t1", "t2"), R3d18, {"level": "map"}, "maps of one size, and t1 has rmc, t2 has r3d-18"),
    ],
)
def test_modalities_that_an_option_cannot_take_are_refused_in_one_line(
    modalities: tuple[str, ...], others: type[Backbone], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(FusionBenchError, match=says) as refused:
        Feature(parts(*modalities, others=others), **options)
    assert "\n" not in str(refused.value)


def test_images_of_other_channels_cannot_share_an_extractor() -> None:
    colour = replace(parts("t1", "t2"), shapes={"t1": 1, "t2": 3})
    with pytest.raises(FusionBenchError, match="those of t1 and t2 differ"):
        Feature(colour, shared=True)
    assert len(Feature(colour).extractors) == 2


def test_a_refusal_comes_before_anything_is_trained(store: Store) -> None:
    study = open_study(comparison(fusion=["feature"], options={"feature": {"shared": True}}), cohort=table_cohort())
    with pytest.raises(FusionBenchError, match="feature: shared=true is for images"):
        run(study, store)
    assert not list((store.root / "fits").iterdir())


# In a study


def test_in_a_study_of_tables_it_learns(store: Store) -> None:
    asked = comparison(fusion=["feature"], baselines=[], recipe={"epochs": 30, "learning_rate": 0.01})
    study = open_study(asked, cohort=table_cohort(72, informative=2.0))
    outcome = run(study, store)
    for job in plan(study).jobs:
        predictions = outcome.known[job.key]
        right = (predictions.probabilities.argmax(1) == predictions.targets).mean()
        assert right > 0.8
