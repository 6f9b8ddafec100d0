"""A study: which methods a comparison means on a cohort, and what is refused before anything trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from conftest import comparison
from torch import Tensor, nn

from fusionbench import (
    Backbone,
    Cohort,
    CohortReader,
    FeatureSpec,
    Modality,
    Store,
    Study,
    Subject,
    compose,
    load_comparison,
    load_registry,
    open_study,
    plan,
    run,
)
from fusionbench.errors import UsageError
from fusionbench.experiment import parse_setting
from fusionbench.runs import begin_run, run_name
from fusionbench_plugins.extractors.radiomics import Radiomics


class Strange(CohortReader):
    """Somebody's own images, of which it says nothing but what they are."""

    name = "strange"

    def read(self, path: Path) -> Cohort:
        files = {"dwi": Path(__file__)}
        subjects = tuple(Subject(f"s{n}", ("HGG", "LGG")[n % 2], files=files) for n in range(12))
        return Cohort("strange", ("HGG", "LGG"), "LGG", (Modality("dwi"),), subjects)


def test_a_reader_that_names_no_configuration_may_have_any_modalities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry().with_classes("mine", cohort=[Strange])
    monkeypatch.setattr("fusionbench.registry.load_registry", lambda: registry)
    asked = compose(registry, "", {"fusion": ["unimodal"], "cohort": {"reader": "strange", "data": str(tmp_path)}})
    assert open_study(asked, registry=registry).comparison.modalities == ("dwi",)


@pytest.fixture
def imaged() -> Cohort:
    """Two images of which nothing is read, each with an outline."""
    here = Path(__file__)
    subjects = tuple(
        Subject(f"s{n}", ("HGG", "LGG")[n % 2], files={"t1": here, "t2": here}, seg=here) for n in range(12)
    )
    return Cohort("imaged", ("HGG", "LGG"), "LGG", (Modality("t1"), Modality("t2")), subjects)


def labels(study: Study) -> list[str]:
    return [experiment.label for experiment in study.experiments]


@pytest.fixture
def mixed() -> Cohort:
    """An image and a table; every second subject has an outline. Nothing of the image is read."""
    return Cohort(
        name="mixed",
        classes=("HGG", "LGG"),
        positive_class="LGG",
        modalities=(Modality("t1"), Modality("age", "table", 2)),
        subjects=tuple(
            Subject(
                f"s{n}",
                ("HGG", "LGG")[n % 2],
                files={"t1": Path(__file__)},
                features={"age": (1.0, float(n))},
                seg=Path(__file__) if n % 2 else None,
            )
            for n in range(12)
        ),
    )


def test_a_variant_is_a_row_of_its_own_name_attention_options_and_modalities(cohort: Cohort) -> None:
    variants = {
        "mean": {"fusion": "guidance", "options": {"guidance": {"fuse_init": "mean"}}},
        "gated": {"fusion": "guidance", "attention": "dual", "modalities": ["b", "a"]},
    }
    study = open_study(comparison(fusion=["guidance", "mean", "gated"], baselines=[], variants=variants), cohort=cohort)
    guidance, mean, gated = study.experiments
    assert labels(study) == ["guidance", "mean", "gated"]
    assert (guidance.options["guidance"]["fuse_init"], mean.options["guidance"]["fuse_init"]) == ("primary", "mean")
    assert (guidance.attention, gated.attention, gated.modalities) == ("none", "dual", ("b", "a"))
    assert len({experiment.key("data") for experiment in study.experiments}) == 3


def test_a_variant_with_other_options_predicts_otherwise_and_shares_the_rest(cohort: Cohort, store: Store) -> None:
    variants = {"mean": {"fusion": "guidance", "options": {"guidance": {"fuse_init": "mean"}}}}
    study = open_study(comparison(fusion=["guidance", "mean"], baselines=[], variants=variants), cohort=cohort)
    plan = run(study, store).plan
    keys = {label: {row.key for row in plan.rows if row.experiment.label == label} for label in labels(study)}
    assert len(keys["guidance"] | keys["mean"]) == 4
    assert len(plan.jobs) == 3 * 2 * 2 + 2 + 4, "the ranking and the first stage are trained once for both"


def test_rows_of_single_modalities_are_named_for_what_tells_them_apart(cohort: Cohort) -> None:
    variants = {
        "attentive": {"fusion": "unimodal", "attention": "dual"},
        "wide": {"fusion": "unimodal", "options": {"mlp": {"width": 16}}},
    }
    asked = comparison(fusion=["attentive", "wide"], baselines=["unimodal"], modalities=["a", "b"], variants=variants)
    study = open_study(asked, cohort=cohort)
    assert labels(study) == ["a", "b", "a+dual", "b+dual", "a (wide)", "b (wide)"]
    assert study.experiments[-1].options["mlp"]["width"] == 16


