"""Subjects that lack a modality: refused, left out, or masked; nothing of what is not there is ever looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor

from fusionbench import (
    Cohort,
    Parts,
    Predictions,
    Run,
    Store,
    Study,
    load_registry,
    open_study,
    plan,
    run,
    where_present,
)
from fusionbench.batches import Batches, keep
from fusionbench.cohorts import completed
from fusionbench.components import FeatureSpec, presence
from fusionbench.errors import CohortError, UsageError
from fusionbench.fits import Fit
from fusionbench.imaging.volumes import Volumes
from fusionbench.metrics import METRICS
from fusionbench.subsets import by_available
from fusionbench.testing.toys import Toy

ALL = ("a", "b", "c")


def gappy(lacking: dict[int, Sequence[str]] | None = None) -> Cohort:
    """The toy cohort, whose subjects of these numbers lack these tables."""
    cohort = table_cohort()
    gone = {0: ("a",), 5: ("b", "c"), 7: ("b",)} if lacking is None else lacking
    subjects = [
        replace(s, features={name: row for name, row in s.features.items() if name not in gone.get(number, ())})
        for number, s in enumerate(cohort.subjects)
    ]
    return replace(cohort, subjects=tuple(subjects))


def masked_study(*fusion: str, **changes: object) -> Study:
    asked = comparison(fusion=list(fusion), baselines=["unimodal"], missing="mask", **changes)
    return open_study(asked, cohort=gappy())


# The policy


def test_error_lists_everybody_and_how_to_go_on() -> None:
    with pytest.raises(CohortError) as refused:
        open_study(comparison(), cohort=gappy())
    text = str(refused.value)
    assert "'s00' has no a; 's05' has no b, c; 's07' has no b" in text
    assert "--missing drop-subject or --missing mask" in text
    assert "\n" not in text


def test_only_what_is_compared_counts() -> None:
    assert (
        len(open_study(comparison(modalities=["c"], fusion=["unimodal"]), cohort=gappy({0: ("a",)})).cohort.subjects)
        == 36
    )


def test_drop_subject_leaves_them_out_and_says_so() -> None:
    left = completed(gappy(), ALL, "drop-subject")
    assert {"s00", "s05", "s07"}.isdisjoint(subject.id for subject in left.subjects)
    assert len(left.subjects) == 33
    assert "3 of 36 subjects left out" in left.notes[-1]


def test_mask_keeps_all_that_have_anything() -> None:
    kept = completed(gappy(), ALL, "mask")
    assert len(kept.subjects) == 36
    assert kept.notes[-1] == "3 of 36 subjects lack a modality (1 a, 2 b, 1 c)"
    assert completed(kept, ALL, "mask").notes == kept.notes
    one = completed(gappy(), ("b",), "mask")
    assert len(one.subjects) == 34
    assert "2 left out, for they have none" in one.notes[-1]


def test_a_strategy_that_needs_everything_is_refused_by_name() -> None:
    registry = load_registry()
    strict = type("Strict", (registry.get("fusion", "unimodal").cls,), {"name": "strict", "takes_missing": False})
    asked = comparison(fusion=["strict"], baselines=[], missing="mask")
    told = "strict needs every modality; 3 subjects lack one, such as 's00': --missing drop"
    with pytest.raises(UsageError, match=told):
        open_study(asked, cohort=gappy(), registry=registry.with_classes("tests", fusion=[strict]))


# What a strategy sees


def batches_of(study: Study, fusion: str) -> Batches:
    (fit, *_) = [job.fit for job in plan(study).jobs if job.fit.fusion.name == fusion]
    return batches_of_fit(study, fit)


def batches_of_fit(study: Study, fit: Fit) -> Batches:
    return Batches(fit, Volumes(study.cohort, study.comparison.preprocessing, Path()), torch.device("cpu"))


def test_a_batch_says_who_has_what_and_holds_zeros_elsewhere() -> None:
    batches = batches_of(masked_study("feature"), "feature")
    ids = [id for id in ("s00", "s05", "s07", "s08") if id in batches.allowed]
    for batch in batches.in_order(ids):
        for name in ALL:
            here = torch.tensor([not batches.volumes.cohort.subject(id).lacks((name,)) for id in batch.ids])
            assert torch.equal(batch.inputs[presence(name)], here)
            assert torch.equal(batch.present[name], here)
            assert not batch.inputs[name][~here].any()


def test_where_nobody_lacks_anything_nothing_is_said() -> None:
    study = open_study(comparison(missing="mask"), cohort=table_cohort())
    plain = open_study(comparison(), cohort=table_cohort())
    batches = batches_of(study, "ensemble")
    assert set(next(batches.in_order(batches.fit.split.test)).inputs) == set(ALL)
    assert [job.key for job in plan(study).jobs] == [job.key for job in plan(plain).jobs]


def test_modality_dropout_hides_some_and_never_all_whatever_the_batch() -> None:
    hidden, seen = [], {}
    for size in (4, 7):
        study = masked_study("feature", recipe={"epochs": 1, "batch_size": size, "modality_dropout": 0.7})
        batches = batches_of(study, "feature")
        for epoch in range(3):
            for batch in batches.training("fit", epoch):
                shown = torch.stack([batch.inputs[presence(name)] for name in ALL], 1)
                assert shown.any(1).all()
                for name in ALL:
                    assert not batch.inputs[name][~batch.inputs[presence(name)]].any()
                for id, row in zip(batch.ids, shown.tolist(), strict=True):
                    assert seen.setdefault((id, epoch), row) == row
                    lacks = study.cohort.subject(id).lacks(ALL)
                    hidden += [not there for name, there in zip(ALL, row, strict=True) if name not in lacks]
    assert 0.45 < np.mean(hidden) < 0.7  # below .7, since the last one stays


def test_keep_hides_at_its_rate() -> None:
    here = torch.tensor([True, True, True, False])
    kept = torch.stack([keep(seed, here, 0.3) for seed in range(2000)])
    assert not kept[:, 3].any()
    assert kept.any(1).all()
    assert kept[:, :3].float().mean().item() == pytest.approx(0.7, abs=0.03)


def test_modality_dropout_is_part_of_those_fits_only_that_can_do_without() -> None:
    recipes = {
        job.fit.fusion.name: job.fit.recipe
        for job in plan(masked_study("feature", recipe={"modality_dropout": 0.5})).jobs
    }
    assert recipes["feature"]["modality_dropout"] == 0.5
    assert "modality_dropout" not in recipes["unimodal"]


def test_statistics_are_those_of_the_subjects_that_have_the_table(store: Store) -> None:
    study = masked_study("feature")
    run(study, store)
    for job in plan(study).jobs:
        if job.fit.fusion.name == "unimodal" and job.fit.modalities[0].name == "a":
            rows = [study.cohort.subject(id) for id in job.fit.split.training]
            expected = np.mean([s.features["a"] for s in rows if s.has("a")], axis=0)
            assert np.allclose(store.weights(job.key)["backbone.mean"], expected, atol=1e-6)


# By hand


def test_where_present_computes_for_those_who_are_there_alone() -> None:
    seen: list[int] = []

    def compute(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.mean((3, 4), keepdim=True) + 1

    x = torch.randn(4, 2, 3, 5, 5, requires_grad=True)
    here = torch.tensor([True, False, True, False])
    out = where_present(here, compute, FeatureSpec(2, (1, 5, 5)), x)
    assert torch.equal(out[here], x[here].mean((3, 4), keepdim=True) + 1)
    assert not out[~here].any()
    out.sum().backward()
    assert x.grad is not None
    assert not x.grad[~here].any()
    assert where_present(torch.zeros(4, dtype=torch.bool), compute, FeatureSpec(2, (1, 5, 5)), x).shape == out.shape
    assert seen == [2]


def built(name: str, **options: object) -> tuple[torch.nn.Module, Toy]:
    toy = Toy(dict.fromkeys(("north", "east", "west"), "image"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_registry().get("fusion", name).cls(toy.parts, **options).eval(), toy  # type: ignore[return-value]


@pytest.mark.parametrize("rule", ["mean", "logits", "majority"])
def test_an_ensemble_of_those_that_are_there_is_the_ensemble_of_them(rule: str) -> None:
    model, toy = built("ensemble", rule=rule)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    inputs = toy.batch().inputs
    two = Parts(("north", "west"), toy.classes, toy.parts.shapes, toy.parts.make_backbone, toy.parts.make_attention)
    smaller = type(model)(two, rule=rule).eval()
    smaller.members[0].load_state_dict(model.members[0].state_dict())
    smaller.members[1].load_state_dict(model.members[2].state_dict())
    nobody, all_ = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    masks = {presence("north"): all_, presence("east"): nobody, presence("west"): all_}
    assert torch.allclose(model({**inputs, **masks}).softmax(1), smaller(inputs).softmax(1), atol=1e-6)


def test_guidance_without_a_secondary_keeps_the_chain_and_without_the_primary_starts_from_zero() -> None:
    model, toy = built("guidance", fuse_init="mean", reduce_init="default")
    inputs = toy.batch().inputs
    all_, nobody = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    before = model.chain(inputs)
    masks = {presence("north"): all_, presence("east"): nobody, presence("west"): all_}
    chain = model.chain({**inputs, **masks})
    assert torch.equal(chain[1], chain[0])
    assert torch.equal(chain[0], before[0])
    assert not torch.allclose(chain[2], before[2])
    masks = {presence("north"): nobody, presence("east"): all_, presence("west"): nobody}
    chain = model.chain({**inputs, **masks})
    guided = model.secondaries[0]
    low = guided.backbone.low(inputs["east"])
    own = torch.nn.functional.conv3d(low, guided.reduce.conv.weight[:, : low.shape[1]], guided.reduce.conv.bias)
    features = guided.attention(guided.backbone.high(own)).mean((2, 3, 4))
    fused = guided.fuse(torch.cat([torch.zeros(4, guided.fuse.out_features), features], 1))
    assert torch.allclose(chain[-1], model.primary.head(fused), atol=1e-6)


# End to end


def test_every_strategy_that_says_so_trains_and_predicts_with_gaps(store: Store) -> None:
    study = masked_study(
        "guidance",
        "feature",
        "decision",
        "ensemble",
        "pixel",
        "logistic",
        recipe={"epochs": 2, "batch_size": 4, "modality_dropout": 0.3},
    )
    outcome = run(study, store)
    assert not outcome.failed
    result = Run.of(outcome)
    for method in ("guidance", "feature", "decision", "ensemble", "pixel", "logistic", "a"):
        parts = [r.predictions for r in result.results if r.method == method and r.predictions]
        assert len(Predictions.joined(parts, ("HGG", "LGG")).ids) == 36
    alone = {r.method: r.predictions for r in result.results if r.predictions and "s00" in r.predictions.ids}["a"]
    assert alone.probabilities[alone.ids.index("s00")].tolist() == [0.5, 0.5]


def test_a_table_that_nobody_of_a_training_part_has_says_nothing(store: Store) -> None:
    cohort = gappy({n: ("b",) for n in range(36) if n % 4})  # b at site-0 alone
    sited = [replace(s, site=f"site-{n % 4}") for n, s in enumerate(cohort.subjects)]
    asked = comparison(
        fusion=["logistic", "feature", "ensemble", "decision", "pixel", "guidance"],
        baselines=["unimodal"],
        missing="mask",
        protocol={"folds_by": "site", "inner_folds": 2},
    )
    study = open_study(asked, cohort=replace(cohort, subjects=tuple(sited)))
    fits = [job.fit for job in plan(study).jobs if [m.name for m in job.fit.modalities] == ["b"]]
    blind = [fit for fit in fits if fit.unseen]
    assert blind
    assert all(not fit.learners and all(fit.absent[id] == ("b",) for id in fit.split.test) for fit in blind)
    outcome = run(study, store)
    assert not outcome.failed
    result = Run.of(outcome)
    said = {r.fold: r.predictions for r in result.results if r.method == "b"}[0]
    assert said is not None
    assert (said.probabilities == 0.5).all()  # tested at the only site that has b
    assert "answered by chance" in result.facts["methods"]["b"]["remarks"]


def test_only_those_who_have_something_teach_and_are_counted() -> None:
    cohort = gappy(dict.fromkeys(range(0, 30, 3), ("a",)))  # most of the LGG
    study = open_study(comparison(fusion=["unimodal"], baselines=[], missing="mask"), cohort=cohort)
    fit = next(job.fit for job in plan(study).jobs if job.fit.modalities[0].name == "a")
    batches = batches_of_fit(study, fit)
    seen = [id for batch in batches.training("fit", 0) for id in batch.ids]
    assert sorted(seen) == sorted(fit.learners)
    assert all(study.cohort.subject(id).has("a") for id in seen)
    assert len(seen) < len(fit.split.training)
    labels = [fit.labels[id] for id in fit.learners]
    expected = [1 - labels.count(name) / len(labels) for name in fit.classes]
    assert batches.class_weights.tolist() == pytest.approx(expected)


def test_pixel_puts_a_missing_table_at_the_mean_of_the_others(store: Store) -> None:
    far = gappy()
    moved = [
        replace(s, features={n: tuple(100 + x for x in row) for n, row in s.features.items()}) for s in far.subjects
    ]
    asked = comparison(fusion=["pixel"], baselines=[], missing="mask", recipe={"epochs": 0})
    study = open_study(asked, cohort=replace(far, subjects=tuple(moved)))
    run(study, store)
    for job in plan(study).jobs:
        weights, rows = store.weights(job.key), [study.cohort.subject(id) for id in job.fit.split.training]
        order = [modality.name for modality in job.fit.modalities]
        expected = np.concatenate([np.mean([s.features[n] for s in rows if s.has(n)], axis=0) for n in order])
        assert np.allclose(weights["typical"], expected, atol=1e-4)
        assert np.allclose(weights["backbone.mean"], expected, atol=1e-4)
        assert weights["backbone.std"].max() < 3


def test_modality_dropout_reaches_what_is_stacked(store: Store) -> None:
    def weights(share: float) -> Tensor:
        study = masked_study("decision", recipe={"epochs": 2, "modality_dropout": share})
        run(study, store)
        job = next(job for job in plan(study).jobs if job.fit.fusion.name == "decision")
        return store.weights(job.key)["meta.1.weight"]

    assert not torch.equal(weights(0.0), weights(0.5))


def test_a_ranking_draws_the_score_of_a_rare_modality_toward_chance(store: Store) -> None:
    few = gappy({n: ("a",) for n in range(36) if n % 4})
    study = open_study(comparison(missing="mask", recipe={"epochs": 4, "batch_size": 4}), cohort=few)
    outcome = run(study, store)
    for decision in outcome.decisions:
        (evidence,) = [one for one in decision.evidence if one.modality == "a"]
        for score, part in zip(evidence.scores, evidence.parts, strict=True):
            here = {id for id in part.ids if few.subject(id).has("a")}
            alone, share = METRICS["roc_auc"](part.of(here), "LGG"), len(here) / len(part.ids)
            assert score == pytest.approx(share * alone + (1 - share) / 2, nan_ok=True)
            assert np.isnan(score) or abs(score - 0.5) <= share / 2 + 1e-9


def test_scores_by_what_subjects_have(store: Store) -> None:
    result = Run.of(run(masked_study("logistic"), store))
    lines = {(line.method, line.available): line for line in by_available(result)}
    assert lines["logistic", ALL].counts == {"HGG": 22, "LGG": 11}
    assert len(lines) == 2 * len({method for method, _ in lines})
    small = lines["logistic", ()]  # s00, s05 and s07 are of three sets
    assert small.has == "others (3 sets)"
    assert sum(small.counts.values()) == 3
    everybody = [r.predictions for r in result.results if r.method == "logistic" and r.predictions]
    pooled = Predictions.joined(everybody, ("HGG", "LGG"))
    kept = [n for n, id in enumerate(pooled.ids) if id not in ("s00", "s05", "s07")]
    from sklearn.metrics import roc_auc_score

    expected = roc_auc_score(np.array(pooled.labels)[kept] == "LGG", pooled.probabilities[kept, 1])
    assert lines["logistic", ALL].scores["roc_auc"] == pytest.approx(expected)


def test_scores_by_what_subjects_have_need_gaps(store: Store) -> None:
    study = open_study(comparison(fusion=["logistic"], baselines=[]), cohort=table_cohort())
    with pytest.raises(UsageError, match="every subject has every modality"):
        by_available(Run.of(run(study, store)))
