"""What `fusionbench data` prints: every name in it is a stranger's, so all that does not print is written out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionbench.errors import one_line
from fusionbench_cli.render import say

if TYPE_CHECKING:
    from fusionbench import Cohort, Comparison
    from fusionbench.cards.card import CohortCard
    from fusionbench.cards.survey import Candidate


def reader_line(path: Path, reader: str) -> None:
    """The first line: which data."""
    say(f"Cohort: {one_line(str(path))}, read by {reader}.")


def others(candidates: Sequence[Candidate]) -> None:
    """Who would read it otherwise."""
    if candidates:
        found = ", ".join(f"{candidate.reader} ({candidate.proposal.subjects} subjects)" for candidate in candidates)
        say(f"It could also be read by {found}: choose with --cohort NAME.")


def checking(cohort: Cohort) -> None:
    """What takes its time, if anything does."""
    if any(modality.kind == "image" for modality in cohort.modalities):
        say("Reading every file to its last byte; images are preprocessed once and kept for the runs that follow.")


def faults(found: Sequence[str]) -> None:
    """Every fault on a line of its own."""
    say(f"{len(found)} fault{'s' if len(found) > 1 else ''}:")
    for fault in found:
        say(f"  {one_line(fault)}")


def card(found: CohortCard) -> None:
    """A cohort in short."""
    for name, text in found.facts():
        say(f"  {one_line(name)}: {one_line(text)}")
    for note in found.notes:
        say(f"  note: {one_line(note)}")


def proposals(found: Sequence[Candidate]) -> None:
    """How a folder could be read, the first way in full."""
    best, *rest = found
    say(f"{best.reader} would read {best.proposal.subjects} subjects.")
    guesses(best)
    others(rest)


def guesses(best: Candidate) -> None:
    """What a reader took for granted."""
    for guess in best.proposal.guesses:
        say(f"  {one_line(guess)}")


def kept(folder: Path, names: Sequence[str]) -> None:
    """What was there already."""
    if names:
        say(f"Kept as they are in {one_line(str(folder))}: {_listed(names)} (--force writes them anew).")


def written(folder: Path, names: Sequence[str]) -> None:
    """What was written."""
    if names:
        say(f"Written to {one_line(str(folder))}: {_listed(names)}.")


def writing(path: Path) -> None:
    """Announce the synthetic cohort."""
    say("The built-in cohort is synthetic: made by equations, no patients. It shows mechanics, not medicine.")
    if not path.exists():
        say(f"Writing it to {one_line(str(path))} ...")


def made(cohort: Cohort) -> None:
    """The synthetic cohort is there."""
    counts = ", ".join(f"{n} {name}" for name, n in cohort.counts().items())
    say(f"{len(cohort.subjects)} synthetic subjects ({counts}).")


def next_check(path: Path, reader: str, settings: Sequence[str]) -> None:
    """How to go on from files that are there to be read."""
    words = [word for setting in settings for word in ("--set", setting)]
    say(f"Next: {command('data', 'check', path_word(path), '--cohort', reader, *words)}")


def next_run(comparison: Comparison, settings: Sequence[str], flags: Mapping[str, str]) -> None:
    """The run that goes on from a check."""
    source = comparison.cohort
    words = [word for name, value in flags.items() if value for word in (f"--{name}", value)]
    words += [word for setting in settings for word in ("--set", setting)]
    run = command("run", "--data", path_word(Path(source.data)), "--cohort", source.reader, *words, "--fusion", "all")
    say(f"No faults.\nNext: {run}\n      (--fusion NAME for one strategy; --dry-run prints the plan and stops)")


def command(*words: str) -> str:
    """A command that can be copied into a shell, on one line whatever the words hold."""
    return " ".join(["fusionbench", *map(_word, words)])


def path_word(path: Path) -> str:
    """A path that no command takes for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _word(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + one_line(text.replace("\\", "\\\\")).replace("'", "\\'") + "'"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names))
