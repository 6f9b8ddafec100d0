"""What is lost of a phantom cohort and where each subject was seen: knobs and draws, no files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fusionbench import CohortError
from fusionbench_plugins.cohorts.glioma_phantom.recipe import MODALITIES, Recipe

MOST_MISSING = 0.75
"""A subject keeps one of its four files."""
SITES, LOST, SCANNER, NOISE = range(100_001, 100_005)
"""Streams of random numbers: where the generator has the number of a subject, which is lower."""


@dataclass(frozen=True)
class Collection:
    """The knobs; CohortError names the one that is out of range."""

    missingness: float = 0.0
    """Share of the files of modalities that are lost."""
    sites: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.missingness <= MOST_MISSING:
            raise CohortError(f"phantom.missingness is {self.missingness}; it must be from 0 to {MOST_MISSING}")
        if not 1 <= self.sites <= 50:
            raise CohortError(f"phantom.sites is {self.sites}; it must be from 1 to 50")

    @property
    def idle(self) -> bool:
        """Whether everything stays as the generator wrote it."""
        return self == Collection()

    def fingerprint(self, recipe: Recipe) -> str:
        """The SHA-256 of knobs and sources; that of the recipe where nothing is done."""
        if self.idle:
            return recipe.fingerprint()
        state = hashlib.sha256(recipe.fingerprint().encode())
        state.update(json.dumps(asdict(self), sort_keys=True).encode())
        for module in sorted(Path(__file__).parent.glob("*.py")):
            state.update(module.read_bytes())
        return state.hexdigest()


def site_of(collection: Collection, recipe: Recipe) -> list[int]:
    """The site of each subject, from 0: as many at each as can be, in an order that says nothing."""
    order = random_numbers(recipe, SITES).permutation(recipe.subjects)
    return [int(place) % collection.sites for place in order]


def lost(collection: Collection, recipe: Recipe) -> list[tuple[int, str]]:
    """(subject, modality) of the files that are lost: exactly that share, rounded, and never all of a subject."""
    files = [(number, name) for number in range(recipe.subjects) for name in MODALITIES]
    wanted = round(collection.missingness * len(files))
    left = dict.fromkeys(range(recipe.subjects), len(MODALITIES))
    gone: list[tuple[int, str]] = []
    for place in random_numbers(recipe, LOST).permutation(len(files)):
        number, name = files[place]
        if len(gone) < wanted and left[number] > 1:
            left[number] -= 1
            gone.append((number, name))
    return gone


def random_numbers(recipe: Recipe, *where: int) -> np.random.Generator:
    """The random numbers of a stream, and perhaps of one subject or site and one modality in it."""
    return np.random.default_rng([recipe.seed, *where])
