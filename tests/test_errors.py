"""An error is one line, which names the code that went wrong before the library that noticed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from fusionbench.errors import TrainingError, describe

PLUGIN = """
import json
import torch

def wrong_shape():
    return torch.nn.Linear(3, 2)(torch.zeros(4, 5))

def wrong_text():
    return json.loads("{")

def own():
    return [][0]
"""


def said(call: object) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 what it is does not matter
        call()  # type: ignore[operator]
    return describe(caught.value)


@pytest.mark.parametrize(
    ("name", "starts", "ends"),
    [
        ("wrong_shape", "RuntimeError: ", " (plugin.py:6, in linear.py:"),
        ("wrong_text", "JSONDecodeError: ", " (plugin.py:9, in decoder.py:"),
        ("own", "IndexError: list index out of range", " (plugin.py:12)"),
    ],
)
@pytest.mark.parametrize("place", ["mine", "lib/site-packages/mine"], ids=["a folder", "installed"])
def test_the_line_of_the_plugin_comes_first(tmp_path: Path, place: str, name: str, starts: str, ends: str) -> None:
    path = tmp_path / place / "plugin.py"
    path.parent.mkdir(parents=True)
    path.write_text(PLUGIN)
    text = said(runpy.run_path(str(path))[name])
    assert text.startswith(starts)
    assert ends in text
    assert "\n" not in text


def test_where_no_plugin_is_to_blame_the_last_place_is_named() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    error = caught.value
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this file
    assert "(decoder.py:" in describe(error)


def test_our_own_errors_are_told_as_they_are() -> None:
    assert describe(TrainingError("too hot: cool it\nmore")) == "too hot: cool it"
