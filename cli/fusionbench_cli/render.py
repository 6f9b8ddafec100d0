"""What the commands print. Ids, notes and plugin names are strangers' text: no markup is ever interpreted."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusionbench.errors import UsageError, nearest

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from fusionbench.auditing.audit import Audit
    from fusionbench.doctor import Finding
    from fusionbench.engine import Event, Forecast, Planned
    from fusionbench.experiment import Comparison
    from fusionbench.leaderboard import Leaderboard
    from fusionbench.registry import Component, Plugin, Registry
    from fusionbench.report.ranking import Ranking
    from fusionbench.study import Study
    from fusionbench.subsets import Subsets
    from fusionbench.testing.checks import Verdict

NARROW = 100
"""Columns that a table may take where the width of the output is not known."""
MANY_ORDERS = 7
"""From here on, orders of modalities are summed up and not shown for each fold."""
MANY_IMAGES = 1000
"""From here on, reading them takes long enough to be announced."""
SECONDS_BETWEEN_LINES = 15.0
"""How often progress is told where there is no terminal."""


def console() -> Console:
    """The console: plain text, of fixed width where it is no terminal."""
    plain = Console(markup=False, highlight=False, emoji=False)
    return plain if plain.is_terminal else Console(markup=False, highlight=False, emoji=False, width=NARROW)


def cohort_line(comparison: Comparison, registry: Registry, home: Path | None) -> None:
    """The first line of a run: which data."""
    import fusionbench

    source = comparison.cohort
    if source.data:
        say(f"Cohort: {source.data}, read by {source.reader}.")
        return
    component = registry.get("cohort", source.reader)
    place = component.cls(**component.resolve(comparison.options.get(source.reader, {}))).location(
        home or fusionbench.data_home()
    )
    if place is None:
        return  # the reader will ask for --data
    say(f"Cohort: the built-in synthetic {source.reader} (no --data given). It shows mechanics, not medicine.")
    if not place.exists():
        say(f"Writing it once to {place} ...")


def reading_line(study: Study) -> None:
    """Announce what takes long before anything trains, and what may go wrong unseen."""
    from fusionbench.methods import Method

    recipe = study.comparison.recipe
    if recipe.device == "cpu" and recipe.precision == "bf16":
        say("bf16 on a CPU: gradients of large maps of few slices may be wrong (docs/backbones.md); 32 is safe.")
    names = study.comparison.modalities
    images = sum(study.cohort.modality(name).kind == "image" for name in names) * len(study.cohort.subjects)
    extractors = {Method(e, study.cohort, study.registry).needs.features for e in study.experiments} - {""}
    for extractor in sorted(extractors):
        say(f"Features of {images} images by {extractor}: each is extracted once and kept in the store.")
    if images >= MANY_IMAGES:
        say(f"Checking {images} images; each is read and preprocessed once and kept in the store, which takes minutes.")


def plan_lines(study: Study, forecast: Forecast) -> None:
    """What a run will do, before it does it."""
    cohort = study.cohort
    counts = ", ".join(f"{n} {name}" for name, n in cohort.counts().items())
    methods = ", ".join(experiment.label for experiment in study.experiments)
    waiting = f" and {forecast.undecided} wait for that ranking" if forecast.undecided else ""
    folds = "1 fold" if len(study.folds) == 1 else f"{len(study.folds)} folds"
    tests = "all to train on, none to test" if study.comparison.protocol.refit else folds
    say(f"{len(cohort.subjects)} subjects ({counts}; positive class {cohort.positive_class}), {tests}")
    for note in cohort.notes:
        say(f"  {note}")
    say(f"Methods: {methods}")
    for method, reason in study.left_out.items():
        say(f"  left out: {method} {reason}")
    say(
        f"Plan: {forecast.fits} fits, of which {forecast.inner} rank modalities or stack predictions inside training "
        f"parts{waiting}; without sharing it would be {forecast.unshared}; {forecast.stored} are in the store."
    )


class Live:
    """Shows events: a progress bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.total, self.done, self.fits, self.fits_done, self.fits_failed = 1, 0, 0, 0, 0
        self.credit: dict[str, int] = {}
        self.traceback: Path | None = None
        self.started = self.told = time.monotonic()
        self.bar: Bar | None = None
        self.task: Any = None

    def __enter__(self) -> Live:
        if console().is_terminal:
            self.bar = progress_bar(console())
            self.task = self.bar.add_task("starting", total=1)
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        elif kind is None:
            done = f"{self.fits_done} fit{'s' * (self.fits_done != 1)} done{self._failed}"
            say(f"{done} in {clock(time.monotonic() - self.started)}.")
        if self.traceback:
            say(f"The first traceback: {self.traceback}")

    def __call__(self, event: Event) -> None:
        """Take note of an event and show it."""
        from fusionbench.engine import Failed, Finished, Planned
        from fusionbench.training import Progress

        match event:
            case Planned():
                self._planned(event)
            case Progress(key=key, work=work):
                self.credit[key] = self.credit.get(key, 0) + work
                self.done += work
            case Finished(job):
                self.fits_done += 1
                self.done += job.fit.work - self.credit.get(job.key, 0)
            case Failed(job, reason, traceback):
                self.fits_failed += 1
                self.traceback = self.traceback or traceback
                self.done += job.fit.work - self.credit.get(job.key, 0)
                names = ",".join(modality.name for modality in job.fit.modalities)
                say(f"failed: {job.fit.fusion.name} on {names}: {reason}", self.bar.console if self.bar else None)
        self._show()

    @property
    def _failed(self) -> str:
        return f", {self.fits_failed} failed" if self.fits_failed else ""

    def _planned(self, planned: Planned) -> None:
        """The work left is known anew; what the store had is no work."""
        todo = [job for job in planned.plan.jobs if job.key not in planned.stored]
        todo += planned.plan.waiting
        self.fits, self.total = len(todo), sum(job.fit.work for job in todo)

    def _show(self) -> None:
        text = f"{self.fits_done}/{self.fits} fits{self._failed}"
        if self.bar:
            self.bar.update(self.task, description=text, total=self.total, completed=self.done)
        elif time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            elapsed = self.told - self.started
            left = elapsed * (self.total - self.done) / max(1, self.done)
            say(f"{text}, {clock(elapsed)} gone" + (f", about {clock(left)} left" if self.fits_done else ""))


