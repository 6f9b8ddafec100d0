"""A study: a comparison bound to its cohort, folds and components, with everything checked before anything trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fusionbench.cohorts import Cohort, CohortReader, completed
from fusionbench.errors import UsageError, nearest
from fusionbench.experiment import (
    Comparison,
    Experiment,
    Variant,
    load_comparison,
    parse_setting,
    read_config,
    without_none,
)
from fusionbench.folds import Fold, draw_folds, read_folds, site_folds, whole
from fusionbench.methods import Method, method_named, rows_of
from fusionbench.registry import Component, Registry, load_registry, read_cohort

DDP: Final = "ddp"
ALL: Final = "all"
"""Among the strategies asked for: every one that the cohort has the data for."""


@dataclass(frozen=True)
class Study:
    """Experiments on one cohort and the same folds, every name and option known to be right."""

    comparison: Comparison
    """With everything resolved: modalities, device, precision, each option."""
    experiments: tuple[Experiment, ...]
    cohort: Cohort
    folds: tuple[Fold, ...]
    registry: Registry
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Method that `all` would have meant -> why the cohort has not the data for it."""
    devices: tuple[str, ...] = ("cpu",)
    """Those that were asked for, all of one kind: where fits may be done, and no part of any key."""


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
    modalities = comparison.modalities or tuple(modality.name for modality in cohort.modalities)
    named = comparison.model_copy(update={"modalities": modalities})
    _check_modalities(named, cohort)
    cohort = completed(cohort, modalities, comparison.missing)
    chosen, left_out = _expanded(named, cohort, registry)
    experiments = _experiments(chosen, cohort, registry)
    _check_primary(chosen, experiments, registry)
    _check_processes(chosen, experiments, registry)
    resolved = _resolved(chosen, experiments, cohort, registry)
    final = tuple(_settled(experiment, resolved, cohort, registry) for experiment in experiments)
    return Study(resolved, final, cohort, _folds(resolved, cohort), registry, left_out, _devices(comparison))


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


def spanning(comparison: Comparison, strategy: str) -> Comparison:
    """The comparison with each fit done by several processes together, as that strategy of parallel training says.

    `ddp`: by as many as GPUs are named, or as `recipe.processes` says; an empty one changes nothing. UsageError for
    another strategy, or if there is nothing to span.
    """
    if strategy not in ("", DDP):
        raise UsageError(f"no strategy {strategy!r} of training in parallel: there is {DDP}")
    if not strategy:
        return comparison
    given = comparison.recipe.processes
    count = given if given > 1 else len(_devices(comparison))
    if count == 1:
        raise UsageError("--strategy ddp: name GPUs, --device cuda:0,1, or on the CPU --set recipe.processes=2 or more")
    return comparison.model_copy(update={"recipe": comparison.recipe.model_copy(update={"processes": count})})


def used_components(study: Study) -> list[Component]:
    """Every component that a run may touch, by kind and name."""
    found = [study.registry.get("cohort", study.comparison.cohort.reader)]
    for experiment in study.experiments:
        found += Method(experiment, study.cohort, study.registry).components()
    return sorted({(c.kind, c.name): c for c in found}.values(), key=lambda c: (c.kind, c.name))


def _check_components(comparison: Comparison, registry: Registry) -> None:
    """Names and options that can be judged before the cohort is read."""
    if not comparison.fusion:
        raise UsageError(f"no fusion strategy: give --fusion NAME; {nearest('', _names(registry, 'fusion'))}")
    known = [ALL, *comparison.variants, *_names(registry, "fusion")]
    for name in (*comparison.fusion, *comparison.baselines):
        if name not in known:
            raise UsageError(f"no fusion {name!r}: {nearest(name, known)}{registry.broken_plugins}")
    registry.get("cohort", comparison.cohort.reader)
    ranker = registry.get("ranker", comparison.protocol.ranking.ranker)
    if comparison.protocol.refit and ranker.cls.saw_test:  # type: ignore[attr-defined]
        raise UsageError(f"{ranker.name} ranks on test folds, and a refit on everybody has none: --ranking another")
    for features in {comparison.features, *(variant.features for variant in comparison.variants.values())} - {""}:
        registry.get("extractor", features)
    for name in {comparison.attention, comparison.protocol.ranking.attention} - {""}:
        registry.get("attention", name)
    for name in comparison.backbone.values():
        registry.get("backbone", name)
    _check_options(comparison.options, registry)
    for name, variant in comparison.variants.items():
        _check_variant(name, variant, registry)
    _check_stages(comparison, registry)
    _check_transforms(comparison)
    _check_machine(comparison)


