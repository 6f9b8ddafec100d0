"""`fusionbench list` with a pattern lists the members of a family."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fusionbench import load_registry
from fusionbench.errors import UsageError
from fusionbench_cli import render

PROGRAM = Path(sys.executable).with_name("fusionbench")


def test_a_pattern_lists_the_members_of_a_family() -> None:
    asked = [PROGRAM, "list", "timm:resnet1*", "--format", "json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=240)
    found = json.loads(done.stdout)
    assert {"timm:resnet18", "timm:resnet152"} <= {row["name"] for row in found}
    assert all(row["name"].startswith("timm:resnet1") for row in found)
    assert {row["kind"] for row in found} == {"backbone"}


def test_the_members_are_listed_as_a_table_too(capsys: pytest.CaptureFixture[str]) -> None:
    render.components(load_registry(), "timm:resnet18", as_json=False)
    assert "timm:resnet18" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("timm:nonsense*", "nothing matches 'timm:nonsense*': try 'timm:*'"),
        ("tim:resnet*", "'tim' has no members: did you mean 'timm'?"),
        ("rmc:*", "'rmc' has no members"),
    ],
)
def test_a_pattern_without_members_is_an_error(pattern: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        render.components(load_registry(), pattern, as_json=False)
    assert says in str(caught.value)
