"""The entry: what may be claimed of methods that were tested on the same folds, from their predictions alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from fusionbench.comparing.delong import METHOD, AreaUnderCurve, delong_p
from fusionbench.comparing.intervals import DRAWS, Interval, Resample, bootstrap, shares
from fusionbench.comparing.pooling import Place, Tested, pooled_score
from fusionbench.comparing.power import ALPHA, Detectable, smallest_auc_difference, smallest_difference
from fusionbench.comparing.resampled import ROPE, Difference, holm
from fusionbench.comparing.standings import Standing, standings
from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS, Metric, metric, roc_auc
from fusionbench.predictions import Predictions

ENOUGH_SCORES = 10
"""Below this many fold scores no test has the power to separate methods."""
KNOWN = tuple(METRICS)
"""The metrics that every method has an interval of: all."""
TOO_FEW = "too few folds to separate methods: use --repeats"
SINGLE = "a single test part: no test over folds can separate methods"
UNDEFINED = "not defined on every test fold: no test can separate methods by it"


@dataclass(frozen=True)
class Estimate:
    """One method: its scores, and how well they are known on these patients."""

    method: str
    scores: tuple[float, ...]
    """One per fold, by repeat and fold."""
    mean: float
    bootstrap: Interval
    delong: Interval
    """NaN unless the metric is the ROC-AUC of two classes."""
    intervals: Mapping[str, Interval]
    """Of each metric in KNOWN: Wilson's over all test folds of accuracy and, of two classes, sensitivity and
    specificity; of the others the patient bootstrap's. NaN where a fold has no score."""


@dataclass(frozen=True)
class Pair:
    """Two methods. Differences are a minus b in units of the metric; all but `delong_p` is NaN for too few folds."""

    a: str
    b: str
    difference: float
    """The mean over folds; never NaN for lack of folds."""
    low: float
    high: float
    """The 95 % interval of Nadeau and Bengio, for this pair alone."""
    p: float
    """Of their corrected resampled t-test."""
    p_holm: float
    """The same, adjusted for all pairs shown: what decides."""
    better: float
    """P(a is better by more than the rope), of the Bayesian correlated t-test."""
    equal: float
    worse: float
    delong_p: float
    """Conditional on the fitted models, not adjusted, decides nothing."""

    @property
    def separated(self) -> bool:
        """Whether the test found a difference, given all pairs shown."""
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Findings:
    """Everything that `compare` found, methods by descending mean."""

    metric: str
    folds: int
    """How many fold scores each method has."""
    estimates: tuple[Estimate, ...]
    pairs: tuple[Pair, ...]
    standings: tuple[Standing, ...]
    """Of all methods the same if there are too few folds: tied."""
    detectable: Detectable

    @property
    def too_few(self) -> bool:
        """Whether there are too few fold scores for any test over them."""
        return self.folds < ENOUGH_SCORES

    @property
    def undefined(self) -> bool:
        """Whether a fold has no score, for a class is absent there."""
        return any(math.isnan(estimate.mean) for estimate in self.estimates)

    @property
    def untested(self) -> str:
        """Why no test over the folds can separate methods; empty if one can."""
        if self.undefined:
            return f"{self.metric} is {UNDEFINED}"
        return SINGLE if self.folds == 1 else TOO_FEW if self.too_few else ""

    def notes(self) -> list[str]:
        """What must be said beside a table, one line each."""
        return [*([self.untested] if self.untested else self._separated()), *self._detected()]

    def _separated(self) -> list[str]:
        if not self.pairs:
            return []
        found = sum(pair.separated for pair in self.pairs)
        test = "Nadeau-Bengio corrected t over the folds, Holm over all pairs, level .05"
        return [f"{found} of {len(self.pairs)} pairs of methods differ in {self.metric} ({test})"]

    def _detected(self) -> list[str]:
        one, every, half = self.detectable.one_pair, self.detectable.all_pairs, self.detectable.half_width
        if math.isnan(one):
            return []
        shown = f"smallest difference in {self.metric} that this cohort can show with 80 % power"
        among = f", {every:.3f} among all {len(self.pairs)} pairs" if len(self.pairs) > 1 else ""
        known = "" if math.isnan(half) else f"; the {self.metric} of the median method is known to ± {half:.3f}"
        return [f"{shown}, of the median pair: {one:.3f}{among} ({self.detectable.source}){known}"]


