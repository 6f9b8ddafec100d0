"""Trained models predict new subjects as they predicted their test parts, and say what stands against believing it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import pytest
import torch
from conftest import comparison, table_cohort
from torch import Tensor, nn

from fusionbench import (
    Backbone,
    Cohort,
    CohortReader,
    FeatureSpec,
    FusionStrategy,
    Leaderboard,
    Modality,
    Parts,
    Predictions,
    Store,
    Study,
    Subject,
    TrainedRun,
    load_comparison,
    load_fit,
    load_registry,
    open_study,
    plan,
    run,
)
from fusionbench.batches import Batches
from fusionbench.comparing import Resample, bootstrap, wilson
from fusionbench.errors import CohortError, StoreError, UsageError
from fusionbench.fits import Fit
from fusionbench.imaging.volumes import Volumes
from fusionbench.metrics import METRICS
from fusionbench.runs import Run, begin_run, write_run
from fusionbench.using.answers import Opinion
from fusionbench.using.exporting import export_run
from fusionbench.using.inference import Step
from fusionbench.using.loading import detach

TABLE_STRATEGIES = ["guidance", "decision", "pixel", "feature", "logistic", "mmdvae"]


def done(study: Study, folder: Path, store: Path) -> TrainedRun:
    """The study run and written into a folder, opened again."""
    begin_run(study, folder)
    outcome = run(study, Store(store))
    assert not outcome.failed
    write_run(Run.of(outcome, folder.name), folder, {"leaderboard.csv": "method,failed\nguidance,\na,\n"})
    return TrainedRun.open(folder, Store(store), study.registry)


def image_cohort(folder: Path, subjects: int = 8, size: tuple[int, int, int] = (8, 8, 4), mm: float = 2.0) -> Cohort:
    """Two sequences of noise and an outline, as NIfTI of that (X, Y, Z)."""
    random = np.random.default_rng(len(str(size)) + subjects)
    affine = np.diag([mm, mm, mm, 1.0])
    folder.mkdir(parents=True, exist_ok=True)

    def written(name: str, voxels: np.ndarray) -> Path:
        nibabel.Nifti1Image(voxels, affine).to_filename(folder / name)
        return folder / name

    def subject(number: int) -> Subject:
        files = {m: written(f"{number}_{m}.nii", random.random(size, dtype=np.float32)) for m in ("t1", "t2")}
        outline = np.zeros(size, np.uint8)
        outline[2:6, 2:6, 1:3] = 1
        return Subject(f"p{number}", ("LGG", "HGG")[number % 2], files=files, seg=written(f"{number}_seg.nii", outline))

    kinds = (Modality("t1"), Modality("t2"))
    return Cohort("images", ("HGG", "LGG"), "LGG", kinds, tuple(map(subject, range(subjects))))


def image_study(cohort: Cohort, fusion: list[str], **changes: object) -> Study:
    settings = {
        "fusion": fusion,
        "protocol": {"folds": 2, "inner_folds": 2, "ranking": {"ranker": "fixed"}},
        "recipe": {"epochs": 1, "batch_size": 2, "device": "cpu", "stages": {"secondary": {"epochs": 1}}},
        "modalities": ["t1", "t2"],
        "preprocessing": {"crop": [4, 8, 8]},
        "options": {"rmc": {"width": 2}, "agg": {"width": 2, "size": 4}},
    }
    return open_study(load_comparison("brats", settings, changes), cohort=cohort)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Every strategy for tables, two folds, trained for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    study = open_study(comparison(fusion=TABLE_STRATEGIES, modalities=["a", "b"]), cohort=table_cohort())
    return done(study, folder / "run", folder / "store")


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Strategies for images, two folds."""
    folder = tmp_path_factory.mktemp("pictured")
    study = image_study(image_cohort(folder / "images"), ["guidance", "agg", "pixel"], baselines=["unimodal"])
    return done(study, folder / "run", folder / "store")


