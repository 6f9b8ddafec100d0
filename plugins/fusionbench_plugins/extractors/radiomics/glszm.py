"""The grey level size zone matrix: how many voxels of one grey level hang together."""

from __future__ import annotations

from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.extents import FORMULAS, Extents, counted
from fusionbench_plugins.extractors.radiomics.family import Family, Feature
from fusionbench_plugins.extractors.radiomics.region import Region


def measure(region: Region) -> Extents:
    """The zones of equal grey level, each voxel having 26 neighbours (IBSI KOBO)."""
    from skimage.measure import label  # 0.2 s: not for who only lists components

    zones = label(region.levels, background=0, connectivity=3)[region.mask]  # type: ignore[no-untyped-call]
    sizes = np.bincount(zones)[1:]  # zones are numbered from 1 on
    levels = np.zeros_like(sizes)
    levels[zones - 1] = region.inside
    return counted(levels, sizes, region.values.size)


GLSZM: Final = Family(
    "glszm",
    measure,
    {
        "small-zone-emphasis": Feature("P001", FORMULAS["short"]),
        "large-zone-emphasis": Feature("48P8", FORMULAS["long"]),
        "low-grey-level-zone-emphasis": Feature("XMSY", FORMULAS["low"]),
        "high-grey-level-zone-emphasis": Feature("5GN9", FORMULAS["high"]),
        "small-zone-low-grey-level-emphasis": Feature("5RAI", FORMULAS["short-low"]),
        "small-zone-high-grey-level-emphasis": Feature("HW1V", FORMULAS["short-high"]),
        "large-zone-low-grey-level-emphasis": Feature("YH51", FORMULAS["long-low"]),
        "large-zone-high-grey-level-emphasis": Feature("J17V", FORMULAS["long-high"]),
        "grey-level-non-uniformity": Feature("JNSA", FORMULAS["level-non-uniformity"]),
        "normalised-grey-level-non-uniformity": Feature("Y1RO", FORMULAS["level-non-uniformity-normalised"]),
        "zone-size-non-uniformity": Feature("4JP3", FORMULAS["extent-non-uniformity"]),
        "normalised-zone-size-non-uniformity": Feature("VB3A", FORMULAS["extent-non-uniformity-normalised"]),
        "zone-percentage": Feature("P30P", FORMULAS["percentage"]),
        "grey-level-variance": Feature("BYLV", FORMULAS["level-variance"]),
        "zone-size-variance": Feature("3NSA", FORMULAS["extent-variance"]),
        "zone-size-entropy": Feature("GU8N", FORMULAS["entropy"]),
    },
)
