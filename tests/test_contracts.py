"""Every component of this distribution keeps the promises of its kind, as a stranger's must."""

from __future__ import annotations

from fusionbench.registry import Component, load_registry
from fusionbench.testing.plugin import contract_test

OURS = [component for component in load_registry().components if component.distribution == "fusionbench"]


def has_width(component: Component) -> bool:
    return any(option.name == "width" for option in component.options)


test_contract = contract_test(*(component.name for component in OURS if not has_width(component)))
test_contract_of_a_narrow_one = contract_test(*(component.name for component in OURS if has_width(component)), width=8)


def test_nothing_of_ours_is_broken() -> None:
    assert not load_registry().broken
    assert {component.kind for component in OURS} == {"backbone", "attention", "fusion", "cohort", "ranker"}
