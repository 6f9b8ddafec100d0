"""Cross-modality guidance is the paper's equations, starts where stage 1 ended, and moves only what it may."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusionbench import (
    Backbone,
    Batch,
    Context,
    FusionBenchError,
    Parts,
    Store,
    copy_equal_shapes,
    open_study,
    plan,
    pool,
    run,
)
from fusionbench.components import presence
from fusionbench.fits import Fit
from fusionbench.numerics import seeded
from fusionbench.training import _optimizer, is_trained, set_modes
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.mlp import Mlp
from fusionbench_plugins.backbones.resnet import R3d18, Rmc
from fusionbench_plugins.fusion.guidance import Guidance, Guided, Reduce, guidance_loss
from fusionbench_plugins.fusion.unimodal import Unimodal

IMAGES = ("t1ce", "t2", "flair", "t1")
TABLES = {"rna": 5, "clinical": 3, "mirna": 7}
SIZE = (3, 18, 20)  # odd, and two positions a side are left for attention at the end: (3, 2, 2)
NEVER = "attention.key.bias"
"""Adds the same to every energy of a row, which the softmax cancels: no gradient can reach it, in DANet neither."""


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fit() -> Fit:
    """A planned fit of guidance; its stage says how fast to learn."""
    settings = {"protocol": {"folds": 2, "ranking": {"ranker": "fixed"}}, "recipe": {"learning_rate": 0.01}}
    study = open_study(comparison(**settings), cohort=table_cohort())
    return next(job.fit for job in plan(study).jobs if job.fit.fusion.name == "guidance")


def parts(*modalities: str, dropout: float = 0.5, image: type[Backbone] = Rmc) -> Parts:
    def backbone(names: tuple[str, ...], channels: int) -> Backbone:
        return Mlp(channels, width=16) if names[0] in TABLES else image(channels, width=8)  # type: ignore[call-arg]

    shapes = {name: TABLES.get(name, 1) for name in modalities}
    return Parts(modalities, ("HGG", "LGG"), shapes, backbone, DualAttention, dropout)


def shake(module: nn.Module) -> None:
    """Moves every parameter and running statistic off its start."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter += torch.randn_like(parameter) * fan_in**-0.5
        for part in module.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean += torch.randn_like(part.running_mean) / 4  # type: ignore[operator]
                part.running_var *= 1 + torch.rand_like(part.running_var)  # type: ignore[arg-type]
                part.num_batches_tracked += 7  # type: ignore[operator]


def stage_one(primary: str, **settings: Any) -> Unimodal:
    model = Unimodal(parts(primary, **settings))
    shake(model)
    return model.eval()


def begun(
    *modalities: str, train: Any = "secondary", dropout: float = 0.5, image: Any = Rmc, **options: Any
) -> Guidance:
    """Guidance at the start of stage 2, from a stage 1 that has left its own start far behind."""
    model = Guidance(parts(*modalities, dropout=dropout, image=image), train=train, **options)
    parent = stage_one(modalities[0], dropout=dropout, image=image)
    model.begin(Context({"primary": parent.state_dict()}, lambda: iter(())))
    return model.eval()


def shaken(*modalities: str, **options: Any) -> Guidance:
    """Guidance somewhere in stage 2: nothing is where it started."""
    model = begun(*modalities, **options)
    shake(model)
    return model


def draw(*modalities: str, subjects: int = 2) -> dict[str, Tensor]:
    sizes = {name: (TABLES[name], 1, 1, 1) if name in TABLES else (1, *SIZE) for name in modalities}
    return {name: torch.randn(subjects, *size) for name, size in sizes.items()}


def draw_batch(*modalities: str, subjects: int = 4) -> Batch:
    labels = torch.arange(subjects) % 2
    ids = tuple(f"s{n}" for n in range(subjects))
    return Batch(ids, draw(*modalities, subjects=subjects), labels, torch.tensor([0.2632, 0.7368])[labels])


def double(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() for name, x in inputs.items()}


def secondary(model: Guidance, index: int) -> Guided:
    guided = model.secondaries[index]
    assert isinstance(guided, Guided)
    return guided


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: Mapping[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}


