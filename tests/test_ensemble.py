"""The ensemble is what its members' probabilities say together, by each of its rules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import comparison, table_cohort
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fusionbench import Batch, Context, Parts, Predictions, Store, open_study, plan, run
from fusionbench.testing.plugin import contract_test
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.ensemble import TIE, Ensemble, Rule, area, weights_of
from fusionbench_plugins.fusion.unimodal import Unimodal

NAMES = ("t1ce", "t2", "flair")
RULES = get_args(Rule)

test_contract_of_logits = contract_test("ensemble", rule="logits")
test_contract_of_weights = contract_test("ensemble", rule="weighted")
test_contract_of_votes = contract_test("ensemble", rule="majority")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def parts(*modalities: str, classes: tuple[str, ...] = ("HGG", "LGG")) -> Parts:
    return Parts(
        modalities,
        classes,
        dict.fromkeys(modalities, 1),
        lambda names, channels: Rmc(channels, width=8),
        DualAttention,
    )


def member(name: str, classes: tuple[str, ...] = ("HGG", "LGG")) -> Unimodal:
    model = Unimodal(parts(name, classes=classes))
    torch.nn.init.normal_(model.head.linear.weight)
    return model.eval()


def ensemble(
    members: Mapping[str, Unimodal],
    classes: tuple[str, ...] = ("HGG", "LGG"),
    training: tuple[Batch, ...] = (),
    **options: Any,
) -> Ensemble:
    model = Ensemble(parts(*members, classes=classes), **options).eval()
    training = training or (seen({name: [0.9, 0.1] for name in members}, [0, 1]),)
    model.begin(Context({name: one.state_dict() for name, one in members.items()}, lambda: iter(training)))
    return model


def seen(first: Mapping[str, list[float]], labels: list[int]) -> Batch:
    """Training subjects with out-of-fold probabilities of two classes, of which these are those of the first."""
    given = {name: torch.tensor([[p, 1 - p] for p in column]) for name, column in first.items()}
    return Batch(
        tuple(f"s{n}" for n in range(len(labels))), {}, torch.tensor(labels), torch.ones(len(labels)), given=given
    )


def certain(name: str, *logits: float) -> Unimodal:
    """A member that says the same of everybody."""
    one = member(name, ("HGG", "LGG", "healthy")[: len(logits)])
    torch.nn.init.zeros_(one.head.linear.weight)
    with torch.no_grad():
        one.head.linear.bias.copy_(torch.tensor(logits))
    return one


def draw(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(3, 1, 3, 18, 20) for name in names}


@pytest.mark.parametrize("classes", [("HGG", "LGG"), ("HGG", "LGG", "healthy")], ids=len)
def test_the_prediction_is_the_mean_of_the_members_probabilities(classes: tuple[str, ...]) -> None:
    members, inputs = {name: member(name, classes) for name in NAMES}, draw(*NAMES)
    by_hand = sum(members[name]({name: inputs[name]}).softmax(1) for name in NAMES) / 3
    torch.testing.assert_close(ensemble(members, classes)(inputs).softmax(1), by_hand)


@pytest.mark.parametrize("rule", ["mean", "logits", "weighted"])
def test_an_ensemble_of_identical_members_is_the_member(rule: Rule) -> None:
    one, x = member("t1ce"), torch.randn(3, 1, 3, 18, 20)
    found = ensemble(dict.fromkeys(NAMES, one), rule=rule)(dict.fromkeys(NAMES, x))
    torch.testing.assert_close(found.softmax(1), one({"t1ce": x}).softmax(1))


@pytest.mark.parametrize("rule", ["mean", "logits", "weighted"])
def test_an_ensemble_of_one_is_the_member(rule: Rule) -> None:
    one, inputs = member("t1ce"), draw("t1ce")
    torch.testing.assert_close(ensemble({"t1ce": one}, rule=rule)(inputs).softmax(1), one(inputs).softmax(1))


def test_identical_members_vote_for_what_the_member_says() -> None:
    one, x = member("t1ce"), torch.randn(3, 1, 3, 18, 20)
    found = ensemble(dict.fromkeys(NAMES, one), rule="majority")(dict.fromkeys(NAMES, x)).softmax(1)
    own = one({"t1ce": x}).softmax(1)
    assert torch.equal(found.argmax(1), own.argmax(1))
    torch.testing.assert_close(found.amax(1), (3 + TIE * own.amax(1)) / (3 + TIE))


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_modalities_does_not_matter(rule: Rule) -> None:
    members, inputs = {name: member(name) for name in NAMES}, draw(*NAMES)
    known = seen({"t1ce": [0.9, 0.8, 0.3], "t2": [0.6, 0.4, 0.5], "flair": [0.7, 0.1, 0.2]}, [0, 0, 1])
    orders = [{name: members[name] for name in order} for order in permutations(NAMES)]
    first, *others = (ensemble(some, training=(known,), rule=rule)(inputs) for some in orders)
    for other in others:
        torch.testing.assert_close(other, first)


def test_members_that_are_certain_stay_finite_and_keep_their_vote() -> None:
    yes, no = certain("t1ce", 500.0, -500.0), certain("t2", -500.0, 500.0)
    inputs = draw("t1ce", "t2")
    for rule in RULES:
        agreed = ensemble({"t1ce": yes, "t2": yes}, rule=rule)(inputs)
        assert agreed.isfinite().all()
        torch.testing.assert_close(agreed.softmax(1), torch.tensor([[1.0, 0.0]]).expand(3, 2))
        divided = ensemble({"t1ce": yes, "t2": no}, rule=rule)(inputs)
        torch.testing.assert_close(divided.softmax(1), torch.full((3, 2), 0.5))


@pytest.mark.parametrize("rule", RULES)
def test_its_logits_are_single_precision_under_autocast(rule: Rule) -> None:
    members, inputs = {name: member(name) for name in NAMES}, draw(*NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = ensemble(members, rule=rule)(inputs)
    assert logits.dtype == torch.float32
    if rule != "logits":
        torch.testing.assert_close(logits.exp().sum(1), torch.ones(3))


# The mean of logits


def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities() -> None:
    members, inputs = {name: member(name) for name in NAMES}, draw(*NAMES)
    product = torch.stack([members[name]({name: inputs[name]}).softmax(1) for name in NAMES]).prod(0) ** (1 / 3)
    torch.testing.assert_close(ensemble(members, rule="logits")(inputs).softmax(1), product / product.sum(1, True))


# Weights


def test_weights_by_hand() -> None:
    # of four pairs of a first and a second class: t1ce ranks 4 right, t2 3, flair 1, which is below chance
    labels = [0, 0, 1, 1]
    known = {"t1ce": [0.9, 0.8, 0.7, 0.1], "t2": [0.6, 0.3, 0.5, 0.2], "flair": [0.1, 0.6, 0.5, 0.9]}
    batches = [seen(known, labels)]
    torch.testing.assert_close(weights_of(NAMES, batches), torch.tensor([2 / 3, 1 / 3, 0.0]))
    model = ensemble({name: member(name) for name in NAMES}, training=tuple(batches), rule="weighted")
    torch.testing.assert_close(model.weights, torch.tensor([2 / 3, 1 / 3, 0.0]))
    inputs = draw(*NAMES)
    t1ce, t2, _ = model.members
    by_hand = t1ce(inputs["t1ce"]).softmax(1) * 2 / 3 + t2(inputs["t2"]).softmax(1) / 3
    torch.testing.assert_close(model(inputs).softmax(1), by_hand)


def test_members_all_at_chance_or_a_single_class_count_alike() -> None:
    useless = {"t1ce": [0.5, 0.5], "t2": [0.2, 0.8]}
    for labels in ([0, 1], [0, 0]):
        assert weights_of(("t1ce", "t2"), [seen(useless, labels)]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_is_scikit_learns(classes: int) -> None:
    labels = torch.arange(30) % classes
    probabilities = (torch.randn(30, classes).round(decimals=1) + torch.eye(classes)[labels]).softmax(1)  # with ties
    own = [roc_auc_score((labels == k).numpy(), probabilities[:, k].numpy()) for k in range(classes)]
    assert area(labels, probabilities).item() == pytest.approx(np.mean(own), abs=1e-6)


def test_weights_do_not_depend_on_how_the_training_part_is_batched() -> None:
    known = {"t1ce": [0.9, 0.8, 0.7, 0.1], "t2": [0.6, 0.3, 0.5, 0.2]}
    halves = [
        seen({name: column[part] for name, column in known.items()}, [0, 1])
        for part in (slice(0, 4, 2), slice(1, 4, 2))
    ]
    whole = seen(known, [0, 0, 1, 1])
    assert torch.equal(weights_of(("t1ce", "t2"), halves), weights_of(("t1ce", "t2"), [whole]))


# The majority


def vote(*logits: tuple[float, ...]) -> Tensor:
    """The prediction of one subject by members that say that."""
    names = ("t1ce", "t2", "flair", "t1")[: len(logits)]
    members = {name: certain(name, *one) for name, one in zip(names, logits, strict=True)}
    classes = ("HGG", "LGG", "healthy")[: len(logits[0])]
    return ensemble(members, classes, rule="majority")(draw(*names)).softmax(1)[0].detach()


def test_a_majority_wins_whatever_the_minority_is_sure_of() -> None:
    found = vote((0.1, 0.0), (0.1, 0.0), (-9.0, 9.0))
    mean = (2 * torch.tensor([0.1, 0.0]).softmax(0) + torch.tensor([-9.0, 9.0]).softmax(0)) / 3
    torch.testing.assert_close(found, (torch.tensor([2.0, 1.0]) + TIE * mean) / (3 + TIE))
    assert found[0] > 0.5
    assert mean[0] < 0.5


def test_a_tie_goes_to_the_higher_mean_probability() -> None:
    assert vote((2.0, 0.0), (0.0, 1.0))[0] > 0.5
    assert vote((1.0, 0.0), (0.0, 2.0))[1] > 0.5
    of_three = vote((1.0, 0.0, 0.0), (0.0, 1.1, 0.0), (0.0, 0.0, 1.2), (0.0, 0.0, 0.0))
    assert of_three.tolist() == sorted(of_three.tolist())


def test_a_member_that_is_undecided_splits_its_vote() -> None:
    torch.testing.assert_close(vote((0.0, 0.0), (0.0, 0.0)), torch.tensor([0.5, 0.5]))
    found = vote((0.0, 0.0, -99.0), (9.0, 0.0, 0.0))
    assert found[:2].tolist() == pytest.approx([0.75, 0.25], abs=0.01)


# What it builds on


def test_its_members_are_the_unimodal_fits_and_nothing_is_trained() -> None:
    model = Ensemble(parts(*NAMES))
    assert [(p.role, p.fusion, p.modalities, p.use) for p in Ensemble.parents(NAMES)] == [
        (name, "unimodal", (name,), "weights") for name in NAMES
    ]
    assert model.stages() == ()
    assert Ensemble.stage_names == ()
    assert "weights" not in model.state_dict()
    for rule in RULES:
        unseen = [p for p in Ensemble.parents(NAMES, rule=rule) if p.use == "out-of-fold"]
        assert [p.modalities for p in unseen] == ([(name,) for name in NAMES] if rule == "weighted" else [])


def test_in_a_real_run_it_is_the_mean_of_the_rows_of_its_members(store: Store) -> None:
    study = open_study(comparison(fusion=["ensemble"], baselines=["unimodal"]), cohort=table_cohort())
    outcome = run(study, store)
    rows = {(row.experiment.modalities, row.fold.number): outcome.known[row.key] for row in outcome.plan.rows}
    for fold in (0, 1):
        members, whole = [rows[(name,), fold] for name in ("a", "b", "c")], rows[("a", "b", "c"), fold]
        mean = sum(member.probabilities for member in members) / 3
        assert whole.probabilities == pytest.approx(mean, abs=1e-6)
        assert {member.ids for member in members} == {whole.ids}


def test_in_a_real_run_weights_are_of_subjects_that_the_members_had_not_seen(store: Store) -> None:
    changes = {"options": {"ensemble": {"rule": "weighted"}}, "recipe": {"epochs": 20, "learning_rate": 0.01}}
    study = open_study(comparison(fusion=["ensemble"], baselines=[], **changes), cohort=table_cohort())
    run(study, store)
    fits = {job.key: job.fit for job in plan(study).jobs}
    for key, fit in fits.items():
        if fit.fusion.name == "ensemble":
            above = []
            for parent in [parent for parent in fit.parents if parent.use == "out-of-fold"]:
                known = Predictions.joined((store.predictions(k, fit.classes) for k in parent.keys), fit.classes)
                assert known.ids == tuple(sorted(fit.split.training))
                above.append(max(roc_auc_score(known.targets, known.probabilities[:, 1]) - 0.5, 0))
            assert store.weights(key)["weights"].tolist() == pytest.approx(np.array(above) / sum(above), abs=1e-5)
