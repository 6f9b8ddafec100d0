"""Pixel fusion is one network that sees all modalities as channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor
from torchvision.models import video

from fusionbench import (
    Backbone,
    Cohort,
    FusionBenchError,
    Modality,
    Parts,
    Run,
    Store,
    load_comparison,
    open_study,
    plan,
    pool,
    read_cohort,
    run,
)
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.pixel import Pixel
from fusionbench_plugins.fusion.unimodal import Unimodal

IMAGES = ("flair", "t1", "t1ce", "t2")
TINY = {
    "attention": "none",
    "protocol": {"folds": 2, "inner_folds": 2, "ranking": {"ranker": "fixed"}},
    "preprocessing": {"resize": [4, 8, 8]},
    "recipe": {"epochs": 1, "precision": "32", "device": "cpu"},
    "options": {"phantom": {"subjects": 16, "spacing": 8.0}, "rmc": {"width": 2}},
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def narrow(channels: int) -> Backbone:
    return Rmc(channels, width=8)


def parts(*modalities: str, make: Callable[[int], Backbone] = narrow, dropout: float = 0.5) -> Parts:
    shapes = dict.fromkeys(modalities, 1)
    return Parts(modalities, ("HGG", "LGG"), shapes, lambda _, channels: make(channels), DualAttention, dropout)


def draw(*modalities: str) -> dict[str, Tensor]:
    return {name: torch.randn(2, 1, 3, 18, 20) for name in modalities}


def test_it_is_backbone_attention_and_head_on_the_stacked_channels() -> None:
    model, inputs = Pixel(parts(*IMAGES)).eval(), draw(*IMAGES)
    stacked = torch.cat([inputs["flair"], inputs["t1"], inputs["t1ce"], inputs["t2"]], 1)
    assert stacked.shape == (2, 4, 3, 18, 20)
    features = pool(model.attention(model.backbone(stacked)))
    by_hand = features @ model.head.linear.weight.T + model.head.linear.bias
    torch.testing.assert_close(model(inputs), by_hand)
    assert model.backbone.modalities == IMAGES


def test_of_one_modality_it_is_the_unimodal_model() -> None:
    pixel, unimodal, inputs = Pixel(parts("t1")).eval(), Unimodal(parts("t1")).eval(), draw("t1")
    unimodal.load_state_dict({name: x for name, x in pixel.state_dict().items() if name != "typical"})
    assert torch.equal(pixel(inputs), unimodal(inputs))


@pytest.mark.parametrize("order", [("t2", "t1ce", "t1", "flair"), ("t1", "flair", "t1ce", "t2")], ids=" ".join)
def test_permuted_channels_with_permuted_stem_kernels_give_the_same(order: tuple[str, ...]) -> None:
    first, other, inputs = Pixel(parts(*IMAGES)).eval(), Pixel(parts(*order)).eval(), draw(*IMAGES)
    torch.nn.init.normal_(first.head.linear.weight)
    state = dict(first.state_dict())
    state["backbone.stem.0.weight"] = state["backbone.stem.0.weight"][:, [IMAGES.index(name) for name in order]]
    other.load_state_dict(state)
    torch.testing.assert_close(other(inputs), first(inputs))
    other.load_state_dict(first.state_dict())
    assert not torch.allclose(other(inputs), first(inputs))


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three channels as torchvision would save it, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "mc3_18.pth"
    torch.save(video.mc3_18().state_dict(), path)
    return path


def test_with_a_summed_stem_copies_of_a_grey_image_give_what_three_colours_gave(kinetics: Path) -> None:
    names, grey = ("red", "green", "blue", "t1", "t2"), torch.randn(1, 1, 2, 18, 20)

    def model(count: int) -> Pixel:
        of = parts(*names[:count], make=lambda channels: Rmc(channels, weights=kinetics, stem="sum"))
        return Pixel(replace(of, make_attention=NoAttention)).eval()

    three = model(3)
    torch.nn.init.normal_(three.head.linear.weight)
    for count in (1, 2, 4, 5):
        other = model(count)
        other.head.load_state_dict(three.head.state_dict())
        found = other(dict.fromkeys(names[:count], grey))
        torch.testing.assert_close(found, three(dict.fromkeys(names[:3], grey)), rtol=1e-4, atol=1e-4)


def test_a_gradient_reaches_every_modality() -> None:
    model, inputs = Pixel(parts(*IMAGES)).eval(), draw(*IMAGES)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    model(leaves)[:, 0].sum().backward()
    assert all(x.grad is not None and bool(x.grad.any()) for x in leaves.values())


# On tables: early fusion


def test_on_tables_it_is_one_perceptron_on_all_columns(store: Store) -> None:
    study = open_study(comparison(fusion=["pixel"], baselines=[]), cohort=table_cohort())
    outcome = run(study, store)
    fits = {job.key: job.fit for job in plan(study).jobs}
    assert {tuple(m.name for m in fit.modalities) for fit in fits.values()} == {("a", "b", "c")}
    for key, fit in fits.items():
        weights = store.weights(key)
        rows = [
            [value for name in "abc" for value in study.cohort.subject(id).features[name]] for id in fit.split.training
        ]
        table = torch.tensor(rows, dtype=torch.float64)
        torch.testing.assert_close(weights["backbone.mean"].double(), table.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights["backbone.std"].double(), table.std(0, correction=0), rtol=1e-5, atol=1e-6)
        joined = Parts(("all",), fit.classes, {"all": 12}, lambda _, channels: Mlp(channels, width=8), NoAttention)
        single = Unimodal(joined).eval()
        single.load_state_dict({name: x for name, x in weights.items() if name != "typical"})
        tests = [study.cohort.subject(id).features for id in fit.split.test]
        x = torch.tensor([[value for name in "abc" for value in features[name]] for features in tests]).float()
        expected = single({"all": x[:, :, None, None, None]}).softmax(1).detach().double().numpy()
        assert outcome.known[key].probabilities == pytest.approx(expected, abs=1e-6)


def test_the_order_typed_does_not_matter_and_that_of_the_channels_is_recorded(store: Store) -> None:
    typed = [("c", "a", "b"), ("a", "b", "c")]
    studies = [
        open_study(comparison(fusion=["pixel"], baselines=[], modalities=m), cohort=table_cohort()) for m in typed
    ]
    keys = [[job.key for job in plan(study).jobs] for study in studies]
    assert keys[0] == keys[1]
    run(studies[0], store)
    assert [m["name"] for m in store.record(keys[0][0])["fit"]["modalities"]] == ["a", "b", "c"]


# In a study of images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    place = tmp_path_factory.mktemp("phantom") / "images"
    return read_cohort("phantom", place, subjects=16, spacing=8.0)


def test_it_runs_on_images(images: Cohort, store: Store) -> None:
    study = open_study(load_comparison("demo", TINY, {"fusion": ["pixel"], "baselines": ["unimodal"]}), cohort=images)
    result = Run.of(run(study, store))
    found = [r for r in result.results if r.method == "pixel"]
    assert len(found) == 2
    assert all(r.predictions is not None for r in found)
    (first, *_) = [job for job in plan(study).jobs if job.fit.fusion.name == "pixel"]
    assert store.weights(first.key)["backbone.stem.0.weight"].shape == (2, 4, 3, 7, 7)


def test_images_and_tables_together_are_refused_in_one_line(images: Cohort) -> None:
    mixed = with_table(images)
    with pytest.raises(FusionBenchError, match="pixel stacks all modalities into one backbone") as refused:
        open_study(load_comparison("demo", TINY, {"fusion": ["pixel"], "modalities": ["t1", "blood"]}), cohort=mixed)
    assert "t1 is an image with rmc, blood is a table with mlp" in str(refused.value)
    assert "\n" not in str(refused.value)


def with_table(images: Cohort) -> Cohort:
    subjects = tuple(replace(s, features={"blood": (float(n % 5), 1.0)}) for n, s in enumerate(images.subjects))
    return replace(images, modalities=(*images.modalities, Modality("blood", "table", 2)), subjects=subjects)