def train_some_steps(model: Guidance, fit: Fit, batch: Batch, steps: int = 3) -> None:
    """Stage 2 as the training loop does it."""
    (stage,) = model.stages()
    optimizer = _optimizer(model, stage, fit)
    set_modes(model, stage.trains)
    for step in range(steps):
        with seeded(step):
            loss = stage.loss(model, batch, 0.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def gradients(model: Guidance, loss: Callable[[], Tensor]) -> dict[str, Tensor | None]:
    """Parameter -> gradient of a loss in training, with what the stage does not train frozen."""
    (stage,) = model.stages()
    set_modes(model, stage.trains)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    loss().backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def high_features(model: Guidance, index: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """f_i of the secondary of that index."""
    guided, name = secondary(model, index), model.secondary_modalities[index]
    guidance = model.primary.features(inputs[model.primary_modality])
    return guided.attention(guided.backbone.high(guided.reduce(guided.backbone.low(inputs[name]), guidance)))


def literal_chain(model: Guidance, inputs: Mapping[str, Tensor], mode: str) -> list[Tensor]:
    """[p_0, ..., p_M] as the paper writes it: concatenate, then 1x1x1 convolutions, on whole feature maps."""
    primary = model.primary.attention(model.primary.backbone(inputs[model.primary_modality]))  # f_p
    fused, head = primary, model.primary.head.linear  # t_0
    logits = [F.linear(fused.mean((2, 3, 4)), head.weight, head.bias)]
    for index, name in enumerate(model.secondary_modalities):
        guided = secondary(model, index)
        low = guided.backbone.low(inputs[name])
        upsampled = F.interpolate(primary, size=low.shape[2:], mode=mode)
        reduced = F.conv3d(torch.cat([low, upsampled], 1), guided.reduce.conv.weight, guided.reduce.conv.bias)  # z_i
        high = guided.attention(guided.backbone.high(reduced))  # f_i
        fused = F.conv3d(torch.cat([fused, high], 1), guided.fuse.weight[:, :, None, None, None], guided.fuse.bias)
        logits.append(F.linear(fused.mean((2, 3, 4)), head.weight, head.bias))
    return logits


# The equations


@pytest.mark.parametrize("guidance_size", [(3, 2, 3), (2, 2, 2), (1, 1, 1), (3, 5, 7), (4, 9, 8)], ids=str)
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
def test_the_split_reduction_equals_concatenation_then_convolution(mode: Any, guidance_size: tuple[int, ...]) -> None:
    reduce = Reduce(6, 5, "default", mode).double()
    low = torch.randn(2, 6, 3, 5, 7, dtype=torch.float64)
    guidance = torch.randn(2, 5, *guidance_size, dtype=torch.float64)
    upsampled = F.interpolate(guidance, size=(3, 5, 7), mode=mode)
    expected = F.conv3d(torch.cat([low, upsampled], 1), reduce.conv.weight, reduce.conv.bias)
    torch.testing.assert_close(reduce(low, guidance), expected, rtol=1e-12, atol=1e-12)


def test_trilinear_guidance_is_upsampled_with_unaligned_corners() -> None:
    reduce = Reduce(1, 1, "identity", "trilinear").double()
    with torch.no_grad():
        reduce.conv.weight.copy_(torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1))
    guidance = torch.tensor([0.0, 4.0], dtype=torch.float64).reshape(1, 1, 1, 1, 2)
    row = reduce(torch.zeros(1, 1, 1, 1, 4, dtype=torch.float64), guidance).flatten()
    torch.testing.assert_close(row, torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
def test_the_chain_equals_the_papers_equations_on_whole_feature_maps(mode: Any) -> None:
    model, inputs = shaken(*IMAGES[:3], upsample=mode).double(), double(draw(*IMAGES[:3]))
    with torch.no_grad():
        for ours, literal in zip(model.chain(inputs), literal_chain(model, inputs, mode), strict=True):
            torch.testing.assert_close(ours, literal, rtol=1e-10, atol=1e-10)


def test_the_chain_equals_the_papers_equations_where_low_level_features_have_more_slices() -> None:
    model, inputs = shaken("t1ce", "t2", image=R3d18).double(), double(draw("t1ce", "t2"))
    with torch.no_grad():
        for ours, literal in zip(model.chain(inputs), literal_chain(model, inputs, "trilinear"), strict=True):
            torch.testing.assert_close(ours, literal, rtol=1e-10, atol=1e-10)


def test_fusing_pooled_vectors_equals_fusing_maps_and_pooling_them() -> None:
    model, inputs = shaken("t1ce", "t2").double(), double(draw("t1ce", "t2"))
    guided = secondary(model, 0)
    with torch.no_grad():
        primary, high = model.primary.features(inputs["t1ce"]), high_features(model, 0, inputs)
        maps = F.conv3d(torch.cat([primary, high], 1), guided.fuse.weight[:, :, None, None, None], guided.fuse.bias)
        pooled = guided(inputs["t2"], primary, pool(primary))
    torch.testing.assert_close(pooled, maps.mean((2, 3, 4)), rtol=1e-12, atol=1e-12)


def test_the_prediction_is_the_last_of_the_chain() -> None:
    model, inputs = shaken(*IMAGES), draw(*IMAGES)
    chain = model.chain(inputs)
    assert [tuple(logits.shape) for logits in chain] == [(2, 2)] * 4
    assert torch.equal(model(inputs), chain[-1])


def test_the_loss_is_that_of_the_primary_plus_that_of_each_secondary() -> None:
    model, batch = shaken(*IMAGES[:3]), draw_batch(*IMAGES[:3])
    p_0, p_1, p_2 = (logits.double().softmax(1) for logits in model.chain(batch.inputs))
    terms = [-(batch.weights * p[range(4), batch.labels].log()).sum() / 4 for p in (p_0, p_1, p_2)]
    torch.testing.assert_close(guidance_loss(model, batch, 0.5), (terms[0] + terms[1] + terms[2]).float())


# The start of stage 2


def test_with_fuse_init_primary_every_prediction_starts_as_that_of_stage_one() -> None:
    inputs = draw(*IMAGES)
    parent = stage_one("t1ce")
    model = Guidance(parts(*IMAGES)).eval()
    model.begin(Context({"primary": parent.state_dict()}, lambda: iter(())))
    for logits in model.chain(inputs):
        assert torch.equal(logits, parent(inputs))


@pytest.mark.parametrize("start", ["mean", "default"])
def test_with_another_fuse_init_the_first_prediction_is_not_that_of_stage_one(start: Any) -> None:
    p_0, *others = begun(*IMAGES[:3], fuse_init=start).chain(draw(*IMAGES[:3]))
    assert not any(torch.allclose(p_0, p_i) for p_i in others)


def test_fuse_init_mean_averages_old_and_new_features() -> None:
    model, inputs = begun("t1ce", "t2", fuse_init="mean"), draw("t1ce", "t2")
    primary = model.primary.features(inputs["t1ce"])
    average = (pool(primary) + pool(high_features(model, 0, inputs))) / 2
    torch.testing.assert_close(secondary(model, 0)(inputs["t2"], primary, pool(primary)), average)


def test_reduce_init_identity_passes_the_low_level_features_on() -> None:
    low, guidance = torch.randn(2, 6, 3, 5, 7), torch.randn(2, 5, 3, 2, 2)
    assert torch.equal(Reduce(6, 5, "identity", "trilinear")(low, guidance), low)
    assert not torch.allclose(Reduce(6, 5, "default", "trilinear")(low, guidance), low)


def test_secondaries_start_as_copies_of_the_primary_with_its_running_statistics() -> None:
    model = begun(*IMAGES)
    tensors = model.primary.backbone.state_dict()
    assert sum(name.endswith("running_mean") for name in tensors) == sum(
        isinstance(part, nn.BatchNorm3d) for part in model.primary.modules()
    )
    for index in range(3):
        assert moved(tensors, secondary(model, index).backbone) == set()
        assert moved(model.primary.attention.state_dict(), secondary(model, index).attention) == set()
    assert tensors["layer3.0.conv1.1.running_mean"].abs().sum() > 0
    assert int(tensors["layer3.0.conv1.1.num_batches_tracked"]) == 7


def test_no_two_tensors_of_the_model_share_storage_nor_any_with_the_parent() -> None:
    parent = stage_one("t1ce").state_dict()
    model = Guidance(parts(*IMAGES))
    model.begin(Context({"primary": parent}, lambda: iter(())))
    mine = [tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()]
    assert len(set(mine)) == len(mine)
    assert not set(mine) & {tensor.untyped_storage().data_ptr() for tensor in parent.values()}


def test_copies_diverge_when_one_of_them_moves() -> None:
    model = begun(*IMAGES[:3])
    before = state(model)
    shake(secondary(model, 0))
    assert {name.split(".")[0] + name.split(".")[1] for name in moved(before, model)} == {"secondaries0"}


def test_stage_one_is_the_unimodal_fit_of_the_first_modality() -> None:
    (parent,) = Guidance.parents(("t1ce", "t2", "flair"))
    assert (parent.role, parent.fusion, parent.modalities, parent.use) == ("primary", "unimodal", ("t1ce",), "weights")


# What stage 2 moves


def test_secondary_mode_leaves_every_tensor_of_the_primary_bit_identical(fit: Fit) -> None:
    model = begun(*IMAGES[:3])
    before = state(model)
    train_some_steps(model, fit, draw_batch(*IMAGES[:3]), steps=4)
    changed = moved(before, model)
    assert not [name for name in changed if name.startswith("primary")]
    assert changed == {name for name in before if name.startswith("secondaries")}


def test_secondary_plus_head_mode_moves_only_the_linear_layer_of_the_primary(fit: Fit) -> None:
    model = begun(*IMAGES[:3], train="secondary+head")
    before = state(model)
    train_some_steps(model, fit, draw_batch(*IMAGES[:3]))
    changed = {name for name in moved(before, model) if name.startswith("primary")}
    assert changed == {"primary.head.linear.weight", "primary.head.linear.bias"}


def test_joint_mode_moves_every_tensor_of_the_primary_too(fit: Fit) -> None:
    model = begun(*IMAGES[:3], train="joint")
    before = state(model)
    train_some_steps(model, fit, draw_batch(*IMAGES[:3]))
    assert moved(before, model) == set(before)


def test_a_prediction_of_the_primary_survives_stage_two(fit: Fit) -> None:
    model, inputs = begun(*IMAGES[:3]), draw(*IMAGES[:3])
    before = model.chain(inputs)
    train_some_steps(model, fit, draw_batch(*IMAGES[:3]))
    after = model.eval().chain(inputs)
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


@pytest.mark.parametrize(
    ("train", "active"),
    [("secondary", {"head.dropout"}), ("secondary+head", {"head", "head.dropout", "head.linear"})],
)
def test_of_the_primary_only_the_heads_dropout_is_active_in_stage_two(train: Any, active: set[str]) -> None:
    model = begun(*IMAGES[:2], train=train)
    (stage,) = model.stages()
    set_modes(model, stage.trains)
    assert {name for name, part in model.primary.named_modules() if part.training} == active
    assert all(part.training for part in model.secondaries.modules())


def test_everything_is_active_in_joint_mode() -> None:
    model = begun(*IMAGES[:2], train="joint")
    (stage,) = model.stages()
    set_modes(model, stage.trains)
    assert all(part.training for part in model.modules())


def test_dropout_of_the_shared_head_acts_in_training_and_not_in_prediction() -> None:
    model, inputs = begun("t1ce", "t2"), draw("t1ce", "t2")
    assert torch.equal(model.chain(inputs)[0], model.chain(inputs)[0])
    set_modes(model, model.stages()[0].trains)
    assert not torch.allclose(model.chain(inputs)[0], model.chain(inputs)[0])


def test_with_fuse_init_primary_the_first_step_moves_t_and_nothing_behind_it() -> None:
    model, batch = begun(*IMAGES[:3]), draw_batch(*IMAGES[:3])
    found = gradients(model, lambda: guidance_loss(model, batch, 0.0))
    reached = {name for name, gradient in found.items() if gradient is not None and gradient.any()}
    assert reached == {f"secondaries.{index}.fuse.{name}" for index in range(2) for name in ("weight", "bias")}


def test_after_the_first_step_gradients_reach_the_high_level_extractor(fit: Fit) -> None:
    model, batch = begun("t1ce", "t2"), draw_batch("t1ce", "t2")
    train_some_steps(model, fit, batch, steps=1)
    found = gradients(model, lambda: guidance_loss(model, batch, 0.0))
    for part in ("backbone.stem.0.weight", "reduce.conv.weight", "backbone.layer4.1.conv2.0.weight"):
        gradient = found[f"secondaries.0.{part}"]
        assert gradient is not None
        assert gradient.any()


@pytest.mark.parametrize("train", ["secondary", "secondary+head", "joint"])
def test_once_moved_everything_that_is_trained_gets_a_gradient_and_nothing_else(train: Any) -> None:
    model, batch = shaken(*IMAGES[:3], train=train), draw_batch(*IMAGES[:3])
    found = gradients(model, lambda: guidance_loss(model, batch, 0.0))
    (stage,) = model.stages()
    for name, gradient in found.items():
        if is_trained(name, stage.trains):
            assert gradient is not None, name
            assert gradient.any() or name.endswith(NEVER), name
        else:
            assert gradient is None, name


@pytest.mark.parametrize(("train", "flows"), [("secondary", False), ("secondary+head", False), ("joint", True)])
def test_gradients_flow_through_the_guidance_in_joint_mode_only(train: Any, flows: bool) -> None:
    model, inputs = shaken("t1ce", "t2", train=train), draw("t1ce", "t2")
    channels = model.primary.backbone.high_spec.channels
    with torch.no_grad():  # now the last prediction hears of the primary through R_1 alone
        secondary(model, 0).fuse.weight[:, :channels] = 0
    model(inputs).square().sum().backward()
    stem = model.primary.backbone.get_parameter("stem.0.weight").grad
    assert (stem is not None and bool(stem.any())) == flows


# Who influences whom


def test_without_the_guidance_half_of_r_a_secondary_does_not_see_the_primary() -> None:
    model, inputs = shaken(*IMAGES[:3]), draw(*IMAGES[:3])
    other = {**inputs, "t1ce": torch.randn_like(inputs["t1ce"])}
    for index in range(2):
        guided = secondary(model, index)
        assert not torch.allclose(high_features(model, index, inputs), high_features(model, index, other))
        with torch.no_grad():
            guided.reduce.conv.weight[:, guided.reduce.low :] = 0
        assert torch.equal(high_features(model, index, inputs), high_features(model, index, other))


@pytest.mark.parametrize("changed", range(4), ids=IMAGES)
def test_a_modality_changes_its_own_and_all_later_predictions_and_no_earlier_one(changed: int) -> None:
    model, inputs = shaken(*IMAGES), draw(*IMAGES)
    before = model.chain(inputs)
    after = model.chain({**inputs, IMAGES[changed]: torch.randn_like(inputs[IMAGES[changed]])})
    for position in range(4):
        if position < changed:
            assert torch.equal(before[position], after[position])
        else:
            assert not torch.allclose(before[position], after[position])


def test_every_subject_is_predicted_for_itself() -> None:
    model, inputs = shaken(*IMAGES[:3]), draw(*IMAGES[:3], subjects=3)
    alone = torch.cat([model({name: x[[n]] for name, x in inputs.items()}) for n in range(3)])
    torch.testing.assert_close(model(inputs), alone, rtol=1e-4, atol=1e-5)


def test_a_primary_alone_is_its_unimodal_model_with_nothing_left_to_train() -> None:
    parent, inputs = stage_one("t1ce"), draw("t1ce")
    model = Guidance(parts("t1ce")).eval()
    model.begin(Context({"primary": parent.state_dict()}, lambda: iter(())))
    assert torch.equal(model(inputs), parent(inputs))
    assert model.stages() == ()


def test_swapping_two_secondaries_with_their_data_is_a_relabelling() -> None:
    one, inputs = shaken("t1ce", "t2", "flair"), draw("t1ce", "t2", "flair")
    two = begun("t1ce", "flair", "t2")
    two.load_state_dict(one.state_dict())
    swapped = {"t1ce": inputs["t1ce"], "flair": inputs["t2"], "t2": inputs["flair"]}
    for ours, theirs in zip(one.chain(inputs), two.chain(swapped), strict=True):
        assert torch.equal(ours, theirs)


def test_swapping_the_order_of_two_secondaries_alone_changes_the_prediction() -> None:
    one, inputs = shaken("t1ce", "t2", "flair"), draw("t1ce", "t2", "flair")
    two = begun("t1ce", "flair", "t2")
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(one(inputs), two(inputs))
    secondary(two, 0).load_state_dict(secondary(one, 1).state_dict())  # each modality keeps its own weights
    secondary(two, 1).load_state_dict(secondary(one, 0).state_dict())
    assert not torch.allclose(one(inputs), two(inputs))


# Tables, and tables beside images

MIXTURES = [("rna", "clinical", "mirna"), ("t1ce", "rna", "t2"), ("rna", "t1ce"), ("clinical", "t2", "mirna")]


@pytest.mark.parametrize("modalities", MIXTURES, ids="-".join)
@pytest.mark.parametrize("upsample", ["trilinear", "nearest"])
def test_any_mixture_of_tables_and_images_starts_at_stage_one(modalities: tuple[str, ...], upsample: Any) -> None:
    model, inputs = begun(*modalities, upsample=upsample), draw(*modalities)
    for logits in model.chain(inputs):
        assert torch.equal(logits, model.primary(inputs[modalities[0]]))


@pytest.mark.parametrize("modalities", MIXTURES, ids="-".join)
def test_any_mixture_of_tables_and_images_trains_all_but_the_primary(modalities: tuple[str, ...], fit: Fit) -> None:
    model, batch = begun(*modalities), draw_batch(*modalities)
    before = state(model)
    train_some_steps(model, fit, batch, steps=4)
    assert not [name for name in moved(before, model) if name.startswith("primary")]
    shake(model)
    found = gradients(model, lambda: guidance_loss(model, batch, 0.0))
    silent = {name for name, gradient in found.items() if gradient is not None and not gradient.any()}
    # One voxel attends to itself: queries and keys have nothing to choose from.
    assert not [name for name in silent if ".query." not in name and ".key." not in name]


@pytest.mark.parametrize("modalities", MIXTURES, ids="-".join)
def test_any_mixture_of_tables_and_images_is_causal(modalities: tuple[str, ...]) -> None:
    model, inputs = shaken(*modalities), draw(*modalities)
    last = modalities[-1]
    before, after = model.chain(inputs), model.chain({**inputs, last: torch.randn_like(inputs[last])})
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before[:-1], after[:-1], strict=True))
    assert not torch.allclose(before[-1], after[-1])


