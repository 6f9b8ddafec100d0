"""A comparison and an ablation in one store, which trains each distinct fit once, beside each method for itself.

    python -m benchmarks sharing

The uni-modal models without attention, that of t1ce with it, ensemble, pixel, feature, decision and guidance as
`paper-brats2018` has them, and guidance with each of the eight subsets of the secondaries. FLOP of training are
counted with the recipe and at the size of the paper, 40 subjects, three folds, and nothing is trained for them; that
sharing changes no bit is tried on a phantom of 18 subjects at 4 x 8 x 8, two folds.

Guidance with all secondaries is both a method of its own and one of the subsets, so whoever shares nothing computes it
twice. Every ratio is given both with it counted twice and with it counted once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusionbench
from benchmarks.targets import Row, Target
from fusionbench import Predictions, Store, Study
from fusionbench.ablation import subsets
from fusionbench.costs.cost import cost_of
from fusionbench.engine import Event, Finished
from fusionbench.fits import Fit
from fusionbench.planning import Planner

MODALITIES = ("t1ce", "t2", "flair", "t1")
SIZE = (150, 240, 240)
SUBSETS = {" + ".join(some): some for some in subsets(MODALITIES, "t1ce")}
GUIDED = ("guidance", *SUBSETS)
METHODS = ("plain", "dual", "plain-ensemble", "plain-pixel", "plain-feature", "plain-decision", *GUIDED)
VARIANTS = {
    "dual": {"fusion": "unimodal", "modalities": ["t1ce"]},
    **{name: {"fusion": "guidance", "modalities": list(some)} for name, some in SUBSETS.items()},
}
FULL = {"options": {"phantom": {"subjects": 40}}}
SMALL = {
    "preprocessing": {"crop": None, "resize": [4, 8, 8]},
    "protocol": {"folds": 2, "inner_folds": 2},
    "recipe": {"epochs": 1, "batch_size": 4, "stages": {"secondary": {"epochs": 1}, "meta": {"epochs": 2}}},
    "options": {"phantom": {"subjects": 18, "spacing": 8.0}, "rmc": {"width": 2}},
}


def study(methods: Iterable[str], home: Path, size: Mapping[str, Any], ranker: str = "nested") -> Study:
    """These methods on the phantom; where modalities are ordered t1ce is the primary, and the others are ranked."""
    chosen = list(methods)
    primary = {"primary": "t1ce"} if {*chosen} & {*GUIDED} else {}
    changes = {
        "fusion": chosen,
        "cohort": {"reader": "phantom"},
        "variants": VARIANTS,
        "protocol": {"ranking": {"ranker": ranker, **primary}},
        "recipe": {"device": "cpu", "precision": "32"},
    }
    return fusionbench.open_study(fusionbench.load_comparison("paper-brats2018", changes, size), home=home)


def distinct(asked: Study) -> dict[str, Fit]:
    """Key -> fit, for all that a study needs; rankings are decided by made-up answers, whatever order they give."""
    planner, known = Planner(asked), dict[str, Predictions]()
    while True:
        fits = {job.key: job.fit for job in planner.plan(known).jobs}
        if fits.keys() <= known.keys():
            return fits
        known |= {key: guess(fit) for key, fit in fits.items() if key not in known}


def guess(fit: Fit) -> Predictions:
    """Answers about the test part of a fit that depend on nothing but what is seen and who is asked."""
    ids = tuple(sorted(fit.split.test))
    random = np.random.default_rng([len(ids), MODALITIES.index(fit.modalities[0].name)])
    first = random.uniform(0.01, 0.99, len(ids))
    return Predictions(ids, tuple(fit.labels[id] for id in ids), fit.classes, np.stack([first, 1 - first], axis=1))


class Flops:
    """FLOP of training, worked out once per kind of fit."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, int], dict[str, int]] = {}

    def of(self, asked: Study, fits: Iterable[Fit]) -> int:
        """All these fits of a study."""
        return sum(self.of_fit(fit, asked) for fit in fits)

    def of_fit(self, fit: Fit, asked: Study) -> int:
        """All epochs of all stages of one fit."""
        kind = (fit.fusion.name, fit.attention.name if fit.attention else "", len(fit.modalities))
        if kind not in self.known:
            cost = cost_of(fit, asked.registry, dict.fromkeys(MODALITIES, SIZE))
            if cost.unknown:
                raise SystemExit(f"{kind}: {cost.unknown}")
            self.known[kind] = {stage.name: stage.flops for stage in cost.stages}
        steps = ((self.known[kind].get(name, 0), stage["epochs"]) for name, stage in fit.stages.items())
        return int(sum(step * epochs for step, epochs in steps)) * len(fit.learners)


def counted(home: Path, methods: Sequence[str] = METHODS) -> Iterator[Row]:
    """How much less is computed."""
    flops = Flops()
    for ranker, bound, what in (
        ("fixed", 0.55, "training FLOP, shared / not, rankings not counted"),
        ("nested", 0.35, "training FLOP, shared / separate runs that each rank for themselves"),
    ):
        asked = study(methods, home, FULL, ranker)
        together = flops.of(asked, distinct(asked).values())
        alone = [distinct(study([name], home, FULL, ranker)) for name in methods]
        once = {frozenset(fits): fits for fits in alone}.values()
        for several, how in ((alone, ""), (once, ", no method twice")):
            apart = sum(flops.of(asked, fits.values()) for fits in several)
            yield Target(f"{what}{how} ({len(several)} methods)", together / apart, bound, at_least=False)


def done(asked: Study, store: Store) -> list[str]:
    """The keys of the fits that were trained, each as often as it was."""
    trained: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            trained.append(event.job.key)

    outcome = fusionbench.run(asked, store.open(), listener=listen)
    if outcome.failed:
        raise SystemExit(f"{len(outcome.failed)} fits failed: {next(iter(outcome.failed.values()))}")
    return trained


def tried(home: Path, methods: Sequence[str] = METHODS) -> Iterator[Row]:
    """That every distinct fit is trained, once, and is the same as without the others."""
    shared = Store(home / "shared")
    trained = done(study(methods, home, SMALL), shared)
    alone: dict[str, bytes] = {}
    several = 0
    for name in methods:
        store = Store(home / f"only {name}")
        keys = done(study([name], home, SMALL), store)
        several += len(keys)
        alone |= {key: predictions(store, key) for key in keys}
    print(f"  {len(trained)} fits trained together, {several} by separate runs, of which {len(alone)} are distinct")
    yield Target("fits trained in one run / distinct fits", len(trained) / len(alone), 1, at_least=False)
    equal = sum(predictions(shared, key) == bytes_ for key, bytes_ in alone.items() if key in {*trained})
    yield Target("distinct fits that predict the same to the last bit, shared and not", equal / len(alone), 1)


def predictions(store: Store, key: str) -> bytes:
    """The file of a fit's predictions, which are written to the last bit."""
    return (store.folder(key) / "predictions.csv").read_bytes()


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    with tempfile.TemporaryDirectory() as folder:
        yield from counted(Path(folder))
        yield from tried(Path(folder))
