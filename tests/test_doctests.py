"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest

import fusionbench
import fusionbench_cli
import fusionbench_plugins


def modules() -> Iterator[str]:
    for package in (fusionbench, fusionbench_plugins, fusionbench_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples_are_true(name: str) -> None:
    failed, _ = doctest.testmod(import_module(name))
    assert not failed
