"""What an epoch costs in fusilli, the nearest other framework, on the same tables and folds.

    FUSILLI_PYTHON=PATH python -m benchmarks fusilli_epoch

Two tables of 20 features, 120 subjects, three folds, batches of eight, one thread; ours is `feature` on perceptrons
widened until they have the parameters of fusilli's ConcatTabularFeatureMaps, which are printed; the rest is each as it
comes. What five epochs take more than one, so that nothing of starting counts, in the processor's seconds; medians of
three rounds. fusilli validates after every epoch, ours never does, and fusilli has no way to leave it out: in a second
row it validates two subjects of each test part. fusilli 2.0 needs numpy 1 and so an environment of its own, whose
interpreter FUSILLI_PYTHON names; without it nothing is measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import fusionbench
from benchmarks.surroundings import fusilli_python
from benchmarks.targets import NotMeasured, Row, Target
from fusionbench import Cohort, Modality, Store, Study, Subject, csv_text

NAMES = ("first", "second")
SUBJECTS, FEATURES = 120, 20
SHORT, LONG = 1, 5
FOLDS = 3
WIDTH = 211
"""At which our model has as many parameters as theirs."""
ALL, SOME = "all.json", "some.json"
VALIDATED = {ALL: "all subjects of the test part", SOME: "two"}
"""File of folds -> whom fusilli validates."""


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
        "protocol": {"folds": FOLDS},
        "options": {"mlp": {"width": WIDTH}},
        "recipe": {"epochs": epochs, "batch_size": 8, "device": "cpu", "precision": "32"},
    }
    return fusionbench.open_study(fusionbench.load_comparison("table", settings), cohort=noise())


def write(folder: Path) -> None:
    """The same tables and folds for fusilli; in the other file two subjects of each test part, one of each class."""
    cohort, folds = noise(), study(SHORT).folds
    for name in NAMES:
        header = ["ID", *(f"{name}{number}" for number in range(FEATURES)), "prediction_label"]
        rows = ([s.id, *s.features[name], cohort.classes.index(s.label)] for s in cohort.subjects)
        (folder / f"{name}.csv").write_text(csv_text(header, rows))
    row = {subject.id: number for number, subject in enumerate(cohort.subjects)}
    learned = [[row[id] for id in fold.split.training] for fold in folds]
    tested = [[row[id] for id in fold.split.test] for fold in folds]
    some = [[next(n for n in part if n % 2 == grade) for grade in (0, 1)] for part in tested]
    (folder / ALL).write_text(json.dumps(list(zip(learned, tested, strict=True))))
    (folder / SOME).write_text(json.dumps(list(zip(learned, some, strict=True))))


def theirs(folder: Path) -> dict[str, float]:
    """Processor's seconds of an epoch of fusilli, by which subjects it validates."""
    side = Path(__file__).with_name("fusilli_side.py")
    command = [fusilli_python(), str(side), str(folder), str(SHORT), str(LONG), *VALIDATED]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"  fusilli: {told['parameters']} parameters", flush=True)
    return {folds: per_epoch(*seconds) for folds, seconds in told["seconds"].items()}


def ours(home: Path) -> dict[str, float]:
    """Processor's seconds of an epoch of ours."""
    return {"ours": per_epoch(*(_seconds(home, epochs) for epochs in (SHORT, LONG)))}


def _seconds(home: Path, epochs: int) -> float:
    """Of a whole run."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        asked, store = study(epochs), Store(Path(folder)).open()
        started = time.process_time()
        outcome = fusionbench.run(asked, store)
        taken = time.process_time() - started
    if outcome.failed:
        raise SystemExit(next(iter(outcome.failed.values())))
    print(f"  ours, {epochs} epochs: {next(iter(outcome.records.values()))['parameters']} parameters", flush=True)
    return taken


def per_epoch(short: float, long: float) -> float:
    """Seconds of an epoch over one fold's training part."""
    return (long - short) / (LONG - SHORT) / FOLDS


def measure() -> Iterator[Row]:
    """Both sides of the ratio."""
    what = "an epoch on tables, fusilli / ours"
    if not fusilli_python():
        yield NotMeasured(what, "FUSILLI_PYTHON names no interpreter of an environment with fusilli")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        _seconds(folder, SHORT)  # imports, not counted
        rounds = [ours(folder) | theirs(folder) for _ in range(3)]
    taken = {way: statistics.median(each[way] for each in rounds) for way in rounds[0]}
    print(f"  {', '.join(f'{way}: {1000 * seconds:.1f} ms' for way, seconds in taken.items())} per epoch")
    for folds, how in VALIDATED.items():
        yield Target(f"{what}, fusilli validating {how}", taken[folds] / taken["ours"], 5)