def compare(
    tested: Mapping[str, Tested],
    positive_class: str,
    *,
    score: str = "roc_auc",
    groups: Mapping[str, str] | None = None,
    subjects: int = 0,
    rope: float = ROPE,
    draws: int = DRAWS,
    seed: int = 0,
) -> Findings:
    """What may be claimed of methods from method -> (repeat, fold) -> predictions.

    `groups` is subject -> patient, where that differs; `subjects` is how many there are, where some are only trained
    on. Leave failed methods out. Methods come by descending mean; where a fold has no score, by that of the folds
    pooled. Raises UsageError if two methods were not tested on the same subjects in the same folds, or if nothing is
    given.
    """
    places = _shared_places(tested)
    chosen = metric(score)
    parts = {method: [tested[method][place] for place in places] for method in tested}
    areas = {method: _area(chosen, several, positive_class, groups) for method, several in parts.items()}
    resample = Resample.of(next(iter(parts.values())), groups, draws, seed)
    estimates = sorted(
        (_estimate(m, several, chosen, positive_class, groups, resample, areas[m]) for m, several in parts.items()),
        key=lambda e: (_descending(_score(e, tested[e.method], chosen, positive_class), chosen), e.method),
    )
    ratio = size_ratio(places, parts[estimates[0].method], subjects)
    pairs = _pairs(estimates, ratio, chosen, areas, rope)
    better = {(p.a, p.b) if (p.difference > 0) == chosen.higher_is_better else (p.b, p.a) for p in pairs if p.separated}
    return Findings(
        metric=score,
        folds=len(places),
        estimates=tuple(estimates),
        pairs=pairs,
        standings=standings([estimate.method for estimate in estimates], better),
        detectable=_detectable(estimates, ratio, areas, _patients(parts[estimates[0].method], positive_class, groups)),
    )


def size_ratio(places: Sequence[Place], parts: Sequence[Predictions], subjects: int = 0) -> float:
    """n_test / n_training, the mean over folds; who is not tested in a fold of a repeat was trained on in it.

    `subjects` is how many there are, if some are never tested. Raises UsageError for a repeat of one fold that tests
    everybody known of, which says nothing of how many were trained on.
    """
    total: dict[int, int] = {}
    for (repeat, _), part in zip(places, parts, strict=True):
        total[repeat] = total.get(repeat, 0) + len(part.ids)
    sizes = [(len(part.ids), max(total[repeat], subjects)) for (repeat, _), part in zip(places, parts, strict=True)]
    if alone := [repeat for (repeat, _), (test, all_) in zip(places, sizes, strict=True) if test == all_]:
        raise UsageError(
            f"repeat {alone[0]} has one fold, so nobody was trained on: give every fold of each repeat, or tell how "
            "many subjects there are"
        )
    return statistics.fmean(test / (all_ - test) for test, all_ in sizes)


def _shared_places(tested: Mapping[str, Tested]) -> list[Place]:
    if not tested or not all(tested.values()):
        raise UsageError("nothing to compare: give at least one method with predictions")
    (first, folds), *others = tested.items()
    for name, theirs in others:
        if {place: part.ids for place, part in folds.items()} != {place: part.ids for place, part in theirs.items()}:
            raise UsageError(
                f"{name} and {first} were not tested on the same subjects in the same folds, so their scores are not "
                f"paired: run both with the same --data, --folds and --fold-seed"
            )
    return sorted(folds)


def _area(
    chosen: Metric, parts: Sequence[Predictions], positive_class: str, groups: Mapping[str, str] | None
) -> AreaUnderCurve:
    if chosen.function is not roc_auc or len(parts[0].classes) != 2:
        return AreaUnderCurve(math.nan, {})
    return AreaUnderCurve.of(parts, positive_class, groups)


