"""How long an epoch of training waits for data, by the stopwatch behind `--profile`.

    python -m benchmarks waiting

Pixel fusion of four sequences on 24 phantoms, images in the cache, one thread, the paper's augmentation: with the
network and the images of the demo, RMC of width 8 and 12 x 24 x 24, in batches of four, and with RMC of width 16 and
32 x 64 x 64 in batches of two. An epoch is what it waits, augments, and goes forward and back; the median of three,
after one that is not counted. On a CPU the process that trains reads, so it waits as long as it reads.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import fusionbench
from benchmarks.targets import Row, Target
from fusionbench.batches import Batches
from fusionbench.devices import make_fabric
from fusionbench.imaging.volumes import Volumes
from fusionbench.numerics import threads
from fusionbench.stopwatch import Stopwatch
from fusionbench.training import build_strategy, train_epoch

SIZES = {"the demo's size": (8, [12, 24, 24], 4), "32 x 64 x 64": (16, [32, 64, 64], 2)}
"""Name -> width of the network, (D, H, W), subjects in a batch."""
PARTS = ("wait", "augment", "forward", "backward")


def epoch(home: Path, width: int, size: list[int], batch: int) -> Callable[[], dict[str, float]]:
    """An epoch, which says the seconds of its parts; the images are in the cache."""
    settings = {
        "fusion": ["pixel"],
        "baselines": [],
        "attention": "none",
        "preprocessing": {"resize": size},
        "recipe": {"device": "cpu", "precision": "32", "batch_size": batch},
        "options": {"phantom": {"subjects": 24}, "rmc": {"width": width}},
    }
    study = fusionbench.open_study(fusionbench.load_comparison("demo", settings), home=home)
    fit = fusionbench.plan(study).jobs[0].fit
    volumes = Volumes(study.cohort, study.comparison.preprocessing, home / "cache")
    volumes.prepare([subject.id for subject in study.cohort.subjects], study.comparison.modalities)
    model, fabric = build_strategy(fit, study.registry), make_fabric("cpu", "32")
    optimizer = fabric.setup_optimizers(torch.optim.Adam(model.parameters()))
    (stage,) = model.stages()

    def seconds() -> dict[str, float]:
        watch = Stopwatch()
        train_epoch(model, stage, 0, 1, fit, Batches(fit, volumes, torch.device("cpu"), watch=watch), fabric, optimizer)
        found = watch.stop()
        return {part: found[part] for part in PARTS}

    return seconds


def share(parts: dict[str, float], part: str) -> float:
    """Of the epoch."""
    return parts[part] / sum(parts.values())


def measure() -> Iterator[Row]:
    """What an epoch waits over what it takes."""
    with tempfile.TemporaryDirectory() as folder, threads(1):
        for name, setting in SIZES.items():
            once = epoch(Path(folder), *setting)
            once()
            told = [once() for _ in range(3)]
            shares = {part: statistics.median(share(each, part) for each in told) for part in PARTS}
            print(f"  {name}: {', '.join(f'{part} {shares[part]:.1%}' for part in PARTS)}")
            yield Target(f"share of an epoch that waits for data, {name}", shares["wait"], 0.05, False, unit="")
