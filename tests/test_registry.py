"""Names lead to classes and to where they came from; what is wrong with a plugin is said and takes only it down."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from fusionbench import AttentionModule, FusionStrategy, hookimpl, load_registry
from fusionbench import registry as registry_module
from fusionbench.errors import PluginError, UsageError
from fusionbench.registry import Registry, installed_plugins


def install(monkeypatch: pytest.MonkeyPatch, **modules: ModuleType | None) -> None:
    """Pretend that these modules are installed as plugins beside the built-in ones; None fails to import."""
    built_in = registry_module.entry_points(group="fusionbench")
    points = [EntryPoint(name, f"fake_{name}", "fusionbench") for name in modules]
    for name, module in modules.items():
        if module is not None:
            monkeypatch.setitem(sys.modules, f"fake_{name}", module)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [*built_in, *points])
    load_registry.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_registry():  # type: ignore[no-untyped-def]
    yield
    load_registry.cache_clear()


def plugin(**hooks: object) -> ModuleType:
    module = ModuleType("fake")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


class Same(AttentionModule):
    """As it was."""

    name = "same"

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x


def test_every_built_in_works_and_tells_where_it_is_from() -> None:
    registry = load_registry()
    assert not registry.broken
    for component in registry.components:
        assert component.distribution == "fusionbench"
        assert component.plugin
        assert component.summary.endswith(".")
        assert len(component.source) == 64


def test_an_unknown_name_gets_the_nearest_spelling_and_what_there_is() -> None:
    with pytest.raises(
        UsageError, match=r"no fusion 'guidence': did you mean 'guidance'\? There are agg, decision, ensemble"
    ):
        load_registry().get("fusion", "guidence")


def test_a_plugin_that_cannot_be_imported_takes_only_itself_down(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, absent=None, mine=plugin(fusionbench_attention_modules=lambda: [Same]))
    registry = load_registry()
    assert registry.get("attention", "same").plugin == "mine"
    assert "No module named 'fake_absent'" in registry.broken["absent"]
    with pytest.raises(UsageError, match="Plugin absent is broken"):
        registry.get("attention", "other")


def test_a_misspelt_hook_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mine=plugin(fusionbench_attentions=lambda: [Same]))
    assert "fusionbench_attentions" in load_registry().broken["mine"]


def test_a_name_taken_twice_names_both_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        one=plugin(fusionbench_attention_modules=lambda: [Same]),
        two=plugin(fusionbench_attention_modules=lambda: [Same]),
    )
    with pytest.raises(PluginError, match="'same' is taken twice, by plugin 'one' and plugin 'two'"):
        load_registry()
    assert load_registry(frozenset({"two"})).get("attention", "same").plugin == "one"


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (type("Unnamed", (Same,), {"name": "No Good"}), "needs a kebab-case `name`, not 'No Good'"),
        (type("Half", (AttentionModule,), {"name": "half"}), "does not define forward"),
        (FusionStrategy, "returns classes of it"),
        ("same", "returns classes of it"),
    ],
    ids=["name", "abstract", "kind", "no class"],
)
def test_a_class_that_breaks_a_promise_of_its_hook_is_refused(
    monkeypatch: pytest.MonkeyPatch, cls: object, says: str
) -> None:
    install(monkeypatch, mine=plugin(fusionbench_attention_modules=lambda: [cls]))
    assert says in load_registry().broken["mine"]


def test_plugins_are_switched_off_by_name_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mine=plugin(fusionbench_attention_modules=lambda: [Same]))
    assert "dual" not in [c.name for c in load_registry(frozenset({"dual"})).of("attention")]
    with pytest.raises(PluginError, match="cannot disable plugin 'duel': did you mean 'dual'"):
        load_registry(frozenset({"duel"}))
    for chosen, expected in {"none": False, "mine": True, "a, mine": True}.items():
        monkeypatch.setenv("FUSIONBENCH_PLUGINS", chosen)
        load_registry.cache_clear()
        assert {p.name: p.enabled for p in installed_plugins()}["mine"] is expected
        assert ("same" in [c.name for c in load_registry().of("attention")]) is expected
        load_registry().get("attention", "dual")


def test_listing_plugins_imports_none(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from fusionbench.registry import installed_plugins; found = installed_plugins()\n"
        "assert found and not [m for m in sys.modules if m.startswith(('fusionbench_plugins', 'torch', 'pandas'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_classes_can_be_added_for_a_session() -> None:
    registry: Registry = load_registry().with_classes("notebook", attention=[Same])
    assert registry.get("attention", "same").plugin == "notebook"
    with pytest.raises(PluginError, match="taken twice"):
        registry.with_classes("again", attention=[Same])
