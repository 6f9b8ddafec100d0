"""Whether guidance learns from a secondary through images, where a network can learn that secondary at all.

    python -m benchmarks.studies.guidance_crops [SEED ...]

Phantoms of which only t2 carries the grade, 300 subjects, as many LGG as HGG, each image cut to 24 x 24 x 16 voxels of
4 mm around the outline, test subjects included; the primary is t1ce, which knows nothing. RMC of width 8 without
attention, the demo's recipe but for 25 epochs in both stages and no weight decay, two folds. The recipe was chosen on
seed 100. Some three minutes a seed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from fusionbench import Cohort, Leaderboard, Run, Store, csv_text, load_comparison, open_study, run

SIZE = np.array([24, 24, 16])
SHOWN = ("t1ce", "t2", "guidance", "feature", "ensemble")
RECIPE = {"epochs": 25, "weight_decay": 0.0, "stages": {"secondary": {"epochs": 25}}}


def phantom(seed: int, home: Path) -> Cohort:
    """Subjects whose grade shows in t2 alone."""
    options = {"subjects": 300, "seed": seed, "informative": ["t2"], "hgg_share": 0.5}
    asked = {"fusion": ["ensemble"], "options": {"phantom": options}}
    return open_study(load_comparison("demo", asked), home=home).cohort


def crop(cohort: Cohort, folder: Path) -> None:
    """Write the box around each outline, and a manifest of them."""
    names = [modality.name for modality in cohort.modalities]
    rows = []
    for subject in cohort.subjects:
        assert subject.seg is not None
        outline: Any = nibabel.load(subject.seg)
        inside = np.argwhere(np.asarray(outline.dataobj) > 0)
        for name in names:
            image: Any = nibabel.load(subject.files[name])
            low = np.clip(inside.mean(0).round().astype(int) - SIZE // 2, 0, np.array(image.shape) - SIZE)
            (x, y, z), (dx, dy, dz) = low, SIZE
            part = image.slicer[x : x + dx, y : y + dy, z : z + dz]
            nibabel.save(part, folder / f"{subject.id}_{name}.nii.gz")
        rows.append([subject.id, subject.label, *(f"{subject.id}_{name}.nii.gz" for name in names)])
    (folder / "manifest.csv").write_text(csv_text(["subject", "label", *names], rows))


def compared(seed: int, folder: Path) -> dict[str, float]:
    """Method -> ROC-AUC, mean over the test folds."""
    (folder / "crops").mkdir()
    crop(phantom(seed, folder), folder / "crops")
    asked = {
        "fusion": ["guidance", "feature"],
        "modalities": ["t1ce", "t2"],
        "attention": "none",
        "cohort": {"reader": "manifest", "data": str(folder / "crops")},
        "preprocessing": {"resize": [16, 24, 24]},
        "protocol": {"folds": 2, "ranking": {"ranker": "fixed", "primary": "t1ce"}},
        "recipe": RECIPE,
    }
    study = open_study(load_comparison("demo", asked))
    board = Leaderboard.of(Run.of(run(study, Store(folder / "store").open(), jobs=2)))
    return {row.method: row.mean("roc_auc") for row in board.rows}


def main() -> None:
    """Print a row per seed."""
    print(f"| seed | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
    for seed in map(int, sys.argv[1:] or range(5)):
        with tempfile.TemporaryDirectory() as name:
            scores = compared(seed, Path(name))
        print(f"| {seed} | {' | '.join(f'{scores[method]:.3f}'.lstrip('0') for method in SHOWN)} |", flush=True)


if __name__ == "__main__":
    main()
