"""Options that a component declares: the keyword-only arguments of its `__init__`.

A component says `def __init__(self, parts, *, upsample: Annotated[Literal["trilinear", "nearest"],
"how the guidance is resized"] = "trilinear")` and gets typed, documented options that are checked before
anything trains, shown by `fusionbench describe` and set by `--set guidance.upsample=nearest`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fusionbench.errors import PluginError, UsageError, nearest


@dataclass(frozen=True)
class Option:
    """One declared option: its name, type, default and a line of help."""

    name: str
    type: Any
    default: Any
    help: str
    limits: tuple[Any, ...] = ()

    @property
    def annotation(self) -> Any:
        """The type with its limits, as pydantic takes it."""
        return Annotated[(self.type, *self.limits)] if self.limits else self.type

    @property
    def is_file(self) -> bool:
        """Whether its value is the path of a file, whose content counts and not its name."""
        return Path in (self.type, *get_args(self.type))

    @property
    def type_name(self) -> str:
        """The type as a reader would write it: `int`, `'a' | 'b'`."""
        if get_origin(self.type) is not None and "Literal" in str(get_origin(self.type)):
            return " | ".join(repr(value) for value in get_args(self.type))
        return self.type.__name__ if isinstance(self.type, type) else str(self.type).replace("typing.", "")


def declared_options(component: type) -> tuple[Option, ...]:
    """The options of a component class, in the order of its `__init__`.

    Raises PluginError if an option has no default or no type.
    """
    hints = get_type_hints(component.__init__, include_extras=True)  # type: ignore[misc]
    parameters = inspect.signature(component.__init__).parameters.values()  # type: ignore[misc]
    return tuple(
        _option(component, parameter, hints)
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )


def resolve_options(component: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a component with its value: what was given, checked, over the defaults.

    Raises UsageError for an option that does not exist or a value of the wrong type.
    """
    import pydantic

    options = declared_options(component)
    name = getattr(component, "name", component.__name__)
    for unknown in set(given) - {option.name for option in options}:
        raise UsageError(f"{name} has no option {unknown!r}: {nearest(unknown, [option.name for option in options])}")
    fields: dict[str, Any] = {option.name: (option.annotation, option.default) for option in options}
    # a number where text is meant is text: nobody writes quotes around the 1 of --set READER.positive_class=1
    rules = pydantic.ConfigDict(validate_default=True, allow_inf_nan=False, coerce_numbers_to_str=True)
    model = pydantic.create_model("Options", __config__=rules, **fields)
    try:
        return dict(model(**given).model_dump())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wrong = f"{name}.{where}: {first['msg']}, not {first['input']!r}"
        if first["loc"][0] not in given:
            raise PluginError(f"{wrong}: a default of the plugin does not fit its type") from None
        raise UsageError(wrong) from None


def _option(component: type, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Option:
    if parameter.default is inspect.Parameter.empty or parameter.name not in hints:
        raise PluginError(f"{component.__name__}: option {parameter.name!r} needs a type and a default")
    if parameter.name.startswith("_"):
        raise PluginError(f"{component.__name__}: option {parameter.name!r} must not begin with an underscore")
    hint = hints[parameter.name]
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        text = next((note for note in notes if isinstance(note, str)), "")
        limits = [note for note in notes if not isinstance(note, str)]  # such as pydantic.Field(ge=1)
        return Option(parameter.name, kind, parameter.default, text, tuple(limits))
    return Option(parameter.name, hint, parameter.default, "")