def new_tables(subjects: int = 7, seed: int = 5) -> Cohort:
    """Other subjects of the same kind, without labels."""
    cohort = table_cohort(subjects, seed=seed)
    bare = tuple(replace(subject, id=f"new{subject.id}", label="") for subject in cohort.subjects)
    return replace(cohort, name="new", subjects=bare, labelled=False)


def shuffled(cohort: Cohort, places: Sequence[int]) -> Cohort:
    """The cohort with the columns of every table at other places."""
    moved = (
        replace(s, features={name: tuple(row[n] for n in places) for name, row in s.features.items()})
        for s in cohort.subjects
    )
    return replace(cohort, subjects=tuple(moved))


def lacking(cohort: Cohort, id: str, *modalities: str) -> Cohort:
    """The cohort with a subject that lacks some tables."""
    changed = (
        replace(s, features={n: x for n, x in s.features.items() if n not in modalities}) if s.id == id else s
        for s in cohort.subjects
    )
    return replace(cohort, subjects=tuple(changed))


# A fit comes back from its record


def test_a_fit_read_back_has_the_key_of_the_fit_for_every_built_in_strategy(tmp_path: Path, cohort: Cohort) -> None:
    pictures = image_cohort(tmp_path / "images")
    ranking = {"protocol": {"folds": 2, "inner_folds": 2, "ranking": {"ranker": "fixed"}}}
    studies = [image_study(pictures, ["all"]), open_study(comparison(fusion=["all"], **ranking), cohort=cohort)]
    fits = [job.fit for study in studies for job in plan(study).jobs]
    everyone = {component.name for component in load_registry().of("fusion") if component.distribution == "fusionbench"}
    assert {fit.fusion.name for fit in fits} == everyone
    for fit in fits:
        again = Fit.from_record(json.loads(json.dumps(asdict(fit))))
        assert again.key == fit.key
        assert (again.base_seed, again.split, again.modalities) == (fit.base_seed, fit.split, fit.modalities)


# The models are those that were tested


@pytest.mark.parametrize("runs", ["trained", "pictured"])
def test_a_member_alone_predicts_its_test_part_bit_for_bit(runs: str, request: pytest.FixtureRequest) -> None:
    whole: TrainedRun = request.getfixturevalue(runs)
    study_cohort = request.getfixturevalue(f"{runs}_cohort")
    for method in whole.methods():
        for key, fit in whole.members(method).items():
            expected = whole.store.predictions(key, fit.classes).to_csv()
            assert one_member(whole, method, key, study_cohort, fit.split.test) == expected


def one_member(whole: TrainedRun, method: str, key: str, cohort: Cohort, ids: Sequence[str]) -> str:
    """What a fit alone says of some subjects, who come in another order."""
    alone = {**whole.facts, "methods": {method: {**whole.facts["methods"][method], "fits": [key]}}}
    asked = replace(cohort, subjects=tuple(cohort.subject(id) for id in reversed(ids)))
    return replace(whole, facts=alone).predict(asked).opinions[0].members[0].to_csv()


def test_images_are_placed_by_the_same_images_as_in_training(tmp_path: Path) -> None:
    cohort = image_cohort(tmp_path / "images")
    for subject in cohort.subjects:  # alone, t1 would be cropped about another middle
        image = nibabel.load(subject.files["t1"])
        voxels = image.get_fdata(dtype=np.float32).copy()  # the file is about to be written
        voxels[3:] = 0
        nibabel.Nifti1Image(voxels, image.affine).to_filename(subject.files["t1"])
    placed = {"preprocessing": {"crop": [4, 8, 4], "centre": "content"}}
    whole = done(image_study(cohort, ["unimodal"], baselines=[], **placed), tmp_path / "run", tmp_path / "store")
    first, _ = whole.methods()
    for key, fit in whole.members(first).items():
        assert (
            one_member(whole, first, key, cohort, fit.split.test) == whole.store.predictions(key, fit.classes).to_csv()
        )


