"""The intensity histogram: how the voxels are spread over the grey levels."""

from __future__ import annotations

from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.family import Family, Feature, entropy
from fusionbench_plugins.extractors.radiomics.region import Region, Values


def measure(region: Region) -> Values:
    """The share of the voxels in each grey level."""
    return np.bincount(region.inside) / region.values.size


HISTOGRAM: Final = Family(
    "histogram",
    measure,
    {
        "entropy": Feature("TLU2", entropy),
        "uniformity": Feature("BJ5W", lambda p: np.sum(p**2)),
    },
)
