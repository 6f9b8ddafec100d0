"""What was asked of a method but its name and modalities: rows with the same setup differ in their modalities alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusionbench.experiment import Experiment
from fusionbench.fits import built
from fusionbench.methods import Method
from fusionbench.registry import Component
from fusionbench.seeds import content_digest

WHERE = frozenset({"device", "threads", "processes"})
"""Of the recipe, where it is done: nothing that is asked of a method."""


def setup_digests(method: Method) -> dict[str, str]:
    """`strategy`: a hash of its options and of how modalities are ranked for it; `shared`: of every other setting.

    The folds are in neither: who joins runs sees to it that they are the same.
    """
    experiment, protocol = method.experiment, method.experiment.protocol
    cls: Any = method.strategy.cls
    components = method.components()
    strategies = [c for c in components if c.kind == "fusion"]
    rankers = [c for c in components if c.kind == "ranker"] if cls.uses_order else []
    ranking = protocol.ranking.model_dump(mode="json") if cls.uses_order else {}
    shared = [*method.backbones.values(), *filter(None, (method.attention, method.extractor))]
    asked = {"backbone", "attention", "features", "missing", "preprocessing", "seed"}
    settings = experiment.model_dump(mode="json", include=asked)
    recipe = experiment.recipe.model_dump(mode="json", exclude=set(WHERE))
    return {
        "strategy": _digest([ranking, protocol.inner_folds, _chosen([*strategies, *rankers], experiment)]),
        "shared": _digest([settings, recipe, _chosen(shared, experiment)]),
    }


def _digest(content: Any) -> str:
    return content_digest(content)[:16]


def _chosen(components: Iterable[Component], experiment: Experiment) -> dict[str, Any]:
    """Component -> its options, files among them by their content; for those that have any."""
    found = {c.name: built(c, experiment.options).content()["options"] for c in components}
    return {name: options for name, options in sorted(found.items()) if options}
