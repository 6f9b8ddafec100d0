"""Rankers that order modalities by how each does alone; they differ in whose subjects they look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fusionbench import Evidence, Ground, Ranker, Split, hookimpl


class Nested(Ranker):
    """By inner cross-validation inside each training part: no test subject is seen."""

    name = "nested"
    fusion = "unimodal"

    def __init__(
        self, *, holdout: Annotated[bool, "score on the first inner fold only, at a fraction of the cost"] = False
    ) -> None:
        self.holdout = holdout

    def splits(self, ground: Ground) -> tuple[Split, ...]:
        """The inner folds, or the first of them."""
        return ground.inner[:1] if self.holdout else ground.inner


class Outer(Ranker):
    """By the test folds that are then reported, as the paper does: optimistic, and marked as such."""

    name = "outer"
    fusion = "unimodal"
    saw_test = True

    def splits(self, ground: Ground) -> tuple[Split, ...]:
        """The outer folds of the repeat."""
        return tuple(fold.split for fold in ground.outer)


class Fixed(Ranker):
    """In the order typed: the first modality is the primary."""

    name = "fixed"
    fusion = "unimodal"

    def splits(self, ground: Ground) -> tuple[Split, ...]:
        """None: no evidence is asked for."""
        return ()

    def order(self, evidence: Sequence[Evidence]) -> tuple[str, ...]:
        """As they come."""
        return tuple(one.modality for one in evidence)


@hookimpl
def fusionbench_rankers() -> list[type[Ranker]]:
    """The rankers of this module."""
    return [Nested, Outer, Fixed]