def test_rows_of_equal_attention_are_told_apart_whichever_comes_first(cohort: Cohort) -> None:
    variants = {"plain": {"fusion": "unimodal", "attention": "none"}}
    asked = comparison(fusion=["plain", "unimodal"], baselines=[], modalities=["a", "b"], variants=variants)
    assert labels(open_study(asked, cohort=cohort)) == ["a", "b", "a (unimodal)", "b (unimodal)"]


def test_a_missing_backbone_is_a_reason_and_not_for_systems_that_need_none(cohort: Cohort) -> None:
    asked = comparison(fusion=["all"], baselines=[]).model_copy(update={"backbone": {"image": "rmc"}})
    study = open_study(asked, cohort=cohort)
    assert set(study.comparison.fusion) == {"logistic", "mmdvae"}
    assert study.left_out["pixel"].startswith("has no backbone for table modality a: add --backbone table=NAME")


def test_all_is_every_strategy_and_variant_with_a_reason_for_those_left_out(cohort: Cohort) -> None:
    variants = {"attentive": {"fusion": "unimodal", "attention": "dual"}}
    study = open_study(comparison(fusion=["all"], baselines=[], variants=variants), cohort=cohort)
    known = {component.name for component in load_registry().of("fusion")} | set(variants)
    assert set(study.comparison.fusion) | set(study.left_out) == known
    assert study.left_out["agg"] == "takes image modalities; a is of kind table"
    assert {"a+dual", "guidance", "logistic"} <= set(labels(study))


def test_all_says_whose_outlines_are_missing_and_what_cannot_be_stacked(mixed: Cohort) -> None:
    study = open_study(
        comparison(fusion=["all"], baselines=[], backbone={"image": "rmc", "table": "mlp"}), cohort=mixed
    )
    assert study.left_out["mmdvae"] == "needs the segmentation of every subject; 6 have none, such as 's0'"
    differ = "they differ: t1 is an image with rmc, age is a table with mlp"
    assert study.left_out["pixel"] == f"stacks all modalities into one backbone, and {differ}"
    assert study.left_out["logistic"] == "takes table modalities; t1 is of kind image"
    assert "feature" in study.comparison.fusion


def test_what_was_named_and_cannot_be_is_refused(mixed: Cohort) -> None:
    with pytest.raises(UsageError, match="mmdvae needs the segmentation of every subject"):
        open_study(comparison(fusion=["mmdvae"], baselines=[]), cohort=mixed)
    with pytest.raises(UsageError, match="logistic takes table modalities"):
        open_study(comparison(fusion=["guidance"], baselines=["logistic"]), cohort=mixed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"guidance": {"fusion": "pixel"}}}, "there is a strategy of that name"),
        ({"variants": {"all": {"fusion": "pixel"}}}, "there is a strategy of that name"),
        ({"variants": {"mine": {"fusion": "guidence"}}}, "did you mean 'guidance'"),
        ({"variants": {"mine": {"fusion": "pixel", "attention": "duel"}}}, "did you mean 'dual'"),
        ({"variants": {"mine": {"fusion": "pixel", "modalities": ["d"]}}}, "'d' is not compared"),
        ({"variants": {"mine": {"fusion": "guidance", "options": {"guidance": {"start": 1}}}}}, "no option 'start'"),
        ({"variants": {"mine": {"fusion": "pixel", "backbone": {"t9": "mlp"}}}}, "no kind and no modality"),
        ({"fusion": ["maen"], "variants": {"mean": {"fusion": "guidance"}}}, "no fusion 'maen': did you mean 'mean'"),
        ({"fusion": ["al"]}, "did you mean 'all'"),
        ({"backbone": {"image": "timm:resnet1O"}}, "timm has no network 'resnet1O'.*list 'timm:res[*]' names them"),
        ({"protocol": {"ranking": {"primary": "A"}}}, "protocol.ranking.primary: 'A' is not compared"),
        (
            {
                "variants": {"mine": {"fusion": "guidance", "modalities": ["b", "c"]}},
                "protocol": {"ranking": {"primary": "a"}},
            },
            "variants.mine lacks the primary modality a",
        ),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(changes: dict[str, object], message: str, cohort: Cohort) -> None:
    with pytest.raises(UsageError, match=message):
        open_study(comparison(**changes), cohort=cohort)


def test_a_given_primary_comes_first_whatever_the_evidence(cohort: Cohort, store: Store) -> None:
    study = open_study(comparison(protocol={"folds": 2, "ranking": {"primary": "c"}}), cohort=cohort)
    outcome = run(study, store)
    assert {decision.order for decision in outcome.decisions} == {("c", "a", "b")}


