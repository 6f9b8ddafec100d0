"""Values as JSON that every program can read."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(told: Any, *, sort_keys: bool = False) -> str:
    """Indented JSON with a line end; null for what is no finite number, for which JSON has no word.

    >>> print(json_text({"roc_auc": math.nan}), end="")
    {
     "roc_auc": null
    }
    """
    return json.dumps(known(told), indent=1, sort_keys=sort_keys, allow_nan=False) + "\n"


def known(told: Any) -> Any:
    """The same value with None for what is no finite number."""
    match told:
        case float():
            return told if math.isfinite(told) else None
        case dict():
            return {name: known(value) for name, value in told.items()}
        case list() | tuple():
            return [known(value) for value in told]
        case _:
            return told
