"""The built-in run on ten cohorts: what each seed of the phantom gives, nothing chosen.

    python -m benchmarks.studies.demo_seeds            seeds 0 to 9, about two minutes each on two cores
    python -m benchmarks.studies.demo_seeds 0 1 2      some of them

Prints Markdown. Fits are kept in the data home, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import os
import statistics
import sys

import fusionbench
from fusionbench.leaderboard import Leaderboard
from fusionbench.runs import Run

METRIC = "roc_auc"


def one_seed(seed: int) -> Leaderboard:
    """The leaderboard of the built-in run on the phantom of that seed."""
    changes = {"fusion": ["guidance"], "options": {"phantom": {"seed": seed}}}
    study = fusionbench.open_study(fusionbench.load_comparison("demo", changes))
    store = fusionbench.Store(fusionbench.data_home() / "store")
    return Leaderboard.of(Run.of(fusionbench.run(study, store, jobs=os.cpu_count() or 1)))


def main(seeds: list[int]) -> None:
    """Print a line per seed, then means."""
    boards = {seed: one_seed(seed) for seed in seeds}
    methods = sorted(row.method for row in boards[seeds[0]].rows)
    print("| seed | " + " | ".join(methods) + " | came first, per fold |")
    print("|---" * (len(methods) + 2) + "|")
    means: dict[str, list[float]] = {method: [] for method in methods}
    first: list[str] = []
    for seed, board in boards.items():
        rows = {row.method: row for row in board.rows}
        leaders = [lines[0].modality for _, _, lines in board.orders()]
        first += leaders
        for method in methods:
            means[method].append(rows[method].mean(METRIC))
        cells = [f"{rows[m].mean(METRIC):.3f} ± {rows[m].std(METRIC):.3f}" for m in methods]
        print(f"| {seed} | " + " | ".join(cells) + f" | {', '.join(leaders)} |")
    overall = [f"{statistics.fmean(v):.3f} ± {statistics.stdev(v):.3f}" if len(v) > 1 else "" for v in means.values()]
    print("| all | " + " | ".join(overall) + " | |")
    counts = {name: first.count(name) for name in sorted(set(first))}
    print(f"\nCame first in {len(first)} folds: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    beats = sum(g > p for g, p in zip(means["guidance"], means["t1ce+dual"], strict=True))
    print(f"guidance above t1ce+dual in {beats} of {len(seeds)} seeds")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or list(range(10)))