def test_a_table_keeps_the_statistics_that_were_fitted_to_it() -> None:
    model = Guidance(parts("rna", "clinical", "mirna"))
    tables = draw("rna", "clinical", "mirna", subjects=9)
    for index, name in enumerate(("clinical", "mirna")):
        backbone = secondary(model, index).backbone
        backbone.fit_statistics([3 * tables[name] + 10])
    fitted = [state(secondary(model, index).backbone) for index in range(2)]
    model.begin(Context({"primary": stage_one("rna").state_dict()}, lambda: iter(())))
    for index in range(2):
        assert moved(fitted[index], secondary(model, index).backbone) == set()


def test_two_tables_of_equal_shape_keep_their_own_statistics_too() -> None:
    wide = replace(parts("rna", "twin"), shapes={"rna": 5, "twin": 5}, make_backbone=lambda names, n: Mlp(n, width=16))
    model = Guidance(wide)
    backbone = secondary(model, 0).backbone
    backbone.fit_statistics([3 * torch.randn(9, 5, 1, 1, 1) + 10])
    fitted = state(backbone)
    model.begin(Context({"primary": stage_one("rna").state_dict()}, lambda: iter(())))
    assert moved(fitted, backbone) == set()


def test_an_image_of_other_channels_takes_over_all_that_fits_and_keeps_its_stem() -> None:
    primary, several = Rmc(1, width=8), Rmc(4, width=8)
    before = state(several)
    copy_equal_shapes(primary, several)
    assert torch.equal(several.get_parameter("stem.0.weight"), before["stem.0.weight"])
    assert torch.equal(
        several.get_parameter("layer4.1.conv2.0.weight"), primary.get_parameter("layer4.1.conv2.0.weight")
    )


