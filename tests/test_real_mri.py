"""Real MRI goes the whole way: files, reader, tensors, augmentation, stage 1 and stage 2. The labels are made up."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from test_training import workplace

from fusionbench import Cohort, Fold, Split, Store, Study, load_comparison, load_registry, open_study, plan, read_cohort
from fusionbench.training import execute

SUBJECTS = Path(__file__).parent / "data" / "brats"


def labelled(folder: Path) -> Cohort:
    """The subjects of a folder, with labels by turns."""
    ids = sorted(path.name for path in folder.iterdir() if path.is_dir())
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject", "label"], *([id, ("HGG", "LGG")[n % 2]] for n, id in enumerate(ids))])
    return read_cohort("brats", folder, labels="labels.csv")


def one_step(cohort: Cohort) -> Study:
    """Guidance in the typed order, one step per stage, trained and tried on the same people: no experiment."""
    asked = load_comparison(
        "brats",
        {
            "fusion": ["guidance"],
            "baselines": [],
            "protocol": {"ranking": {"ranker": "fixed"}},
            "preprocessing": {"crop": [50, 80, 80], "resize": [10, 32, 32]},
            "recipe": {"epochs": 1, "batch_size": len(cohort.subjects), "stages": {"secondary": {"epochs": 1}}},
            "options": {"rmc": {"width": 8}},
        },
    )
    twins = tuple(  # enough people to draw folds from
        replace(s, id=f"{s.id} {n}", group=f"{s.id} {n}") for s in cohort.subjects for n in range(3)
    )
    study = open_study(asked, cohort=replace(cohort, subjects=twins), registry=load_registry())
    ids = tuple(sorted(subject.id for subject in cohort.subjects))
    return replace(study, cohort=cohort, folds=(Fold(0, 0, Split(ids, ids)),))


def test_real_subjects_go_through_the_reader_and_a_training_step(tmp_path: Path) -> None:
    shutil.copytree(SUBJECTS, tmp_path / "data")
    cohort = labelled(tmp_path / "data")
    assert [modality.name for modality in cohort.modalities] == ["t1ce", "t2", "flair", "t1"]
    assert all(subject.seg for subject in cohort.subjects)
    study, store = one_step(cohort), Store(tmp_path / "store").open()
    place = workplace(study, store)
    inputs = place.volumes.inputs([subject.id for subject in cohort.subjects], ["t1ce"])["t1ce"]
    assert inputs.shape == (2, 1, 10, 32, 32)
    assert 0 <= inputs.min() < 0.1 < 0.9 < inputs.max() <= 1
    unimodal, guidance = plan(study).jobs
    for job in (unimodal, guidance):
        assert execute(job, place, lambda progress: None)
    start, end = store.weights(unimodal.key), store.weights(guidance.key)
    assert all(torch.equal(end[f"primary.{name}"], tensor) for name, tensor in start.items())
    assert store.predictions(guidance.key, cohort.classes).probabilities.shape == (2, 2)
