"""The registry: names of components -> classes, each with the plugin and distribution that it came from."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from fusionbench import hooks
from fusionbench.cohorts import Cohort, CohortReader, alike_ids
from fusionbench.errors import PluginError, UsageError, nearest
from fusionbench.options import Option, declared_options, resolve_options
from fusionbench.source import source_digest

HOOK_OF_KIND = {
    "backbone": "fusionbench_backbones",
    "attention": "fusionbench_attention_modules",
    "fusion": "fusionbench_fusion_strategies",
    "cohort": "fusionbench_cohorts",
    "ranker": "fusionbench_rankers",
    "extractor": "fusionbench_extractors",
}
SELECTION = "FUSIONBENCH_PLUGINS"
"""Environment variable: the plugins of other distributions to load, by name, or `none`."""


@dataclass(frozen=True)
class Plugin:
    """An installed plugin, as its metadata tell: nothing of it is imported."""

    name: str
    module: str
    distribution: str
    version: str
    enabled: bool = True


@dataclass(frozen=True)
class Component:
    """A class under its public name, and where it came from."""

    kind: str
    name: str
    cls: type
    plugin: str
    distribution: str
    version: str
    source: str = ""
    """The SHA-256 of its code when it was loaded: changed code is another component."""
    member: str = ""
    """Of a family: which one, such as resnet18 of `timm:resnet18`."""

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]

    @property
    def options(self) -> tuple[Option, ...]:
        """The options that it declares."""
        return declared_options(self.cls)

    @property
    def family(self) -> str:
        """The option that names a member, as in `timm:resnet18`; empty if it is no family."""
        return getattr(self.cls, "family", "")

    @property
    def libraries(self) -> dict[str, str]:
        """The distributions that it says it leans on, with their versions; empty where one is not installed."""
        names: tuple[str, ...] = getattr(self.cls, "libraries", ())
        return {name: distribution_version(name) for name in names}

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All its options with their values; UsageError for a wrong one."""
        return resolve_options(self.cls, {**options, self.family: self.member} if self.member else options)

    def chosen(self, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """All its options, from settings by component, as a file may hold them: a path is text.

        A member takes those of its family too.
        """
        family = self.name.partition(":")[0]
        found = self.resolve({**options.get(family, {}), **options.get(self.name, {})})
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}

    def make(self, *arguments: Any, options: Mapping[str, Any]) -> Any:
        """An instance, with its options as it declares them."""
        return self.cls(*arguments, **self.resolve(options))


@dataclass(frozen=True)
class Registry:
    """Every component that the enabled plugins offer."""

    components: tuple[Component, ...]
    broken: Mapping[str, str]
    """Plugin -> why it could not be loaded."""

    def get(self, kind: str, name: str) -> Component:
        """The component of that name; UsageError gives the nearest spelling, what there is, and broken plugins."""
        known = self._by_name
        if member := self._member(name, kind):
            return member
        if (kind, name) not in known:
            others = nearest(name, (n for k, n in known if k == kind))
            raise UsageError(f"no {kind} {name!r}: {others}{self.broken_plugins}")
        return known[kind, name]

    def of(self, kind: str) -> tuple[Component, ...]:
        """The components of a kind, by name."""
        return tuple(component for component in self.components if component.kind == kind)

    def named(self, name: str) -> Component:
        """The component of that name, of whatever kind."""
        found = [component for component in self.components if component.name == name]
        found += filter(None, (self._member(name, kind) for kind in HOOK_OF_KIND))
        if not found:
            others = nearest(name, (component.name for component in self.components))
            raise UsageError(f"no component {name!r}: {others}{self.broken_plugins}")
        return found[0]

    def with_classes(self, plugin: str, **classes: Sequence[type]) -> Registry:
        """The registry with more classes by kind, as a plugin of that name would add them (for notebooks and tests)."""
        mine = Plugin(plugin, "", "", "")
        added = [_component(mine, kind, cls) for kind, several in classes.items() for cls in several]
        return _registry([*self.components, *added], self.broken)

    def members(self, pattern: str) -> tuple[Component, ...]:
        """The members of families whose names match a pattern such as `timm:resnet*`."""
        family, _, rest = pattern.partition(":")
        return tuple(
            replace(component, name=f"{family}:{member}", member=member)
            for component in self.components
            if component.name == family and component.family
            for member in component.cls.members(rest or "*")  # type: ignore[attr-defined]
        )

    def _member(self, name: str, kind: str) -> Component | None:
        """`timm:resnet18` as the family `timm` with that member; None if the name is not of that form."""
        family, colon, member = name.partition(":")
        component = self._by_name.get((kind, family))
        if not colon or component is None:
            return None
        if not component.family or not member:
            raise UsageError(f"{kind} {family} has no members: write {family!r}, not {name!r}")
        if member not in component.cls.members(member):  # type: ignore[attr-defined]
            close = get_close_matches(member, component.cls.members("*"), n=3)  # type: ignore[attr-defined]
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            listing = f"fusionbench list '{family}:{member[:3]}*'"
            raise UsageError(f"{family} has no {component.family} {member!r}: {hint}{listing} names them")
        return replace(component, name=name, member=member)

    @property
    def broken_plugins(self) -> str:
        """What an unknown name may be due to."""
        return "".join(f". Plugin {plugin} is broken: {why}" for plugin, why in self.broken.items())

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Component]:
        return {(component.kind, component.name): component for component in self.components}


