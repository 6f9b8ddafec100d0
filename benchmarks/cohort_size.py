"""What four times the subjects cost: memory, and the time of an epoch.

    python -m benchmarks cohort_size

An epoch of pixel fusion, RMC of width 2, batches of four, one thread, over 24 subjects and over 96, each with two
images of 32 x 96 x 96 in the cache, 1.2 MB a subject. Medians of three rounds in turn, each in a process of its own, of
which the processor's seconds count after a first epoch over eight of them, and what was resident at most, pages of
mapped files included.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

import fusionbench
from benchmarks.input_pipeline import written
from benchmarks.memory import MIB, peak_resident
from benchmarks.targets import Row, Target
from fusionbench import Cohort
from fusionbench.batches import Batches
from fusionbench.devices import make_fabric
from fusionbench.folds import Split
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import threads
from fusionbench.training import build_strategy, train_epoch

NAMES = ("t1ce", "t2")
FEW, MANY = 24, 96
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
    """Processor's seconds of an epoch over everybody, and the bytes that were resident at most."""
    study = fusionbench.open_study(COMPARISON, cohort=cohort)
    fit = fusionbench.plan(study).jobs[0].fit
    everybody = [subject.id for subject in cohort.subjects]
    volumes = Volumes(cohort, COMPARISON.preprocessing, cache)
    model, fabric = build_strategy(fit, study.registry), make_fabric("cpu", "32")
    optimizer = fabric.setup_optimizers(torch.optim.Adam(model.parameters()))
    (stage,) = model.stages()
    with threads(1):
        for ids in (everybody[:8], everybody):
            own = replace(fit, split=Split(tuple(ids), ()))
            started = time.process_time()
            train_epoch(model, stage, 0, 1, own, Batches(own, volumes, torch.device("cpu")), fabric, optimizer)
    return time.process_time() - started, peak_resident()


def measure() -> Iterator[Row]:
    """Both sides of the ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        cohort, cache = written(Path(folder), MANY, (96, 96, 32), NAMES, ".nii"), Path(folder) / "cache"
        ids = [subject.id for subject in cohort.subjects]
        Volumes(cohort, COMPARISON.preprocessing, cache).prepare(ids, NAMES)
        cohorts = {number: replace(cohort, subjects=cohort.subjects[:number]) for number in (FEW, MANY)}
        rounds = [{n: pool.apply(epoch, (each, cache)) for n, each in cohorts.items()} for _ in range(3)]
    seconds, peak = ({n: median(each[n][k] for each in rounds) for n in cohorts} for k in range(2))
    for number in cohorts:
        print(f"  {number} subjects: {seconds[number]:.1f} s, {peak[number] / MIB:.0f} MiB")
    memory, growth = peak[MANY] / peak[FEW], seconds[MANY] / seconds[FEW] / (MANY // FEW)
    yield Target("memory of an epoch, four times the subjects / the subjects", memory, 1.05, at_least=False)
    yield Target("time of an epoch, four times the subjects / four epochs", growth, 1.1, at_least=False)
