"""Features of an image inside an outline: what turns images into tables for strategies that work on numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]


class FeatureExtractor(ABC):
    """Turns one image and one outline into a row of numbers. A subclass has `name`, a docstring and options.

    What it returns is kept in the store's cache, addressed by the content of both files, its options and its code, so
    it must depend on nothing else.
    """

    name: ClassVar[str]
    exempt: ClassVar[Mapping[str, str]] = {}
    """Contract check -> the reason why it cannot hold for this class."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version may change what it computes, beyond numpy and scipy."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The features, in the order in which `extract` returns them; known before any image is seen."""

    @abstractmethod
    def extract(self, image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.float64]:
        """One number per name, all finite, from grey values (D, H, W), the outline (D, H, W) and mm per voxel.

        The mask holds at least one voxel. Raises CohortError, in one line, for an image that has no such features.
        """