class Drawing(FusionStrategy):
    """Draws random numbers in its forward pass."""

    name = "drawing"

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.modality, self.linear = parts.modalities[0], nn.Linear(parts.shapes[parts.modalities[0]], 2)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.linear(inputs[self.modality].flatten(1))
        return logits + torch.randn_like(logits)


def test_what_a_strategy_draws_is_drawn_again(cohort: Cohort, tmp_path: Path) -> None:
    registry = load_registry().with_classes("tests", fusion=[Drawing])
    study = open_study(comparison(fusion=["drawing"], baselines=[]), cohort=cohort, registry=registry)
    whole = done(study, tmp_path / "run", tmp_path / "store")
    expected = {k: whole.store.predictions(k, fit.classes).to_csv() for k, fit in whole.members("drawing").items()}
    tests = {key: fit.split.test for key, fit in whole.members("drawing").items()}
    export_run(tmp_path / "run", whole, tmp_path / "model")
    handed = TrainedRun.open(tmp_path / "model", Store(tmp_path / "cache"), registry)
    for able in (whole, handed):
        assert {key: one_member(able, "drawing", key, cohort, ids) for key, ids in tests.items()} == expected


@pytest.fixture
def trained_cohort() -> Cohort:
    return table_cohort()


@pytest.fixture
def pictured_cohort(pictured: TrainedRun) -> Cohort:
    return image_cohort(pictured.store.root.parent / "images")


def test_loading_never_begins_and_leaves_the_random_stream_alone(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for component in trained.registry.of("fusion"):
        monkeypatch.setattr(component.cls, "begin", lambda self, context: pytest.fail("begin was called"))
    before = torch.get_rng_state()
    for method in trained.methods():
        for key in trained.members(method):
            model, fit = load_fit(key, trained.store, trained.registry)
            assert not model.training
            assert fit.key == key
    assert torch.equal(before, torch.get_rng_state())


def test_whoever_serves_new_subjects_reaches_no_other(trained: TrainedRun, tmp_path: Path) -> None:
    fit = next(iter(trained.members("guidance").values()))
    new = new_tables()
    asked = detach(fit, new.subjects, trained.registry)
    volumes = Volumes(new, load_comparison("table").preprocessing, tmp_path)
    batches = Batches(asked, volumes, torch.device("cpu"))
    assert next(batches.in_order(["news00"])).labels.tolist() == [-1]
    with pytest.raises(ValueError, match="not subjects of this fit"):
        batches.batch([fit.split.training[0]], {})
    own = Batches(fit, Volumes(table_cohort(), volumes.preprocessing, tmp_path), torch.device("cpu"))
    with pytest.raises(ValueError, match="not subjects of this fit"):
        own.batch(["news00"], {})


def test_what_was_altered_or_is_not_there_is_refused(trained: TrainedRun, tmp_path: Path) -> None:
    key = next(iter(trained.members("guidance")))
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=f"no fit {key}"):
        load_fit(key, store, trained.registry)
    shutil.copytree(trained.store.folder(key), store.folder(key))
    load_fit(key, store, trained.registry)
    job = store.folder(key) / "job.json"
    record = json.loads(job.read_text())
    job.write_text(json.dumps(record | {"fit": record["fit"] | {"seed": 7}}))
    with pytest.raises(StoreError, match="was altered"):
        load_fit(key, store, trained.registry)
    job.write_text(json.dumps(record | {"fit": {"fusion": {}}}))
    with pytest.raises(StoreError, match="another version"):
        load_fit(key, store, trained.registry)
    job.write_text(json.dumps(record))
    other = next(iter(trained.members("logistic")))
    shutil.copy(trained.store.folder(other) / "weights.safetensors", store.folder(key) / "weights.safetensors")
    with pytest.raises(StoreError, match=r"cannot be loaded, its weights were altered: .*"):
        load_fit(key, store, trained.registry)


# The mean over fits


