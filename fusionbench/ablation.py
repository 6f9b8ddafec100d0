"""Ablation: what each secondary modality is worth. One row for every subset of them, the primary always there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from fusionbench.errors import UsageError
from fusionbench.experiment import Comparison, Variant, merged
from fusionbench.planning import Decision, plan
from fusionbench.study import Study

MOST_ROWS = 256
"""Of nine modalities; beyond that the table is for nobody to read."""


def check_ablation(study: Study, *, given: bool) -> None:
    """Raise UsageError for what cannot be taken apart, before anything trains."""
    (experiment, *others) = study.experiments
    strategy: Any = study.registry.get("fusion", experiment.fusion).cls
    modalities, ranker = experiment.modalities, study.registry.get("ranker", experiment.protocol.ranking.ranker).cls
    if others or strategy.single:
        raise UsageError("an ablation takes one strategy for several modalities: give --fusion NAME")
    if 2 ** (len(modalities) - 1) > MOST_ROWS:
        raise UsageError(f"{len(modalities)} modalities have {2 ** (len(modalities) - 1)} subsets: name fewer")
    if not given and not strategy.uses_order:
        raise UsageError(f"{experiment.label} ranks no modalities: say which is always there with --primary NAME")
    if not given and not plan(study).awaited:
        raise UsageError(f"{ranker.name} ranks on no evidence: say which is always there with --primary NAME")  # type: ignore[attr-defined]


def ablation(comparison: Comparison, modalities: Sequence[str], primary: str, *, given: bool = True) -> Comparison:
    """The comparison with, in place of its one strategy, a variant of it for every subset of the secondaries.

    `given` says whether somebody chose the primary; if not, it is the one that came first most often over the folds,
    whose test subjects had a say in it, and every table marks the rows.
    """
    (strategy,) = comparison.fusion
    base = comparison.variants.get(strategy, Variant(fusion=strategy))
    variants = {
        " + ".join(subset): base.model_copy(update={"modalities": subset}) for subset in subsets(modalities, primary)
    }
    ranking = {"primary": primary, "primary_is": "given" if given else "most-frequent"}
    settings = comparison.model_dump(exclude={"fusion", "baselines", "variants", "modalities"})
    return Comparison(
        **merged(settings, {"protocol": {"ranking": ranking}}),
        fusion=tuple(variants),
        variants=variants,
        modalities=tuple(modalities),
    )


def subsets(modalities: Sequence[str], primary: str) -> list[tuple[str, ...]]:
    """The primary alone, then with one other, with two, and so on to all.

    >>> subsets(["t2", "t1ce", "t1"], "t1ce")
    [('t1ce',), ('t1ce', 't2'), ('t1ce', 't1'), ('t1ce', 't2', 't1')]
    """
    others = [name for name in modalities if name != primary]
    return [(primary, *some) for size in range(len(others) + 1) for some in combinations(others, size)]


def most_frequent_primary(decisions: Sequence[Decision]) -> str:
    """The modality that came first in most folds; of several, the one whose mean score is best."""
    firsts = Counter(decision.order[0] for decision in decisions)
    return max(sorted(firsts), key=lambda name: (firsts[name], _mean_score(name, decisions)))


def _mean_score(modality: str, decisions: Sequence[Decision]) -> float:
    """Over the folds; the higher the better."""
    evidence = [one for decision in decisions for one in decision.evidence if one.modality == modality]
    return fmean(one.mean if one.higher_is_better else -one.mean for one in evidence)