@pytest.mark.parametrize("upsample", ["trilinear", "nearest"])
def test_a_table_is_guided_by_the_whole_image_and_not_by_one_voxel(upsample: Any) -> None:
    reduce = Reduce(2, 3, "default", upsample)
    guidance = torch.randn(1, 3, 5, 5, 5, requires_grad=True)
    reduce(torch.randn(1, 2, 1, 1, 1), guidance).sum().backward()
    assert guidance.grad is not None
    assert (guidance.grad != 0).all()


# The backward pass of one branch at a time


class Dozy(Rmc):
    """An RMC that drops features at random in both halves."""

    def low(self, x: Tensor) -> Tensor:
        return F.dropout(super().low(x), 0.3, self.training)

    def high(self, low: Tensor) -> Tensor:
        return F.dropout(super().high(low), 0.3, self.training)


def one_step(
    model: Guidance, batch: Batch, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Gradients and state after a step of stage 2, the random numbers being those of the training loop."""

    def loss() -> Tensor:
        with seeded(7), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            return guidance_loss(model, batch, 0.0)

    return gradients(model, loss), state(model)


@pytest.mark.parametrize("train", ["secondary", "secondary+head", "joint"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bf16"])
def test_branch_by_branch_has_the_gradients_and_the_running_statistics_of_the_plain_backward_pass(
    train: Any, dtype: torch.dtype | None
) -> None:
    plain, frugal = (
        shaken_alike(*IMAGES, train=train, image=Dozy, backward=backward) for backward in ("joint", "branchwise")
    )
    batch = draw_batch(*IMAGES)
    expected, after = one_step(plain, batch, dtype)
    found, frugal_after = one_step(frugal, batch, dtype)
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-8, msg=name)
    assert all(torch.equal(after[name], tensor) for name, tensor in frugal_after.items())
    tracked = [name for name in after if name.startswith("secondaries.") and name.endswith("num_batches_tracked")]
    assert tracked
    assert all(int(frugal_after[name]) == 15 for name in tracked)  # 7 twice when shaken, once in the step


def shaken_alike(*modalities: str, **options: Any) -> Guidance:
    """The same weights whatever the options."""
    torch.manual_seed(3)
    return shaken(*modalities, **options)


def test_branch_by_branch_a_missing_modality_and_a_table_are_no_exception() -> None:
    modalities = ("t1ce", "t2", "clinical", "flair")
    batch = draw_batch(*modalities)
    told = {presence("t2"): torch.tensor([True, False, True, True]), presence("t1ce"): torch.arange(4) != 2}
    batch = replace(batch, inputs={**batch.inputs, **told})
    expected, after = one_step(shaken_alike(*modalities), batch)
    found, frugal_after = one_step(shaken_alike(*modalities, backward="branchwise"), batch)
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-8, msg=name)
    assert all(torch.equal(after[name], tensor) for name, tensor in frugal_after.items())


def peak_bytes(*modalities: str, **options: Any) -> int:
    """By how many bytes of tensors a step rises above what there was."""
    model, batch = shaken_alike(*modalities, **options), draw_batch(*modalities, subjects=8)
    gradients(model, lambda: guidance_loss(model, batch, 0.0))
    of_model = (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None))
    before = (*of_model, *batch.inputs.values())
    live, most, alive = 0, 0, {tensor.untyped_storage()._cdata for tensor in before}

    def gone(address: int, size: int) -> None:
        nonlocal live
        alive.discard(address)
        live -= size

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal live, most
            result = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
                if storage is not None and storage._cdata not in alive:
                    alive.add(storage._cdata)
                    live += storage.nbytes()
                    weakref.finalize(storage, gone, storage._cdata, storage.nbytes())
            most = max(most, live)
            return result

    with Watching():  # gradients are there already, so new ones are added to them
        gradients(model, lambda: guidance_loss(model, batch, 0.0))
    return most


def test_branch_by_branch_a_step_holds_the_activations_of_one_branch() -> None:
    one = peak_bytes("t1ce", "t2")
    plain, frugal = (peak_bytes(*IMAGES, backward=backward) for backward in ("joint", "branchwise"))
    assert plain > 2.5 * one
    assert frugal < 1.2 * one


def test_branch_by_branch_predicts_bit_for_bit_the_same() -> None:
    inputs = draw(*IMAGES)
    with torch.inference_mode():
        plain, frugal = (shaken_alike(*IMAGES, backward=backward)(inputs) for backward in ("joint", "branchwise"))
    assert torch.equal(plain, frugal)


# Through the real loop


def watched(model: Guidance) -> list[int]:
    """How many subjects the primary's network was given, call after call."""
    seen: list[int] = []
    model.primary.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("told", [{}, {presence("t1ce"): torch.arange(4) != 2}], ids=["all", "one without the primary"])
def test_kept_features_of_the_primary_are_computed_once_and_change_no_gradient(told: dict[str, Tensor]) -> None:
    batch = draw_batch(*IMAGES)
    batch = replace(batch, inputs={**double(batch.inputs), **told}, weights=batch.weights.double(), constant=True)
    plain, keeping = (shaken_alike(*IMAGES, primary_features=how).double() for how in ("computed", "kept"))
    seen = watched(keeping)
    expected, after = one_step(plain, batch)
    for _ in range(2):
        keeping.zero_grad()
        found, _ = one_step(keeping, batch)
        for name, gradient in expected.items():
            if gradient is not None:
                torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-10, msg=name)
    assert seen == [1] * (4 - len(told))
    assert after.keys() == state(keeping).keys()  # nothing that is kept is saved with the model


