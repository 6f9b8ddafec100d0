"""A method on a cohort: what it sees of the modalities, what it is built from, and whether the data are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fusionbench.cohorts import Cohort, Modality
from fusionbench.errors import FusionBenchError, UsageError
from fusionbench.experiment import Comparison, Experiment, merged
from fusionbench.registry import Component, Registry

if TYPE_CHECKING:
    from fusionbench.components import Needs


@dataclass(frozen=True)
class Method:
    """An experiment bound to the cohort and the components that it names."""

    experiment: Experiment
    cohort: Cohort
    registry: Registry

    @cached_property
    def strategy(self) -> Component:
        """The fusion strategy."""
        return self.registry.get("fusion", self.experiment.fusion)

    @cached_property
    def needs(self) -> Needs:
        """What it asks of images beyond themselves; nothing where there are none."""
        from fusionbench.components import Needs

        if all(self.cohort.modality(name).kind == "table" for name in self.experiment.modalities):
            return Needs()
        needs: Needs = self._fact("needs")(**self.strategy.chosen(self.experiment.options))
        return needs if needs.features else replace(needs, **self._asked_features)

    @property
    def _asked_features(self) -> dict[str, Any]:
        """Every image as a table, if the experiment says so: the features are of what somebody outlined."""
        features = self.experiment.features
        return {"features": features, "outlines": "test"} if features else {}

    @cached_property
    def extractor(self) -> Component | None:
        """What makes a table of each image, if anything does."""
        return self.registry.get("extractor", self.needs.features) if self.needs.features else None

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        """Its modalities as the strategy sees them: an image may have become the table of its features."""
        return tuple(self.seen(self.cohort.modality(name)) for name in self.experiment.modalities)

    @cached_property
    def backbones(self) -> dict[str, Component]:
        """Modality -> its backbone; none for a strategy that is not built from them."""
        if not self._fact("uses_parts"):
            return {}
        return {modality.name: self.registry.get("backbone", self._backbone(modality)) for modality in self.modalities}

    @property
    def attention(self) -> Component | None:
        """The attention module, if the strategy is built from one."""
        return self.registry.get("attention", self.experiment.attention) if self._fact("uses_parts") else None

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that it trains in, with its options."""
        names: tuple[str, ...] = self._fact("planned_stages")(**self.strategy.chosen(self.experiment.options))
        return names

    @property
    def hides_modalities(self) -> bool:
        """Whether some of its modalities are hidden from it in training."""
        several = len(self.experiment.modalities) > 1
        return several and bool(self._fact("takes_missing")) and self.experiment.recipe.modality_dropout > 0

    def seen(self, modality: Modality) -> Modality:
        """A modality of the cohort as the strategy sees it."""
        if self.extractor is None or modality.kind == "table":
            return modality
        names = self.extractor.make(options=self.extractor.chosen(self.experiment.options)).names
        return Modality(modality.name, "table", len(names), tuple(names))

    def components(self) -> list[Component]:
        """Every component that its fits, and those that rank for it, are made with."""
        ranking = self.experiment.protocol.ranking
        ranker = self.registry.get("ranker", ranking.ranker)
        return [
            ranker,
            *self._built_with(),
            *([self.extractor] if self.extractor else []),
            *(component for name in self._others(ranker) for component in self._as(name, ranking.attention)),
        ]

    def unfit(self) -> str:
        """Why it cannot be done with this cohort; nothing if it can."""
        try:
            return self._unfit_kinds() or self._unfit_stack() or self._unfit_outlines() or self._unfit_missing()
        except UsageError as error:
            return f"has {error}"

    def _built_with(self) -> list[Component]:
        return [self.strategy, *self.backbones.values(), *([self.attention] if self.attention else [])]

    def _as(self, fusion: str, attention: str) -> list[Component]:
        """What a parent, or a model that ranks, is made with."""
        changed = {"fusion": fusion, "attention": attention or self.experiment.attention}
        return replace(self, experiment=self.experiment.model_copy(update=changed))._built_with()

    def _others(self, ranker: Component) -> list[str]:
        """The strategies whose fits it starts from or is ordered by, however far back."""
        found: list[str] = []
        waiting = [self.strategy, *([self._ranking_strategy(ranker)] if self._fact("uses_order") else [])]
        while waiting:
            for name in self._parents(waiting.pop()):
                if name not in found:
                    found.append(name)
                    waiting.append(self.registry.get("fusion", name))
        ranks = [self._ranking_strategy(ranker).name] if self._fact("uses_order") else []
        return sorted({*found, *ranks} - {self.strategy.name})

    def _ranking_strategy(self, ranker: Component) -> Component:
        return self.registry.get("fusion", ranker.cls.fusion)  # type: ignore[attr-defined]

    def _parents(self, strategy: Component) -> set[str]:
        options = strategy.chosen(self.experiment.options)
        try:
            return {parent.fusion for parent in strategy.cls.parents(self.experiment.modalities, **options)}  # type: ignore[attr-defined]
        except FusionBenchError:
            raise
        except Exception:  # a plugin's fault, which fails its own row when it is planned
            return set()

    def _unfit_kinds(self) -> str:
        for modality in self.modalities:
            for component in filter(None, (self.strategy, self.backbones.get(modality.name))):
                accepts: frozenset[str] = component.cls.accepts  # type: ignore[attr-defined]
                if modality.kind not in accepts:
                    told = "takes" if component is self.strategy else f"has the backbone {component.name}, which takes"
                    kinds, made = " and ".join(sorted(accepts)), ""
                    if self.cohort.modality(modality.name).kind != modality.kind:
                        made = f", made of an image by {self.needs.features}"
                    return f"{told} {kinds} modalities; {modality.name} is of kind {modality.kind}{made}"
        return ""

    def _unfit_stack(self) -> str:
        if not self._fact("stacks") or len({(m.kind, self._backbone(m)) for m in self.modalities}) < 2:
            return ""
        told = [f"{m.name} is a{'n' * (m.kind == 'image')} {m.kind} with {self._backbone(m)}" for m in self.modalities]
        return f"stacks all modalities into one backbone, and they differ: {', '.join(told)}"

    def _unfit_outlines(self) -> str:
        bare = [subject.id for subject in self.cohort.subjects if subject.seg is None]
        if self.needs.outlines == "none" or not bare:
            return ""
        return f"needs the segmentation of every subject; {len(bare)} have none, such as {bare[0]!r}"

    def _unfit_missing(self) -> str:
        lacking = [s.id for s in self.cohort.subjects if s.lacks(self.experiment.modalities)]
        if self._fact("takes_missing") or not lacking:
            return ""
        return f"needs every modality; {len(lacking)} subjects lack one, such as {lacking[0]!r}: --missing drop-subject"

    def _backbone(self, modality: Modality) -> str:
        named: Mapping[str, str] = self.experiment.backbone
        own = self.cohort.modality(modality.name).kind == modality.kind
        # a backbone named for an image takes no features of it
        name = (named.get(modality.name) if own else None) or named.get(modality.kind)
        if name is None:
            raise UsageError(
                f"no backbone for {modality.kind} modality {modality.name}: add --backbone {modality.kind}=NAME"
            )
        return name

    def _fact(self, name: str) -> Any:
        """What the strategy's class says of itself."""
        return getattr(self.strategy.cls, name)


