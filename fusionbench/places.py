"""Settings that can be shown to strangers: without saying where anything lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any


def without_places(settings: Any) -> Any:
    """Nested settings in which an absolute path is no more than the name of its file.

    >>> without_places({"weights": "/home/rosa/r3d18.pth", "upsample": "nearest"})
    {'weights': 'r3d18.pth', 'upsample': 'nearest'}
    """
    match settings:
        case str():
            kinds: tuple[type[PurePath], ...] = (PurePosixPath, PureWindowsPath)
            return next((kind(settings).name for kind in kinds if kind(settings).is_absolute()), settings)
        case Mapping():
            return {name: without_places(value) for name, value in settings.items()}
        case list() | tuple():
            return [without_places(value) for value in settings]
        case _:
            return settings
