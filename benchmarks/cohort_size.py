"""What four times the subjects cost: memory, and the time of an epoch.

    python -m benchmarks cohort_size

An epoch of pixel fusion, RMC of width 2, batches of four, one thread, over 32 subjects and over 128, each with two
images of 32 x 96 x 96 in the cache, 1.2 MB a subject. Each size has a process of its own, of which what was resident at
most counts, pages of mapped files included.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

import fusionbench
from benchmarks.input_pipeline import written
from benchmarks.memory import MIB, peak_resident
from benchmarks.targets import Target
from fusionbench import Cohort
from fusionbench.batches import Batches
from fusionbench.devices import make_fabric
from fusionbench.folds import Split
from fusionbench.imaging.volumes import Volumes
from fusionbench.training import build_strategy, threads, train_epoch

NAMES = ("t1ce", "t2")
FEW, MANY = 32, 128
COMPARISON = fusionbench.load_comparison(
    "demo",
    {
        "fusion": ["pixel"],
        "baselines": [],
        "attention": "none",
        "preprocessing": {"resize": [32, 96, 96]},
        "protocol": {"folds": 2},
        "recipe": {"device": "cpu", "precision": "32", "batch_size": 4},
        "options": {"rmc": {"width": 2}},
    },
)


def epoch(cohort: Cohort, cache: Path) -> tuple[float, int]:
    """Seconds of the second of two epochs over everybody, and the bytes that were resident at most."""
    study = fusionbench.open_study(COMPARISON, cohort=cohort)
    fit = fusionbench.plan(study).jobs[0].fit
    fit = replace(fit, split=Split(tuple(subject.id for subject in cohort.subjects), ()))
    volumes = Volumes(cohort, COMPARISON.preprocessing, cache)
    model, fabric = build_strategy(fit, study.registry), make_fabric("cpu", "32")
    batches, optimizer = Batches(fit, volumes, torch.device("cpu")), torch.optim.Adam(model.parameters())
    (stage,) = model.stages()
    with threads(1):
        for number in range(2):
            started = time.perf_counter()
            train_epoch(model, stage, number, 2, fit, batches, fabric, fabric.setup_optimizers(optimizer))
    return time.perf_counter() - started, peak_resident()


def measure() -> Iterator[Target]:
    """Both sides of the ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        cohort, cache = written(Path(folder), MANY, (96, 96, 32), NAMES, ".nii"), Path(folder) / "cache"
        ids = [subject.id for subject in cohort.subjects]
        Volumes(cohort, COMPARISON.preprocessing, cache).prepare(ids, NAMES)
        some = replace(cohort, subjects=cohort.subjects[:FEW])
        few, many = (pool.apply(epoch, (each, cache)) for each in (some, cohort))
    print(f"  {FEW} subjects: {few[0]:.1f} s, {few[1] / MIB:.0f} MiB; {MANY}: {many[0]:.1f} s, {many[1] / MIB:.0f} MiB")
    yield Target("memory of an epoch, four times the subjects / the subjects", many[1] / few[1], 1.05, at_least=False)
    yield Target("time of an epoch, four times the subjects / four epochs", many[0] / few[0] / 4, 1.1, at_least=False)
