"""The whole extension surface: six hooks, each returning classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from fusionbench.cohorts import CohortReader
    from fusionbench.components import AttentionModule, Backbone, FusionStrategy
    from fusionbench.extraction import FeatureExtractor
    from fusionbench.ranking import Ranker

PROJECT: Final = "fusionbench"
"""The name of the entry-point group and of the hook markers."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fusionbench_backbones() -> list[type[Backbone]]:  # type: ignore[empty-body]
    """Backbones: feature extractors split into a low and a high half."""


@hookspec
def fusionbench_attention_modules() -> list[type[AttentionModule]]:  # type: ignore[empty-body]
    """Attention modules: same shape in and out."""


@hookspec
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:  # type: ignore[empty-body]
    """Fusion strategies: several modalities in, one prediction out."""


@hookspec
def fusionbench_cohorts() -> list[type[CohortReader]]:  # type: ignore[empty-body]
    """Cohort readers: a folder or table in, a Cohort out."""


@hookspec
def fusionbench_rankers() -> list[type[Ranker]]:  # type: ignore[empty-body]
    """Rankers: evidence about each modality in, an order out."""


@hookspec
def fusionbench_extractors() -> list[type[FeatureExtractor]]:  # type: ignore[empty-body]
    """Feature extractors: an image and an outline in, a row of numbers out."""
