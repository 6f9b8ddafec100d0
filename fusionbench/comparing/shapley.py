"""What each modality contributes: exact Shapley values over all sets of modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

from fusionbench.errors import UsageError, summary


def shapley(scores: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Modality -> its mean gain over every order in which modalities may be added (Shapley 1953).

    `scores` has one number for each of the 2^n sets, also for the empty one: what is scored without any modality, such
    as .5 of a ROC-AUC. The gains add up to the score of all minus the score of none; modalities that can be exchanged
    gain the same; one that never changes a score gains nought. Raises UsageError if a set has no score.

    >>> shapley({frozenset(): 0.5, frozenset("a"): 0.75, frozenset("b"): 0.5, frozenset("ab"): 1.0})
    {'a': 0.375, 'b': 0.125}
    """
    names = sorted(frozenset().union(*scores))
    sets = [frozenset(some) for size in range(len(names) + 1) for some in combinations(names, size)]
    if missing := ["+".join(sorted(some)) or "no modality" for some in sets if some not in scores]:
        raise UsageError(f"no score of {summary(missing, ', ')}: score every set of {', '.join(names)}, the empty too")
    return {name: _gain(name, names, scores) for name in names}


def _gain(name: str, names: list[str], scores: Mapping[frozenset[str], float]) -> float:
    others = [other for other in names if other != name]
    gains = []
    for size in range(len(names)):
        sets = [frozenset(some) for some in combinations(others, size)]
        gains.append(math.fsum(scores[some | {name}] - scores[some] for some in sets) / len(sets))
    return math.fsum(gains) / len(gains)