def installed_plugins(disabled: Iterable[str] = ()) -> tuple[Plugin, ...]:
    """Every installed plugin by name, from metadata alone."""
    points = sorted(entry_points(group=hooks.PROJECT), key=lambda point: point.name)
    return tuple(_plugin(point, frozenset(disabled)) for point in points)


@lru_cache(maxsize=4)
def load_registry(disabled: frozenset[str] = frozenset()) -> Registry:
    """Import the enabled plugins and collect what they offer.

    A plugin that fails to import, or that breaks a promise of its hooks, is listed as broken and takes only itself
    down. PluginError if two plugins offer the same name, or if a plugin to disable is not installed.
    """
    plugins = installed_plugins(disabled)
    for name in disabled - {plugin.name for plugin in plugins}:
        raise PluginError(f"cannot disable plugin {name!r}: {nearest(name, (p.name for p in plugins))}")
    components: list[Component] = []
    broken: dict[str, str] = {}
    for plugin in plugins:
        if plugin.enabled:
            try:
                components += _components(plugin, EntryPoint(plugin.name, plugin.module, hooks.PROJECT).load())
            except (Exception, SystemExit) as error:  # a stranger's code may raise anything while it is imported
                broken[plugin.name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return _registry(components, broken)


def read_cohort(reader: str, path: Path | None = None, home: Path | None = None, **options: Any) -> Cohort:
    """Read a cohort by the name of its reader; a reader that needs no path knows a place under the data home."""
    component = load_registry().get("cohort", reader)
    instance: CohortReader = component.cls(**component.resolve(options))
    place = path or instance.location(home or data_home())
    if place is None:
        raise UsageError(f"cohort {reader} needs the place of the data: give --data PATH")
    cohort = instance.read(Path(place).expanduser())
    return replace(cohort, notes=tuple(dict.fromkeys((*cohort.notes, *alike_ids(cohort.subjects)))))


def distribution_version(name: str) -> str:
    """The version of an installed distribution; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def data_home() -> Path:
    """Where generated cohorts, caches and the shared store live: $FUSIONBENCH_HOME, or the user's data folder."""
    default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "fusionbench"
    return Path(os.environ.get("FUSIONBENCH_HOME") or default)


def _plugin(point: EntryPoint, disabled: frozenset[str]) -> Plugin:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("", "")
    allowed = os.environ.get(SELECTION)
    ours = name == hooks.PROJECT
    chosen = ours or allowed is None or point.name in {part.strip() for part in allowed.split(",")}
    return Plugin(point.name, point.value, name, version, chosen and point.name not in disabled)


def _components(plugin: Plugin, module: ModuleType) -> list[Component]:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(module, plugin.name)
    manager.check_pending()  # a misspelt hook is an error, not a silence
    return [
        _component(plugin, kind, cls)
        for kind, hook in HOOK_OF_KIND.items()
        for classes in getattr(manager.hook, hook)()
        for cls in classes
    ]


def _component(plugin: Plugin, kind: str, cls: type) -> Component:
    base = _base_class(kind)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise PluginError(f"{cls!r} is no {base.__name__}: the {HOOK_OF_KIND[kind]} hook returns classes of it")
    name = getattr(cls, "name", "")
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)):
        raise PluginError(f"{cls.__name__} needs a kebab-case `name`, not {name!r}")
    if abstract := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(f"{cls.__name__} does not define {', '.join(abstract)}")
    declared_options(cls)
    return Component(kind, name, cls, plugin.name, plugin.distribution, plugin.version, source_digest(cls))


def _base_class(kind: str) -> type:
    from fusionbench.components import AttentionModule, Backbone, FusionStrategy
    from fusionbench.extraction import FeatureExtractor
    from fusionbench.ranking import Ranker

    bases: dict[str, type] = {
        "backbone": Backbone,
        "attention": AttentionModule,
        "fusion": FusionStrategy,
        "cohort": CohortReader,
        "ranker": Ranker,
        "extractor": FeatureExtractor,
    }
    return bases[kind]


def _registry(components: list[Component], broken: Mapping[str, str]) -> Registry:
    owner: dict[str, Component] = {}
    for component in components:
        if (other := owner.setdefault(component.name, component)) is not component:
            raise PluginError(
                f"the name {component.name!r} is taken twice, by plugin {other.plugin!r} and plugin "
                f"{component.plugin!r}: switch one off with --no-plugin NAME"
            )
    return Registry(tuple(sorted(components, key=lambda c: (c.kind, c.name))), broken)