def test_an_option_of_a_member_of_a_family_is_what_follows_the_last_dot() -> None:
    assert parse_setting("timm:resnet18.a1_in1k.pool=attention") == {
        "options": {"timm:resnet18.a1_in1k": {"pool": "attention"}}
    }


def test_a_variant_can_be_set_on_the_command_line() -> None:
    text = 'variants.mean={fusion="guidance", options={guidance={fuse_init="mean"}}}'
    assert parse_setting(text) == {
        "variants": {"mean": {"fusion": "guidance", "options": {"guidance": {"fuse_init": "mean"}}}}
    }


def test_a_study_reopened_from_its_own_toml_is_the_same(cohort: Cohort) -> None:
    variants = {"mean": {"fusion": "guidance", "options": {"guidance": {"fuse_init": "mean"}}}}
    study = open_study(comparison(fusion=["all"], variants=variants), cohort=cohort)
    again = open_study(study.comparison, cohort=cohort)
    assert replace(again, left_out=study.left_out) == study


def test_with_features_every_strategy_for_tables_works_on_images(imaged: Cohort) -> None:
    asked = comparison(fusion=["all"], baselines=[], features="radiomics", backbone={"image": "rmc", "t1": "rmc"})
    study = open_study(asked, cohort=imaged)
    assert study.left_out == {"agg": "takes image modalities; t1 is of kind table, made of an image by radiomics"}
    fit, _ = (job.fit for job in plan(study).jobs if job.fit.fusion.name == "logistic")
    assert fit.features is not None
    assert (fit.features.name, fit.outlines, fit.preprocessing) == ("radiomics", "test", {})
    assert {(m.kind, m.channels) for m in fit.modalities} == {("table", len(Radiomics().names))}
    assert all(len(digests) == 3 for digests in fit.digests.values()), "t1, t2 and the outline"
    assert study.comparison.recipe.precision == "32"


def test_a_variant_may_work_on_features_where_the_others_see_images(imaged: Cohort) -> None:
    variants = {"by-features": {"fusion": "unimodal", "features": "radiomics"}}
    asked = comparison(fusion=["by-features"], baselines=["unimodal"], variants=variants, modalities=["t1"])
    study = open_study(asked, cohort=imaged)
    seen = {job.fit.modalities[0].kind: job.fit for job in plan(study).jobs}
    assert {kind: fit.backbones["t1"].name for kind, fit in seen.items()} == {"image": "rmc", "table": "mlp"}
    assert labels(study) == ["t1", "t1 (by-features)"]


def test_a_system_with_networks_of_its_own_depends_on_no_part(cohort: Cohort) -> None:
    keys = [
        {
            job.key
            for job in plan(open_study(comparison(fusion=["logistic"], baselines=[], **parts), cohort=cohort)).jobs
        }
        for parts in ({}, {"attention": "dual"}, {"options": {"mlp": {"width": 3}}})
    ]
    assert keys[0] == keys[1] == keys[2]


def test_a_misspelt_field_of_a_variant_is_named() -> None:
    with pytest.raises(UsageError, match=r"no setting 'variants.mine.fusoin': did you mean 'fusion'"):
        comparison(variants={"mine": {"fusoin": "guidance"}})


class Filed(Backbone):
    """Reads its weights from a file."""

    name = "filed"
    accepts = frozenset({"table"})
    low_spec = high_spec = FeatureSpec(3)

    def __init__(self, channels: int, *, weights: Annotated[Path | None, "a file"] = None) -> None:
        super().__init__()
        assert isinstance(weights, Path), "a component gets its options as it declares them"
        self.loaded = weights.read_text()
        self.layer = nn.Conv3d(channels, 3, 1)

    def low(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def high(self, low: Tensor) -> Tensor:
        return low


def test_a_run_with_a_file_of_weights_is_named_planned_trained_and_recorded(
    cohort: Cohort, store: Store, tmp_path: Path
) -> None:
    registry = load_registry().with_classes("mine", backbone=[Filed])

    def study(file: str) -> Study:
        options = {"filed": {"weights": str(tmp_path / file)}}
        asked = comparison(fusion=["unimodal"], baselines=[], backbone={"table": "filed"}, options=options)
        return open_study(asked, cohort=cohort, registry=registry)

    for file, content in (("here.pt", "one"), ("there.pt", "one"), ("other.pt", "two")):
        (tmp_path / file).write_text(content)
    here, there, other = study("here.pt"), study("there.pt"), study("other.pt")
    assert run_name(here) == run_name(there) != run_name(other)
    outcome = run(here, store)
    assert not outcome.failed
    assert {tuple(record["pretrained"].values()) for record in outcome.records.values()} == {("one",)}
    assert {job.key for job in plan(there).jobs} == set(outcome.known)
    begin_run(here, tmp_path / "run")
    assert load_comparison(tmp_path / "run" / "experiment.toml").options["filed"]["weights"].endswith("here.pt")
