"""What lies in a folder: which readers would take it, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fusionbench.cards.card import CohortCard, Scan, card_of
from fusionbench.cohorts import Cohort, CohortReader, Proposal
from fusionbench.errors import CohortError, UsageError
from fusionbench.experiment import Comparison
from fusionbench.imaging.volumes import Volumes
from fusionbench.registry import Registry, read_cohort
from fusionbench.study import open_study


@dataclass(frozen=True)
class Candidate:
    """A reader that would take the data, and how."""

    reader: str
    proposal: Proposal

    def ready(self, folder: Path) -> bool:
        """Whether it knows the labels and needs no file that is not there."""
        return self.proposal.labelled and not self.unwritten(folder)

    def unwritten(self, folder: Path) -> tuple[str, ...]:
        """The files that it needs and that are not there yet."""
        return tuple(name for name in self.proposal.files if not (folder / name).exists())


@dataclass(frozen=True)
class Survey:
    """What was found: every fault, one line each, or a card if there is none."""

    faults: tuple[str, ...] = ()
    card: CohortCard | None = None


def candidates(path: Path, registry: Registry, reader: str = "") -> tuple[Candidate, ...]:
    """Every reader that would take what lies there, or only the one of that name, the best first.

    That is one that knows the labels and needs no file written, and of several the one with most subjects.
    Raises UsageError, saying what was looked for, if there is none.
    """
    if not path.exists():
        raise UsageError(f"nothing is at {str(path)!r}: give the folder or the table that holds the data")
    components = [registry.get("cohort", reader)] if reader else registry.of("cohort")
    asked = [component for component in components if component.cls.propose is not CohortReader.propose]  # type: ignore[attr-defined]
    proposed = ((component.name, component.make(options={}).propose(path)) for component in asked)
    found = [Candidate(name, proposal) for name, proposal in proposed if proposal]
    if not found:
        looked = "; ".join(f"{component.name} ({component.summary.rstrip('.')})" for component in asked) or "nothing"
        raise UsageError(
            f"no reader knows what {path.name!r} holds: looked for {looked}; docs/data.md shows what each takes"
        )
    folder = path if path.is_dir() else path.parent
    return tuple(
        sorted(found, key=lambda c: (not c.ready(folder), -c.proposal.subjects, len(c.proposal.files), c.reader))
    )


def survey(
    comparison: Comparison, registry: Registry, cache: Path, listener: Callable[[Cohort], None] = lambda cohort: None
) -> Survey:
    """Read the cohort as a run of that comparison would, every file to its last byte; images go into the cache.

    The listener gets the cohort before its images are read, which takes the time.
    """
    source = comparison.cohort
    options = comparison.options.get(source.reader, {})
    try:
        cohort = read_cohort(source.reader, Path(source.data) if source.data else None, **options)
    except CohortError as error:
        return Survey(error.faults)
    listener(cohort)
    compared, faults = _compared(comparison, registry, cohort)
    volumes = Volumes(compared, comparison.preprocessing, cache)
    names = comparison.modalities or tuple(modality.name for modality in cohort.modalities)
    found = tuple(dict.fromkeys((*faults, *volumes.crop_told_once(_bad_files(volumes, names), names))))
    return Survey(found) if found else Survey(card=_card(volumes, names))


def _compared(comparison: Comparison, registry: Registry, cohort: Cohort) -> tuple[Cohort, tuple[str, ...]]:
    """The subjects that a run would compare, and why it would not."""
    try:
        return open_study(comparison, registry=registry, cohort=cohort).cohort, ()
    except CohortError as error:
        return cohort, error.faults


def _bad_files(volumes: Volumes, modalities: tuple[str, ...]) -> Iterable[str]:
    """The faults of the files; a subject need not have an outline, but one that is there must fit."""
    subjects = volumes.cohort.subjects
    yield from volumes.check([subject.id for subject in subjects], modalities)
    yield from volumes.check([subject.id for subject in subjects if subject.seg], modalities, segmentation=True)


def _card(volumes: Volumes, modalities: tuple[str, ...]) -> CohortCard:
    """The card of what was checked, with what was done to its files."""
    cohort = volumes.cohort
    wanted = [(subject.id, name) for subject in cohort.subjects for name in modalities if name in subject.files]
    scans = {(id, name): Scan(volumes.grid(id, name)) for id, name in wanted}
    done = volumes.notes([subject.id for subject in cohort.subjects], modalities, segmentation=True)
    return card_of(replace(cohort, notes=(*cohort.notes, *done)), scans)
