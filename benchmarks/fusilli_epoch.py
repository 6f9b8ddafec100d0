"""What an epoch costs in fusilli, the nearest other framework, on the same tables and folds.

    FUSILLI_PYTHON=PATH python -m benchmarks fusilli_epoch

Two tables of 20 features, 120 subjects, three folds, batches of eight, one thread; ours is `feature` on perceptrons,
fusilli's ConcatTabularFeatureMaps, each as it comes: fusilli validates after every epoch. What 20 epochs take more than
5, so that nothing of starting counts. fusilli 2.0 needs numpy 1 and so an environment of its own, whose interpreter
FUSILLI_PYTHON names; without it nothing is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import fusionbench
from benchmarks.targets import Target
from fusionbench import Cohort, Modality, Store, Study, Subject, csv_text

NAMES = ("first", "second")
SUBJECTS, FEATURES = 120, 20
SHORT, LONG = 5, 20


def noise() -> Cohort:
    """Tables that say nothing."""
    random = np.random.default_rng(0)
    subjects = tuple(
        Subject(
            f"s{number:03d}", ("LGG", "HGG")[number % 2],
            features={name: tuple(random.normal(size=FEATURES).tolist()) for name in NAMES},
        )
        for number in range(SUBJECTS)
    )  # fmt: skip
    modalities = tuple(Modality(name, "table", FEATURES) for name in NAMES)
    return Cohort("noise", ("HGG", "LGG"), "LGG", modalities, subjects)


def study(epochs: int) -> Study:
    """Feature fusion for that many epochs."""
    settings = {
        "fusion": ["feature"],
        "baselines": [],
        "protocol": {"folds": 3},
        "recipe": {"epochs": epochs, "batch_size": 8, "device": "cpu", "precision": "32"},
    }
    return fusionbench.open_study(fusionbench.load_comparison("table", settings), cohort=noise())


def write(folder: Path) -> None:
    """The same tables and folds for fusilli."""
    cohort, folds = noise(), study(SHORT).folds
    for name in NAMES:
        header = ["ID", *(f"{name}{number}" for number in range(FEATURES)), "prediction_label"]
        rows = ([s.id, *s.features[name], cohort.classes.index(s.label)] for s in cohort.subjects)
        (folder / f"{name}.csv").write_text(csv_text(header, rows))
    number = {subject.id: row for row, subject in enumerate(cohort.subjects)}
    parts = [[[number[id] for id in part] for part in (fold.split.training, fold.split.test)] for fold in folds]
    (folder / "folds.json").write_text(json.dumps(parts))


def theirs(python: str, folder: Path, epochs: int) -> float:
    """Seconds of fusilli's training."""
    command = [python, str(Path(__file__).with_name("fusilli_side.py")), str(folder), str(epochs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ours(folder: Path, epochs: int) -> float:
    """Seconds of a whole run of ours."""
    asked, store = study(epochs), Store(folder / f"store of {epochs}").open()
    started = time.perf_counter()
    outcome = fusionbench.run(asked, store)
    if outcome.failed:
        raise SystemExit(next(iter(outcome.failed.values())))
    return time.perf_counter() - started


def per_epoch(taken: Callable[[int], float]) -> float:
    """Seconds of an epoch over all folds' training parts, per fold."""
    return (taken(LONG) - taken(SHORT)) / (LONG - SHORT) / 3


def measure() -> Iterator[Target]:
    """Both sides of the ratio."""
    python = os.environ.get("FUSILLI_PYTHON", "")
    if not python:
        print("  not measured: set FUSILLI_PYTHON to the interpreter of an environment with fusilli")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        ours(folder / "first", SHORT)  # imports and caches, not counted
        mine, other = per_epoch(lambda n: ours(folder, n)), per_epoch(lambda n: theirs(python, folder, n))
    print(f"  ours: {1000 * mine:.0f} ms per epoch, fusilli: {1000 * other:.0f} ms")
    yield Target("an epoch on tables, fusilli / ours", other / mine, 5)
