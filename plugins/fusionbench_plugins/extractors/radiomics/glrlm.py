"""The grey level run length matrix: for how long a grey level goes on along a line."""

from __future__ import annotations

from typing import Final

import numpy as np

from fusionbench_plugins.extractors.radiomics.extents import FORMULAS, Extents, counted
from fusionbench_plugins.extractors.radiomics.family import Family, Feature, half_of_neighbours
from fusionbench_plugins.extractors.radiomics.region import Levels, Region


def measure(region: Region) -> Extents:
    """The runs along all 13 directions together (IBSI IAZD)."""
    padded = np.pad(region.levels, 1)
    steps = half_of_neighbours() @ (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
    runs = [_runs(padded.ravel(), int(step)) for step in steps]
    levels, lengths = (np.concatenate(part) for part in zip(*runs, strict=True))
    return counted(levels, lengths, region.values.size * len(steps))


def _runs(padded: Levels, step: int) -> tuple[Levels, Levels]:
    """Level and length of each run, going through a padded and flattened volume in steps of that size.

    Every line begins and ends in the padding, so lines can be laid end to end: a 0 stands between them.
    """
    filled = np.pad(padded, (0, -padded.size % step))
    lines = filled.reshape(-1, step).T.ravel()
    starts = np.flatnonzero(np.diff(lines)) + 1
    levels, lengths = lines[starts], np.diff(starts, append=lines.size)
    return levels[levels > 0], lengths[levels > 0]


GLRLM: Final = Family(
    "glrlm",
    measure,
    {
        "short-runs-emphasis": Feature("22OV", FORMULAS["short"]),
        "long-runs-emphasis": Feature("W4KF", FORMULAS["long"]),
        "low-grey-level-run-emphasis": Feature("V3SW", FORMULAS["low"]),
        "high-grey-level-run-emphasis": Feature("G3QZ", FORMULAS["high"]),
        "short-run-low-grey-level-emphasis": Feature("HTZT", FORMULAS["short-low"]),
        "short-run-high-grey-level-emphasis": Feature("GD3A", FORMULAS["short-high"]),
        "long-run-low-grey-level-emphasis": Feature("IVPO", FORMULAS["long-low"]),
        "long-run-high-grey-level-emphasis": Feature("3KUM", FORMULAS["long-high"]),
        "grey-level-non-uniformity": Feature("R5YN", FORMULAS["level-non-uniformity"]),
        "normalised-grey-level-non-uniformity": Feature("OVBL", FORMULAS["level-non-uniformity-normalised"]),
        "run-length-non-uniformity": Feature("W92Y", FORMULAS["extent-non-uniformity"]),
        "normalised-run-length-non-uniformity": Feature("IC23", FORMULAS["extent-non-uniformity-normalised"]),
        "run-percentage": Feature("9ZK5", FORMULAS["percentage"]),
        "grey-level-variance": Feature("8CE5", FORMULAS["level-variance"]),
        "run-length-variance": Feature("SXLW", FORMULAS["extent-variance"]),
        "run-entropy": Feature("HJ9O", FORMULAS["entropy"]),
    },
)
