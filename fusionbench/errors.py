"""Every error that fusionbench raises on purpose: one line that says what was wrong and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from sysconfig import get_path
from traceback import extract_tb

CORE = Path(__file__).parent
LIBRARIES = frozenset(
    {"fusionbench", "lightning_fabric", "nibabel", "numpy", "scipy", "sklearn", "torch", "torchio", "torchvision"}
)
"""Where an error is seldom made, but often noticed."""
SHOWN = 8
"""Faults that one line tells; of more it tells how many."""


class FusionBenchError(Exception):
    """What went wrong and how to mend it, in one line; the command line prints it and exits with 2."""


class UsageError(FusionBenchError, ValueError):
    """A name, option or value that cannot be used."""


class CohortError(FusionBenchError, ValueError):
    """Data that cannot be used: a missing file, a broken table, too few subjects."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults) or (message,)
        """Everything that is wrong, of which the message tells the first few."""

    @classmethod
    def of(cls, name: str, faults: Sequence[str]) -> CohortError:
        """The error for a cohort of that name with these faults.

        >>> str(CohortError.of("brats2018", ["'a' has no label", "'b' has no label"]))
        "brats2018: 'a' has no label; 'b' has no label"
        """
        rest = "; `fusionbench data check` lists them all" if len(faults) > SHOWN else ""
        return cls(f"{name}: {summary(faults)}{rest}", faults)


class PluginError(FusionBenchError, RuntimeError):
    """A plugin that cannot be loaded or that breaks a promise of its kind."""


class StoreError(FusionBenchError, OSError):
    """A folder that cannot be written, or that holds something else."""


class TrainingError(FusionBenchError, RuntimeError):
    """A fit that could not be finished."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names is meant, and what there is.

    >>> nearest("guidence", ["ensemble", "guidance"])
    "did you mean 'guidance'? There are ensemble, guidance"
    """
    names = sorted(known)
    plain = {other.strip().lower(): other for other in names}
    close = get_close_matches(name.strip().lower(), plain, n=1, cutoff=0.6)
    hint = f"did you mean {plain[close[0]]!r}? There" if close else "there"
    return f"{hint} are {summary(names, ', ', 12) or 'none'}"


def summary(faults: Sequence[str], separator: str = "; ", shown: int = SHOWN) -> str:
    """Some faults in one line: the first few, and how many more.

    >>> summary(["a is bad", "b is bad", "c is bad"], shown=2)
    'a is bad; b is bad; and 1 more'
    """
    rest = len(faults) - shown
    return separator.join([*faults[:shown], *([f"and {rest} more"] if rest > 0 else [])])


def one_line(text: str) -> str:
    r"""A stranger's text with everything that does not print written out.

    >>> one_line("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe(error: BaseException) -> str:
    """An error in one line: our own as they are, a stranger's with its places in the code.

    The first place is where the code of a plugin went wrong, the second where a library below it noticed.
    """
    text = str(error).partition("\n")[0]
    if isinstance(error, FusionBenchError):
        return text
    frames = extract_tb(error.__traceback__)
    blamed = [frame for frame in frames if not _is_library(frame.filename)][-1:]
    places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*blamed, *frames[-1:]))
    return f"{type(error).__name__}: {text} ({', in '.join(places)})" if places else f"{type(error).__name__}: {text}"


def _is_library(file: str) -> bool:
    """Whether code is of Python, of fusionbench itself or of what both compute with: nobody's plugin."""
    path, installed = Path(file), re.search(r"[/\\](?:site|dist)-packages[/\\](\w+)", file)
    if installed:
        return installed[1] in LIBRARIES
    return path.is_relative_to(CORE) or path.is_relative_to(get_path("stdlib")) or file.startswith("<frozen")
