"""What more folds and more methods cost: their fits and FLOP, counted, and the time of planning them.

    python -m benchmarks growth

Uni-modal models and guidance, nested ranking with three inner folds, at the size of the paper on 40 subjects: six folds
beside three. A fold more is as many fits more; FLOP also follow the subjects that a fit learns from, 5/6 of all instead
of 2/3, and that is taken out. Then eight variants of guidance beside four, whose second stages share nothing. Nothing
is trained; planning is measured in the processor's seconds.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fusionbench
from benchmarks.sharing import FULL, Flops, distinct, study
from benchmarks.targets import Row, Target, alternating
from fusionbench import Study
from fusionbench.fits import Fit

FEW, MANY = 3, 6
METHODS = ("plain", "guidance")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "upsample": ("trilinear", "nearest"),
    "reduce_init": ("identity", "default"),
    "fuse_init": ("primary", "mean"),
}
ALTERED = [dict(zip(CHOICES, options, strict=True)) for options in itertools.product(*CHOICES.values())]


def folded(number: int, home: Path) -> Study:
    """The methods on that many folds."""
    return study(METHODS, home, {**FULL, "protocol": {"folds": number, "inner_folds": 3}})


def learned_from(fits: Iterable[Fit]) -> float:
    """Subjects that the outer fits learn from, on average."""
    sizes = [len(fit.learners) for fit in fits if fit.fusion.name == "guidance"]
    return sum(sizes) / len(sizes)


def of_folds(home: Path) -> Iterator[Row]:
    """Twice the folds."""
    flops = Flops()
    fits = {number: distinct(folded(number, home)) for number in (FEW, MANY)}
    counts = {number: len(several) for number, several in fits.items()}
    print(f"  {FEW} folds: {counts[FEW]} fits; {MANY}: {counts[MANY]}")
    yield Target("fits, twice the folds / twice the fits", counts[MANY] / counts[FEW] / 2, 1, at_least=False)
    per_subject = {
        number: flops.of(folded(number, home), several.values()) / learned_from(several.values())
        for number, several in fits.items()
    }
    ratio = per_subject[MANY] / per_subject[FEW] / 2
    yield Target(
        "training FLOP per subject learned from, twice the folds / twice the FLOP", ratio, 1.01, at_least=False
    )


def varied(number: int, home: Path) -> Study:
    """The first of the variants of guidance."""
    names = [f"variant {n}" for n in range(number)]
    variants: dict[str, Any] = {
        name: {"fusion": "guidance", "options": {"guidance": options}}
        for name, options in zip(names, ALTERED, strict=False)
    }
    changes = {"fusion": names, "baselines": [], "cohort": {"reader": "phantom"}, "variants": variants}
    return fusionbench.open_study(fusionbench.load_comparison("demo", changes, FULL), home=home)


def of_methods(home: Path) -> Iterator[Row]:
    """Twice the methods."""
    half, whole = (varied(number, home) for number in (len(ALTERED) // 2, len(ALTERED)))
    few, many = (len(distinct(each)) for each in (half, whole))
    print(f"  {len(ALTERED) // 2} methods: {few} fits; {len(ALTERED)}: {many}")
    yield Target("fits, twice the methods / twice the fits", many / few / 2, 1, at_least=False)
    ways = {"half": partial(distinct, half), "whole": partial(distinct, whole)}
    taken = alternating(ways, rounds=3, clock=time.process_time)
    ratio = taken["whole"] / taken["half"] / 2
    yield Target("time of planning, twice the methods / twice the time", ratio, 1.1, at_least=False)


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    with tempfile.TemporaryDirectory() as folder:
        yield from of_folds(Path(folder))
        yield from of_methods(Path(folder))