def _check_variant(name: str, variant: Variant, registry: Registry) -> None:
    if name == ALL or name in _names(registry, "fusion"):
        raise UsageError(f"variants.{name}: there is a strategy of that name; call the variant otherwise")
    registry.get("fusion", variant.fusion)
    for backbone in variant.backbone.values():
        registry.get("backbone", backbone)
    if variant.attention:
        registry.get("attention", variant.attention)
    _check_options(variant.options, registry)


def _check_options(options: Mapping[str, Mapping[str, Any]], registry: Registry) -> None:
    for name, values in options.items():
        registry.named(name).resolve(values)


def _check_stages(comparison: Comparison, registry: Registry) -> None:
    known = {stage for c in registry.of("fusion") for stage in c.cls.stage_names}  # type: ignore[attr-defined]
    for stage in comparison.recipe.stages:
        if stage not in known:
            raise UsageError(f"no training stage {stage!r}: {nearest(stage, known)}")


def _check_transforms(comparison: Comparison) -> None:
    if extra := comparison.recipe.augmentation.extra:
        from fusionbench.imaging.transforms import transforms_of

        transforms_of(extra)


def _check_machine(comparison: Comparison) -> None:
    """UsageError for a device that is not there, or a precision that it does not compute in."""
    from fusionbench.devices import resolve_precision

    for device in _devices(comparison):
        resolve_precision(comparison.recipe.precision, device, set())


def _check_modalities(comparison: Comparison, cohort: Cohort) -> None:
    """Everything that names a modality names one of the comparison's."""
    for modality in comparison.modalities:
        cohort.modality(modality)
    named = {"protocol.ranking.primary": (comparison.protocol.ranking.primary,)} | {
        f"variants.{name}.modalities": variant.modalities for name, variant in comparison.variants.items()
    }
    for where, names in named.items():
        for name in names:
            if name and name not in comparison.modalities:
                raise UsageError(f"{where}: {name!r} is not compared: {nearest(name, comparison.modalities)}")
    for name, variant in comparison.variants.items():
        if (primary := comparison.protocol.ranking.primary) not in (*(variant.modalities or comparison.modalities), ""):
            raise UsageError(f"variants.{name} lacks the primary modality {primary}: add it, or give no primary")
    known = {"image", "table", *(modality.name for modality in cohort.modalities)}
    for name in {*comparison.backbone, *(key for v in comparison.variants.values() for key in v.backbone)}:
        if name not in known:
            raise UsageError(f"a backbone for {name!r}, which is no kind and no modality: {nearest(name, known)}")


def _check_primary(comparison: Comparison, experiments: Iterable[Experiment], registry: Registry) -> None:
    """UsageError if a primary is given and nothing compared has one: neither an order nor some of the modalities."""
    primary, everything = comparison.protocol.ranking.primary, set(comparison.modalities)
    strategies = [(e, registry.get("fusion", e.fusion).cls) for e in experiments]
    if primary and not any(c.uses_order or 1 < len(e.modalities) < len(everything) for e, c in strategies):  # type: ignore[attr-defined]
        named = ", ".join(dict.fromkeys(e.fusion for e in experiments))
        raise UsageError(f"--primary {primary} changes nothing: none of {named} orders its modalities; leave it out")


def _check_processes(comparison: Comparison, experiments: Iterable[Experiment], registry: Registry) -> None:
    """UsageError if fits are to be done by several processes and cannot be."""
    from fusionbench.devices import spans

    recipe = comparison.recipe
    if recipe.processes == 1:
        return
    spans(_devices(comparison), recipe.processes)
    smallest = min([recipe.batch_size, *(stage.batch_size for stage in recipe.stages.values() if stage.batch_size)])
    if smallest < 2 * recipe.processes:
        raise UsageError(
            f"recipe.processes={recipe.processes} needs batches of {2 * recipe.processes} subjects or more, "
            f"not {smallest}: each process takes two at least"
        )
    if not any(_trains(experiment, registry) for experiment in experiments):
        named = ", ".join(dict.fromkeys(experiment.fusion for experiment in experiments))
        raise UsageError(f"recipe.processes={recipe.processes} changes nothing: {named} trains nothing; leave it out")


