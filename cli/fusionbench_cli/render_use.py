"""What the commands that use trained models print. Progress goes to standard error, so that CSV and JSON stay whole."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fusionbench.errors import one_line
from fusionbench_cli.render import SECONDS_BETWEEN_LINES, clock, print_table, progress_bar, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from fusionbench.using.answers import Answers
    from fusionbench.using.evaluation import Evaluation
    from fusionbench.using.exporting import Export
    from fusionbench.using.inference import Step


class Steps:
    """Shows how far the work is: a bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self.started = self.told = time.monotonic()
        self.what = ""
        self.bar: Bar | None = None
        self.task: Any = None

    def __enter__(self) -> Steps:
        if self.console.is_terminal:
            self.bar = progress_bar(self.console)
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, step: Step) -> None:
        """Take note of a step and show it; other work starts the clock anew."""
        if step.what != self.what:
            self.what, self.started = step.what, time.monotonic()
            self.task = self.bar.add_task(step.what, total=step.total) if self.bar else None
        if self.bar:
            self.bar.update(self.task, completed=step.done)
        elif time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            gone = self.told - self.started
            left = gone * (step.total - step.done) / step.done
            say(f"{step.done}/{step.total} {step.what}, {clock(gone)} gone, about {clock(left)} left", self.console)


def answers(found: Answers) -> None:
    """What the models say of each subject."""
    _table(f"Predictions by {found.run}", found)
    for note in found.notes:
        say(f"  {one_line(note)}")


def evaluation(found: Evaluation) -> None:
    """How well the models do."""
    _table(f"{found.run} on {found.cohort}", found)
    for note in found.notes:
        say(f"  {one_line(note)}")


def exported(folder: Path, export: Export) -> None:
    """What was written, and how it is used."""
    say(f"{len(export.copies)} fits in {folder}/, without ids, labels or digests of the subjects they were trained on.")
    say(f"Next: fusionbench predict {shlex.quote(str(folder))} --data NEW")


def _table(title: str, found: Answers | Evaluation) -> None:
    rows = [[one_line(cell) for cell in line] for line in found.lines()]
    print_table(one_line(title), found.columns(), rows)
