"""Two worker processes beside one: how many more fits are done in a second.

    python -m benchmarks jobs

24 uni-modal fits, without attention and with it, on a phantom of 36 subjects at 12 x 24 x 24, one thread each, images
in the cache. Fits per second of the clock from the first that is done to the last; medians of three rounds in turn.
The start of the processes, some seconds whatever there is to do, is in the whole time, which is printed beside. It
needs two cores with nothing else to do.
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
from fusionbench.engine import Event, Finished, prepare

SETTINGS = {
    "fusion": ["plain", "unimodal"],
    "baselines": [],
    "recipe": {"device": "cpu", "precision": "32", "threads": 1, "epochs": 6},
    "options": {"phantom": {"subjects": 36}},
}


def rate(study: Study, home: Path, jobs: int) -> float:
    """Fits per second, in a store that has the images and nothing else."""
    store, done = Store(home / "store"), list[float]()
    for folder in ("fits", "working"):
        shutil.rmtree(store.root / folder, ignore_errors=True)

    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            done.append(time.perf_counter())

    started = time.perf_counter()
    outcome = fusionbench.run(study, store, jobs=jobs, listener=listen)
    if outcome.failed:
        raise SystemExit(next(iter(outcome.failed.values())))
    found = (len(done) - 1) / (done[-1] - done[0])
    print(f"  --jobs {jobs}: {found:.2f} fits a second, {time.perf_counter() - started:.1f} s in all", flush=True)
    return found


def measure() -> Iterator[Row]:
    """Both sides of the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        study = fusionbench.open_study(fusionbench.load_comparison("demo", SETTINGS), home=home)
        prepare(study, Store(home / "store"))
        taken = medians({f"--jobs {jobs}": partial(rate, study, home, jobs) for jobs in (1, 2)})
    yield Target("throughput, --jobs 2 / --jobs 1", taken["--jobs 2"] / taken["--jobs 1"], 1.7)