def test_the_answer_is_the_mean_over_the_fits_with_their_deviation(trained: TrainedRun) -> None:
    new = new_tables()
    answers = trained.predict(new, ["guidance"])
    (opinion,) = answers.opinions
    one, other = (member.probabilities for member in opinion.members)
    assert np.allclose(opinion.mean.probabilities, (one + other) / 2, atol=1e-15)
    assert np.allclose(opinion.spread, np.abs(one - other) / math.sqrt(2), atol=1e-15)
    told = json.loads(answers.to_json())["predictions"]
    assert [line["subject"] for line in told] == sorted(subject.id for subject in new.subjects)
    for line in told:
        assert line["predicted"] == ("LGG" if line["probabilities"]["LGG"] >= 0.5 else "HGG")
        assert (line["fits"], line["label"], line["refused"]) == (2, "", "")
    shuffled = trained.predict(replace(new, subjects=new.subjects[::-1]), ["guidance"])
    assert shuffled.to_csv() == answers.to_csv()
    assert "not for clinical use" in answers.notes[-1]


def test_remarks_of_the_fits_stand_together() -> None:
    table = np.array([[0.5, 0.5]])
    members = [Predictions(("x",), ("",), ("A", "B"), table, ({"box": box},)) for box in ("", "fallback", "fallback")]
    assert Opinion("m", tuple(members), {}).mean.notes == ({"box": "fallback"},)


def test_all_methods_that_did_not_fail_answer_and_progress_adds_up(trained: TrainedRun) -> None:
    steps: list[Step] = []
    new = new_tables()
    answers = trained.predict(new, listener=steps.append)
    assert [opinion.method for opinion in answers.opinions] == list(trained.facts["methods"])
    fits = {key for told in trained.facts["methods"].values() for key in told["fits"]}
    last = {step.what: (step.done, step.total) for step in steps}
    assert last == {"subjects read": (7, 7), "predictions": (7 * len(fits), 7 * len(fits))}


def test_methods_are_named_right(trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match="no method 'guidence': did you mean 'guidance'"):
        trained.methods(["guidence"])
    methods = trained.facts["methods"]
    failed = {**trained.facts, "methods": {**methods, "pixel": {**methods["pixel"], "failed": "KeyError: x"}}}
    with pytest.raises(UsageError, match=r"pixel failed in run \(KeyError: x\)"):
        replace(trained, facts=failed).methods(["pixel"])
    assert "pixel" not in replace(trained, facts=failed).methods()


# Who can be judged


def test_a_subject_without_a_modality_is_masked_or_refused_and_listed(trained: TrainedRun) -> None:
    new = lacking(lacking(new_tables(), "news02", "b"), "news03", "a", "b")
    takes = {c.name: c.cls.takes_missing for c in trained.registry.of("fusion")}  # type: ignore[attr-defined]
    assert {True, False} <= set(takes.values())
    answers = trained.predict(new)
    for opinion in answers.opinions:
        fit = next(iter(trained.members(opinion.method).values()))
        expected = {"news03": f"has none of {', '.join(m.name for m in fit.modalities)}"}
        if "b" in {modality.name for modality in fit.modalities} and not takes[fit.fusion.name]:
            expected |= {"news02": "lacks b"}
        if opinion.method == "b":
            expected |= {"news02": "has none of b"}
        assert opinion.refused == expected
        assert len(opinion.mean.ids) == 7 - len(expected)
        assert f"{opinion.method} predicts {7 - len(expected)} of 7 subjects" in "\n".join(answers.notes)
    assert "WARNING: guidance was trained on complete subjects only, and 1 of these lack a modality" in answers.notes
    rows = [line for line in answers.to_csv().splitlines() if line.startswith("logistic,news0")]
    assert "logistic,news03,,,,,,0,," in rows[3]


