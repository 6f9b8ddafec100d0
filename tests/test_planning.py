"""A plan names every distinct fit once, and a key changes exactly when the predictions may."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import comparison, table_cohort
from test_real_mri import labelled

from fusionbench import Cohort, Predictions, Store, Study, load_comparison, load_registry, open_study, plan, run
from fusionbench.errors import PluginError, UsageError
from fusionbench.experiment import merged
from fusionbench.fits import Fit, built
from fusionbench.planning import Plan, Planner
from fusionbench.ranking import Ground, Ranker


def keys_of(changes: dict[str, object], cohort: Cohort | None = None) -> dict[tuple[str, tuple[str, ...]], str]:
    """The fits on the first outer fold, by strategy and modalities, in a fixed order of modalities."""
    fixed = {"protocol": {"folds": 2, "ranking": {"ranker": "fixed"}}}
    study = open_study(comparison(**merged(fixed, changes)), cohort=cohort or table_cohort())
    first = study.folds[0].split
    fits = [job.fit for job in plan(study).jobs if job.fit.split == first]
    return {(fit.fusion.name, tuple(m.name for m in fit.modalities)): fit.key for fit in fits}


def known_for(study: Study, found: Plan) -> dict[str, Predictions]:
    """Predictions that make `c` the best modality, then `a`, then `b`."""
    good = {"c": 0.9, "a": 0.7, "b": 0.4}
    known = {}
    for job in found.jobs:
        labels = [job.fit.labels[id] for id in job.fit.split.test]
        trust = good[job.fit.modalities[0].name]
        # a share of the subjects, in turn, is told apart
        right = [(n % 10) / 10 < trust for n in range(len(labels))]
        p = [0.9 if (label == "LGG") == ok else 0.1 for label, ok in zip(labels, right, strict=True)]
        import numpy as np

        rows = np.array([[1 - x, x] for x in p])
        known[job.key] = Predictions(job.fit.split.test, tuple(labels), study.cohort.classes, rows)
    return known


def test_every_distinct_fit_is_planned_once_and_parents_come_first(study: Study) -> None:
    found = plan(study)
    keys = [job.key for job in found.jobs]
    assert len(set(keys)) == len(keys)
    done: set[str] = set()
    for job in found.jobs:
        assert set(job.needs) <= done
        done.add(job.key)
    # 3 modalities x (2 outer + 2 x 2 inner folds), and 2 ensembles; 2 guidance fits wait for the ranking
    assert len(keys) == 3 * (2 + 4) + 2
    assert len(found.undecided) == 2


def test_a_known_ranking_decides_the_order_and_the_primary_is_the_unimodal_fit(study: Study) -> None:
    first = plan(study)
    second = plan(study, known_for(study, first))
    assert not second.undecided
    assert [decision.order for decision in second.decisions] == [("c", "a", "b")] * 2
    guidance = [job for job in second.jobs if job.fit.fusion.name == "guidance"]
    unimodal = {job.key: job.fit for job in first.jobs if job.fit.fusion.name == "unimodal"}
    for job in guidance:
        assert [m.name for m in job.fit.modalities] == ["c", "a", "b"]
        (parent,) = job.needs
        assert unimodal[parent].split == job.fit.split
        assert [m.name for m in unimodal[parent].modalities] == ["c"]
    assert len(second.jobs) == len(first.jobs) + len(guidance)


def test_sharing_saves_what_a_naive_run_would_train_again(study: Study) -> None:
    first = plan(study)
    second = plan(study, known_for(study, first))
    # per outer fold: 3 uni-modal rows, an ensemble with its 3 members, guidance with its primary, 6 inner fits
    assert second.asked == 2 * (3 + 4 + 2 + 6)
    assert len(second.jobs) == 2 * (3 + 1 + 1 + 6)


def test_the_same_study_and_results_give_the_same_plan(study: Study) -> None:
    known = known_for(study, plan(study))
    planner = Planner(study)
    planner.plan({})
    again, fresh = planner.plan(known), plan(study, known)
    assert (again.jobs, again.rows, again.asked) == (fresh.jobs, fresh.rows, fresh.asked)


def test_a_failed_ranking_fit_fails_the_rows_that_need_it_and_no_other(study: Study) -> None:
    first = plan(study)
    inner = next(job for job in first.jobs if job.fit.split not in {fold.split for fold in study.folds})
    found = plan(study, known_for(study, first), {inner.key: "out of luck"})
    failed = [row for row in found.rows if row.failed]
    assert [row.experiment.label for row in failed] == ["guidance"]
    assert "out of luck" in failed[0].failed


def test_nested_ranking_fits_neither_train_on_nor_predict_a_test_subject(study: Study) -> None:
    outer = [fold.split for fold in study.folds]
    inner = [job.fit.split for job in plan(study).jobs if job.fit.split not in outer]
    assert inner
    for split in inner:
        assert any({*split.training, *split.test} <= set(whole.training) for whole in outer)


def test_a_ranker_that_peeks_without_saying_so_is_refused(cohort: Cohort) -> None:
    class Peeking(Ranker):
        """Looks at the test folds in secret."""

        name = "peeking"
        fusion = "unimodal"

        def splits(self, ground: Ground):  # type: ignore[no-untyped-def]
            return tuple(fold.split for fold in ground.outer)

    from fusionbench import load_registry

    registry = load_registry().with_classes("mine", ranker=[Peeking])
    asked = comparison(protocol={"ranking": {"ranker": "peeking"}})
    study = open_study(asked, cohort=cohort, registry=registry)
    with pytest.raises(PluginError, match="asked for test subjects"):
        plan(study)


UNIMODAL, ENSEMBLE, GUIDANCE = ("unimodal", ("a",)), ("ensemble", ("a", "b", "c")), ("guidance", ("a", "b", "c"))
EVERYTHING = {UNIMODAL, ("unimodal", ("b",)), ("unimodal", ("c",)), ENSEMBLE, GUIDANCE}


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"seed": 1}, EVERYTHING),
        ({"recipe": {"epochs": 4}}, EVERYTHING),
        ({"recipe": {"learning_rate": 1e-2}}, EVERYTHING),
        ({"recipe": {"weight_decay": 0.0}}, EVERYTHING),
        ({"recipe": {"batch_size": 4}}, EVERYTHING),
        ({"recipe": {"dropout": 0.1}}, EVERYTHING),
        ({"recipe": {"class_weights": "none"}}, EVERYTHING),
        ({"recipe": {"threads": 2}}, EVERYTHING),
        ({"recipe": {"precision": "bf16"}}, EVERYTHING),
        ({"attention": "dual"}, EVERYTHING),
        ({"options": {"mlp": {"width": 16}}}, EVERYTHING),
        ({"recipe": {"stages": {"secondary": {"epochs": 7}}}}, {GUIDANCE}),
        ({"options": {"guidance": {"fuse_init": "mean"}}}, {GUIDANCE}),
        ({"recipe": {"stages": {"fit": {"epochs": 3}}}}, set()),  # said twice, but no change
        ({"options": {"guidance": {"fuse_init": "primary"}}}, set()),  # the default
        ({"recipe": {"augmentation": {"degrees": 1.0}}}, set()),  # tables are not augmented
        ({"preprocessing": {"resize": [4, 4, 4]}}, set()),
        ({"options": {"logistic": {"c": 0.5}}}, set()),
        ({"protocol": {"inner_folds": 3}}, set()),  # the outer fits do not depend on it
        ({"protocol": {"ranking": {"score": "accuracy"}}}, set()),
        ({"baselines": ["unimodal", "ensemble", "logistic"]}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_key_changes_exactly_when_the_predictions_may(changes: dict[str, object], moved: set[object]) -> None:
    before, after = keys_of({}), keys_of(changes)
    assert {fit for fit in before if before[fit] != after[fit]} == moved


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"recipe": {"epochs": 4}},
        {"recipe": {"learning_rate": 1e-2}},
        {"recipe": {"weight_decay": 0.5}},
        {"recipe": {"batch_size": 4}},
        {"recipe": {"dropout": 0.1}},
        {"recipe": {"class_weights": "none"}},
        {"recipe": {"precision": "bf16"}},
        {"options": {"mlp": {"width": 16}}},
        {"modalities": ["b"]},
        {"protocol": {"fold_seed": 1}},
    ],
    ids=str,
)
def test_what_moves_a_key_moves_the_predictions(changes: dict[str, object], tmp_path: Path) -> None:
    alone = {"fusion": ["unimodal"], "baselines": [], "modalities": ["a"]}
    found = []
    for asked in (alone, merged(alone, changes)):
        outcome = run(open_study(comparison(**asked), cohort=table_cohort()), Store(tmp_path))
        found.append([outcome.known[row.key].to_csv() for row in outcome.plan.rows])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"preprocessing": {"resize": [8, 8, 8]}}, True),
        ({"preprocessing": {"crop": [40, 80, 80]}}, True),
        ({"preprocessing": {"percentiles": [1.0, 99.0]}}, True),
        ({"recipe": {"augmentation": {"degrees": 5.0}}}, True),
        ({"preprocessing": {"crop": [40, 80, 80], "centre": "content"}}, True),
        ({"preprocessing": {"resample": True}}, True),
        ({"preprocessing": {"max_voxels": 10**6}}, False),
        ({"recipe": {"augmentation": {"flip": 0.0}}}, True),
        ({"recipe": {"augmentation": {"extra": ["RandomNoise(std=0.05)"]}}}, True),
        ({"options": {"rmc": {"width": 4}}}, True),
        ({"backbone": {"image": "r3d-18"}}, True),
        ({"backbone": {"t1ce": "r3d-18"}}, True),
        ({"backbone": {"t2": "r3d-18"}}, False),
        ({"options": {"mlp": {"width": 4}}}, False),
        ({"options": {"guidance": {"upsample": "nearest"}}}, False),
    ],
    ids=str,
)
def test_the_key_of_an_image_fit_follows_what_is_done_to_images(
    changes: dict[str, object], moved: bool, tmp_path: Path
) -> None:
    shutil.copytree(Path(__file__).parent / "data" / "brats", tmp_path / "data")
    people = labelled(tmp_path / "data").subjects
    cohort = replace(
        labelled(tmp_path / "data"),
        subjects=tuple(replace(s, id=f"{s.id}-{n}", group="") for s in people for n in range(2)),
    )
    base = {"fusion": ["unimodal"], "baselines": [], "modalities": ["t1ce"], "protocol": {"folds": 2}}
    keys = []
    for asked in (base, merged(base, changes)):
        study = open_study(load_comparison("demo", asked), cohort=cohort)
        keys.append([job.key for job in plan(study).jobs])
    assert (keys[0] != keys[1]) is moved


def test_other_images_of_a_subject_count_where_they_move_the_crop(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent / "data" / "brats", tmp_path / "data")
    people = labelled(tmp_path / "data")
    doubled = tuple(replace(s, id=f"{s.id}-{n}", group="") for s in people.subjects for n in range(2))
    other = tmp_path / "other.nii.gz"
    other.write_bytes(b"another t2")
    first = replace(doubled[0], files={**doubled[0].files, "t2": other})
    cohorts = [replace(people, subjects=subjects) for subjects in (doubled, (first, *doubled[1:]))]
    base = {"fusion": ["unimodal"], "baselines": [], "modalities": ["t1ce"], "protocol": {"folds": 2}}
    joint = {"preprocessing": {"crop": [40, 80, 80], "centre": "content"}}
    for changes, same in (({}, True), (joint, False)):
        asked = load_comparison("demo", merged(base, changes))
        before, after = ([job.key for job in plan(open_study(asked, cohort=cohort)).jobs] for cohort in cohorts)
        assert (before == after) is same


def test_a_key_depends_on_the_data_it_reads_and_on_no_other() -> None:
    cohort = table_cohort()
    first = cohort.subjects[0]
    values = {**first.features, "b": (9.0, *first.features["b"][1:])}
    changed = replace(cohort, subjects=(replace(first, features=values), *cohort.subjects[1:]))
    before, after = keys_of({}), keys_of({}, changed)
    assert {fit for fit in before if before[fit] != after[fit]} == {("unimodal", ("b",)), ENSEMBLE, GUIDANCE}


def test_a_key_depends_on_labels_and_ids_but_not_on_where_subjects_stand() -> None:
    cohort = table_cohort()
    shuffled = replace(cohort, subjects=tuple(reversed(cohort.subjects)))
    assert keys_of({}, shuffled) == keys_of({})
    swapped = {"s01": "LGG", "s00": "HGG"}
    subjects = tuple(replace(s, label=swapped.get(s.id, s.label)) for s in cohort.subjects)
    assert not set(keys_of({}, replace(cohort, subjects=subjects)).values()) & set(keys_of({}).values())


def test_changed_plugin_code_is_another_key(study: Study) -> None:
    fit: Fit = plan(study).jobs[0].fit
    for part in ("fusion", "attention"):
        changed = replace(fit, **{part: replace(getattr(fit, part), source="0" * 64)})
        assert changed.key != fit.key
    assert replace(fit, runtime={**fit.runtime, "torch": "0"}).key != fit.key


def test_a_file_named_by_an_option_counts_by_its_content(study: Study) -> None:
    fit: Fit = plan(study).jobs[0].fit
    here = replace(fit.fusion, options={"weights": "/here/net.pth"}, files={"weights": "abc"})
    there = replace(fit.fusion, options={"weights": "/there/net.pth"}, files={"weights": "abc"})
    other = replace(fit.fusion, options={"weights": "/here/net.pth"}, files={"weights": "abd"})
    key = {name: replace(fit, fusion=built).key for name, built in (("h", here), ("t", there), ("o", other))}
    assert key["h"] == key["t"] != key["o"]


def test_a_file_that_an_option_names_and_is_not_there_is_an_error_that_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    registry = load_registry()
    for name in ("rmc", "timm:resnet18"):
        family, component = name.partition(":")[0], registry.get("backbone", name)
        with pytest.raises(
            UsageError, match=rf"^{family}\.weights: there is no file ~/net\.pth; give the path"
        ) as told:
            built(component, {family: {"weights": "~/net.pth"}})
        assert "\n" not in str(told.value)
    (tmp_path / "net.pth").write_bytes(b"")
    assert built(registry.get("backbone", "rmc"), {"rmc": {"weights": "~/net.pth"}}).files["weights"].startswith("e3b0")
    with pytest.raises(UsageError, match=r"^rmc\.weights: there is no file "):  # a folder is none
        built(registry.get("backbone", "rmc"), {"rmc": {"weights": str(tmp_path)}})


def test_seeds_do_not_depend_on_the_name_of_a_plugin(study: Study) -> None:
    fit: Fit = plan(study).jobs[0].fit
    renamed = replace(fit, fusion=replace(fit.fusion, name="other", source="0"))
    assert renamed.base_seed == fit.base_seed
    assert replace(fit, seed=1).base_seed != fit.base_seed
