"""How long and how fast the classifier of `decision` should learn: cross-validated on out-of-fold probabilities.

    python -m benchmarks.studies.decision_recipe            phantoms of the seeds 100 and 101, which no run reports on

Members are the uni-modal models of the built-in run. For each training part the subjects' out-of-fold probabilities
are split again, three times in three: a classifier learns from two thirds and is scored on the rest. No test part is
looked at. Prints Markdown; fits are kept in the data home, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import nn

import fusionbench
from fusionbench_plugins.fusion.decision import METAS

REPEATS = 3


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained."""

    epochs: int
    learning_rate: float
    batch_size: int
    meta: str = "mlp"
    weight_decay: float = 1e-3


RECIPES = (
    Recipe(12, 1e-3, 4),  # that of the demo's other stages
    Recipe(50, 1e-3, 16),
    Recipe(100, 1e-3, 16),
    Recipe(50, 3e-3, 16),
    Recipe(100, 3e-3, 16),
    Recipe(200, 3e-3, 16),
    Recipe(100, 3e-3, 4),
    Recipe(100, 3e-3, 16, "linear"),
    Recipe(100, 3e-3, 16, "weighted"),
)
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


def unseen(seed: int) -> list[Rows]:
    """For each outer training part of that phantom: out-of-fold probabilities (N, M, K) and labels (N,)."""
    nothing = {"recipe": {"stages": {"meta": {"epochs": 0}}}, "baselines": []}
    changes = {"fusion": ["decision"], "options": {"phantom": {"seed": seed}}, **nothing}
    study = fusionbench.open_study(fusionbench.load_comparison("demo", changes))
    store = fusionbench.Store(fusionbench.data_home() / "store")
    outcome = fusionbench.run(study, store, jobs=os.cpu_count() or 1)
    found = []
    for fit in [job.fit for job in outcome.plan.jobs if job.fit.fusion.name == "decision"]:
        several = [
            fusionbench.Predictions.joined((store.predictions(key, fit.classes) for key in parent.keys), fit.classes)
            for parent in fit.parents
            if parent.use == "out-of-fold"
        ]
        rows = np.stack([one.probabilities for one in several], 1).astype(np.float32)
        found.append((rows, several[0].targets))
    return found


def trained(rows: NDArray[np.float32], labels: NDArray[np.int64], recipe: Recipe, seed: int) -> nn.Module:
    """A classifier that learned from these, as the training loop would have it."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(rows), torch.from_numpy(labels)
    weights = (1 - torch.bincount(y) / len(y))[y]
    model = METAS[recipe.meta](x.shape[1], x.shape[2], 0.5)  # type: ignore[index]
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    for _ in range(recipe.epochs):
        for some in torch.randperm(len(y)).split(recipe.batch_size):
            losses = nn.functional.cross_entropy(model(x[some]), y[some], reduction="none")
            optimizer.zero_grad()
            (weights[some] * losses).mean().backward()
            optimizer.step()
    return model.eval()


def scores(parts: list[Rows], recipe: Recipe | None) -> tuple[float, float]:
    """Mean ROC-AUC and balanced accuracy on the held-out thirds; of the plain mean if there is no recipe."""
    areas, recalls = [], []
    for number, (rows, labels) in enumerate(parts):
        for repeat in range(REPEATS):
            folds = StratifiedKFold(3, shuffle=True, random_state=repeat).split(rows, labels)
            for fold, (learn, test) in enumerate(folds):
                held_out = torch.from_numpy(rows[test])
                if recipe is None:
                    p = held_out.mean(1)[:, 1].numpy()
                else:
                    model = trained(rows[learn], labels[learn], recipe, 100 * number + 10 * repeat + fold)
                    with torch.no_grad():
                        p = model(held_out).softmax(1)[:, 1].numpy()
                areas.append(roc_auc_score(labels[test], p))
                recalls.append(np.mean([((p >= 0.5) == k)[labels[test] == k].mean() for k in (0, 1)]))
    return float(np.mean(areas)), float(np.mean(recalls))


def main(seeds: list[int]) -> None:
    """Print a line per recipe."""
    torch.set_num_threads(1)
    parts = {seed: unseen(seed) for seed in seeds}
    print("| classifier | epochs | learning rate | batch | " + " | ".join(f"seed {seed}" for seed in seeds) + " |")
    print("|---" * (4 + len(seeds)) + "|")
    for recipe in (None, *RECIPES):
        cells = [" / ".join(f"{score:.3f}" for score in scores(parts[seed], recipe)) for seed in seeds]
        name = (
            "plain mean | | |" if recipe is None else f"`{recipe.meta}` | {recipe.epochs} | {recipe.learning_rate:g} |"
        )
        print(f"| {name} {recipe.batch_size if recipe else ''} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [100, 101])
