"""What `mmdvae` makes of the radiomics of phantoms that no run reports on, beside a linear model of the same numbers.

    python -m benchmarks.studies.mmdvae_phantom

Prints the mean ROC-AUC over three folds of each phantom: of `mmdvae`, of `mmdvae` without the terms beside the
cross-entropy, and of `logistic`. Fits are kept in the data home, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import os
import statistics

import fusionbench
from fusionbench import Cohort, Modality, Subject
from fusionbench.imaging.nifti import read_volume
from fusionbench.leaderboard import Leaderboard
from fusionbench.runs import Run
from fusionbench_plugins.extractors.radiomics import Radiomics

SEEDS = (100, 101, 102, 103)
METRIC = "roc_auc"
NO_TERMS = {"mmdvae": dict.fromkeys(("reconstruction", "cross", "divergence", "separation"), 0.0)}
CHANGES = {
    "fusion": ["mmdvae", "cross-entropy alone", "logistic"],
    "baselines": [],
    "protocol": {"folds": 3},
    "variants": {"cross-entropy alone": {"fusion": "mmdvae", "options": NO_TERMS}},
    "options": {"logistic": {"c": 0.01}},
}


def features(subject: Subject, modality: str, radiomics: Radiomics) -> tuple[float, ...]:
    """The radiomics of one image inside the outline."""
    assert subject.seg is not None
    image, grid = read_volume(subject.files[modality])
    mask = read_volume(subject.seg)[0][0] > 0
    return tuple(map(float, radiomics.extract(image[0].astype(float), mask, grid.spacing)))


def tables(seed: int) -> Cohort:
    """The phantom of that seed as a cohort of tables."""
    cohort, radiomics = fusionbench.read_cohort("phantom", subjects=120, seed=seed), Radiomics()
    names = [modality.name for modality in cohort.modalities]
    return Cohort(
        name=f"radiomics of phantom {seed}",
        classes=cohort.classes,
        positive_class=cohort.positive_class,
        modalities=tuple(Modality(name, "table", len(radiomics.names)) for name in names),
        subjects=tuple(
            Subject(s.id, s.label, features={name: features(s, name, radiomics) for name in names})
            for s in cohort.subjects
        ),
    )


def scores(seed: int) -> dict[str, float]:
    """Method -> mean score over the folds."""
    study = fusionbench.open_study(fusionbench.load_comparison("table", CHANGES), cohort=tables(seed))
    store = fusionbench.Store(fusionbench.data_home() / "store")
    board = Leaderboard.of(Run.of(fusionbench.run(study, store, jobs=os.cpu_count() or 1)))
    return {row.method: row.scores[METRIC][0] for row in board.rows}


def main() -> None:
    """Print a line per phantom, then means."""
    found = {seed: scores(seed) for seed in SEEDS}
    methods = CHANGES["fusion"]
    for seed, score in found.items():
        print(f"{seed:6}", *(f"{method} {score[method]:.3f}" for method in methods), sep="  ", flush=True)
    print("  mean", *(f"{m} {statistics.mean(s[m] for s in found.values()):.3f}" for m in methods), sep="  ")


if __name__ == "__main__":
    main()
