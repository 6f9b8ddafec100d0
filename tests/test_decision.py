"""Decision fusion learns from what uni-modal models say of subjects that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import comparison, table_cohort
from test_training import workplace
from torch import Tensor

from fusionbench import (
    Batch,
    Context,
    Parts,
    Predictions,
    Run,
    Store,
    Study,
    load_comparison,
    open_study,
    plan,
    read_cohort,
    run,
)
from fusionbench.batches import Batches
from fusionbench.engine import Event, Finished
from fusionbench.fits import Job
from fusionbench.testing.plugin import contract_test
from fusionbench.training import build_strategy
from fusionbench_plugins.attention.none import NoAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.decision import Decision, stacked_loss
from fusionbench_plugins.fusion.ensemble import Ensemble
from fusionbench_plugins.fusion.unimodal import Unimodal

IMAGES = ("flair", "t1", "t1ce", "t2")

test_contract_joint = contract_test("decision", mode="joint")
test_contract_weighted = contract_test("decision", meta="weighted")
test_contract_linear = contract_test("decision", meta="linear")
test_contract_joint_weighted = contract_test("decision", mode="joint", meta="weighted")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(*modalities: str, classes: tuple[str, ...] = ("HGG", "LGG"), dropout: float = 0.5) -> Parts:
    shapes = dict.fromkeys(modalities, 1)
    return Parts(modalities, classes, shapes, lambda _, channels: Rmc(channels, width=4), NoAttention, dropout)


def member(name: str, classes: tuple[str, ...] = ("HGG", "LGG")) -> Unimodal:
    model = Unimodal(parts(name, classes=classes))
    torch.nn.init.normal_(model.head.linear.weight)
    return model.eval()


def begun(members: Mapping[str, Unimodal], **options: Any) -> Decision:
    model = Decision(parts(*members, dropout=0), **options)
    model.begin(Context({name: one.state_dict() for name, one in members.items()}, lambda: iter(())))
    return model.eval()


def draw(*modalities: str) -> dict[str, Tensor]:
    return {name: torch.randn(3, 1, 3, 18, 20) for name in modalities}


def given_batch(modalities: tuple[str, ...] = IMAGES, subjects: int = 5) -> Batch:
    """Subjects with out-of-fold probabilities and no inputs at all."""
    labels = torch.arange(subjects) % 2
    ids = tuple(f"s{n}" for n in range(subjects))
    given = {name: torch.randn(subjects, 2).softmax(1) for name in modalities}
    here = {name: torch.ones(subjects, dtype=torch.bool) for name in modalities}
    return Batch(ids, {}, labels, torch.tensor([0.2632, 0.7368])[labels], here, given=given)


# The equations


def test_the_perceptron_has_three_layers_on_a_probability_per_class_and_modality() -> None:
    layers = [m for m in Decision(parts(*IMAGES)).meta if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(8, 64), (64, 32), (32, 2)]
    of_three = Decision(parts("t1", "t2", classes=("a", "b", "c"))).meta
    assert of_three[1].in_features == 6
    assert [m.p for m in Decision(parts("t1", dropout=0.3)).meta if isinstance(m, torch.nn.Dropout)] == [0.3, 0.3]


def test_the_prediction_is_the_perceptron_on_the_members_probabilities_in_the_order_of_the_modalities() -> None:
    members, inputs = {name: member(name) for name in IMAGES}, draw(*IMAGES)
    model = begun(members)
    seen = torch.cat([members[name]({name: inputs[name]}).softmax(1) for name in IMAGES], 1)
    assert seen.shape == (3, 8)
    torch.testing.assert_close(seen.reshape(3, 4, 2).sum(2), torch.ones(3, 4))
    first, second, last = (m for m in model.meta if isinstance(m, torch.nn.Linear))
    hidden = (seen @ first.weight.T + first.bias).clamp_min(0)
    hidden = (hidden @ second.weight.T + second.bias).clamp_min(0)
    torch.testing.assert_close(model(inputs), hidden @ last.weight.T + last.bias)


def test_the_linear_classifier_is_one_layer() -> None:
    members, inputs = {name: member(name) for name in IMAGES}, draw(*IMAGES)
    model = begun(members, meta="linear")
    seen = torch.cat([members[name]({name: inputs[name]}).softmax(1) for name in IMAGES], 1)
    linear = model.meta[1]
    torch.testing.assert_close(model(inputs), seen @ linear.weight.T + linear.bias)


def test_the_weighted_mean_starts_as_the_ensemble_and_follows_its_weights() -> None:
    members, inputs = {name: member(name) for name in IMAGES}, draw(*IMAGES)
    model = begun(members, meta="weighted")
    ensemble = Ensemble(parts(*IMAGES)).eval()
    ensemble.begin(Context({name: one.state_dict() for name, one in members.items()}, lambda: iter(())))
    torch.testing.assert_close(model(inputs), ensemble(inputs))
    with torch.no_grad():
        model.meta.scores.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    several = [members[name]({name: inputs[name]}).softmax(1) for name in IMAGES]
    by_hand = 0.1 * several[0] + 0.2 * several[1] + 0.3 * several[2] + 0.4 * several[3]
    torch.testing.assert_close(model(inputs).softmax(1), by_hand)


def test_members_that_are_certain_and_wrong_leave_it_finite() -> None:
    one = member("t1")
    torch.nn.init.zeros_(one.head.linear.weight)
    with torch.no_grad():
        one.head.linear.bias.copy_(torch.tensor([500.0, -500.0]))
    for meta in ("mlp", "linear", "weighted"):
        assert begun({"t1": one}, meta=meta)(draw("t1")).isfinite().all()


def test_the_loss_is_on_the_out_of_fold_probabilities_and_sees_no_input() -> None:
    model, batch = begun({name: member(name) for name in IMAGES}), given_batch()
    seen = torch.cat([batch.given[name] for name in IMAGES], 1)
    by_hand = torch.nn.functional.cross_entropy(model.meta(seen.reshape(5, 4, 2)), batch.labels, reduction="none")
    torch.testing.assert_close(stacked_loss(model, batch, 0.0), (batch.weights * by_hand).mean())
    (stage,) = model.stages()
    assert (stage.name, stage.trains, stage.sees_inputs) == ("meta", ("meta",), False)


def test_the_gradient_of_the_weighted_mean_is_that_by_hand() -> None:
    model, batch = begun({name: member(name) for name in IMAGES}, meta="weighted"), given_batch()
    with torch.no_grad():
        model.meta.scores.normal_()
    stacked_loss(model, batch, 0.0).backward()
    weights = model.meta.scores.detach().softmax(0)
    own = torch.stack([batch.given[name][range(5), batch.labels] for name in IMAGES])  # (M, B): q_m of the true class
    mean = weights @ own
    # d/ds_m of -log sum_m w_m q_m is -w_m (q_m - mean) / mean
    by_hand = -(batch.weights * weights[:, None] * (own - mean) / mean).mean(1)
    torch.testing.assert_close(model.meta.scores.grad, by_hand)


# What it builds on


def test_stacked_it_has_weights_and_out_of_fold_predictions_of_each_modality_and_joint_it_has_no_parents() -> None:
    found = [(p.role, p.fusion, p.modalities, p.use) for p in Decision.parents(("a", "b"))]
    assert found == [(m, "unimodal", (m,), use) for use in ("weights", "out-of-fold") for m in ("a", "b")]
    assert Decision.parents(("a", "b"), mode="joint") == ()
    assert [p.use for p in Decision.parents(("a",), meta="weighted")] == ["weights"]


def test_a_weighted_mean_of_one_modality_has_nothing_to_learn_and_is_the_member() -> None:
    one, inputs = member("t1"), draw("t1")
    model = begun({"t1": one}, meta="weighted")
    assert model.stages() == ()
    torch.testing.assert_close(model(inputs).softmax(1), one(inputs).softmax(1))


def test_joint_everything_trains_from_scratch() -> None:
    model = Decision(parts("t1", "t2"), mode="joint")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.begin(Context({}, lambda: iter(())))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    (stage,) = model.stages()
    assert (stage.name, stage.trains) == ("fit", ("",))
    batch = replace(given_batch(("t1", "t2"), 3), inputs=draw("t1", "t2"))
    torch.nn.init.normal_(model.members[0].head.linear.weight)
    torch.nn.init.normal_(model.members[1].head.linear.weight)
    model.eval()
    stage.loss(model, batch, 0.0).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert bool(model.members[1].backbone.stem[0].weight.grad.any())


# In a study


def study_of(**changes: object) -> Study:
    return open_study(comparison(fusion=["guidance", "decision"], **changes), cohort=table_cohort())


def decisions(study: Study) -> list[Job]:
    return [job for job in plan(study).jobs if job.fit.fusion.name == "decision"]


def test_it_costs_two_fits_more_than_what_ranking_and_rows_need_anyway(store: Store) -> None:
    events: list[Event] = []
    outcome = run(study_of(), store, listener=events.append)
    finished = [event.job for event in events if isinstance(event, Finished)]
    # per outer fold: 3 uni-modal rows, an ensemble, guidance, 3 x 2 inner fits to rank; and the decision
    assert len(finished) == len({job.key for job in finished}) == 2 * (3 + 1 + 1 + 6 + 1)
    assert not Run.of(outcome).facts["methods"]["decision"].get("failed")
    alone = run(open_study(comparison(fusion=["decision"], baselines=[]), cohort=table_cohort()), store)
    assert {job.key for job in alone.plan.jobs} <= {job.key for job in finished}


def test_an_out_of_fold_probability_never_comes_from_a_model_that_saw_the_subject() -> None:
    study = study_of()
    fits = {job.key: job.fit for job in plan(study).jobs}
    for fold, job in zip(study.folds, decisions(study), strict=True):
        parents = [parent for parent in job.fit.parents if parent.use == "out-of-fold"]
        assert {parent.role for parent in parents} == {"a", "b", "c"}
        for parent in parents:
            inner = [fits[key] for key in parent.keys]
            spoken_of = [id for fit in inner for id in fit.split.test]
            assert sorted(spoken_of) == sorted(job.fit.split.training)  # each once
            for fit in inner:
                assert not set(fit.split.training) & set(fit.split.test)
                assert not (set(fit.split.training) | set(fit.split.test)) & set(fold.split.test)


def test_what_its_loss_sees_is_each_subjects_own_out_of_fold_probability_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []

    def watched(model: Decision, batch: Batch, progress: float) -> Tensor:
        seen.append(batch)
        return stacked_loss(model, batch, progress)

    study = study_of()
    monkeypatch.setattr("fusionbench_plugins.fusion.decision.stacked_loss", watched)
    run(study, store)
    first, *_ = decisions(study)
    fits = {job.key: job.fit for job in plan(study).jobs}
    batches = [batch for batch in seen if set(batch.ids) <= set(first.fit.split.training)]
    assert batches
    assert all(not batch.inputs for batch in seen)
    assert any(list(batch.ids) != sorted(batch.ids) for batch in batches)  # shuffled: a join by row would show
    for parent in first.fit.parents:
        if parent.use == "out-of-fold":
            known = {
                id: row
                for key in parent.keys
                for id, row in zip(*_rows(store.predictions(key, fits[key].classes)), strict=True)
            }
            for batch in batches:
                expected = np.array([known[id] for id in batch.ids])
                assert batch.given[parent.role].double().numpy() == pytest.approx(expected, abs=1e-6)
                assert batch.labels.tolist() == [first.fit.classes.index(first.fit.labels[id]) for id in batch.ids]


def _rows(predictions: Predictions) -> tuple[tuple[str, ...], Any]:
    return predictions.ids, predictions.probabilities


def test_its_stage_reads_no_data(store: Store) -> None:
    study = study_of()
    run(study, store)
    first, *_ = decisions(study)
    place = workplace(study, store)
    place.volumes.inputs = None  # type: ignore[method-assign, assignment]  # calling it would raise
    known = {
        parent.role: Predictions.joined(
            (store.predictions(k, first.fit.classes) for k in parent.keys), first.fit.classes
        )
        for parent in first.fit.parents
        if parent.use == "out-of-fold"
    }
    batches = Batches(first.fit, place.volumes, torch.device("cpu"), given=known)
    got = list(batches.training("meta", 0, inputs=False))
    assert sorted(id for batch in got for id in batch.ids) == sorted(first.fit.split.training)


def test_a_finished_fit_holds_its_members_to_the_last_bit_and_a_trained_classifier(store: Store) -> None:
    study = study_of()
    run(study, store)
    for job in decisions(study):
        ours = store.weights(job.key)
        parents = {parent.role: parent.keys[0] for parent in job.fit.parents if parent.use == "weights"}
        for number, name in enumerate(("a", "b", "c")):
            theirs = store.weights(parents[name])
            assert all(torch.equal(ours[f"members.{number}.{key}"], tensor) for key, tensor in theirs.items())
        fresh = build_strategy(job.fit, study.registry).state_dict()
        assert not torch.equal(fresh["meta.1.weight"], ours["meta.1.weight"])


def test_the_weighted_mean_finds_the_modality_that_knows_more(store: Store) -> None:
    changes = {
        "options": {"decision": {"meta": "weighted"}},
        "recipe": {"epochs": 20, "learning_rate": 0.01, "stages": {"meta": {"epochs": 50, "learning_rate": 0.05}}},
    }
    study = open_study(comparison(fusion=["decision"], baselines=[], **changes), cohort=table_cohort(90))
    run(study, store)
    for job in decisions(study):
        a, b, c = store.weights(job.key)["meta.scores"].softmax(0).tolist()
        assert a > b > c
        assert a > 0.5


def test_joint_and_stacked_run_on_images_and_share_what_they_can(store: Store, tmp_path: Path) -> None:
    tiny = {
        "attention": "none",
        "protocol": {"folds": 2, "inner_folds": 2},
        "preprocessing": {"resize": [4, 8, 8]},
        "recipe": {"epochs": 1, "precision": "32", "device": "cpu", "stages": {"meta": {"epochs": 2}}},
        "options": {"phantom": {"subjects": 16, "spacing": 8.0}, "rmc": {"width": 2}},
        "variants": {"joint": {"fusion": "decision", "options": {"decision": {"mode": "joint"}}}},
        "modalities": ["t1ce", "t1"],
        "fusion": ["guidance", "decision", "joint"],
        "baselines": ["unimodal"],
    }
    images = read_cohort("phantom", tmp_path / "phantom", subjects=16, spacing=8.0)
    outcome = run(open_study(load_comparison("demo", tiny), cohort=images), store)
    result = Run.of(outcome)
    assert all(r.predictions is not None for r in result.results)
    # per outer fold: 2 uni-modal rows, 2 x 2 inner fits, guidance, decision, joint
    assert len(outcome.plan.jobs) == 2 * (2 + 4 + 1 + 1 + 1)
