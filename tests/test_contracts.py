"""Every component of this distribution keeps the promises of its kind, as a stranger's must."""

from __future__ import annotations

from fusionbench.registry import Component, load_registry
from fusionbench.testing.plugin import contract_test

OURS = [component for component in load_registry().components if component.distribution == "fusionbench"]


USABLE = [component for component in OURS if all(component.libraries.values())]
"""Those whose libraries are installed: an extra of pyproject.toml may be absent."""


def has_width(component: Component) -> bool:
    return any(option.name == "width" for option in component.options)


test_contract = contract_test(*(one.name for one in USABLE if not has_width(one)))
test_contract_of_a_narrow_one = contract_test(*(one.name for one in USABLE if has_width(one)), width=8)


def test_nothing_of_ours_is_broken() -> None:
    assert not load_registry().broken
    kinds = {component.kind for component in OURS}
    assert kinds == {"backbone", "attention", "fusion", "cohort", "ranker", "extractor"}
