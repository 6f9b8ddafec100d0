"""The shipped configurations of the paper's experiments say every setting, and make a whole plan of a BraTS folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from fusionbench import Comparison, Study, compose, load_comparison, load_registry, open_study, plan
from fusionbench.experiment import Recipe, _flat, configs_folder, read_config
from fusionbench.planning import Plan

NAMES = ("paper-brats2018", "paper-brats2019")
MODALITIES = ("t1ce", "t2", "flair", "t1")
ROWS = (
    *("t1ce", "t2", "flair", "t1"),
    *("t1ce+dual", "t2+dual", "flair+dual", "t1+dual"),
    *("plain-ensemble", "plain-pixel", "plain-feature", "plain-decision", "agg", "mmdvae", "guidance"),
)
TABLE = {
    "modalities": MODALITIES,
    "attention": "dual",
    "backbone.image": "rmc",
    "cohort.reader": "brats",
    "protocol.folds": 3,
    "protocol.repeats": 1,
    "protocol.ranking.ranker": "outer",
    "protocol.ranking.score": "balanced_accuracy",
    "protocol.ranking.attention": "none",
    "preprocessing.crop": (150, 240, 240),
    "preprocessing.percentiles": (0.5, 99.5),
    "recipe.epochs": 200,
    "recipe.learning_rate": 1e-5,
    "recipe.weight_decay": 1e-3,
    "recipe.batch_size": 1,
    "recipe.dropout": 0.5,
    "recipe.class_weights": "paper",
    "recipe.augmentation.flip": 0.25,
    "recipe.augmentation.degrees": 10.0,
    "recipe.augmentation.scales": (0.9, 1.2),
    "recipe.stages.secondary.epochs": 50,
    "options.brats.positive_class": "LGG",
    "options.rmc.width": 64,
    "options.rmc.stem": "reinit",
    "options.dual.scope": "slice",
    "options.dual.energy": "mean",
    "options.dual.invert": True,
    "options.dual.second": "slices",
    "options.dual.combine": "sum",
    "options.dual.reduction": 8,
    "options.guidance.train": "secondary",
    "options.guidance.upsample": "trilinear",
    "options.decision.meta": "mlp",
    "options.decision.mode": "stacked",
    "options.agg.roi": "predicted",
}


def value(comparison: Comparison, path: str) -> Any:
    found: Any = comparison
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


def settings_said(config: str) -> set[str]:
    """The settings that the file itself says, whatever the defaults are."""
    return set(_flat(read_config(config)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", TABLE)
def test_every_hyperparameter_is_the_papers(name: str, path: str) -> None:
    assert value(load_comparison(name), path) == TABLE[path]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_them_itself_and_leaves_none_to_a_default(name: str) -> None:
    assert set(TABLE) <= settings_said(name)


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_trained_as_the_paper_says_or_as_was_decided(name: str) -> None:
    recipe: Recipe = load_comparison(name).recipe
    first, second = recipe.stage("fit"), recipe.stage("secondary")
    assert first == {"epochs": 200, "learning_rate": 1e-5, "weight_decay": 1e-3, "batch_size": 1}
    assert second == {**first, "epochs": 50}
    own = {stage for c in load_registry().of("fusion") for stage in c.cls.stage_names}  # type: ignore[attr-defined]
    assert set(recipe.stages) == {"secondary", "meta", "segment", "grade", "vae"} <= own


@pytest.mark.parametrize("name", ["brats", *NAMES])
def test_every_stage_that_starts_from_nothing_is_faster_than_fine_tuning(name: str) -> None:
    """1e-5 is for pretrained networks. Stage `fit` is the recipe itself; `secondary` goes on from trained branches."""
    recipe: Recipe = load_comparison(name).recipe
    own = {stage for c in load_registry().of("fusion") for stage in c.cls.stage_names}  # type: ignore[attr-defined]
    slow = {stage for stage in own - {"fit", "secondary"} if recipe.stage(stage)["learning_rate"] <= 1e-5}
    assert not slow


def test_the_two_differ_in_comments_only() -> None:
    first, second = (load_comparison(name) for name in NAMES)
    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_each_group_of_settings_says_where_its_values_are_from(name: str) -> None:
    groups = (configs_folder() / f"{name}.toml").read_text(encoding="utf-8").split("\n\n")
    told = [g for g in groups if g.startswith(("[protocol", "[preprocessing", "[recipe", "[options"))]
    assert len(told) == 18
    assert not [g for g in told if not any(m in g for m in ("[paper", "[baseline]", "[deduced]", "[decision]"))]


# A plan, from a folder in BraTS' layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine HGG and six LGG, each with four images and an outline."""
    folder = tmp_path_factory.mktemp("brats")
    for grade, count in (("HGG", 9), ("LGG", 6)):
        for number in range(count):
            case(folder / grade / f"Brats18_{grade}_{number}")
    return folder


def case(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate((*MODALITIES, "seg")):
        voxels = np.random.default_rng(seed).integers(1, 4, (4, 4, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{folder.name}_{name}.nii.gz")


def opened(config: str, folder: Path, *fusion: str) -> Study:
    registry = load_registry()
    flags = {"cohort": {"data": str(folder)}, "fusion": list(fusion) or None}
    return open_study(compose(registry, config, flags), registry=registry)


@pytest.mark.parametrize("name", NAMES)
def test_a_brats_folder_of_any_size_makes_a_row_for_all_that_the_paper_compares(name: str, folder: Path) -> None:
    study = opened(name, folder)
    assert tuple(experiment.label for experiment in study.experiments) == ROWS
    planned = plan(study, {})
    assert {row.experiment.label for row in planned.rows} | {row.experiment.label for row in planned.undecided} == {
        *ROWS
    }
    assert {row.experiment.label for row in planned.undecided} == {"guidance"}


def test_attention_is_where_the_paper_has_it(folder: Path) -> None:
    attention = {e.label: e.attention for e in opened(NAMES[0], folder).experiments}
    assert {label for label, name in attention.items() if name == "none"} == {
        *MODALITIES, "plain-ensemble", "plain-pixel", "plain-feature", "plain-decision",
    }  # fmt: skip
    assert attention["guidance"] == attention["t1ce+dual"] == "dual"


def test_the_ranking_costs_nothing_and_is_shared_with_the_rows(folder: Path) -> None:
    """12 uni-modal fits without attention, of 4 modalities and 3 folds, are rows, members, and what ranks."""
    planned = plan(opened(NAMES[0], folder, "guidance"), {})
    assert fits(planned) == {("unimodal", "none"): 12}
    planned = plan(opened(NAMES[0], folder, "guidance", "plain", "plain-ensemble"), {})
    assert fits(planned) == {("unimodal", "none"): 12, ("ensemble", "none"): 3}


def fits(planned: Plan) -> Counter[tuple[str, str]]:
    return Counter((job.fit.fusion.name, job.fit.attention.name if job.fit.attention else "") for job in planned.jobs)
