"""Labels as somebody wrote them, and the classes that they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fusionbench import nearest, summary


@dataclass(frozen=True)
class Labelling:
    """Which class each label means, as the options of a reader say it."""

    reader: str
    classes: Mapping[str, str]
    """Label as written -> class name, in order; empty: the labels are the classes, in alphabetical order."""
    positive: str
    """The positive class; empty: the smaller one."""

    def read(self, written: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """Subject -> class name, and what is wrong with the labels."""
        known = self.classes or {label: label for label in written.values() if label}
        holders: dict[str, list[str]] = {}
        for id, label in written.items():
            holders.setdefault(label, []).append(id)
        faults = [f"{_told(ids)} no label" for label, ids in holders.items() if not label]
        faults += [
            f"{_told(ids)} the label {label!r}: {nearest(label, known)}"
            for label, ids in holders.items()
            if label and label not in known
        ]
        if not self.classes:
            faults += self._alike(holders)
        return {id: known.get(label, "") for id, label in written.items()}, faults

    def known(self, written: Mapping[str, str], classes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
        """Subject -> class of a trained model, '' where none of them is written, and a note of other labels."""
        meant = {id: self.classes.get(label, label) for id, label in written.items()}
        others = sorted({label for label in meant.values() if label and label not in classes})
        notes = [f"labels that the model does not know: {summary([repr(label) for label in others], ', ')}"]
        return {id: label if label in classes else "" for id, label in meant.items()}, notes if others else []

    def names(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The classes, in order."""
        return tuple(dict.fromkeys(self.classes.values())) or tuple(sorted(set(labels.values())))

    def positive_of(self, labels: Mapping[str, str]) -> tuple[str, list[str]]:
        """The positive class, and a note if nobody said which it is."""
        if self.positive:
            return self.positive, []
        counted = Counter(labels.values())
        positive, why = smallest(counted)
        return positive, [f"positive class {positive}, {why}, as {self.reader}.positive_class is not set"]

    def _alike(self, holders: Mapping[str, list[str]]) -> list[str]:
        """Labels that differ from a commoner one in nothing but case and blanks: they would be classes of their own."""
        commonest: dict[str, str] = {}
        for label in sorted(filter(None, holders), key=lambda label: -len(holders[label])):
            commonest.setdefault(_plain(label), label)
        return [
            f"{_told(ids)} the label {label!r}: did you mean {commonest[_plain(label)]!r}? Write them alike, "
            f"or say in {self.reader}.classes which class each is"
            for label, ids in holders.items()
            if label and commonest[_plain(label)] != label
        ]


def smallest(counted: Mapping[str, int]) -> tuple[str, str]:
    """The class with fewest subjects, in alphabetical order the first of them, and why it is taken.

    >>> smallest({"LGG": 5, "HGG": 9}), smallest({"yes": 5, "no": 5})
    (('LGG', 'the smaller one'), ('no', 'the first, for none is smaller'))
    """
    least = sorted(name for name, count in counted.items() if count == min(counted.values()))
    return least[0], "the smaller one" if len(least) == 1 else "the first, for none is smaller"


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())


def _told(ids: list[str]) -> str:
    """The first of some subjects, how many more, and their verb."""
    return f"{ids[0]!r} has" if len(ids) == 1 else f"{ids[0]!r} and {len(ids) - 1} more have"
