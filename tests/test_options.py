"""Options are declared in `__init__`, checked before anything trains, and explained in one line when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from fusionbench.errors import PluginError, UsageError
from fusionbench.options import Option, declared_options, resolve_options
from fusionbench_plugins.fusion.guidance import Guidance
from fusionbench_plugins.fusion.unimodal import Unimodal
from fusionbench_plugins.rankers.solo import Fixed


class Component:
    name = "mixer"

    def __init__(
        self,
        parts: object,
        *,
        width: Annotated[int, "channels of the hidden layers"] = 64,
        mode: Annotated[Literal["sum", "mean"], "how they are combined"] = "sum",
        rate: float = 0.5,
        shared: bool = False,
        weights: Annotated[Path | None, "a checkpoint"] = None,
        positive: str = "",
    ) -> None: ...


class WithoutDefault:
    name = "bare"

    def __init__(self, parts: object, *, width: int) -> None: ...


class WithoutType:
    name = "untyped"

    def __init__(self, parts: object, *, width=3) -> None: ...  # type: ignore[no-untyped-def]


def option(name: str) -> Option:
    return next(option for option in declared_options(Component) if option.name == name)


# Declaring


def test_options_are_the_keyword_only_arguments_in_their_order() -> None:
    assert [one.name for one in declared_options(Component)] == [
        "width",
        "mode",
        "rate",
        "shared",
        "weights",
        "positive",
    ]


def test_an_option_has_type_default_and_help() -> None:
    assert option("width") == Option("width", int, 64, "channels of the hidden layers")
    assert option("rate") == Option("rate", float, 0.5, "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("width", "int"), ("mode", "'sum' | 'mean'"), ("rate", "float"), ("shared", "bool")],
)
def test_a_type_is_shown_as_a_reader_would_write_it(name: str, expected: str) -> None:
    assert option(name).type_name == expected


def test_an_option_that_names_a_file_is_told_from_one_that_does_not() -> None:
    assert option("weights").is_file
    assert "Path" in option("weights").type_name
    assert not option("width").is_file


@pytest.mark.parametrize("component", [Unimodal, Fixed])
def test_a_component_without_options_has_none(component: type) -> None:
    assert declared_options(component) == ()
    assert resolve_options(component, {}) == {}


@pytest.mark.parametrize("component", [WithoutDefault, WithoutType])
def test_an_option_without_type_or_default_is_the_plugins_fault(component: type) -> None:
    with pytest.raises(PluginError, match=f"^{component.__name__}: option 'width' needs a type and a default$"):
        declared_options(component)


def test_the_options_of_guidance_are_the_open_questions_of_the_paper_and_how_it_is_computed() -> None:
    found = {one.name: (one.default, one.type_name) for one in declared_options(Guidance)}
    assert found == {
        "train": ("secondary", "'secondary' | 'secondary+head' | 'joint'"),
        "upsample": ("trilinear", "'trilinear' | 'nearest'"),
        "reduce_init": ("identity", "'identity' | 'default'"),
        "fuse_init": ("primary", "'primary' | 'mean' | 'default'"),
        "backward": ("joint", "'joint' | 'branchwise'"),
        "primary_features": ("computed", "'computed' | 'kept'"),
    }
    assert all(one.help for one in declared_options(Guidance))


# Resolving


def test_defaults_stand_where_nothing_is_given() -> None:
    defaults = {"width": 64, "mode": "sum", "rate": 0.5, "shared": False, "weights": None, "positive": ""}
    assert resolve_options(Component, {}) == defaults
    assert resolve_options(Component, {"width": 8, "mode": "mean"}) == defaults | {"width": 8, "mode": "mean"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"width": "8"}, 8),
        ({"rate": 1}, 1.0),
        ({"shared": "true"}, True),
        ({"weights": "a/b.pth"}, Path("a/b.pth")),
        ({"positive": 1}, "1"),
    ],
    ids=str,
)
def test_values_as_the_command_line_gives_them_become_their_type(given: dict[str, Any], expected: object) -> None:
    ((name, _),) = given.items()
    found = resolve_options(Component, given)[name]
    assert found == expected
    assert isinstance(found, type(expected))


def test_an_unknown_option_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^mixer has no option 'widht': did you mean 'width'\?.*mode") as caught:
        resolve_options(Component, {"widht": 8})
    assert "\n" not in str(caught.value)


def test_an_option_of_a_component_that_has_none_is_said_so() -> None:
    with pytest.raises(UsageError, match=r"^fixed has no option 'width': there are none$"):
        resolve_options(Fixed, {"width": 8})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": "wide"}, r"^mixer\.width: .*integer.*, not 'wide'$"),
        ({"width": 1.5}, r"^mixer\.width: .*integer.*, not 1\.5$"),
        ({"width": None}, r"^mixer\.width: .*integer.*, not None$"),
        ({"mode": "median"}, r"^mixer\.mode: .*'sum' or 'mean', not 'median'$"),
        ({"rate": "fast"}, r"^mixer\.rate: .*number.*, not 'fast'$"),
        ({"shared": "perhaps"}, r"^mixer\.shared: .*boolean.*, not 'perhaps'$"),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_one_line_with_option_value_and_what_is_meant(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_options(Component, given)
    assert "\n" not in str(caught.value)


def test_what_is_given_is_not_changed() -> None:
    given = {"width": "8"}
    resolve_options(Component, given)
    assert given == {"width": "8"}


class WrongDefault:
    name = "wrong"

    def __init__(self, *, width: int = "wide") -> None: ...  # type: ignore[assignment]


class Hidden:
    name = "hidden"

    def __init__(self, *, _width: int = 3) -> None: ...


def test_a_default_of_the_wrong_type_is_the_plugins_fault() -> None:
    with pytest.raises(PluginError):
        resolve_options(WrongDefault, {})


def test_an_option_that_pydantic_would_hide_is_refused() -> None:
    with pytest.raises(PluginError, match="must not begin with an underscore"):
        resolve_options(Hidden, {"_width": 4})
