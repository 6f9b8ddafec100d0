"""What an epoch costs beyond the work itself: our training loop beside a bare torch loop on the same fit.

    python -m benchmarks engine_overhead

Both train the same uni-modal model on the same phantom with the same batches, augmentation and optimiser, one thread,
in alternating rounds. The bare loop holds all volumes in one tensor in memory, and does nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import fusionbench
from benchmarks.targets import Row, Target, alternating
from fusionbench.batches import Batches
from fusionbench.components import Batch
from fusionbench.devices import make_fabric
from fusionbench.experiment import Augmentation
from fusionbench.fits import Fit
from fusionbench.imaging.augmentation import augment
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import seeded, threads
from fusionbench.training import build_strategy, set_modes, train_epoch

SETTINGS = {
    "fusion": ["unimodal"],
    "baselines": [],
    "modalities": ["t1ce"],
    "recipe": {"device": "cpu", "precision": "32", "batch_size": 4},
    "options": {"phantom": {"subjects": 48}},
}


def ready(folder: Path) -> tuple[fusionbench.Study, Fit, Volumes]:
    """A study of the demo with one fit, its images in the cache."""
    study = fusionbench.open_study(fusionbench.load_comparison("demo", SETTINGS), home=folder)
    fit = fusionbench.plan(study).jobs[0].fit
    volumes = Volumes(study.cohort, study.comparison.preprocessing, folder / "cache")
    volumes.prepare([subject.id for subject in study.cohort.subjects], ["t1ce"])
    return study, fit, volumes


def ours(study: fusionbench.Study, fit: Fit, volumes: Volumes) -> Callable[[], object]:
    """One epoch of our loop."""
    model, fabric = build_strategy(fit, study.registry), make_fabric("cpu", "32")
    batches = Batches(fit, volumes, torch.device("cpu"))
    (stage,) = model.stages()
    settings = fit.stages["fit"]
    optimizer = fabric.setup_optimizers(
        torch.optim.Adam(model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    )
    return lambda: train_epoch(model, stage, 0, 1, fit, batches, fabric, optimizer)


def bare(study: fusionbench.Study, fit: Fit, volumes: Volumes) -> Callable[[], object]:
    """One epoch of a plain loop."""
    model = build_strategy(fit, study.registry)
    settings, ids = fit.stages["fit"], fit.split.training
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    images, spacing = volumes.inputs(ids, ["t1ce"])["t1ce"], volumes.spacing(ids)
    labels = torch.tensor([fit.classes.index(fit.labels[id]) for id in ids])
    augmentation = Augmentation(**fit.recipe["augmentation"])

    def step(rows: Tensor) -> None:
        inputs, _ = augment({"t1ce": images[rows]}, None, rows.tolist(), spacing[rows], augmentation)
        batch = Batch((), inputs, labels[rows], torch.ones(len(rows)))
        loss = batch.cross_entropy(model(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def epoch() -> None:
        set_modes(model, ("",))
        for rows in torch.randperm(len(ids)).split(fit.recipe["batch_size"]):
            step(rows)

    return epoch


def measure() -> Iterator[Row]:
    """Both sides of the ratio."""
    with tempfile.TemporaryDirectory() as folder, threads(1), seeded(0):
        prepared = ready(Path(folder))
        taken = alternating({"ours": ours(*prepared), "bare": bare(*prepared)}, rounds=9)
    for name, seconds in taken.items():
        print(f"  {name}: {seconds:.3f} s per epoch")
    yield Target("an epoch, ours / a bare loop", taken["ours"] / taken["bare"], 1.1, at_least=False)