def _trains(experiment: Experiment, registry: Registry) -> bool:
    """Whether a strategy trains something, or builds on one that does."""
    strategy = registry.get("fusion", experiment.fusion)
    cls: Any = strategy.cls
    options = strategy.chosen(experiment.options)
    return bool(cls.planned_stages(**options) or cls.parents(experiment.modalities, **options))


def _expanded(comparison: Comparison, cohort: Cohort, registry: Registry) -> tuple[Comparison, dict[str, str]]:
    """The comparison with `all` spelt out, and why some methods are not in it; UsageError if one was named.

    `all` is every installed strategy, and every variant, for which the cohort has the data.
    """
    named = [name for name in comparison.fusion if name != ALL]
    for name in (*comparison.baselines, *named):
        if reason := _unfit(name, comparison, cohort, registry):
            raise UsageError(f"{name} {reason}")
    if ALL not in comparison.fusion:
        return comparison, {}
    others = [name for name in (*_names(registry, "fusion"), *comparison.variants) if name not in named]
    reasons = {name: _unfit(name, comparison, cohort, registry) for name in others}
    fusion = (*named, *(name for name, reason in reasons.items() if not reason))
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return comparison.model_copy(update={"fusion": fusion}), left_out


def _unfit(name: str, comparison: Comparison, cohort: Cohort, registry: Registry) -> str:
    return method_named(name, comparison, cohort, registry).unfit()


def _experiments(comparison: Comparison, cohort: Cohort, registry: Registry) -> tuple[Experiment, ...]:
    """One for each row of the table; a strategy of one modality has a row for each."""
    rows: dict[str, Experiment] = {}
    for method in dict.fromkeys((*comparison.baselines, *comparison.fusion)):
        for row in rows_of(method_named(method, comparison, cohort, registry)):
            alike = row.label in rows and row.modalities == rows[row.label].modalities
            label = f"{row.label} ({method})" if alike else row.label
            if label in rows:
                raise UsageError(f"two rows would be called {label!r}: a modality has the name of a method")
            rows[label] = row.model_copy(update={"label": label})
    return tuple(rows.values())


def _resolved(
    comparison: Comparison, experiments: Iterable[Experiment], cohort: Cohort, registry: Registry
) -> Comparison:
    """The comparison with its kind of device, precision and every option of every component it uses."""
    from fusionbench.devices import kind_of, resolve_precision

    methods = [Method(experiment, cohort, registry) for experiment in experiments]
    kinds: set[str] = {modality.kind for method in methods for modality in method.modalities}
    device = kind_of(_devices(comparison)[0])
    precision = resolve_precision(comparison.recipe.precision, device, kinds)
    recipe = comparison.recipe.model_copy(update={"device": device, "precision": precision})
    used = [component for method in methods for component in method.components()]
    options = _options([registry.get("cohort", comparison.cohort.reader), *used], comparison.options)
    return comparison.model_copy(update={"recipe": recipe, "options": options})


def _devices(comparison: Comparison) -> tuple[str, ...]:
    from fusionbench.devices import resolve_devices

    return resolve_devices(comparison.recipe.device)


def _settled(experiment: Experiment, comparison: Comparison, cohort: Cohort, registry: Registry) -> Experiment:
    """The experiment with device and precision, and with every option of the components that it touches."""
    used = [registry.get("cohort", comparison.cohort.reader), *Method(experiment, cohort, registry).components()]
    return experiment.model_copy(update={"recipe": comparison.recipe, "options": _options(used, experiment.options)})


def _options(components: Iterable[Component], given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Component -> all its options, for those that have any."""
    chosen = {component.name: component.chosen(given) for component in components}
    return {name: options for name, options in chosen.items() if options}


def _folds(comparison: Comparison, cohort: Cohort) -> tuple[Fold, ...]:
    protocol = comparison.protocol
    if protocol.refit:
        return (whole(cohort),)
    if protocol.folds_by == "site":
        if protocol.repeats > 1:
            raise UsageError("--folds-by site has one way to fold, so --repeats must be 1")
        return site_folds(cohort)
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
