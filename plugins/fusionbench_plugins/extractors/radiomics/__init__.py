"""Radiomics of an outlined region after the Image Biomarker Standardisation Initiative (IBSI).

Zwanenburg et al., "The Image Biomarker Standardization Initiative", Radiology 295:328, 2020, and its reference manual
(arXiv 1612.07003), whose names and codes the features have. One thing per module: `region` (crop and standardise),
`discretise`, `family` (what a feature is), and a module for each family. docs/radiomics.md has the conventions.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fusionbench import FeatureExtractor, hookimpl

# The modules, not what is in them: the digest of a component's code follows the modules that it names.
from fusionbench_plugins.extractors.radiomics import (
    discretise,
    family,
    glcm,
    glrlm,
    glszm,
    histogram,
    intensity,
    morphology,
    region,
)

FamilyName = Literal["intensity", "histogram", "morphology", "glcm", "glrlm", "glszm"]
Normalisation = Literal["zscore", "none"]
EVERY: Final[tuple[FamilyName, ...]] = ("intensity", "histogram", "morphology", "glcm", "glrlm", "glszm")
FAMILIES: Final[tuple[family.Family, ...]] = (
    intensity.INTENSITY,
    histogram.HISTOGRAM,
    morphology.MORPHOLOGY,
    glcm.GLCM,
    glrlm.GLRLM,
    glszm.GLSZM,
)


class Radiomics(FeatureExtractor):
    """Intensity, shape and texture of the outlined region: 89 IBSI features.

    No resampling. Texture is in 3D, all directions merged into one matrix. Grey values of MRI are arbitrary, so they
    are standardised first, and the two features that need a true zero are left out; `normalise="none"`, for CT and
    other calibrated images, takes grey values as they are and gives 91.
    """

    name = "radiomics"
    libraries = ("scikit-image",)

    def __init__(
        self,
        *,
        families: Annotated[tuple[FamilyName, ...], Field(min_length=1), "which kinds of features"] = EVERY,
        bins: Annotated[int, Field(ge=2, le=256), "grey levels of the discretisation"] = 32,
        bin_width: Annotated[float | None, Field(gt=0), "levels of this width, instead of a number of them"] = None,
        normalise: Annotated[Normalisation, "by the image's voxels other than 0, or not at all"] = "zscore",
    ) -> None:
        self.families = families
        standardise = normalise == "zscore"
        self.left_out = intensity.NEEDS_ZERO if standardise else frozenset[str]()
        self.preparation = region.Preparation(
            standardise,
            partial(discretise.fixed_bin_size, width=bin_width)
            if bin_width
            else partial(discretise.fixed_bin_number, bins=bins),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Family and feature: `glcm-joint-entropy`."""
        return tuple(name for one in self._families for name in one.names if name not in self.left_out)

    def extract(
        self, image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: tuple[float, float, float]
    ) -> NDArray[np.float64]:
        """One number per name. CohortError for grey values that are not finite, or too large to be squared."""
        inside = self.preparation.region(image, mask, spacing)
        values = {name: value for one in self._families for name, value in one.row(inside).items()}
        return np.array([values[name] for name in self.names], dtype=np.float64)

    @property
    def _families(self) -> tuple[family.Family, ...]:
        return tuple(one for one in FAMILIES if one.name in self.families)


@hookimpl
def fusionbench_extractors() -> list[type[FeatureExtractor]]:
    """Radiomics."""
    return [Radiomics]