def progress_bar(to: Console) -> Bar:
    """A bar with the share that is done, the time gone and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    left = TimeRemainingColumn(compact=True)
    done = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    return Progress(*done, TimeElapsedColumn(), TextColumn("left"), left, console=to)


def leaderboard(board: Leaderboard) -> None:
    """The ranking of the modalities and the table of methods."""
    columns = board.narrow_columns(console().width)
    _rankings(board)
    rows = [[row.title, *board.ranked(row), *board.cells(row, columns)] for row in board.rows]
    names = (column.partition(" ")[0] for column in columns)  # `published` says it: it stands beside ours
    header = ["method", *board.ranked(), *names]
    print_table("Leaderboard", header, rows, right=range(1, len(header)), wraps=0)
    for note in board.notes():
        _note(note)


def subsets(found: Subsets) -> None:
    """How methods do on the subjects that have the same modalities."""
    header = found.header()
    scores = range(header.index("subjects") + 1, len(header))
    print_table("By what subjects have", header, list(found.rows()), right=scores, wraps=header.index("method"))
    for note in found.notes():
        say(f"  {note}")


def components(registry: Registry, kind: str, *, as_json: bool) -> None:
    """Every component, or those of a kind, or the members of a family that match a pattern such as `timm:resnet*`."""
    found = _members(registry, kind) if ":" in kind else _of_kind(registry, kind)
    header = ["kind", "name", "plugin", "distribution", "version", "summary"]
    rows = [[getattr(component, column) for column in header] for component in found]
    _list(header, rows, as_json=as_json)
    if not as_json:
        for plugin, why in registry.broken.items():
            say(f"broken plugin {plugin}: {why}")


def _of_kind(registry: Registry, kind: str) -> Sequence[Component]:
    from fusionbench.registry import HOOK_OF_KIND

    if kind and kind not in HOOK_OF_KIND:
        raise UsageError(f"no kind {kind!r}: {nearest(kind, HOOK_OF_KIND)}")
    return [component for component in registry.components if not kind or component.kind == kind]


def _members(registry: Registry, pattern: str) -> Sequence[Component]:
    families = [component.name for component in registry.components if component.family]
    family = pattern.partition(":")[0]
    if family not in families:
        raise UsageError(f"{family!r} has no members: {nearest(family, families)}")
    if not (found := registry.members(pattern)):
        raise UsageError(f"nothing matches {pattern!r}: try '{family}:*'")
    return found


def component(component: Component) -> None:
    """One component with its options."""
    import inspect

    origin = f"plugin {component.plugin}, {component.distribution} {component.version}"
    say(f"{component.name}: {component.kind} ({origin})\n")
    say(inspect.getdoc(component.cls) or "")
    settable = [option for option in component.options if not component.member or option.name != component.family]
    rows = [[option.name, option.type_name, repr(option.default), option.help] for option in settable]
    if rows:
        say("")
        print_table(f"Options, set with --set {component.name}.OPTION=VALUE", ["option", "type", "default", ""], rows)


def plugins(found: Sequence[Plugin], *, as_json: bool) -> None:
    """Every installed plugin."""
    header = ["name", "module", "distribution", "version", "enabled"]
    _list(header, [[getattr(plugin, column) for column in header] for plugin in found], as_json=as_json)


def checks(verdicts: Iterable[Verdict]) -> bool:
    """Each check as it is done; whether all held."""
    fine = True
    for verdict in verdicts:
        fine &= verdict.held
        word = "exempt" if verdict.exempt else "ok" if verdict.held else "FAILED"
        say(f"{word:6} {verdict.promise}" + (f": {verdict.detail}" if verdict.detail else ""))
    return fine


def audit(done: Audit) -> None:
    """What an audit found, row by row of the table."""
    rows = dict.fromkeys((f.method, f.dataset, f.table) for f in done.findings)
    for row in rows:
        method, dataset, table = row
        say(", ".join(filter(None, (method, dataset, f"table {table}" if table else ""))))
        for f in done.findings:
            if (f.method, f.dataset, f.table) == row:
                say(f"  {f.rule}: {f.text}")
    for note in (done.summary, *done.notes):
        say(note)


def findings(found: Iterable[Finding]) -> bool:
    """What the doctor found; whether all is well."""
    everything = list(found)
    for finding in everything:
        say(f"{'ok ' if finding.fine else 'BAD'} {finding.what}: {finding.value}")
    return all(finding.fine for finding in everything)


def say(text: str, to: Console | None = None) -> None:
    """A line as it is, at once."""
    (to or console()).print(Text(text), soft_wrap=True)


def _note(text: str) -> None:
    say(textwrap.fill(text, console().width, initial_indent="  ", subsequent_indent="    ", break_long_words=False))


def _rankings(board: Leaderboard) -> None:
    """How modalities were ordered, and how certain that is, for each set of modalities that was ranked."""
    from fusionbench.report.ranking import rankings

    for ranking in rankings(board):
        say(f"Modality ranking, {board.ranked_by}")
        if len(ranking.orders) < MANY_ORDERS:
            rows = [
                [str(repeat), str(fold), " > ".join(f"{line.modality} {line.score:.3f}" for line in lines)]
                for repeat, fold, lines in ranking.orders
            ]
            print_table("", ["repeat", "fold", "order"], rows)
        _places(ranking)


def _places(ranking: Ranking) -> None:
    """How often each modality came first, its mean rank, how likely each place is, and how far the orders agree."""
    from fusionbench.report.ranking import agreed

    found, drawn = ranking.agreement, ranking.probability
    header = ["modality", "came first", "mean rank", *(f"P({n})" for n in range(1, 1 + len(found.first)) if drawn)]
    rows = [
        [name, f"{found.first[name]} of {found.orders}", f"{mean:.2f}", *(f"{p:.2f}" for p in drawn.get(name, ()))]
        for name, mean in found.mean_rank.items()
    ]
    print_table("", header, rows, right=range(1, len(header)), wraps=0)
    if drawn:
        _note("P(n): how likely place n is if patients are drawn again; models are not fitted again: less sure")
    _note(agreed(found))
    say("")


def _list(header: list[str], rows: list[list[Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=1, allow_nan=False))
    else:
        print_table("", header, [[str(cell) for cell in row] for row in rows])


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = (), wraps: int = -1
) -> None:
    """A table under a title; the column that `wraps`, the last by default, takes what is left of the line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        whole = index != wraps % len(header)
        table.add_column(name, justify="right" if index in right else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if title:
        say(title)
    console().print(table)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
