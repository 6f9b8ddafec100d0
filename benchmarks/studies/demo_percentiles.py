"""What the upper percentile of the rescaling leaves of the information in each sequence of the phantom.

    python -m benchmarks.studies.demo_percentiles

For each percentile: how well the one best of six simple features of a preprocessed volume tells the grades apart, as
ROC-AUC over the whole cohort without any fit (so it is a little optimistic for all alike). The cohort is of seed 101,
which no run reports on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import fusionbench
from fusionbench.experiment import Preprocessing
from fusionbench.imaging.volumes import Volumes

UPPER = (99.5, 99.9, 100.0)
FEATURES = {
    "mean": lambda v: v.mean(1),
    "deviation": lambda v: v.std(1),
    "maximum": lambda v: v.max(1),
    "share above .8": lambda v: (v > 0.8).mean(1),
    "90th percentile": lambda v: np.percentile(v, 90, axis=1),
    "97th percentile": lambda v: np.percentile(v, 97, axis=1),
}


def separation(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """ROC-AUC of a feature in whichever direction it points."""
    area = float(roc_auc_score(positive, values))
    return max(area, 1 - area)


def main() -> None:
    """Print a Markdown table: percentile, then the best feature per sequence."""
    cohort = fusionbench.read_cohort("phantom", seed=101, subjects=240)
    ids = [subject.id for subject in cohort.subjects]
    positive = np.array([subject.label == cohort.positive_class for subject in cohort.subjects])
    names = [modality.name for modality in cohort.modalities]
    print("| upper percentile | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for upper in UPPER:
        settings = Preprocessing(resize=(12, 24, 24), percentiles=(0.5, upper))
        with tempfile.TemporaryDirectory() as cache:
            inputs = Volumes(cohort, settings, Path(cache)).inputs(ids, names)
        cells = []
        for name in names:
            volumes = inputs[name].flatten(1).numpy()
            best = max((separation(feature(volumes), positive), label) for label, feature in FEATURES.items())
            cells.append(f"{best[0]:.2f} ({best[1]})")
        print(f"| {upper} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
