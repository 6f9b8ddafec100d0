"""Every component of this distribution keeps the promises of its kind, as a stranger's must."""

from __future__ import annotations

from fusionbench.registry import Component, load_registry
from fusionbench.testing.plugin import contract_test

OURS = [component for component in load_registry().components if component.distribution == "fusionbench"]


USABLE = [component for component in OURS if all(component.libraries.values())]
"""Those whose libraries are installed: an extra of pyproject.toml may be absent."""


def has(component: Component, option: str) -> bool:
    return any(one.name == option for one in component.options)


NARROW = [component for component in USABLE if has(component, "width") and not has(component, "size")]
SMALL = [component for component in USABLE if has(component, "width") and has(component, "size")]

test_contract = contract_test(*(component.name for component in USABLE if not has(component, "width")))
test_contract_of_a_narrow_one = contract_test(*(component.name for component in NARROW), width=8)
test_contract_of_a_small_one = contract_test(*(component.name for component in SMALL), width=2, size=8)


def test_nothing_of_ours_is_broken() -> None:
    assert not load_registry().broken
    kinds = {component.kind for component in OURS}
    assert kinds == {"backbone", "attention", "fusion", "cohort", "ranker", "extractor"}