def _estimate(
    method: str,
    parts: Sequence[Predictions],
    chosen: Metric,
    positive_class: str,
    groups: Mapping[str, str] | None,
    resample: Resample,
    area: AreaUnderCurve,
) -> Estimate:
    scores = tuple(chosen(part, positive_class) for part in parts)
    return Estimate(
        method=method,
        scores=scores,
        mean=statistics.fmean(scores),
        bootstrap=bootstrap(resample.scores(parts, chosen, positive_class)),
        delong=area.interval() if area.influence else Interval(math.nan, math.nan, METHOD),
        intervals=_intervals(parts, positive_class, groups, resample),
    )


def _intervals(
    parts: Sequence[Predictions], positive_class: str, groups: Mapping[str, str] | None, resample: Resample
) -> dict[str, Interval]:
    found = shares(parts, positive_class, groups)
    found |= {n: bootstrap(resample.scores(parts, METRICS[n], positive_class)) for n in KNOWN if n not in found}
    nothing = {n for n in KNOWN if any(math.isnan(METRICS[n](part, positive_class)) for part in parts)}
    return {n: Interval(math.nan, math.nan, found[n].method) if n in nothing else found[n] for n in KNOWN}


def _score(estimate: Estimate, tested: Tested, chosen: Metric, positive_class: str) -> float:
    """What a method is placed by: its mean, or the score of the folds pooled where a fold has none."""
    return pooled_score(tested, chosen, positive_class) if math.isnan(estimate.mean) else estimate.mean


def _pairs(
    estimates: Sequence[Estimate], ratio: float, chosen: Metric, areas: Mapping[str, AreaUnderCurve], rope: float
) -> tuple[Pair, ...]:
    both = list(combinations(estimates, 2))
    found = [Difference.of(a.scores, b.scores, ratio) for a, b in both]
    known = [d if d.folds >= ENOUGH_SCORES else replace(d, deviation=math.nan) for d in found]
    adjusted = holm([difference.p for difference in known])
    pairs = []
    for (a, b), difference, p_holm in zip(both, known, adjusted, strict=True):
        low, high = difference.interval()
        above, equal, below = difference.posterior(rope)
        better, worse = (above, below) if chosen.higher_is_better else (below, above)
        p = delong_p(areas[a.method], areas[b.method])
        pairs.append(
            Pair(a.method, b.method, difference.mean, low, high, difference.p, p_holm, better, equal, worse, p)
        )
    return tuple(pairs)


def _detectable(
    estimates: Sequence[Estimate], ratio: float, areas: Mapping[str, AreaUnderCurve], patients: tuple[int, int]
) -> Detectable:
    both = list(combinations(estimates, 2))
    alphas = ALPHA, ALPHA / max(len(both), 1)
    auc = _median([area.value for area in areas.values() if 0 < area.value < 1])  # none of other metrics: all is NaN
    half_width = _median([estimate.bootstrap.half_width for estimate in estimates])
    folds = len(estimates[0].scores)
    if both and folds >= ENOUGH_SCORES:
        deviation = _median([Difference.of(a.scores, b.scores, ratio).deviation for a, b in both])
        one, every = (smallest_difference(deviation, folds, ratio, alpha) for alpha in alphas)
        return Detectable(one, every, half_width, "from how differences vary over the folds")
    correlation = _median([areas[a.method].correlation(areas[b.method]) for a, b in both])
    known = 0.0 if math.isnan(correlation) else correlation
    one, every = (smallest_auc_difference(auc, *patients, known, alpha) for alpha in alphas)
    return Detectable(one, every, half_width, "from the number of patients alone, so rather more")


def _patients(parts: Sequence[Predictions], positive_class: str, groups: Mapping[str, str] | None) -> tuple[int, int]:
    """How many patients have a subject of the positive class, and how many one of another."""
    found: tuple[set[str], set[str]] = set(), set()
    for part in parts:
        for id, label in zip(part.ids, part.labels, strict=True):
            found[label != positive_class].add((groups or {}).get(id) or id)
    return len(found[0]), len(found[1])


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def _descending(mean: float, chosen: Metric) -> float:
    if math.isnan(mean):
        return math.inf
    return -mean if chosen.higher_is_better else mean
