"""What feature extractors promise."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.errors import FusionBenchError
from fusionbench.extraction import FeatureExtractor
from fusionbench.testing.class_checks import each_option_value
from fusionbench.testing.requirements import listing, require


@dataclass(frozen=True)
class Scan:
    """A made-up image (D, H, W) with an outline."""

    image: NDArray[np.float64]
    mask: NDArray[np.bool_]
    spacing: tuple[float, float, float] = (2.0, 1.0, 1.5)

    def row(self, extractor: FeatureExtractor) -> NDArray[np.float64]:
        """Its features."""
        return extractor.extract(self.image, self.mask, self.spacing)


def check_names(cls: type[FeatureExtractor], **options: Any) -> None:
    """`names` has a different word for each feature, known before any image, and the same for every instance."""
    names = cls(**options).names
    require(isinstance(names, tuple) and bool(names), f"`names` is {names!r}: make it a tuple of at least one name")
    wrong = [repr(name) for name in names if not isinstance(name, str) or not name.strip()]
    require(not wrong, f"`names` has {listing(wrong)}: a name is a string that is not empty")
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"`names` has {listing(twice)} more than once")
    extractor = cls(**options)
    _ordinary().row(extractor)
    require(extractor.names == names == cls(**options).names, "`names` are others when asked again, or after an image")


def check_row(cls: type[FeatureExtractor], **options: Any) -> None:
    """A row is one array of numbers, as many as there are names."""
    _require_row(cls(**options))


def check_finite(cls: type[FeatureExtractor], **options: Any) -> None:
    """Every number of an ordinary outline is finite."""
    _require_finite(cls(**options), "an ordinary outline", _ordinary())


def check_degenerate_finite(cls: type[FeatureExtractor], **options: Any) -> None:
    """Every number is finite for one voxel, one slice, a whole image, parts that do not touch, one grey value."""
    extractor = cls(**options)
    for name, scan in _degenerate():
        _require_finite(extractor, name, scan)


def check_arguments_only(cls: type[FeatureExtractor], **options: Any) -> None:
    """A row depends on the image, the outline and the spacing alone: not on what was extracted before."""
    extractor = cls(**options)
    first = np.array(_ordinary().row(extractor))
    other = _ordinary(seed=1)
    Scan(3 * other.image, other.mask, other.spacing).row(extractor)
    require(np.array_equal(first, _ordinary().row(extractor)), "the same image gives other numbers after another one")
    require(np.array_equal(first, _ordinary().row(cls(**options))), "a new instance gives other numbers")


def check_random_state_kept(cls: type[FeatureExtractor], **options: Any) -> None:
    """It leaves the global random states of Python, numpy and torch alone."""
    extractor = cls(**options)
    for name, state in _RANDOM_STATES.items():
        before = state()
        _ordinary().row(extractor)
        require(state() == before, f"draws from the global random state of {name}: use a generator of its own")


def check_inputs_untouched(cls: type[FeatureExtractor], **options: Any) -> None:
    """It does not write to the image or to the outline."""
    scan, untouched = _ordinary(), _ordinary()
    scan.row(cls(**options))
    require(np.array_equal(scan.image, untouched.image), "writes to the image")
    require(np.array_equal(scan.mask, untouched.mask), "writes to the outline")


def check_broken_image_told(cls: type[FeatureExtractor], **options: Any) -> None:
    """An image that is not finite inside the outline is an error in one line, or gives finite numbers after all."""
    scan = _ordinary()
    scan.image[tuple(np.argwhere(scan.mask)[0])] = np.nan
    extractor = cls(**options)
    try:
        row = scan.row(extractor)
    except FusionBenchError as error:
        require("\n" not in str(error), f"the error has several lines: {error}")
        return
    require(bool(np.isfinite(row).all()), "gives numbers that are not finite where it should raise a CohortError")


def check_each_option(cls: type[FeatureExtractor], **options: Any) -> None:
    """It works with each value of each option that lists its values, and has as many names as numbers."""
    for values in each_option_value(cls):
        if values:
            _require_row(cls(**{**options, **values}))


def check_pickles(cls: type[FeatureExtractor], **options: Any) -> None:
    """It can go to a worker process, and gives the same there."""
    extractor = cls(**options)
    try:
        copy = pickle.loads(pickle.dumps(extractor))  # noqa: S301 - our own bytes of a moment ago
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise AssertionError(f"cannot be pickled: {error}; hold no lambdas, files or local classes") from None
    require(copy.names == extractor.names, "has other names after a round trip through pickle")
    require(np.array_equal(_ordinary().row(copy), _ordinary().row(extractor)), "gives other numbers after pickling")


_RANDOM_STATES: dict[str, Callable[[], Any]] = {
    "Python": random.getstate,
    "numpy": lambda: pickle.dumps(np.random.get_state()),
    "torch": lambda: torch.random.get_rng_state().tolist(),
}


def _ordinary(seed: int = 0) -> Scan:
    """A ball with a hole in a noisy brain on an empty background."""
    generator = np.random.default_rng(seed)
    distance = np.sqrt(((np.indices((12, 13, 14)) - 6) ** 2).sum(0))
    image = np.where(distance < 6, 100 + 20 * generator.random(distance.shape) + 5 * distance, 0.0)
    return Scan(image, (distance < 4) & (distance > 1))


def _degenerate() -> Iterator[tuple[str, Scan]]:
    """What an extractor meets in small or odd outlines."""
    ordinary = _ordinary()
    places: dict[str, Any] = {
        "a single voxel": np.s_[6, 6, 6],
        "a single voxel in the corner": np.s_[0, 0, 0],
        "two voxels": np.s_[6, 6, 6:8],
        "a row of voxels": np.s_[6, 6, :],
        "a single slice": np.s_[6, 3:9, 3:9],
        "the whole image": np.s_[:, :, :],
        "voxels that do not touch": np.s_[::4, ::4, ::4],
    }
    for name, where in places.items():
        mask = np.zeros(ordinary.mask.shape, dtype=bool)
        mask[where] = True
        yield name, Scan(ordinary.image, mask)
    yield "one grey value", Scan(np.full_like(ordinary.image, 0.1), ordinary.mask)
    yield "an image of zeros", Scan(np.zeros_like(ordinary.image), ordinary.mask)


def _require_row(extractor: FeatureExtractor) -> None:
    row, wanted = _ordinary().row(extractor), len(extractor.names)
    require(
        isinstance(row, np.ndarray) and row.shape == (wanted,) and row.dtype == np.float64,
        f"returns {_told(row)} for {wanted} names: make it an array of float64, one number per name",
    )


def _require_finite(extractor: FeatureExtractor, what: str, scan: Scan) -> None:
    row = scan.row(extractor)
    broken = [name for name, value in zip(extractor.names, row, strict=False) if not np.isfinite(value)]
    require(not broken, f"{listing(broken)}: not finite for {what}; choose a number and document it")


def _told(row: Any) -> str:
    return f"an array {row.shape} of {row.dtype}" if isinstance(row, np.ndarray) else f"a {type(row).__name__}"
