"""Two worker processes beside one: how much sooner a run is done.

    python -m benchmarks jobs

24 uni-modal fits, without attention and with it, on a phantom of 36 subjects at 12 x 24 x 24, one thread each, images
in the cache; seconds of the clock, the start of the processes included, medians of three rounds in turn. It needs two
cores with nothing else to do.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fusionbench
from benchmarks.targets import Row, Target, medians
from fusionbench import Store, Study
from fusionbench.engine import prepare

SETTINGS = {
    "fusion": ["plain", "unimodal"],
    "baselines": [],
    "recipe": {"device": "cpu", "precision": "32", "threads": 1, "epochs": 16},
    "options": {"phantom": {"subjects": 36}},
}


def seconds(study: Study, home: Path, jobs: int) -> float:
    """Of all fits, in a store that has the images and nothing else."""
    store = Store(home / "store")
    for folder in ("fits", "working"):
        shutil.rmtree(store.root / folder, ignore_errors=True)
    started = time.perf_counter()
    outcome = fusionbench.run(study, store, jobs=jobs)
    taken = time.perf_counter() - started
    if outcome.failed:
        raise SystemExit(next(iter(outcome.failed.values())))
    print(f"  --jobs {jobs}: {len(outcome.known)} fits in {taken:.1f} s", flush=True)
    return taken


def measure() -> Iterator[Row]:
    """Both sides of the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        study = fusionbench.open_study(fusionbench.load_comparison("demo", SETTINGS), home=home)
        prepare(study, Store(home / "store"))
        taken = medians({f"--jobs {jobs}": partial(seconds, study, home, jobs) for jobs in (1, 2)})
    yield Target("throughput, --jobs 2 / --jobs 1", taken["--jobs 1"] / taken["--jobs 2"], 1.7)
