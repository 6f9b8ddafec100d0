"""Scores that a paper printed, as data, to stand beside ours; what cannot be established is left out.

`papers/xu2024.csv` has what could be established of Tables III to VIII of Xu et al. (arXiv 2401.09029v1), a line per
number. The full tables were not at hand, so much is not transcribed. Of BraTS2018: balanced accuracy and specificity of
Flair, everything but the "AUC" of the pixel, feature and decision fusions, many deviations, and most of Table VII. Of
BraTS2019: T1ce, T2, T1 and DA_RMC, all of Table VII, the proposed method but for its specificity, and most numbers of
the others. A number computed from counts of right decisions, not read off, says `derived` in its note. `table` is
empty where it is not known in which table a number stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from fusionbench.csvtext import csv_rows
from fusionbench.errors import UsageError, nearest


@dataclass(frozen=True)
class Score:
    """One printed number: where it stands, which method it is about, and what it is a mean of."""

    source: str
    table: str
    dataset: str
    method: str
    """As printed."""
    fusion: str
    modalities: frozenset[str]
    backbone: str
    """Empty: a system with networks of its own."""
    attention: str
    """Empty: the paper is not known to say."""
    metric: str
    """As printed; the "AUC" is balanced accuracy at .5."""
    our_metric: str
    mean: float
    std: float | None
    """None if it is not known."""
    note: str


@dataclass(frozen=True)
class Published:
    """What was printed about one data set."""

    name: str
    subjects: Mapping[str, int]
    """Class -> how many of them the data set has."""
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()
    """What must be known to compare with it."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The papers, in the order of the file."""
        return tuple(dict.fromkeys(score.source for score in self.scores))

    def of(
        self, fusion: str, modalities: Iterable[str], attention: str, backbones: Iterable[str] = ()
    ) -> dict[str, Score]:
        """What was printed about a method, by our metric; where two tables differ, the first of them.

        With backbones, those that ours has: what was printed about another is not about it.

        >>> published("brats2018").of("guidance", ("t1ce", "t2", "flair", "t1"), "dual")["balanced_accuracy"].mean
        0.985
        """
        asked, built_from = frozenset(modalities), set(backbones)
        mine = [s for s in self.scores if (s.fusion, s.modalities) == (fusion, asked)]
        fitting = [s for s in mine if s.attention in ("", attention) and built_from <= {s.backbone}]
        return {s.our_metric: s for s in reversed(fitting)}


DATASETS: Final = MappingProxyType(
    {
        "brats2018": MappingProxyType({"HGG": 210, "LGG": 75}),
        "brats2019": MappingProxyType({"HGG": 259, "LGG": 76}),
    }
)
"""Data set -> how many of each class it has."""
NOTES: Final = (
    "what is printed there as AUC is balanced accuracy at .5, and stands beside ours",
    "brats2019 largely contains brats2018: they are not two independent data sets",
)


def published(name: str) -> Published:
    """The scores printed about a data set; UsageError says of which there are any."""
    if name not in DATASETS:
        raise UsageError(f"no published scores for {name!r}: {nearest(name, DATASETS)}")
    return Published(name, DATASETS[name], tuple(score for score in every_score() if score.dataset == name), NOTES)


def every_score() -> tuple[Score, ...]:
    """Every printed number that is known, in the order of the tables."""
    text = (files("fusionbench") / "papers" / "xu2024.csv").read_text(encoding="utf-8")
    return tuple(_score(row) for row in csv_rows(text))


def _score(row: Mapping[str, str]) -> Score:
    numbers = {"mean": float(row["mean"]), "std": float(row["std"]) if row["std"] else None}
    return Score(**{**row, **numbers, "modalities": frozenset(row["modalities"].split())})  # type: ignore[arg-type]