def method_named(name: str, comparison: Comparison, cohort: Cohort, registry: Registry) -> Method:
    """A strategy as a comparison has it, or a variant laid over it."""
    shared = comparison.model_dump(exclude={"fusion", "baselines", "variants"})
    variant = comparison.variants.get(name)
    if variant is None:
        return Method(Experiment(**shared, fusion=name, label=name), cohort, registry)
    changed = {
        "attention": variant.attention or comparison.attention,
        "features": variant.features or comparison.features,
        "backbone": {**comparison.backbone, **variant.backbone},
        "modalities": variant.modalities or comparison.modalities,
        "options": merged(comparison.options, variant.options),
    }
    return Method(Experiment(**{**shared, **changed}, fusion=variant.fusion, label=name), cohort, registry)


def rows_of(method: Method) -> list[Experiment]:
    """The experiment, or one for each modality, called `t1ce` or, with attention, `t1ce+dual`."""
    experiment = method.experiment
    if not method.strategy.cls.single:  # type: ignore[attr-defined]
        return [experiment]
    changes = method.attention is not None and not method.attention.cls.identity  # type: ignore[attr-defined]
    ending = f"+{experiment.attention}" if changes else ""
    return [
        experiment.model_copy(update={"modalities": (name,), "label": f"{name}{ending}"})
        for name in experiment.modalities
    ]
