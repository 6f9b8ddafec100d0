"""Does guidance learn from its secondaries? Two experiments on ten phantoms each: the tables of docs/learning.md.

    python -m benchmarks.studies.guidance_learns features        only t2 carries the grade; tables of radiomics
    python -m benchmarks.studies.guidance_learns images          the demo with several starts and attention on and off
    python -m benchmarks.studies.guidance_learns images 0 1 2    some of the seeds

The second takes longer. Prints Markdown: ROC-AUC, mean over the test folds, a line per seed. Nothing is chosen by these
numbers. Fits are kept in the data home, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping
from typing import Any

import fusionbench

METRIC = "roc_auc"
PRIMARY = {"protocol": {"ranking": {"ranker": "fixed", "primary": "t1ce"}}}
"""t1ce came first in 30 of 30 folds of docs/demo.md; ranking them again would only take time."""


def start(fusion: str, attention: str, **options: str) -> dict[str, Any]:
    """A variant of a strategy."""
    return {"fusion": fusion, "attention": attention, "options": {fusion: options} if options else {}}


def features() -> tuple[str, dict[str, Any]]:
    """Guidance on tables whose t2 alone knows the grade, its primary being t1ce."""
    asked = {"fusion": ["guidance", "feature"], "options": {"phantom": {"informative": ["t2"]}}}
    return "radiomics", asked | PRIMARY


def images() -> tuple[str, dict[str, Any]]:
    """The demo: three starts of guidance, with and without attention, beside ensemble and feature fusion."""
    literal = {"fuse_init": "default", "reduce_init": "default"}
    variants = {
        "identity": start("guidance", "dual"),
        "mean": start("guidance", "dual", fuse_init="mean"),
        "default": start("guidance", "dual", **literal),
        "identity, plain": start("guidance", "none"),
        "mean, plain": start("guidance", "none", fuse_init="mean"),
        "default, plain": start("guidance", "none", **literal),
        "feature, plain": start("feature", "none"),
        "alone, plain": start("unimodal", "none") | {"modalities": ["t1ce"]},
    }
    # bf16 is what the tables of docs/demo.md were made with; at this size it is right (bf16_gradients.py)
    asked = {"fusion": [*variants, "feature"], "variants": variants, "recipe": {"precision": "bf16"}}
    return "demo", asked | PRIMARY


EXPERIMENTS = {"features": features, "images": images}


def scores(config: str, asked: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Method -> its mean score on the phantom of that seed."""
    comparison = fusionbench.load_comparison(config, asked, {"options": {"phantom": {"seed": seed}}})
    store = fusionbench.Store(fusionbench.data_home() / "store")
    outcome = fusionbench.run(fusionbench.open_study(comparison), store, jobs=os.cpu_count() or 1)
    board = fusionbench.Leaderboard.of(fusionbench.Run.of(outcome))
    return {row.method: row.mean(METRIC) for row in board.rows}


def main(experiment: str, seeds: list[int]) -> None:
    """Print a line per seed, then the mean, and in how many seeds each method is above the primary alone."""
    config, asked = EXPERIMENTS[experiment]()
    table: dict[int, dict[str, float]] = {}
    for seed in seeds:
        table[seed] = scores(config, asked, seed)
        if len(table) == 1:
            methods = sorted(table[seed])
            print("| seed | " + " | ".join(methods) + " |\n" + "|---" * (len(methods) + 1) + "|")
        print(f"| {seed} | " + " | ".join(f"{table[seed][name]:.3f}" for name in methods) + " |", flush=True)
    means = {name: [row[name] for row in table.values()] for name in methods}
    spread = {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in means.items()}
    print("| mean | " + " | ".join(f"{statistics.fmean(means[n]):.3f} ± {spread[n]:.3f}" for n in methods) + " |")
    alone = {False: "t1ce", True: "t1ce+dual"}
    print("\nAbove the primary alone, in how many of", len(seeds), "seeds, and by how much on average:")
    for name in methods:
        primary = means[alone["plain" not in name and "t1ce+dual" in means]]
        gains = [ours - theirs for ours, theirs in zip(means[name], primary, strict=True)]
        print(f"  {name}: {sum(gain > 0 for gain in gains)}, {statistics.fmean(gains):+.3f}")


if __name__ == "__main__":
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]] or list(range(10)))
