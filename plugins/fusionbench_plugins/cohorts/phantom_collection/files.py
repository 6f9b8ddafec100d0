"""The files of a phantom cohort after it was collected: other scanners, fewer files, a table of sites."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np

from fusionbench import CohortError
from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, smooth_field
from fusionbench_plugins.cohorts.glioma_phantom.recipe import MODALITIES, Recipe
from fusionbench_plugins.cohorts.glioma_phantom.scanner import rician
from fusionbench_plugins.cohorts.glioma_phantom.writing import CARD, nifti
from fusionbench_plugins.cohorts.phantom_collection.knobs import (
    NOISE,
    SCANNER,
    Collection,
    lost,
    random_numbers,
    site_of,
)

LABELS = "labels.csv"
GAIN_DEVIATION = 0.5
"""Of the logarithm, between sites."""
COIL_DEVIATION, COIL_KNOTS = 0.15, 160.0
"""Of the logarithm; mm. A coil is the same for all subjects of a site."""
MOST_NOISE = 0.06
"""Deviation of what a site adds, over the mean of the brain: none at the best site, this at the worst."""


def collect(collection: Collection, recipe: Recipe, folder: Path) -> None:
    """Turn a cohort as the generator wrote it into a collected one; its card says so."""
    subjects = sorted(folder.glob("*/Phantom_*"), key=lambda subject: subject.name)
    if collection.sites > 1:
        sites = site_of(collection, recipe)
        for number, (subject, site) in enumerate(zip(subjects, sites, strict=True)):
            for name in MODALITIES:
                _rescan(subject / f"{subject.name}_{name}.nii.gz", recipe, number, name, site)
        rows = [
            (subject.name, subject.parent.name, f"site-{site}") for subject, site in zip(subjects, sites, strict=True)
        ]
        with (folder / LABELS).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("subject", "label", "site"), *rows])
    for number, name in lost(collection, recipe):
        (subjects[number] / f"{subjects[number].name}_{name}.nii.gz").unlink()
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card |= {"collection": asdict(collection), "collected": collection.fingerprint(recipe)}
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def check_collected(collection: Collection, recipe: Recipe, folder: Path) -> None:
    """CohortError if what lies in a folder was collected in another way."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    if card.get("collected", recipe.fingerprint()) != collection.fingerprint(recipe):
        raise CohortError(
            f"{folder} holds a phantom with other sites or missing files; "
            "name a folder that does not exist yet, or read it as brats"
        )


def _rescan(file: Path, recipe: Recipe, number: int, name: str, site: int) -> None:
    """Write an image as the scanner of that site would have: its gain, its coil, its noise."""
    image = np.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
    stream = MODALITIES.index(name)
    scanner = random_numbers(recipe, SCANNER, site, stream)
    gain = np.exp(GAIN_DEVIATION * scanner.standard_normal())
    noise = MOST_NOISE * scanner.random()
    coil: Field = np.exp(np.float32(COIL_DEVIATION) * smooth_field(image.shape, recipe.spacing, COIL_KNOTS, scanner))
    signal = image * coil
    sigma = noise * float(signal[image > 0].mean())
    values = rician(signal, sigma, random_numbers(recipe, NOISE, number, stream)) * gain
    written = np.where(image > 0, np.clip(np.rint(values), 1, 32767), 0).astype(np.int16)
    file.write_bytes(nifti(written, recipe.spacing))
