"""The findings in words: what a reader must know who reads no further."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from fusionbench.comparing import Findings, Pair
from fusionbench.report.document import Line, listed
from fusionbench.report.scores import NAMES, NARROWLY, classes_line, p_text, signed, why_untested
from fusionbench.report.sources import Sources

SAW_TEST = "selection saw the test folds"
"""The mark of a leaderboard."""
SHOWN_NAMES = 10
"""More methods than that are counted instead of named."""


def brief(sources: Sources) -> tuple[Line, ...]:
    """Data, positive class, result, what saw test folds, and what else must be known first."""
    findings = sources.board.findings
    return (
        _data(sources),
        _positive(sources),
        Line("Result", " ".join(result(sources)), warning=bool(findings and findings.untested)),
        _saw_test(sources),
        *_cautions(sources),
    )


def result(sources: Sources) -> list[str]:
    """Which methods differ, in sentences."""
    findings = sources.board.findings
    if findings is None:
        return ["Every method failed; nothing was tested."]
    if len(findings.estimates) == 1:
        only = findings.estimates[0]
        score = "is not defined on every test fold" if findings.undefined else f"{only.mean:.3f}"
        return [f"One method was tested: {named(only.method)}, mean {NAMES[findings.metric]} {score}."]
    if findings.untested:
        return _untested(findings)
    return [*_leaders(findings), *_against_single(sources, findings)]


def _data(sources: Sources) -> Line:
    cohort = sources.board.cohort
    counts = f"{cohort['subjects']} subjects ({classes_line(cohort['classes'])})"
    if sources.synthetic:
        how = "made by equations" if sources.made_up else "marked as synthetic by the reader of the data"
        text = f"Synthetic: {counts} of {cohort['name']}, {how}. The numbers say nothing about patients."
        return Line("Data", text, warning=True)
    return Line("Data", f"{counts} of {cohort['name']}; the reader of the data does not mark them as synthetic.")


def _positive(sources: Sources) -> Line:
    classes, positive = sources.shown_classes, sources.positive
    if len(classes) == 1:
        return Line("Positive class", f"{positive}: sensitivity is the share of {positive} that is found.")
    of = f"{len(classes)} classes, each against the rest: scores are means over {listed(classes)}"
    return Line("Positive class", f"{of}; the cohort would name {positive}.")


def _untested(findings: Findings) -> list[str]:
    first, *others = findings.estimates
    span = "" if findings.undefined else f" (mean {NAMES[findings.metric]} {others[-1].mean:.3f} to {first.mean:.3f})"
    tied = f"All {len(findings.estimates)} methods count as tied{span}; the order of the table is no ranking."
    return [why_untested(findings), tied]


def _leaders(findings: Findings) -> list[str]:
    first = findings.standings[0]
    leaders = [first.method, *first.tied_with]
    behind = [s.method for s in findings.standings if s.method not in leaders]
    by_all = [name for name in behind if all(_separated(findings, a, name) for a in leaders)]
    by_some = [name for name in behind if name not in by_all]
    return [
        _tied(findings, leaders, everybody=not behind),
        *([_beaten(findings, leaders, by_all)] if by_all else []),
        *([_partly(findings, leaders, by_some)] if by_some else []),
    ]


def _tied(findings: Findings, leaders: Sequence[str], *, everybody: bool) -> str:
    metric, means = NAMES[findings.metric], {e.method: e.mean for e in findings.estimates}
    if len(leaders) == 1:
        return f"{named(leaders[0])} is best (mean {metric} {means[leaders[0]]:.3f})."
    low, high = min(means[name] for name in leaders), max(means[name] for name in leaders)
    if told_apart := [(a, b) for a, b in combinations(leaders, 2) if _separated(findings, a, b)]:
        apart = listed([f"{named(a)} beats {named(b)}" for a, b in told_apart])
        return (
            f"{named(leaders[0])} is tied with {_named(leaders[1:])} (mean {metric} {_span(low, high)}), but {apart}."
        )
    who = f"All {len(leaders)} methods" if everybody else _named(leaders)
    return f"{who} are tied (mean {metric} {_span(low, high)}): the corrected test does not tell them apart."


def _beaten(findings: Findings, leaders: Sequence[str], beaten: Sequence[str]) -> str:
    gaps = [abs(_pair(findings, a, b).difference) for a in leaders for b in beaten]
    verb = "It beats" if len(leaders) == 1 else "Both beat" if len(leaders) == 2 else "Each of them beats"
    how = _narrowly([_pair(findings, a, b).p_holm for a in leaders for b in beaten])
    return f"{verb} {_named(beaten)} by {_span(min(gaps), max(gaps))}{how}."


def _narrowly(adjusted: Sequence[float]) -> str:
    """How many of several separated pairs are near the line; nothing if none is."""
    narrow = [p for p in adjusted if p >= NARROWLY]
    if not narrow:
        return ""
    if len(adjusted) == 1:
        return f", narrowly (p {_compared(narrow[0])} after Holm)"
    return f", {len(narrow)} of {len(adjusted)} pairs narrowly (p up to {p_text(max(narrow))} after Holm)"


def _partly(findings: Findings, leaders: Sequence[str], behind: Sequence[str]) -> str:
    parts = []
    for name in behind:
        better = [leader for leader in leaders if _separated(findings, leader, name)]
        parts.append(f"{named(name)} is behind {_named(better)} only")
    return f"{'; '.join(parts)}."


def _against_single(sources: Sources, findings: Findings) -> Iterable[str]:
    """The question of fusion: does the best of several modalities beat the best single one."""
    several = {row.method for row in sources.tested if len(row.modalities) > 1}
    single = {row.method for row in sources.tested if len(row.modalities) == 1}
    best = next((e.method for e in findings.estimates if e.method in several), "")
    alone = next((e.method for e in findings.estimates if e.method in single), "")
    if best and alone:
        pair = _pair(findings, best, alone)
        sign = 1 if pair.a == best else -1
        low, high = sorted((sign * pair.low, sign * pair.high))
        yield (
            f"Best fusion against best single modality: {named(best)} minus {named(alone)} is "
            f"{signed(sign * pair.difference)} (unadjusted 95 % interval {signed(low)} to {signed(high)}): "
            f"{verdict(pair)} (p {_compared(pair.p_holm)} after Holm)."
        )


def verdict(pair: Pair) -> str:
    """What the corrected test, adjusted for all pairs shown, says of one."""
    if not pair.separated:
        return "the corrected test does not tell them apart"
    return "separated, narrowly" if pair.p_holm >= NARROWLY else "separated"


def _compared(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def saw_test(sources: Sources) -> list[str]:
    """The methods whose selection saw the folds that they are tested on."""
    return [row.method for row in sources.board.rows if SAW_TEST in row.marks]


def _saw_test(sources: Sources) -> Line:
    saw, unknown = saw_test(sources), sources.elsewhere
    others = [name for name in sources.trained if name not in saw]
    told = [
        *([f"selection saw the test folds: {_named(saw)} — optimistic"] if saw else []),
        *([f"{'the others did not' if saw else _nothing_saw(sources)}"] if others else []),
        *([f"of {_named(unknown)} it is not known"] if unknown else []),
    ]
    text = "; ".join(told)
    return Line("Test folds", f"{text[:1].upper()}{text[1:]}.", warning=bool(saw or unknown))


def _nothing_saw(sources: Sources) -> str:
    known = "as far as the run knows" if len(sources.runs) == 1 else "as far as the runs know"
    return f"nothing was selected on the folds that it is tested on, {known}"


def _cautions(sources: Sources) -> Iterable[Line]:
    marked = {mark: [row.method for row in sources.board.rows if mark in row.marks] for mark in _marks(sources)}
    if marked:
        told = (f"{_named(methods)}: {mark}" for mark, methods in marked.items())
        yield Line("Marked", f"{'; '.join(told)}.", warning=True)
    if failed := [row.method for row in sources.board.rows if row.failed]:
        yield Line("Failed", f"{_named(failed)}; the reasons are below.", warning=True)


def _marks(sources: Sources) -> list[str]:
    return list(dict.fromkeys(mark for row in sources.board.rows for mark in row.marks if mark != SAW_TEST))


def _named(names: Sequence[str]) -> str:
    quoted = [named(name) for name in names]
    if len(names) <= SHOWN_NAMES:
        return listed(quoted)
    return f"{', '.join(quoted[: SHOWN_NAMES - 1])} and {len(names) - SHOWN_NAMES + 1} others"


def named(method: str) -> str:
    """A method in a sentence: in quotation marks if its name has blanks or commas.

    >>> named("guidance"), named("idh + tp53")
    ('guidance', '“idh + tp53”')
    """
    return f"“{method}”" if {" ", ","} & set(method) else method


def _span(low: float, high: float) -> str:
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"


def _separated(findings: Findings, a: str, b: str) -> bool:
    return _pair(findings, a, b).separated


def _pair(findings: Findings, a: str, b: str) -> Pair:
    return next(pair for pair in findings.pairs if {pair.a, pair.b} == {a, b})
