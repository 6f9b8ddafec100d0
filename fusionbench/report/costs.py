"""What each method costs: parameters, time, memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fusionbench.leaderboard import Row
from fusionbench.report.sources import Sources


@dataclass(frozen=True)
class Cost:
    """Of one method, as means over the folds; NaN where nothing is known."""

    parameters: float
    seconds: float
    """To train its own fit of a fold."""
    seconds_with_parents: float
    """The same with the fits that it builds on; ranking the modalities is not counted."""
    seconds_per_subject: float
    """To predict one, from preprocessed data."""
    memory_bytes: float
    """The most over the folds; of a process that did several fits, an upper bound."""


UNKNOWN = Cost(*[math.nan] * 5)


def cost(sources: Sources, row: Row) -> Cost:
    """What a row costs; UNKNOWN for a method that failed, or predictions made elsewhere."""
    found = sources.behind(row)
    if found is None or row.failed:
        return UNKNOWN
    run, method = found
    fits: Mapping[str, Mapping[str, Any]] = run.facts["fits"]
    mine = [key for key in run.facts["methods"][method]["fits"] if key in fits]
    if not mine:
        return UNKNOWN
    return Cost(
        parameters=statistics.fmean(fits[key]["parameters"] for key in mine),
        seconds=statistics.fmean(_training(fits[key]) for key in mine),
        seconds_with_parents=statistics.fmean(sum(_training(fits[k]) for k in _line(key, fits)) for key in mine),
        seconds_per_subject=_per_subject(fits[key] for key in mine),
        memory_bytes=max(float(fits[key]["peak_memory_bytes"]) for key in mine),
    )


def _training(fit: Mapping[str, Any]) -> float:
    return float(fit["seconds"]) - float(fit.get("predict_seconds", 0.0))


def _line(key: str, fits: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The fit and all that it was built on, each once."""
    parents = (parent for parent in fits[key].get("parents", ()) if parent in fits)
    return {key}.union(*(_line(parent, fits) for parent in parents))


def _per_subject(fits: Iterable[Mapping[str, Any]]) -> float:
    known = [fit for fit in fits if fit.get("predict_seconds") is not None and fit.get("test_subjects")]
    subjects = sum(fit["test_subjects"] for fit in known)
    return sum(fit["predict_seconds"] for fit in known) / subjects if subjects else math.nan
