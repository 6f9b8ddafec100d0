"""The run that everybody tries first, in a home that has nothing: its time, and its memory.

    python -m benchmarks default_run

`fusionbench run --fusion guidance`: 120 phantoms made and read, modalities ranked in three folds, on all cores. Memory
is that of all its processes together, looked at five times a second. It is meant for two cores with nothing else to
do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory import resident
from benchmarks.targets import Row, Target

MINUTES, GIB = 3, 3


def measure() -> Iterator[Row]:
    """Time and memory over what they may be."""
    program = str(Path(sys.executable).with_name("fusionbench"))
    peak = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        environment = os.environ | {"FUSIONBENCH_HOME": str(Path(folder) / "home")}
        with subprocess.Popen([program, "run", "--fusion", "guidance"], cwd=folder, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, resident(process.pid))
                time.sleep(0.2)
        taken = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    print(f"  {taken:.0f} s, {peak / 2**30:.2f} GiB")
    yield Target(f"time of the default run / {MINUTES} minutes", taken / (60 * MINUTES), 1, at_least=False)
    yield Target(f"memory of the default run / {GIB} GiB", peak / (GIB * 2**30), 1, at_least=False)
