"""Large numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int) -> str:
    """A large number as one of three digits and a letter.

    >>> counted(512), counted(11_472_450), counted(3_650_365_440_000)
    ('512', '11.5 M', '3.65 T')
    """
    return _scaled(number, 1000, ("", "k", "M", "G", "T", "P"))


def sized(number: int) -> str:
    """Bytes in the unit that suits.

    >>> sized(512), sized(9_884_000_000)
    ('512 B', '9.21 GiB')
    """
    return _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(number: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    digits = f"{number:.3g}" if number < 1000 else f"{number:.0f}"
    return f"{digits} {units[power]}".strip()
