"""How certain an order of modalities is: over folds, and when patients are drawn again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusionbench.comparing.intervals import DRAWS, Resample
from fusionbench.errors import UsageError
from fusionbench.metrics import Metric
from fusionbench.predictions import Predictions


@dataclass(frozen=True)
class Agreement:
    """How far the orders found on several folds agree. Folds share training subjects, so they agree too readily."""

    orders: int
    first: Mapping[str, int]
    """Modality -> how often it came first, by mean rank."""
    mean_rank: Mapping[str, float]
    kendall_w: float
    """1 if all orders are the same, 0 if they are as far apart as can be; NaN for one order or one modality."""


def agreement(orders: Sequence[Sequence[str]]) -> Agreement:
    """Of orders of the same modalities, none tied. Raises UsageError if one has others.

    W = 12 S / (m^2 (n^3 - n)) for m orders of n modalities, S the squared distance of rank sums from their mean.

    >>> found = agreement([["t1ce", "t2", "t1"], ["t1ce", "t1", "t2"]])
    >>> dict(found.first), dict(found.mean_rank), found.kendall_w
    ({'t1ce': 2, 't1': 0, 't2': 0}, {'t1ce': 1.0, 't1': 2.5, 't2': 2.5}, 0.75)
    """
    names = sorted(orders[0]) if orders else []
    for order in orders:
        if sorted(order) != names:
            raise UsageError(f"orders of {', '.join(names)} and of {', '.join(sorted(order))} cannot be compared")
    sums = {name: sum(order.index(name) + 1 for order in orders) for name in names}
    ranked = sorted(names, key=lambda name: (sums[name], name))
    m, n = len(orders), len(names)
    spread = sum((total - m * (n + 1) / 2) ** 2 for total in sums.values())
    return Agreement(
        orders=m,
        first={name: sum(order[0] == name for order in orders) for name in ranked},
        mean_rank={name: sums[name] / m for name in ranked},
        kendall_w=12 * spread / (m**2 * (n**3 - n)) if m > 1 and n > 1 else math.nan,
    )


def rank_probabilities(
    predictions: Mapping[str, Sequence[Predictions]],
    metric: Metric,
    positive_class: str,
    groups: Mapping[str, str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, tuple[float, ...]]:
    """Modality -> P(it comes first), P(second), ..., if the patients behind a ranking are drawn again.

    `predictions` has for each modality what its models say of the test parts that ranked it, in the typed order: one
    for each inner fold, scored apart as the ranking does, or all joined, as `Evidence.predictions` is. As in a ranking,
    ties keep the typed order and a modality without a score comes last. The models are not fitted again, so an order
    is less certain than this. Raises UsageError if modalities were tried on other subjects.
    """
    first, *others = predictions.values()
    for modality, parts in predictions.items():
        if [part.ids for part in parts] != [part.ids for part in first]:
            raise UsageError(f"{modality} was tried on other subjects than {next(iter(predictions))}: rank on the same")
    resample = Resample.of(first, groups, draws, seed)
    scores = np.stack([resample.scores(parts, metric, positive_class) for parts in (first, *others)])
    costs = np.nan_to_num(-scores if metric.higher_is_better else scores, nan=math.inf)
    places = costs.argsort(0, kind="stable").argsort(0)  # (modalities, draws)
    return {
        modality: tuple(float((mine == place).mean()) for place in range(len(predictions)))
        for modality, mine in zip(predictions, places, strict=True)
    }
