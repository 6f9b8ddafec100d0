"""A study: a comparison bound to its cohort, folds and components, with everything checked before anything trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench.cohorts import Cohort, CohortReader, Modality
from fusionbench.errors import UsageError, nearest
from fusionbench.experiment import Comparison, Experiment, load_comparison, parse_setting, read_config, without_none
from fusionbench.folds import Fold, draw_folds, read_folds
from fusionbench.registry import Component, Registry, load_registry, read_cohort


@dataclass(frozen=True)
class Study:
    """Experiments on one cohort and the same folds, every name and option known to be right."""

    comparison: Comparison
    """With everything resolved: modalities, device, precision, each option."""
    experiments: tuple[Experiment, ...]
    cohort: Cohort
    folds: tuple[Fold, ...]
    registry: Registry


def open_study(
    comparison: Comparison,
    *,
    home: Path | None = None,
    registry: Registry | None = None,
    cohort: Cohort | None = None,
) -> Study:
    """Read the cohort, find every component, check every option, draw the folds.

    `registry` and `cohort` replace what would be loaded. Raises a FusionBenchError in one line for the first thing
    that cannot work.
    """
    registry = registry or load_registry()
    _check_components(comparison, registry)
    source = comparison.cohort
    place = Path(source.data) if source.data else None
    options = comparison.options.get(source.reader, {})
    cohort = cohort or read_cohort(source.reader, place, home, **options)
    resolved = _resolved(comparison, cohort, registry)
    experiments = _experiments(resolved, cohort, registry)
    return Study(resolved, experiments, cohort, _folds(resolved, cohort), registry)


def compose(
    registry: Registry, config: str = "", flags: Mapping[str, Any] | None = None, settings: Sequence[str] = ()
) -> Comparison:
    """The comparison that a command asks for: a configuration, flags over it, `NAME.OPTION=VALUE` settings over both.

    Without a configuration the reader of the data names one; without data and reader it is the built-in cohort's.
    Flags that are None, or nothing but None, are not set. Raises UsageError for a name or option that does not exist.
    """
    given = without_none(flags or {})
    source = given.get("cohort", {})
    if not config and source.get("data") and not source.get("reader"):
        readers = ", ".join(_names(registry, "cohort"))
        raise UsageError(f"--data {source['data']}: say what reads it with --cohort NAME ({readers}) or --config")
    if not config:
        reader = source.get("reader")
        config = registry.get("cohort", reader).cls.config if reader else CohortReader.config  # type: ignore[attr-defined]
    if isinstance(given.get("backbone"), list):
        given["backbone"] = _backbones(given["backbone"], registry, read_config(config).get("backbone", {}))
    comparison = load_comparison(config, given, *map(parse_setting, settings))
    _check_components(comparison, registry)
    return comparison


def backbone_name(experiment: Experiment | Comparison, modality: Modality) -> str:
    """The backbone for a modality: its own, or that of its kind; UsageError if neither is set."""
    names = experiment.backbone
    name = names.get(modality.name) or names.get(modality.kind)
    if name is None:
        raise UsageError(
            f"no backbone for {modality.kind} modality {modality.name}: add --backbone {modality.kind}=NAME"
        )
    return name


def used_components(comparison: Comparison, cohort: Cohort, registry: Registry) -> list[Component]:
    """Every component that a run may touch."""
    ranking = comparison.protocol.ranking
    fusions = {*comparison.fusion, *comparison.baselines, registry.get("ranker", ranking.ranker).cls.fusion}  # type: ignore[attr-defined]
    attentions = {comparison.attention, ranking.attention or comparison.attention}
    backbones = {backbone_name(comparison, cohort.modality(name)) for name in comparison.modalities}
    return [
        registry.get("cohort", comparison.cohort.reader),
        registry.get("ranker", ranking.ranker),
        *(registry.get("attention", name) for name in sorted(attentions)),
        *(registry.get("backbone", name) for name in sorted(backbones)),
        *(registry.get("fusion", name) for name in sorted(fusions)),
    ]


def _check_components(comparison: Comparison, registry: Registry) -> None:
    """Names and options that can be judged before the cohort is read."""
    if not comparison.fusion:
        raise UsageError(f"no fusion strategy: give --fusion NAME; {nearest('', _names(registry, 'fusion'))}")
    for name in (*comparison.fusion, *comparison.baselines):
        registry.get("fusion", name)
    registry.get("cohort", comparison.cohort.reader)
    registry.get("ranker", comparison.protocol.ranking.ranker)
    for name in {comparison.attention, comparison.protocol.ranking.attention} - {""}:
        registry.get("attention", name)
    for name in comparison.backbone.values():
        registry.get("backbone", name)
    for name, options in comparison.options.items():
        registry.named(name).resolve(options)
    _check_stages(comparison, registry)


def _check_stages(comparison: Comparison, registry: Registry) -> None:
    known = {stage for c in registry.of("fusion") for stage in c.cls.stage_names}  # type: ignore[attr-defined]
    for stage in comparison.recipe.stages:
        if stage not in known:
            raise UsageError(f"no training stage {stage!r}: {nearest(stage, known)}")


def _resolved(comparison: Comparison, cohort: Cohort, registry: Registry) -> Comparison:
    """The comparison with its modalities, device, precision and every option of every component it uses."""
    from fusionbench.devices import resolve_device, resolve_precision

    modalities = comparison.modalities or tuple(modality.name for modality in cohort.modalities)
    kinds: set[str] = {cohort.modality(name).kind for name in modalities}
    chosen = comparison.model_copy(update={"modalities": modalities})
    _check_backbone_keys(chosen, cohort)
    _check_kinds(chosen, cohort, registry)
    device = resolve_device(comparison.recipe.device)
    precision = resolve_precision(comparison.recipe.precision, device, kinds)
    recipe = comparison.recipe.model_copy(update={"device": device, "precision": precision})
    components = used_components(chosen, cohort, registry)
    options = {c.name: c.resolve(comparison.options.get(c.name, {})) for c in components}
    return chosen.model_copy(update={"recipe": recipe, "options": {k: v for k, v in options.items() if v}})


def _check_backbone_keys(comparison: Comparison, cohort: Cohort) -> None:
    known = {"image", "table", *(modality.name for modality in cohort.modalities)}
    for where in comparison.backbone:
        if where not in known:
            raise UsageError(f"a backbone for {where!r}, which is no kind and no modality: {nearest(where, known)}")


def _check_kinds(comparison: Comparison, cohort: Cohort, registry: Registry) -> None:
    for modality in map(cohort.modality, comparison.modalities):
        component = registry.get("backbone", backbone_name(comparison, modality))
        _check_accepts(component, modality)
        for name in (*comparison.fusion, *comparison.baselines):
            _check_accepts(registry.get("fusion", name), modality)


def _check_accepts(component: Component, modality: Modality) -> None:
    accepts: frozenset[str] = component.cls.accepts  # type: ignore[attr-defined]
    if modality.kind not in accepts:
        raise UsageError(
            f"{component.kind} {component.name} takes {' and '.join(sorted(accepts))} modalities; "
            f"{modality.name} is of kind {modality.kind}"
        )


def _experiments(comparison: Comparison, cohort: Cohort, registry: Registry) -> tuple[Experiment, ...]:
    shared = comparison.model_dump(exclude={"fusion", "baselines", "modalities"})
    rows = [
        Experiment(
            **shared, fusion=fusion, modalities=modalities, label=_label(fusion, modalities, comparison, registry)
        )
        for fusion in dict.fromkeys((*comparison.baselines, *comparison.fusion))
        for modalities in _modality_sets(registry.get("fusion", fusion).cls, comparison.modalities)
    ]
    for label, times in Counter(row.label for row in rows).items():
        if times > 1:
            raise UsageError(f"two rows would be called {label!r}: a modality has the name of a fusion strategy")
    return tuple(rows)


def _modality_sets(strategy: Any, modalities: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [(name,) for name in modalities] if strategy.single else [modalities]


def _label(fusion: str, modalities: tuple[str, ...], comparison: Comparison, registry: Registry) -> str:
    """`t1ce` or `t1ce+dual` for a strategy of one modality, else the name of the strategy."""
    if not registry.get("fusion", fusion).cls.single:  # type: ignore[attr-defined]
        return fusion
    changes: bool = not registry.get("attention", comparison.attention).cls.identity  # type: ignore[attr-defined]
    return f"{modalities[0]}+{comparison.attention}" if changes else modalities[0]


def _folds(comparison: Comparison, cohort: Cohort) -> tuple[Fold, ...]:
    protocol = comparison.protocol
    if isinstance(protocol.folds, str):
        return read_folds(Path(protocol.folds), cohort)
    return draw_folds(cohort, protocol.folds, protocol.repeats, protocol.fold_seed)


def _backbones(names: Sequence[str], registry: Registry, default: Mapping[str, str]) -> dict[str, str]:
    """`rmc` for every kind of modality that it takes, `t1ce=rmc` for one modality or kind."""
    chosen = dict(default)
    for text in names:
        where, equals, name = text.rpartition("=")
        accepts: Iterable[str] = registry.get("backbone", name).cls.accepts  # type: ignore[attr-defined]
        chosen |= {where: name} if equals else dict.fromkeys(accepts, name)
    return chosen


def _names(registry: Registry, kind: str) -> Iterable[str]:
    return (component.name for component in registry.of(kind))
