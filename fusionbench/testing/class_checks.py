"""What every component promises, of whatever kind: it says what it is, and its options work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from fusionbench.errors import FusionBenchError
from fusionbench.options import Option, declared_options, resolve_options
from fusionbench.testing.requirements import require


def check_documented(cls: type, **options: Any) -> None:
    """It has a kebab-case name, a docstring whose first line is a sentence, and a line of help for each option."""
    name = getattr(cls, "name", "")
    kebab = isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    require(bool(kebab), f"`name` is {name!r}: write it in kebab-case, like dual or r3d-18")
    first = (cls.__doc__ or "").strip().partition("\n")[0]  # its own: inspect.getdoc would find the base class's
    require(
        first.endswith((".", "!", "?")),
        f"the first line of the docstring is {first!r}: make it a sentence, for `fusionbench list` shows it",
    )
    silent = [option.name for option in declared_options(cls) if not option.help]
    require(not silent, f'no help for {", ".join(silent)}: write Annotated[TYPE, "one line of help"]')


def check_options_valid(cls: type, **options: Any) -> None:
    """Its default options have the types that they declare."""
    defaults = {option.name: option.default for option in declared_options(cls)}
    try:
        resolve_options(cls, defaults)
    except FusionBenchError as error:
        raise AssertionError(f"a default breaks its own type: {error}") from None


def check_kinds_known(cls: type, **options: Any) -> None:
    """`accepts` names the kinds of modality that it takes."""
    accepts: frozenset[str] = cls.accepts  # type: ignore[attr-defined]
    require(
        bool(accepts) and accepts <= {"image", "table"},
        f"`accepts` is {sorted(accepts)}: say frozenset({{'image'}}), frozenset({{'table'}}), or both",
    )


def each_option_value(cls: type) -> Iterator[dict[str, Any]]:
    """The defaults, then each other value of each option that says which values it has."""
    yield {}
    for option in declared_options(cls):
        for value in _values(option):
            if value != option.default:
                yield {option.name: value}


def _values(option: Option) -> tuple[Any, ...]:
    if option.type is bool:
        return (False, True)
    return get_args(option.type) if get_origin(option.type) is Literal else ()
