"""What cohort readers and rankers promise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench.cohorts import CohortReader
from fusionbench.errors import FusionBenchError, UsageError
from fusionbench.experiment import load_comparison
from fusionbench.folds import Fold, Split
from fusionbench.predictions import Predictions
from fusionbench.ranking import Evidence, Ground, Ranker
from fusionbench.registry import load_registry
from fusionbench.testing.class_checks import each_option_value
from fusionbench.testing.requirements import listing, require

SUBJECTS = tuple(f"subject-{number:02d}" for number in range(12))


def check_config_shipped(cls: type[CohortReader], **options: Any) -> None:
    """`config` names a configuration that can be read."""
    try:
        load_comparison(cls.config)
    except FusionBenchError as error:
        raise AssertionError(f"`config` is {cls.config!r}: {error}") from None


def check_absent_data_told(cls: type[CohortReader], **options: Any) -> None:
    """A path that is not there is an error in one line, with no traceback."""
    with tempfile.TemporaryDirectory() as folder:
        reader = cls(**options)
        if reader.location(Path(folder)) is not None:
            return  # it makes what is not there
        try:
            reader.read(Path(folder) / "nothing-here")
        except FusionBenchError as error:
            require("\n" not in str(error), f"the error has several lines: {error}")
            return
    raise AssertionError("reads a path that does not exist without a CohortError")


def check_each_option(cls: type[CohortReader], **options: Any) -> None:
    """It can be built with each value of each option that lists its values."""
    for values in each_option_value(cls):
        cls(**{**options, **values})


def check_fusion_installed(cls: type[Ranker], **options: Any) -> None:
    """`fusion` is an installed strategy of one modality."""
    try:
        strategy = load_registry().get("fusion", cls.fusion).cls
    except UsageError as error:
        raise AssertionError(f"`fusion`: {error}") from None
    require(strategy.single, f"`fusion` is {cls.fusion}, which does not take a modality alone")  # type: ignore[attr-defined]


def check_order_complete(cls: type[Ranker], **options: Any) -> None:
    """Its order has every modality exactly once, whatever the evidence, and is the same when asked again."""
    for values in each_option_value(cls):
        ranker = cls(**{**options, **values})
        splits = len(ranker.splits(_ground()))
        for name, evidence in _evidence(splits).items():
            order = ranker.order(evidence)
            require(sorted(order) == ["a", "b", "c"], f"the order of a, b and c is {order}, for {name}")
            require(order == ranker.order(evidence), f"the order is another when asked again, for {name}")


def check_test_unseen(cls: type[Ranker], **options: Any) -> None:
    """It asks for no test subject, unless `saw_test` says that it does."""
    ground = _ground()
    hidden = set(ground.outer[0].split.test)
    for values in each_option_value(cls):
        for split in cls(**{**options, **values}).splits(ground):
            seen = sorted(hidden & {*split.training, *split.test})
            require(
                cls.saw_test or not seen, f"asks for {listing(seen)} of the test part: say so with `saw_test = True`"
            )
            both = sorted(set(split.training) & set(split.test))
            require(not both, f"scores on {listing(both)}, which it trains on")


def _ground() -> Ground:
    """Three outer folds; the inner ones lie inside the training part of the first."""
    outer = tuple(Fold(0, number, split) for number, split in enumerate(_splits(SUBJECTS)))
    return Ground(lambda: _splits(outer[0].split.training), outer)


def _splits(subjects: tuple[str, ...]) -> tuple[Split, ...]:
    return tuple(
        Split(tuple(s for n, s in enumerate(subjects) if n % 3 != fold), subjects[fold::3]) for fold in range(3)
    )


def _evidence(splits: int) -> dict[str, list[Evidence]]:
    nothing = Predictions(SUBJECTS, ("x", "y") * 6, ("x", "y"), np.full((12, 2), 0.5))
    scores = {
        "distinct scores": [0.5, 0.9, 0.7],
        "equal scores": [0.5, 0.5, 0.5],
        "scores that are not numbers": [float("nan"), 0.6, float("nan")],
    }
    return {
        name: [Evidence(m, (value,) * splits, nothing) for m, value in zip("abc", values, strict=True)]
        for name, values in scores.items()
    }
