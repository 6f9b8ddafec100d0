"""The test folds of a repeat together: an order where folds have no score, and why they have none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from fusionbench.errors import summary
from fusionbench.metrics import METRICS, Metric
from fusionbench.predictions import Predictions

Place = tuple[int, int]
"""(repeat, fold)."""
Tested = Mapping[Place, Predictions]
"""Of one method: what it says of the test part of each fold."""


def pooled(tested: Tested) -> list[Predictions]:
    """Of each repeat the predictions of all its test folds."""
    repeats: dict[int, list[Predictions]] = {}
    for (repeat, _), part in sorted(tested.items()):
        repeats.setdefault(repeat, []).append(part)
    return [Predictions.joined(parts, parts[0].classes) for parts in repeats.values()]


def pooled_score(tested: Tested, metric: Metric, positive_class: str) -> float:
    """The metric of all test folds of a repeat together, the mean over repeats; NaN if one has none.

    It mixes models, whose probabilities may be on different scales: enough to put methods in an order.
    """
    return mean_or_nan(metric(part, positive_class) for part in pooled(tested))


def mean_or_nan(values: Iterable[float]) -> float:
    """The mean; NaN if a value is, or if there is none."""
    found = list(values)
    return statistics.fmean(found) if found and not any(map(math.isnan, found)) else math.nan


def undefined(
    tested: Tested, positive_class: str, metrics: Sequence[str], sites: Mapping[str, str] | None = None
) -> list[str]:
    """Which of the metrics are not defined on which folds, a line per reason; `sites` is number of a fold -> site."""
    several = len({repeat for repeat, _ in tested}) > 1
    places: dict[tuple[str, str], list[str]] = {}
    for (repeat, fold), part in sorted(tested.items()):
        lost = [name for name in metrics if math.isnan(METRICS[name](part, positive_class))]
        if not lost:
            continue
        lacking = " or ".join(name for name in part.classes if name not in part.labels)
        where = f"repeat {repeat}, fold {fold}" if several else f"fold {fold}"
        site = (sites or {}).get(str(fold), "")
        places.setdefault((lacking, ", ".join(lost)), []).append(f"{where} (site {site})" if site else where)
    return [
        f"nobody of class {lacking} in {summary(folds)}: not defined there, so without a mean: {lost}"
        for (lacking, lost), folds in places.items()
    ]
