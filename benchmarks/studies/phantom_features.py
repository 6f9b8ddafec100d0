"""What simple global features tell of the grade in the phantom: the table of docs/phantom.md.

    python -m benchmarks.studies.phantom_features --subjects 200 --seeds 10

Six features per modality (of the voxels of the brain over their median: deviation, skewness, percentiles 1, 10, 90
and 99), a logistic regression on standardised features, 5 stratified folds, ROC-AUC of the pooled out-of-fold scores.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionbench_plugins.cohorts.glioma_phantom.anatomy import Atlas, load_atlas
from fusionbench_plugins.cohorts.glioma_phantom.recipe import MODALITIES, Recipe
from fusionbench_plugins.cohorts.glioma_phantom.subject import render

COLUMNS = (*MODALITIES, "all", "volume", "seg")


def features(image: NDArray[np.int16]) -> list[float]:
    """Six numbers of the intensities of the brain that no gain changes."""
    values = image[image > 0] / np.median(image[image > 0])
    return [float(values.std()), float(stats.skew(values)), *np.percentile(values, [1, 10, 90, 99])]


def describe(atlas: Atlas, recipe: Recipe, number: int, grade: str) -> dict[str, list[float]]:
    """The features of one subject: of each modality, of the tumour's volume and of its compartments."""
    scans = render(atlas, recipe, number, grade)
    found = {name: features(scans.images[name]) for name in MODALITIES}
    parts = [float(np.count_nonzero(scans.seg == label)) for label in (1, 2, 4)]
    return {
        **found,
        "all": [value for values in found.values() for value in values],
        "volume": [sum(parts)],
        "seg": [part / sum(parts) for part in parts],
    }


def table_row(recipe: Recipe) -> dict[str, float]:
    """ROC-AUC (positive class LGG) of each set of features."""
    grades, atlas = recipe.grades(), load_atlas(recipe.spacing)
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda number: describe(atlas, recipe, number, grades[number]), range(recipe.subjects)))
    labels = np.array([grade == "LGG" for grade in grades])
    folds = StratifiedKFold(5, shuffle=True, random_state=recipe.seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = {
        name: cross_val_predict(model, np.array([row[name] for row in rows]), labels, cv=folds, method="predict_proba")
        for name in COLUMNS
    }
    return {name: float(roc_auc_score(labels, score[:, 1])) for name, score in scores.items()}


def main() -> None:
    """Print the table, one line per seed and then mean and deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--informative", nargs="*", default=list(MODALITIES), choices=MODALITIES)
    arguments = parser.parse_args()
    print("| seed | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    rows, start = [], time.perf_counter()
    for seed in range(arguments.seeds):
        row = table_row(Recipe(arguments.subjects, seed, informative=tuple(arguments.informative)))
        rows.append([row[name] for name in COLUMNS])
        print(f"| {seed} | " + " | ".join(f"{value:.2f}" for value in rows[-1]) + " |", flush=True)
    for label, values in (("mean", np.mean(rows, axis=0)), ("deviation", np.std(rows, axis=0))):
        print(f"| {label} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
