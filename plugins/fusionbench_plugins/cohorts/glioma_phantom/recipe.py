"""What a phantom cohort is made with: its knobs, its grades, and the random numbers of each subject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fusionbench import CohortError

MODALITIES = ("t1", "t1ce", "t2", "flair")
GRADES = ("HGG", "LGG")

STREAMS = ("grades", "anatomy", "tumour", "texture", "pathology", "neutral", "tissue", "vessels", *MODALITIES)
"""Each has its own random numbers, so that one more draw in one of them leaves all others as they were."""


@dataclass(frozen=True)
class Recipe:
    """The knobs of a cohort; CohortError names the one that is out of range."""

    subjects: int = 72
    seed: int = 0
    spacing: float = 4.0
    """Of the voxels, in mm."""
    hgg_share: float = 0.74
    noise: float = 0.03
    """Standard deviation of the noise over the mean signal of white matter."""
    informative: tuple[str, ...] = MODALITIES
    """The modalities that carry the grade; the others are drawn without looking at it."""

    def __post_init__(self) -> None:
        _expect("subjects", self.subjects, "from 2 to 100000", lambda value: 2 <= value <= 100_000)
        _expect("seed", self.seed, "0 or more", lambda value: value >= 0)
        _expect("spacing", self.spacing, "from 1 to 10 mm", lambda value: 1 <= value <= 10)
        _expect("noise", self.noise, "from 0 to 0.5", lambda value: 0 <= value <= 0.5)
        _expect("hgg_share", self.hgg_share, "such that both grades occur", lambda _: 0 < self.hgg < self.subjects)
        known = f"some of {', '.join(MODALITIES)}"
        _expect("informative", ", ".join(self.informative), known, lambda _: set(self.informative) <= set(MODALITIES))
        # In one order and once each: what is the same cohort has the same name.
        ordered = tuple(name for name in MODALITIES if name in self.informative)
        object.__setattr__(self, "informative", ordered)

    @property
    def hgg(self) -> int:
        """How many subjects are high-grade."""
        return round(self.subjects * self.hgg_share)

    def grades(self) -> tuple[str, ...]:
        """The grade of each subject, in an order that says nothing: exact counts, shuffled."""
        grades = np.array(["HGG"] * self.hgg + ["LGG"] * (self.subjects - self.hgg))
        return tuple(str(grade) for grade in random_numbers(self, 0, "grades").permutation(grades))

    def fingerprint(self) -> str:
        """The SHA-256 of the knobs and of the generator's source: equal ones have equal files."""
        state = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for module in sorted(Path(__file__).parent.glob("*.py")):
            state.update(module.read_bytes())
        return state.hexdigest()


def random_numbers(recipe: Recipe, number: int, stream: str) -> np.random.Generator:
    """The random numbers of one subject for one purpose; they depend on nothing but seed, subject and purpose."""
    return np.random.default_rng([recipe.seed, number, STREAMS.index(stream)])


def _expect(name: str, value: object, wanted: str, holds: Callable[..., bool]) -> None:
    if not holds(value):
        raise CohortError(f"phantom.{name} is {value}; it must be {wanted}")
