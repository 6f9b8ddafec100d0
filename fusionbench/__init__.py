"""fusionbench: multi-modal fusion strategies compared on shared folds, with automatic modality ranking.

Everything public is here, and loaded on first use: `import fusionbench` alone imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench.atomic import atomic_folder
    from fusionbench.cohorts import Cohort, CohortReader, Modality, Proposal, Subject
    from fusionbench.components import (
        OUTLINE,
        AttentionModule,
        Backbone,
        Batch,
        Branch,
        Context,
        FeatureSpec,
        FusionStrategy,
        Needs,
        Parent,
        Parts,
        Stage,
        copy_equal_shapes,
        pool,
        present,
        where_present,
    )
    from fusionbench.csvtext import csv_text
    from fusionbench.engine import run
    from fusionbench.errors import CohortError, FusionBenchError, nearest, summary
    from fusionbench.experiment import Comparison, Experiment, load_comparison
    from fusionbench.extraction import FeatureExtractor
    from fusionbench.folds import Fold, Split
    from fusionbench.hooks import hookimpl
    from fusionbench.leaderboard import Leaderboard
    from fusionbench.planning import plan
    from fusionbench.precision import precisely
    from fusionbench.predictions import Predictions
    from fusionbench.pretrained import LoadReport, load_into, read_checkpoint
    from fusionbench.ranking import Evidence, Ground, Ranker
    from fusionbench.registry import data_home, load_registry, read_cohort
    from fusionbench.runs import Run
    from fusionbench.store import Store
    from fusionbench.study import Study, compose, open_study, spanning
    from fusionbench.using.inference import TrainedRun
    from fusionbench.using.loading import load_fit

_HOME = {
    "atomic": ("atomic_folder",),
    "cohorts": ("Cohort", "CohortReader", "Modality", "Proposal", "Subject"),
    "components": (
        "OUTLINE",
        "AttentionModule",
        "Backbone",
        "Batch",
        "Branch",
        "Context",
        "FeatureSpec",
        "FusionStrategy",
        "Needs",
        "Parent",
        "Parts",
        "Stage",
        "copy_equal_shapes",
        "pool",
        "present",
        "where_present",
    ),
    "csvtext": ("csv_text",),
    "errors": ("CohortError", "FusionBenchError", "nearest", "summary"),
    "engine": ("run",),
    "experiment": ("Comparison", "Experiment", "load_comparison"),
    "extraction": ("FeatureExtractor",),
    "folds": ("Fold", "Split"),
    "hooks": ("hookimpl",),
    "using.inference": ("TrainedRun",),
    "leaderboard": ("Leaderboard",),
    "using.loading": ("load_fit",),
    "planning": ("plan",),
    "precision": ("precisely",),
    "predictions": ("Predictions",),
    "pretrained": ("LoadReport", "load_into", "read_checkpoint"),
    "ranking": ("Evidence", "Ground", "Ranker"),
    "registry": ("data_home", "load_registry", "read_cohort"),
    "runs": ("Run",),
    "store": ("Store",),
    "study": ("Study", "compose", "open_study", "spanning"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "OUTLINE",
    "AttentionModule",
    "Backbone",
    "Batch",
    "Branch",
    "Cohort",
    "CohortError",
    "CohortReader",
    "Comparison",
    "Context",
    "Evidence",
    "Experiment",
    "FeatureExtractor",
    "FeatureSpec",
    "Fold",
    "FusionBenchError",
    "FusionStrategy",
    "Ground",
    "Leaderboard",
    "LoadReport",
    "Modality",
    "Needs",
    "Parent",
    "Parts",
    "Predictions",
    "Proposal",
    "Ranker",
    "Run",
    "Split",
    "Stage",
    "Store",
    "Study",
    "Subject",
    "TrainedRun",
    "atomic_folder",
    "compose",
    "copy_equal_shapes",
    "csv_text",
    "data_home",
    "hookimpl",
    "load_comparison",
    "load_fit",
    "load_into",
    "load_registry",
    "nearest",
    "open_study",
    "plan",
    "pool",
    "precisely",
    "present",
    "read_checkpoint",
    "read_cohort",
    "run",
    "spanning",
    "summary",
    "where_present",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'fusionbench' has no attribute {name!r}")
    return getattr(import_module(f"fusionbench.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
