"""Radiomics as the library mirp computes them: the reference for the built-in ones, and more families."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fusionbench import CohortError, FeatureExtractor, FusionBenchError, hookimpl

FamilyName = Literal[
    "morphological",
    "statistics",
    "intensity_histogram",
    "glcm",
    "glrlm",
    "glszm",
    "gldzm",
    "ngtdm",
    "ngldm",
]
EVERY: Final[tuple[FamilyName, ...]] = (
    "morphological",
    "statistics",
    "intensity_histogram",
    "glcm",
    "glrlm",
    "glszm",
    "gldzm",
    "ngtdm",
    "ngldm",
)
Spacing = tuple[float, float, float]


class Mirp(FeatureExtractor):
    """Radiomics by the library mirp, which has more families and takes a few hundred times longer.

    Zwanenburg et al., "MIRP: A Python package for standardised radiomics", JOSS 9(99):6413, 2024. In 3D, all directions
    merged, without resampling. What mirp leaves undefined, such as the texture of a single voxel, is 0.
    """

    name = "mirp"
    libraries = ("mirp",)

    def __init__(
        self,
        *,
        families: Annotated[tuple[FamilyName, ...], Field(min_length=1), "which of mirp's families"] = EVERY,
        bins: Annotated[int, Field(ge=2, le=256), "grey levels of the discretisation"] = 32,
        normalise: Annotated[Literal["zscore", "none"], "by the image's voxels other than 0, or not at all"] = "zscore",
    ) -> None:
        self.families = families
        self.bins = bins
        self.normalise = normalise

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that this version of mirp gives, by its own names. FusionBenchError if it is not installed."""
        return _columns(self.families, self.bins)

    def extract(self, image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.float64]:
        """One number per name. CohortError for grey values that are not finite."""
        scaled = _standardised(image) if self.normalise == "zscore" else image
        if not np.isfinite(scaled[mask]).all():
            raise CohortError("mirp: there are grey values that are not finite: mend the image")
        row = _row(scaled, mask, spacing, self.families, self.bins)
        values = np.array([row[name] for name in self.names], dtype=np.float64)
        return np.where(np.isfinite(values), values, 0.0)


def _standardised(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey values in deviations from the mean of the voxels other than 0."""
    brain = image[image != 0]
    if not brain.size or brain.min() == brain.max():  # its computed deviation may be 1e-17 instead of 0
        return np.zeros_like(image)
    result: NDArray[np.float64] = (image - brain.mean()) / brain.std()
    return result


@lru_cache
def _columns(families: tuple[FamilyName, ...], bins: int) -> tuple[str, ...]:
    """What mirp calls its features: it tells only with a result, so it is asked for one of a small cube."""
    cube = np.arange(64.0).reshape(4, 4, 4)
    return tuple(_row(cube, np.ones((4, 4, 4), dtype=bool), (1.0, 1.0, 1.0), families, bins))


def _row(
    image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: Spacing, families: tuple[FamilyName, ...], bins: int
) -> dict[str, float]:
    """The features of a region, by mirp's names."""
    extract_features, import_image, import_mask = _mirp()
    (picture,), (outline,) = import_image(image.copy()), import_mask(mask.astype(np.intp))
    picture.image_spacing = outline.image_spacing = spacing  # arrays have none, so mirp would take 1 mm
    with _quiet():
        (table,) = extract_features(
            image=picture,
            mask=outline,
            sample_name="region",  # or it draws a name, from the global random state
            base_feature_families=list(families),
            base_discretisation_method="fixed_bin_number",
            base_discretisation_n_bins=bins,
        )
    return {name: float(table[name].iloc[0]) for name in table.columns if not name.startswith(("sample_", "image_"))}


def _mirp() -> tuple[Any, Any, Any]:
    """The three functions of mirp that are used. FusionBenchError if it is not installed."""
    try:
        from mirp import extract_features  # 0.8 s: only when it is used
        from mirp.data_import.import_image import import_image
        from mirp.data_import.import_mask import import_mask
    except ModuleNotFoundError:
        raise FusionBenchError('mirp is not installed: pip install "fusionbench[radiomics]"') from None
    return extract_features, import_image, import_mask


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep mirp from logging to standard output, as it does if the root logger has no handler, and from warnings."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of 0 / 0, which becomes 0
            yield
    finally:
        root.removeHandler(handler)


@hookimpl
def fusionbench_extractors() -> list[type[FeatureExtractor]]:
    """The library mirp as an extractor."""
    return [Mirp]