def test_what_stands_in_place_of_a_missing_modality_is_not_looked_at(trained: TrainedRun) -> None:
    alone = trained.predict(lacking(new_tables(), "news02", "b"), ["ensemble", "a"])
    everyone, only_a = (dict(zip(o.mean.ids, o.mean.probabilities, strict=True)) for o in alone.opinions)
    assert np.allclose(everyone["news02"], only_a["news02"], atol=1e-6)
    assert not np.allclose(everyone["news01"], only_a["news01"], atol=1e-6)


def test_if_nobody_can_be_judged_nothing_is_loaded(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionbench.using.inference.load_fit", lambda *_: pytest.fail("a model was loaded"))
    bare = new_tables(3)
    for id in ("news00", "news01", "news02"):
        bare = lacking(bare, id, "a")
    with pytest.raises(UsageError, match="new has nobody that can be predicted: 'news00' has none of a; 'news01' has"):
        trained.predict(bare, ["a"])
    wide = table_cohort(6, features=5)
    with pytest.raises(UsageError, match="toys: a is a table of 5 columns; the run was trained on a table of 4"):
        trained.predict(wide)


@pytest.mark.parametrize(
    ("mm", "says"),
    [
        (2.09, ""),
        (2.11, r"4 x 8 x 8 at 2.11 x 2.11 x 2.11 mm.*the run saw 4 x 8 x 8 at 2 x 2 x 2 mm"),
        (1.89, "the run saw 4 x 8 x 8 at 2 x 2 x 2 mm"),
    ],
)
def test_images_on_a_grid_that_the_run_never_saw_are_refused(
    pictured: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mm: float, says: str
) -> None:
    new = image_cohort(tmp_path / "new", 3, mm=mm)
    if not says:
        assert len(pictured.predict(new, ["guidance"]).opinions[0].mean.ids) == 3
        return
    monkeypatch.setattr("fusionbench.using.inference.load_fit", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match=says):
        pictured.predict(new)


def test_every_bad_image_is_named_at_once(pictured: TrainedRun, tmp_path: Path) -> None:
    new = image_cohort(tmp_path / "new", 3)
    for number in (0, 2):
        new.subject(f"p{number}").files["t2"].write_bytes(b"no image")
    with pytest.raises(CohortError, match=r"'p0', t2: .*'p2', t2: "):
        pictured.predict(new)


def test_a_sequence_that_nobody_has_is_masked(pictured: TrainedRun, tmp_path: Path) -> None:
    new = image_cohort(tmp_path / "new", 3)
    only = tuple(replace(s, files={"t1": s.files["t1"]}, seg=None, label="") for s in new.subjects)
    answers = pictured.predict(replace(new, modalities=(Modality("t1"),), subjects=only, labelled=False))
    said = {opinion.method: opinion for opinion in answers.opinions}
    assert len(said["guidance"].mean.ids) == 3
    assert said["agg"].refused == dict.fromkeys(("p0", "p1", "p2"), "lacks t2")


# What stands against believing it


def test_training_subjects_are_known_again_by_their_bytes(pictured: TrainedRun, pictured_cohort: Cohort) -> None:
    first, second, *_ = pictured_cohort.subjects
    other = replace(second, id="unknown", files={"t1": first.files["t1"], "t2": second.files["t1"]})
    answers = pictured.predict(replace(pictured_cohort, subjects=(other,), labelled=False), ["pixel"])
    assert answers.notes[0].startswith("WARNING: 1 subjects have the data of training subjects ('unknown')")


def test_tables_are_known_again_only_if_all_of_them_are_the_same(trained: TrainedRun) -> None:
    new = new_tables(3)
    old = table_cohort().subjects[0]
    one = replace(new.subjects[0], features={**new.subjects[0].features, "a": old.features["a"]})
    both = replace(new.subjects[1], features={**old.features, "c": new.subjects[1].features["c"]})
    answers = trained.predict(replace(new, subjects=(one, both, new.subjects[2])))
    assert answers.notes[0].startswith("WARNING: 1 subjects have the data of training subjects ('news01')")
    assert not [note for note in trained.predict(new).notes if note.startswith("WARNING")]


def test_changed_code_and_libraries_are_told(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = tuple(replace(c, source="0" * 64) if c.name == "guidance" else c for c in trained.registry.components)
    now = {"core": "another", "torch": "99", "torchio": "1", "numpy": "1", "scikit-learn": "1"}
    monkeypatch.setattr("fusionbench.using.newcomers.runtime", lambda: now)
    answers = replace(trained, registry=replace(trained.registry, components=edited)).predict(new_tables(3))
    told = "\n".join(answers.notes)
    assert "WARNING: the code of fusion guidance changed since (0.1.0, now 0.1.0)" in told
    assert "WARNING: the code of fusionbench that computes changed since" in told
    assert f"WARNING: torch was {torch.__version__.partition('+')[0]}" in told
    assert "the code of fusion pixel" not in told


# Evaluation on other subjects with labels


def test_an_external_cohort_is_scored_as_the_leaderboard_scores(trained: TrainedRun) -> None:
    other = table_cohort(30, seed=9)
    found = trained.evaluate(other, ["guidance", "a"])
    answers = trained.predict(other, ["guidance", "a"])
    assert [(s.method, s.metric) for s in found.scores] == [(m, n) for m in ("guidance", "a") for n in METRICS]
    for score in found.scores:
        opinion = next(o for o in answers.opinions if o.method == score.method)
        metric = METRICS[score.metric]
        assert score.value == metric(opinion.mean, "LGG")
        assert score.singles == tuple(metric(member, "LGG") for member in opinion.members)
        assert score.mean == pytest.approx(sum(score.singles) / 2)
    by = {(score.method, score.metric): score for score in found.scores}
    sensitivity = by["a", "sensitivity"]
    assert sensitivity.interval == wilson(sensitivity.value, 10)
    means = [opinion.mean for opinion in answers.opinions]
    drawn = Resample.of(means).scores(means[1:], METRICS["roc_auc"], "LGG")
    assert by["a", "roc_auc"].interval == bootstrap(drawn)
    assert found.notes[0] == "30 subjects (20 HGG, 10 LGG); decisions at .5"
    assert json.loads(found.to_json())["scores"][0]["singles"] == list(found.scores[0].singles)


def test_without_labels_there_is_nothing_to_score(trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match=r"needs a label of the run's classes.*HGG and LGG.*'news00' \(none\)"):
        trained.evaluate(new_tables())


def test_one_class_alone_is_scored_where_it_can_be(trained: TrainedRun) -> None:
    other = table_cohort(30, seed=9)
    same = replace(other, subjects=tuple(s for s in other.subjects if s.label == "HGG"), labelled=False)
    evaluation = trained.evaluate(same, ["a"])
    found = {score.metric: score for score in evaluation.scores}
    assert math.isnan(found["roc_auc"].value)
    assert found["specificity"].value == found["accuracy"].value
    assert "WARNING: nobody is of class LGG, so that some scores are not defined" in evaluation.notes
    assert json.loads(evaluation.to_json())["scores"][0]["value"] is None


# Training on everybody


def test_a_refit_trains_on_everybody_ranks_inside_and_is_no_table(cohort: Cohort, tmp_path: Path) -> None:
    asked = comparison(baselines=[], protocol={"refit": True, "folds": 2, "inner_folds": 2})
    study = open_study(asked, cohort=cohort)
    (fold,) = study.folds
    assert (len(fold.split.training), fold.split.test) == (36, ())
    final = done(study, tmp_path / "final", tmp_path / "store")
    assert final.facts["refit"]
    (key,) = final.members("guidance")
    assert sorted(final.store.record(key)["fit"]["split"]["training"]) == sorted(s.id for s in cohort.subjects)
    inner = [line for line in (tmp_path / "final" / "ranking.csv").read_text().splitlines() if " " in line]
    assert len(inner) == 3  # each modality has a score on two inner folds
    with pytest.raises(UsageError, match=r"final was trained on everybody.*fusionbench predict final --data NEW"):
        Leaderboard.read(tmp_path / "final")
    answers = final.predict(new_tables())
    assert np.isnan(answers.opinions[0].spread).all()
    assert json.loads(answers.to_json())["predictions"][0]["std"] == {"HGG": None, "LGG": None}
    with pytest.raises(UsageError, match="outer ranks on test folds, and a refit on everybody has none"):
        open_study(comparison(protocol={"refit": True, "ranking": {"ranker": "outer"}}), cohort=cohort)


# Handing it on


def test_an_export_predicts_the_same_without_the_store_and_names_nobody(tmp_path: Path) -> None:
    cohort = table_cohort()
    marked = tuple(replace(s, id=f"patient-{s.id}", group=f"family-{s.id}") for s in cohort.subjects)
    cohort = replace(cohort, subjects=marked, notes=("left out: 'patient-x'",))
    asked = comparison(fusion=["guidance"], cohort={"data": str(tmp_path / "secret")})
    whole = done(open_study(asked, cohort=cohort), tmp_path / "run", tmp_path / "store")
    new = new_tables()
    expected = whole.predict(new, ["guidance", "a"])
    digests = {d for fit in whole.members("guidance").values() for several in fit.digests.values() for d in several}
    export_run(tmp_path / "run", whole, tmp_path / "out" / "model", ["guidance", "a"])
    shutil.rmtree(tmp_path / "store")
    shutil.rmtree(tmp_path / "run")
    handed = TrainedRun.open(tmp_path / "out" / "model", Store(tmp_path / "cache"), whole.registry)
    assert list(handed.facts["methods"]) == ["a", "guidance"]
    answers = handed.predict(new, ["guidance", "a"])
    assert answers.to_csv() == expected.to_csv()
    assert any("not checked: whether the models were trained on some of these subjects" in n for n in answers.notes)
    for file in (tmp_path / "out" / "model").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for word in ("patient-", "family-", str(tmp_path), "secret", str(Path.home()), *digests, cohort.fingerprint):
            assert word.encode() not in content, file
    with pytest.raises(UsageError, match="holds models and no results"):
        Leaderboard.read(tmp_path / "out" / "model")
    with pytest.raises(UsageError, match=r"model exists: choose another folder with --out"):
        export_run(tmp_path / "out" / "model", handed, tmp_path / "out" / "model")
    export_run(tmp_path / "out" / "model", handed, tmp_path / "again")  # an export can be handed on
    again = TrainedRun.open(tmp_path / "again", Store(tmp_path / "cache"), whole.registry)
    assert again.predict(new, ["guidance", "a"]).to_csv() == expected.to_csv()


def test_another_device_than_in_training_is_told(tmp_path: Path, trained: TrainedRun) -> None:
    export_run(tmp_path, trained, tmp_path / "model", ["logistic"])
    for job in (tmp_path / "model").rglob("job.json"):
        job.write_text(job.read_text().replace('"device": "cpu"', '"device": "cuda:7"'))
    moved = TrainedRun.open(tmp_path / "model", Store(tmp_path / "cache"), trained.registry)
    answers = moved.predict(new_tables(), device="cpu")
    assert "trained on cuda:7 in 32, predicted on cpu in 32: equal but for rounding" in answers.notes
    assert answers.to_csv() == trained.predict(new_tables(), ["logistic"]).to_csv()
    with pytest.raises(UsageError, match="no device 'cuda:8'"):
        moved.predict(new_tables(), device="cuda:8")


class FromFile(Backbone):
    """Starts from a file of weights."""

    name = "from-file"
    accepts = frozenset({"table"})

    def __init__(self, channels: int, *, weights: Annotated[Path | None, "a file"] = None) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 4, 1)
        if weights is not None:
            self.conv.weight.data.fill_(float(weights.read_text()))
        self.low_spec = self.high_spec = FeatureSpec(4)

    def low(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def high(self, low: Tensor) -> Tensor:
        return low


def test_a_file_that_training_began_with_is_not_needed_any_more(cohort: Cohort, tmp_path: Path) -> None:
    start = tmp_path / "start.txt"
    start.write_text("0.25")
    registry = load_registry().with_classes("tests", backbone=[FromFile])
    options = {"from-file": {"weights": str(start)}}
    asked = comparison(fusion=["unimodal"], baselines=[], backbone={"table": "from-file"}, options=options)
    whole = done(open_study(asked, cohort=cohort, registry=registry), tmp_path / "run", tmp_path / "store")
    start.unlink()
    expected = whole.predict(new_tables(), ["a"]).to_csv()
    export_run(tmp_path / "run", whole, tmp_path / "model")
    handed = TrainedRun.open(tmp_path / "model", Store(tmp_path / "cache"), registry)
    assert handed.predict(new_tables(), ["a"]).to_csv() == expected


# Reading


class Anyone(CohortReader):
    """Reads subjects without labels."""

    name = "anyone"

    def __init__(self, *, seed: Annotated[int, "which"] = 5) -> None:
        self.seed = seed

    def read(self, path: Path) -> Cohort:
        raise AssertionError("new data need no labels")

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        assert (classes, positive_class) == (("HGG", "LGG"), "LGG")
        return new_tables(seed=self.seed)


def test_another_reader_with_its_options_and_no_other_setting(trained: TrainedRun, tmp_path: Path) -> None:
    registry = trained.registry.with_classes("tests", cohort=[Anyone])
    able = replace(trained, registry=registry)
    assert able.read_new(tmp_path, "anyone") == new_tables(seed=5)
    assert able.read_new(tmp_path, "anyone", ["anyone.seed=6"]) == new_tables(seed=6)
    with pytest.raises(UsageError, match=r"--set recipe.epochs=5: only anyone.OPTION can be set"):
        able.read_new(tmp_path, "anyone", ["recipe.epochs=5"])
    with pytest.raises(UsageError, match="did you mean 'seed'"):
        able.read_new(tmp_path, "anyone", ["anyone.sead=6"])
    with pytest.raises(UsageError, match="there is nothing at"):
        able.read_new(tmp_path / "nowhere", "anyone")
    with pytest.raises(UsageError, match="no cohort 'anyhow'"):
        able.read_new(tmp_path, "anyhow")


def test_a_run_folder_of_an_older_version_or_none_is_refused(tmp_path: Path, trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match="holds no finished run"):
        TrainedRun.open(tmp_path, trained.store, trained.registry)
    (tmp_path / "run.json").write_text(json.dumps({"cohort": {}}))
    with pytest.raises(UsageError, match="older version"):
        TrainedRun.open(tmp_path, trained.store, trained.registry)


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    def named(cohort: Cohort, order: str) -> Cohort:
        modalities = [replace(m, columns=tuple(f"{m.name}{n}" for n in order)) for m in cohort.modalities]
        return replace(cohort, modalities=tuple(modalities))

    study = open_study(comparison(fusion=["logistic"], baselines=[]), cohort=named(table_cohort(), "0123"))
    trained = done(study, tmp_path / "run", tmp_path / "store")
    same = trained.predict(named(new_tables(), "0123"), ["logistic"])
    assert list(same.opinions[0].mean.ids) == sorted(s.id for s in new_tables().subjects)
    moved = trained.predict(named(shuffled(new_tables(), (0, 2, 1, 3)), "0213"), ["logistic"])
    assert np.array_equal(moved.opinions[0].mean.probabilities, same.opinions[0].mean.probabilities)
    assert "columns of a brought into the order that was trained on" in moved.notes
    assert not [note for note in same.notes if "brought into the order" in note]
    with pytest.raises(UsageError, match=r"a has the columns 'a9', which .* it was trained with 'a1': rename"):
        trained.predict(named(new_tables(), "0923"), ["logistic"])
    assert trained.predict(new_tables(), ["logistic"])  # whose columns nobody named
