"""The ensemble is the mean of its members' probabilities, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor

from fusionbench import Context, Parts, Store, open_study, run
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.ensemble import Ensemble
from fusionbench_plugins.fusion.unimodal import Unimodal

NAMES = ("t1ce", "t2", "flair")


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


def ensemble(members: Mapping[str, Unimodal], classes: tuple[str, ...] = ("HGG", "LGG")) -> Ensemble:
    model = Ensemble(parts(*members, classes=classes)).eval()
    model.begin(Context({name: one.state_dict() for name, one in members.items()}, lambda: iter(())))
    return model


def draw(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(3, 1, 3, 18, 20) for name in names}


@pytest.mark.parametrize("classes", [("HGG", "LGG"), ("HGG", "LGG", "healthy")], ids=len)
def test_the_prediction_is_the_mean_of_the_members_probabilities(classes: tuple[str, ...]) -> None:
    members, inputs = {name: member(name, classes) for name in NAMES}, draw(*NAMES)
    by_hand = sum(members[name]({name: inputs[name]}).softmax(1) for name in NAMES) / 3
    torch.testing.assert_close(ensemble(members, classes)(inputs).softmax(1), by_hand)


def test_an_ensemble_of_identical_members_is_the_member() -> None:
    one, x = member("t1ce"), torch.randn(3, 1, 3, 18, 20)
    found = ensemble(dict.fromkeys(NAMES, one))(dict.fromkeys(NAMES, x))
    torch.testing.assert_close(found.softmax(1), one({"t1ce": x}).softmax(1))


def test_an_ensemble_of_one_is_the_member() -> None:
    one, inputs = member("t1ce"), draw("t1ce")
    torch.testing.assert_close(ensemble({"t1ce": one})(inputs).softmax(1), one(inputs).softmax(1))


def test_the_order_of_the_modalities_does_not_matter() -> None:
    members, inputs = {name: member(name) for name in NAMES}, draw(*NAMES)
    first, *others = (ensemble({name: members[name] for name in order})(inputs) for order in permutations(NAMES))
    for other in others:
        torch.testing.assert_close(other, first)


def test_members_that_are_certain_stay_finite_and_keep_their_vote() -> None:
    yes, no = member("t1ce"), member("t2")
    for one, logit in ((yes, 500.0), (no, -500.0)):
        torch.nn.init.zeros_(one.head.linear.weight)
        with torch.no_grad():
            one.head.linear.bias.copy_(torch.tensor([logit, -logit]))
    inputs = draw("t1ce", "t2")
    agreed = ensemble({"t1ce": yes, "t2": yes})(inputs)
    assert agreed.isfinite().all()
    torch.testing.assert_close(agreed.softmax(1), torch.tensor([[1.0, 0.0]]).expand(3, 2))
    divided = ensemble({"t1ce": yes, "t2": no})(inputs)
    torch.testing.assert_close(divided.softmax(1), torch.full((3, 2), 0.5))


def test_its_logits_are_single_precision_under_autocast() -> None:
    members, inputs = {name: member(name) for name in NAMES}, draw(*NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = ensemble(members)(inputs)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(3))


def test_its_members_are_the_unimodal_fits_and_nothing_is_trained() -> None:
    model = Ensemble(parts(*NAMES))
    assert [(p.role, p.fusion, p.modalities, p.use) for p in Ensemble.parents(NAMES)] == [
        (name, "unimodal", (name,), "weights") for name in NAMES
    ]
    assert model.stages() == ()
    assert Ensemble.stage_names == ()


def test_in_a_real_run_it_is_the_mean_of_the_rows_of_its_members(store: Store) -> None:
    study = open_study(comparison(fusion=["ensemble"], baselines=["unimodal"]), cohort=table_cohort())
    outcome = run(study, store)
    rows = {(row.experiment.modalities, row.fold.number): outcome.known[row.key] for row in outcome.plan.rows}
    for fold in (0, 1):
        members, whole = [rows[(name,), fold] for name in ("a", "b", "c")], rows[("a", "b", "c"), fold]
        mean = sum(member.probabilities for member in members) / 3
        assert whole.probabilities == pytest.approx(mean, abs=1e-6)
        assert {member.ids for member in members} == {whole.ids}
