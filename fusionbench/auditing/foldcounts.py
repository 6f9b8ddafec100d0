"""What counts of right decisions in stratified folds can give: exact arithmetic on means and deviations.

In a fold with n subjects of a class, c right decisions give c / n. Stratified folds share each class as evenly as
possible, so the sizes are known, the counts are whole numbers, and few means and deviations are possible. A span is
(lowest, highest), both included; a deviation may be the sample's (ddof = 1) or the population's (ddof = 0).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float]
Sizes = tuple[int, ...]
"""How many subjects each fold has, of one class or of both."""
Numbers = NDArray[np.float64]

SLACK = 1e-9
"""What floating point may add to a mean or deviation."""
SUBJECTS_UP_TO = 400
"""Of so many the possible deviations are counted out; among more nearly all are possible."""
CHOICES_UP_TO = 1_000_000
"""So many choices of counts are gone through; where there are more nothing is said."""
PAIRS_UP_TO = 5_000_000
"""So many pairs of choices, one per class."""


@dataclass(frozen=True)
class Design:
    """How many folds, and how many subjects of the two classes in all of them together."""

    folds: int
    positives: int
    negatives: int

    def alignments(self) -> Iterator[tuple[Sizes, Sizes]]:
        """(positives per fold, negatives per fold), one for each way in which larger folds of both may coincide."""
        of_positives, of_negatives = fold_sizes(self.positives, self.folds), fold_sizes(self.negatives, self.folds)
        larger, others = self.positives % self.folds, self.negatives % self.folds
        for both in range(max(0, larger + others - self.folds), min(larger, others) + 1):
            start = larger - both
            yield of_positives, tuple(of_negatives[(i - start) % self.folds] for i in range(self.folds))

    def accuracy_sizes(self) -> tuple[Sizes, ...]:
        """The subjects per fold, for each alignment that differs."""
        both = (tuple(sorted(map(sum, zip(*sizes, strict=True)))) for sizes in self.alignments())
        return tuple(dict.fromkeys(both))

    def weights(self) -> Numbers:
        """The possible shares of the positives in a fold."""
        return np.unique([p / (p + n) for sizes in self.alignments() for p, n in zip(*sizes, strict=True)])


def fold_sizes(count: int, folds: int) -> Sizes:
    """As even as possible, larger folds first.

    >>> fold_sizes(76, 3)
    (26, 25, 25)
    """
    small, larger = divmod(count, folds)
    return (small + 1,) * larger + (small,) * (folds - larger)


def largest_deviation(mean: Span, values: int | None) -> float:
    """The largest sample deviation of so many values in [0, 1] with such a mean; of any number of values if None.

    It is reached by ones, zeros and one value between: the sum of squares is then floor(t) + (t - floor(t))^2 of the
    sum t, and the rest is ddof = 1. Beyond 20 values the inequality of Bhatia and Davis, m (1 - m) k / (k - 1).

    >>> round(largest_deviation((0.974, 0.974), 3), 3)
    0.045
    """
    if values is None:
        nearest_half = min(max(0.5, mean[0]), mean[1])
        beyond = math.sqrt(nearest_half * (1 - nearest_half) * 21 / 20)
        return max(beyond, *(largest_deviation(mean, k) for k in range(2, 21)))
    low, high = mean[0] * values, mean[1] * values
    sums = [low, high, *range(math.ceil(low), math.floor(high) + 1)]  # between whole numbers it is convex
    return max(
        math.sqrt(max(0.0, math.floor(t) + (t % 1) ** 2 - t * t / values) / (values - 1))
        for t in (min(max(t, 0.0), values) for t in sums)
    )


def possible_mean(sizes: Sizes, mean: Span) -> bool:
    """Whether some counts in such folds have a mean in the span; yes if they are too many to go through."""
    folds = Counter(sizes)
    choices = math.prod(size * folds[size] + 1 for size in list(folds)[:-1])
    return choices > CHOICES_UP_TO or next(_sums(sizes, mean), None) is not None


def nearest_mean(sizes: Sizes, mean: float) -> float:
    """The possible mean that is nearest to this one."""
    step = 1 / (len(sizes) * max(sizes))
    around = _sums(sizes, (mean - step, mean + step))
    means = (sum(total / size for size, total in sums.items()) / len(sizes) for sums in around)
    return min(means, key=lambda possible: abs(possible - mean))


@lru_cache(maxsize=16)
def deviations(sizes: Sizes, mean: Span) -> Numbers | None:
    """The sample deviations of all counts in such folds with a mean in the span; None if they are too many."""
    if sum(sizes) > SUBJECTS_UP_TO:
        return None
    choices = list(_sums(sizes, mean))
    if sum(math.prod(len(s) for s in _squares_of(sizes, sums)) for sums in choices) > PAIRS_UP_TO:
        return None
    return np.unique(np.concatenate([np.array([]), *(_deviations(sizes, sums) for sums in choices)]))


def fits(sample_deviation: Numbers, folds: int, span: Span) -> NDArray[np.bool_]:
    """Which deviations are in the span, as the sample's or as the population's."""
    population = sample_deviation * math.sqrt((folds - 1) / folds)
    return _inside(sample_deviation, span) | _inside(population, span)


def possible_row(design: Design, means: Mapping[str, Span], stds: Mapping[str, Span]) -> bool | None:
    """Whether some counts give the sensitivity, the specificity and whatever else is given of a row, all at once.

    Known are sensitivity, specificity, accuracy, balanced_accuracy. None if the counts are too many to search.
    """
    answers = {
        _possible(sizes, means, stds, ddof) for sizes in design.alignments() for ddof in ((1, 0) if stds else (1,))
    }
    return True if True in answers else None if None in answers else False


def _sums(sizes: Sizes, mean: Span) -> Iterator[dict[int, int]]:
    """Size -> sum of the counts in the folds of that size, for every choice with a mean in the span."""
    folds = Counter(sizes)
    *first, last = folds
    lowest, highest = (bound * len(sizes) for bound in (mean[0] - SLACK, mean[1] + SLACK))
    for totals in product(*(range(size * folds[size] + 1) for size in first)):
        done = sum(total / size for size, total in zip(first, totals, strict=True))
        start, stop = math.ceil((lowest - done) * last - SLACK), math.floor((highest - done) * last + SLACK)
        for total in range(max(0, start), min(last * folds[last], stop) + 1):
            yield {**dict(zip(first, totals, strict=True)), last: total}


def _deviations(sizes: Sizes, sums: Mapping[int, int]) -> Numbers:
    """The sample deviations of counts with these sums."""
    total = sum(count / size for size, count in sums.items())
    squares = np.zeros(1)
    for size, of_size in zip(sums, _squares_of(sizes, sums), strict=True):
        squares = np.add.outer(squares, of_size / size**2).ravel()
    variance: Numbers = (squares - total**2 / len(sizes)) / (len(sizes) - 1)
    return np.sqrt(np.where(variance < 1e-12, 0, variance))


def _squares_of(sizes: Sizes, sums: Mapping[int, int]) -> list[NDArray[np.int64]]:
    """The possible sums of squares in the folds of each size."""
    folds = Counter(sizes)
    return [_squares(size, folds[size])[count] for size, count in sums.items()]


@lru_cache(maxsize=64)
def _squares(size: int, folds: int) -> tuple[NDArray[np.int64], ...]:
    """Sum of so many counts from 0 to size -> every sum of squares that such counts have."""
    reached = [1]  # bit s of entry t: counts with sum t and sum of squares s exist
    for _ in range(folds):
        further = [0] * (len(reached) + size)
        for total, bits in enumerate(reached):
            for count in range(size + 1):
                further[total + count] |= bits << count * count
        reached = further
    return tuple(_places(bits) for bits in reached)


def _places(bits: int) -> NDArray[np.int64]:
    """Where a number has ones in binary."""
    raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(raw, bitorder="little"))


def _possible(
    sizes: tuple[Sizes, Sizes], means: Mapping[str, Span], stds: Mapping[str, Span], ddof: int
) -> bool | None:
    """`possible_row` for folds of these sizes, (positives, negatives)."""
    wanted = [(name, means[name], stds.get(name)) for name in means if name not in ("sensitivity", "specificity")]
    found = _counts(sizes[0], means["sensitivity"], stds.get("sensitivity"), ddof)
    kept = _counts(sizes[1], means["specificity"], stds.get("specificity"), ddof)
    if found is None or kept is None:
        return None
    found = found[_in_order(found, sizes)]
    if len(found) * len(kept) > PAIRS_UP_TO:
        return None
    return any(_some_fit(_together(row, kept, sizes), wanted, ddof) for row in found)


def _counts(sizes: Sizes, mean: Span, std: Span | None, ddof: int) -> NDArray[np.int64] | None:
    """Every choice of counts, a row each (N, folds), with such a mean and deviation; None if there are too many."""
    if math.prod(size + 1 for size in sizes) > CHOICES_UP_TO:
        return None
    counts = np.indices([size + 1 for size in sizes]).reshape(len(sizes), -1).T
    rates = counts / np.array(sizes)
    return counts[_fit(rates, mean, std, ddof)]


def _in_order(counts: NDArray[np.int64], sizes: tuple[Sizes, Sizes]) -> NDArray[np.bool_]:
    """Folds of equal sizes may be exchanged: keep one order of each choice."""
    kept = np.ones(len(counts), bool)
    types = list(zip(*sizes, strict=True))
    for i, (this, following) in enumerate(pairwise(types)):
        if this == following:
            kept &= counts[:, i] >= counts[:, i + 1]
    return kept


def _together(found: NDArray[np.int64], kept: NDArray[np.int64], sizes: tuple[Sizes, Sizes]) -> Mapping[str, Numbers]:
    """Accuracy and balanced accuracy per fold (N, folds) of one choice of positives and N of negatives."""
    positives, negatives = np.array(sizes[0]), np.array(sizes[1])
    return {
        "accuracy": (found + kept) / (positives + negatives),
        "balanced_accuracy": (found / positives + kept / negatives) / 2,
    }


def _some_fit(rates: Mapping[str, Numbers], wanted: Iterable[tuple[str, Span, Span | None]], ddof: int) -> bool:
    good: NDArray[np.bool_] = np.ones(len(rates["accuracy"]), bool)
    for name, mean, std in wanted:
        good &= _fit(rates[name], mean, std, ddof)
    return bool(good.any())


def _fit(rates: Numbers, mean: Span, std: Span | None, ddof: int) -> NDArray[np.bool_]:
    """Which rows (N, folds) have such a mean and deviation."""
    good = _inside(rates.mean(1), mean)
    return good & _inside(rates.std(1, ddof=ddof), std) if std else good


def _inside(values: Numbers, span: Span) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (values >= span[0] - SLACK) & (values <= span[1] + SLACK)
    return inside


def told(sizes: Sequence[int]) -> str:
    """Fold sizes in words.

    >>> told((26, 25, 25))
    'folds of 26, 25, 25'
    """
    return f"folds of {', '.join(map(str, sizes))}" if len(sizes) > 1 else f"a test set of {sizes[0]}"
