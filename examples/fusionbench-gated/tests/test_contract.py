"""The plugin keeps every promise of a fusion strategy."""

from fusionbench.testing.plugin import contract_test

test_contract = contract_test("gated")