def test_kept_features_do_not_depend_on_who_else_was_in_the_batch() -> None:
    batch = draw_batch(*IMAGES)
    whole, single = (shaken_alike(*IMAGES, primary_features="kept") for _ in range(2))
    together = whole.guide_training(replace(batch, constant=True))
    for row in reversed(range(4)):
        inputs = {name: x[row : row + 1] for name, x in batch.inputs.items()}
        alone = Batch(batch.ids[row : row + 1], inputs, batch.labels[row : row + 1], torch.ones(1), constant=True)
        assert torch.equal(single.guide_training(alone)[0], together[row])


def test_nothing_is_kept_of_inputs_that_change() -> None:
    batch = draw_batch(*IMAGES)
    plain, keeping = (shaken_alike(*IMAGES, primary_features=how) for how in ("computed", "kept"))
    assert torch.equal(guidance_loss(keeping, batch, 0.0), guidance_loss(plain, batch, 0.0))
    assert not keeping.kept


def test_what_trains_cannot_be_kept() -> None:
    with pytest.raises(FusionBenchError, match="not train=joint"):
        Guidance(parts(*IMAGES), train="joint", primary_features="kept")


def test_a_finished_fit_of_guidance_holds_the_weights_of_stage_one_to_the_last_bit(store: Store) -> None:
    settings = {"protocol": {"folds": 2, "ranking": {"ranker": "fixed"}}, "recipe": {"epochs": 2, "batch_size": 8}}
    study = open_study(comparison(attention="dual", baselines=[], **settings), cohort=table_cohort())
    run(study, store)
    fits = [job for job in plan(study).jobs if job.fit.fusion.name == "guidance"]
    assert len(fits) == 2
    for job in fits:
        ours, theirs = store.weights(job.key), store.weights(job.fit.parents[0].keys[0])
        assert {f"primary.{name}" for name in theirs} == {name for name in ours if name.startswith("primary.")}
        assert all(torch.equal(ours[f"primary.{name}"], tensor) for name, tensor in theirs.items())
        assert not torch.equal(ours["secondaries.0.fuse.weight"][:, 8:], torch.zeros(8, 8))
