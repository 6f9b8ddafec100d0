"""A phantom cohort as BraTS-layout NIfTI, byte for byte the same each time."""

from __future__ import annotations

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
from numpy.typing import NDArray

from fusionbench import CohortError
from fusionbench_plugins.cohorts.glioma_phantom.anatomy import Atlas, affine, load_atlas
from fusionbench_plugins.cohorts.glioma_phantom.recipe import Recipe
from fusionbench_plugins.cohorts.glioma_phantom.subject import render

CARD = "cohort.json"
NOTE = "synthetic: a phantom by equations, not patients; it proves mechanics, not medicine"


def write_cohort(recipe: Recipe, folder: Path) -> None:
    """Write every subject under HGG/ or LGG/, and cohort.json, which says that nothing here is real."""
    card = {"name": "phantom", "synthetic": True, "note": NOTE, "fingerprint": recipe.fingerprint()}
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    atlas = load_atlas(recipe.spacing)
    # Threads: numpy, scipy and zlib work outside the interpreter's lock; a process would cost 4 s of imports and atlas.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_write_subject, atlas, recipe, folder), range(recipe.subjects), recipe.grades()))


def check_written(recipe: Recipe, folder: Path) -> None:
    """CohortError if a folder is not what `write_cohort` makes of that recipe."""
    card = folder / CARD
    written = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    if written.get("fingerprint") != recipe.fingerprint():
        raise CohortError(
            f"{folder} exists and is no phantom of these options and this version; "
            "name a folder that does not exist yet, or read it as brats"
        )


def _write_subject(atlas: Atlas, recipe: Recipe, folder: Path, number: int, grade: str) -> None:
    name = f"Phantom_{number:03d}"
    home = folder / grade / name
    home.mkdir(parents=True)
    scans = render(atlas, recipe, number, grade)
    volumes: dict[str, NDArray[Any]] = {**scans.images, "seg": scans.seg}
    for kind, values in volumes.items():
        (home / f"{name}_{kind}.nii.gz").write_bytes(nifti(values, recipe.spacing))


def nifti(values: NDArray[Any], spacing: float) -> bytes:
    """A compressed NIfTI of that array (X, Y, Z); no time stamp, so equal arrays give equal bytes."""
    image = nibabel.Nifti1Image(values, affine(spacing))  # type: ignore[no-untyped-call]
    image.set_qform(affine(spacing), code="aligned")  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
