"""The contract checks of feature extractors find the faults that they are for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pytest

from fusionbench import CohortError, FeatureExtractor
from fusionbench.registry import Component
from fusionbench.testing.checks import CHECKS, check_component, promise_name

Spacing = tuple[float, float, float]


def red(cls: Any) -> set[str]:
    verdicts = check_component(Component("extractor", cls.name, cls, "planted", "", ""))
    return {verdict.promise for verdict in verdicts if not verdict.held}


class Correct(FeatureExtractor):
    """The mean grey value of the outlined region, and its volume."""

    name = "correct"

    @property
    def names(self) -> tuple[str, ...]:
        return ("mean", "volume")

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        mean = image[mask].mean()
        if not np.isfinite(mean):
            raise CohortError("correct: grey values are not finite")
        return np.array([mean, mask.sum() * np.prod(spacing)])


def test_a_correct_extractor_keeps_every_promise() -> None:
    assert red(Correct) == set()


class SameName(Correct):
    """Calls two features the same."""

    names = ("mean", "mean")


class EmptyName(Correct):
    """Has a feature without a name."""

    names = ("mean", " ")


class NoFeatures(Correct):
    """Has no features."""

    names = ()

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return np.zeros(0)


class LearnsItsNames(Correct):
    """Knows what its features are called once it has seen an image."""

    seen = False

    @property
    def names(self) -> tuple[str, ...]:
        return ("mean", "volume") if self.seen else ("first", "second")

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        self.seen = True
        return super().extract(image, mask, spacing)


class OneTooMany(Correct):
    """Returns a number that has no name."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return np.append(super().extract(image, mask, spacing), 0)


class AsList(Correct):
    """Returns a list."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return super().extract(image, mask, spacing).tolist()


class SinglePrecision(Correct):
    """Returns numbers of single precision."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return super().extract(image, mask, spacing).astype(np.float32)


class BrokenValue(Correct):
    """Declares a value of an option that it cannot work with."""

    def __init__(self, *, unit: Annotated[Literal["mm", "cm"], "of the volume"] = "mm") -> None:
        self.scale = {"mm": 1}[unit]


class ForgetsNames(Correct):
    """Returns fewer numbers with a value of an option, and as many names."""

    def __init__(self, *, volume: Annotated[bool, "whether to measure it"] = True) -> None:
        self.volume = volume

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return super().extract(image, mask, spacing)[: 1 + self.volume]


class NoHollows(Correct):
    """Divides by the share of the outline in its box, less what a hollow ball has."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        result = super().extract(image, mask, spacing)
        hollow = 100 < mask.sum() < 1000 and image.max() > 1
        return result / 0.0 if hollow else result


class Deviation(Correct):
    """Divides by the deviation of the grey values."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return super().extract(image, mask, spacing) / (np.ptp(image[mask]) if mask.sum() == 1 else 1)


class Passes(Correct):
    """Lets what is not finite pass."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return np.array([image[mask].mean(), mask.sum()])


class Counts(Correct):
    """Adds how often it was called."""

    calls = 0

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        if np.isclose(image.sum(), 0) or mask.all():
            return super().extract(image, mask, spacing)
        Counts.calls += 1
        return super().extract(image, mask, spacing) + Counts.calls


class Remembers(Correct):
    """Keeps the largest grey value of all images so far."""

    largest = 0.0

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        self.largest = max(self.largest, float(np.nanmax(image)))
        return super().extract(image, mask, spacing) / (self.largest or 1)


class Draws(Correct):
    """Measures a random part of the region, of which nothing comes."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        np.random.default_rng(0).random()
        np.random.random()
        return super().extract(image, mask, spacing)


class Clears(Correct):
    """Sets what is outside to zero, where it is."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        image[~mask] = 0
        return super().extract(image, mask, spacing)


class Fills(Correct):
    """Fills the outline, where it is, once it was measured."""

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        result = super().extract(image, mask, spacing)
        mask[...] = True
        return result


class Unpicklable(Correct):
    """Holds a lambda."""

    def __init__(self) -> None:
        self.nothing = lambda x: x


class Forgets(Correct):
    """Leaves its options behind when it goes to a worker."""

    def __init__(self) -> None:
        self.scale = 2.0

    def __getstate__(self) -> dict[str, float]:
        return {"scale": 1.0}

    def extract(self, image: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        return super().extract(image, mask, spacing) * self.scale


class Undocumented(Correct):
    name = "correct"


class WrongDefault(Correct):
    """Declares an option whose default is of another type."""

    def __init__(self, *, bins: Annotated[int, "grey levels"] = "many") -> None:  # type: ignore[assignment]
        self.bins = bins


PLANTED = {
    SameName: {"names"},
    EmptyName: {"names"},
    NoFeatures: {"names"},
    LearnsItsNames: {"names"},
    OneTooMany: {"row"},
    AsList: {"row"},
    SinglePrecision: {"row"},
    BrokenValue: {"each-option"},
    ForgetsNames: {"each-option"},
    NoHollows: {"finite"},
    Deviation: {"degenerate-finite"},
    Passes: {"broken-image-told"},
    Remembers: {"arguments-only"},
    Counts: {"arguments-only", "pickles"},
    Draws: {"random-state-kept"},
    Clears: {"inputs-untouched"},
    Fills: {"inputs-untouched"},
    Unpicklable: {"pickles"},
    Forgets: {"pickles"},
    Undocumented: {"documented"},
    WrongDefault: {"options-valid"},
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cls", PLANTED, ids=lambda cls: cls.__name__)
def test_a_planted_fault_turns_exactly_its_check_red(cls: type[FeatureExtractor]) -> None:
    assert red(cls) == PLANTED[cls]


def test_every_promise_of_an_extractor_has_a_planted_fault() -> None:
    assert {promise_name(check) for check in CHECKS["extractor"]} == set().union(*PLANTED.values())
