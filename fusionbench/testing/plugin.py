"""The pytest plugin: one test per promise of an installed component. It imports nothing heavy until it is used.

In the tests of a distribution, with `from fusionbench.testing.plugin import contract_test`:

    test_contract = contract_test("gated")

gives test_contract[gated-shape], test_contract[gated-frozen-stays] and so on. Options that make a component small
enough for a test go along: `contract_test("my-backbone", width=8)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fusionbench.testing.checks import Promise

FIXTURE = "fusionbench_promise"


def contract_test(*names: str, **options: Any) -> Callable[[Promise], None]:
    """A test for each promise of these components, tried with these options.

    A promise from which a class declares itself exempt is an expected failure, with the class's reason.
    """

    def test(fusionbench_promise: Promise) -> None:
        verdict = fusionbench_promise.verdict()
        if verdict.exempt:
            pytest.xfail(verdict.detail)
        if not verdict.held:
            pytest.fail(f"{fusionbench_promise.text}\n{verdict.detail}", pytrace=False)

    test.contract = (names, options)  # type: ignore[attr-defined]
    return test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a contract test the promises of its components, which are imported now."""
    if FIXTURE not in metafunc.fixturenames:
        return
    from fusionbench.registry import load_registry
    from fusionbench.testing.checks import promises

    names, options = metafunc.function.contract
    promised = {f"{name}-{p.name}": p for name in names for p in promises(load_registry().named(name), **options)}
    metafunc.parametrize(FIXTURE, promised.values(), ids=promised.keys())
