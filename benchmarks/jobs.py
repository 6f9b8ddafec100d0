"""Two worker processes beside one: how much sooner a run is done.

    python -m benchmarks jobs

24 uni-modal fits, without attention and with it, on a phantom of 36 subjects at 12 x 24 x 24, one thread each, images
in the cache; the start of the processes included. It needs two cores with nothing else to do.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fusionbench
from benchmarks.targets import Target
from fusionbench import Store
from fusionbench.engine import prepare

SETTINGS = {
    "fusion": ["plain", "unimodal"],
    "baselines": [],
    "recipe": {"device": "cpu", "precision": "32", "threads": 1, "epochs": 16},
    "options": {"phantom": {"subjects": 36}},
}


def seconds(home: Path, jobs: int) -> float:
    """Of all fits, in a store of their own that has the images."""
    study = fusionbench.open_study(fusionbench.load_comparison("demo", SETTINGS), home=home)
    store = Store(home / f"store of {jobs}")
    prepare(study, store)
    started = time.perf_counter()
    outcome = fusionbench.run(study, store, jobs=jobs)
    taken = time.perf_counter() - started
    print(f"  --jobs {jobs}: {len(outcome.known)} fits in {taken:.1f} s", flush=True)
    return taken


def measure() -> Iterator[Target]:
    """Both sides of the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        one, two = (seconds(Path(folder), jobs) for jobs in (1, 2))
    yield Target("throughput, --jobs 2 / --jobs 1", one / two, 1.7)
