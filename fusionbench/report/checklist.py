"""What a report of such a study has to state, and what the run knows: TRIPOD+AI, CLAIM 2024 and MI-CLAIM in short.

The items are told in our words and grouped by topic; the guidelines themselves have more, and are to be followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fusionbench.comparing import Findings
from fusionbench.experiment import Comparison
from fusionbench.report.document import Block, Cell, Paragraph, Table
from fusionbench.report.reproduce import commands
from fusionbench.report.scores import classes_line, readable
from fusionbench.report.sources import Sources
from fusionbench.report.summary import SAW_TEST

NOT_STATED = "not stated"
"""The run cannot know it: the authors have to say it."""


@dataclass(frozen=True)
class Item:
    """One thing to state."""

    topic: str
    asks: str
    answer: str = NOT_STATED

    @property
    def stated(self) -> bool:
        """Whether the run knew it."""
        return self.answer != NOT_STATED


def checklist(sources: Sources) -> Iterator[Block]:
    """The table, and how much of it is left to the authors."""
    items = checked(sources)
    left = sum(not item.stated for item in items)
    yield Paragraph(
        f"{len(items) - left} of {len(items)} items are filled in from the run; {left} say “{NOT_STATED}” and are the "
        "authors' to fill in. After TRIPOD+AI (BMJ 2024), CLAIM 2024 (Radiol. Artif. Intell.) and MI-CLAIM (Nat. Med. "
        "2020), in short and in our words; it replaces none of them."
    )
    rows = tuple((Cell(i.topic), Cell(i.asks), Cell(i.answer, strong=not i.stated)) for i in items)
    yield Table("checklist", "Reporting checklist.", ("Topic", "To be stated", "This run"), rows, left=3)


def checked(sources: Sources) -> list[Item]:
    """Every item, answered where the run can."""
    settings = sources.settings[0]
    return [
        *_study(),
        *_data(sources),
        *_partition(sources),
        *_models(sources, settings),
        *_results(sources),
        *_open(sources),
    ]


def _study() -> Iterable[Item]:
    yield Item("Study", "intended use, users, place in care")
    yield Item("Study", "hypotheses, registration, protocol")
    yield Item("Study", "ethical approval, consent")


def _data(sources: Sources) -> Iterable[Item]:
    cohort = sources.board.cohort
    source = "synthetic: no patients, no setting, no dates" if sources.synthetic else NOT_STATED
    lacking = cohort.get("lacking", {})
    missing = f"{len(lacking)} subjects lack a modality; setting missing = {sources.settings[0].missing}"
    yield Item("Data", "are they synthetic", "yes" if sources.synthetic else "not marked as such by their reader")
    yield Item("Data", "source, setting, dates, consecutive or not", source)
    yield Item("Data", "inclusion and exclusion criteria", source if sources.synthetic else NOT_STATED)
    yield Item(
        "Data", "what was excluded while reading, with reasons", "; ".join(cohort["notes"]) or "nothing was noted"
    )
    yield Item("Data", "subjects and classes", f"{cohort['subjects']} ({classes_line(cohort['classes'])})")
    yield Item("Data", "age, sex, scanners, sites, fairness between groups")
    yield Item("Data", "reference standard, annotators and their agreement")
    yield Item("Data", "positive class", cohort["positive_class"])
    yield Item("Data", "missing data", missing if lacking else "no subject lacks a modality")
    yield Item("Data", "identification of the data", f"SHA-256 {cohort['fingerprint']}")
    yield Item("Data", "sample size justified", _sample_size(sources))


def _sample_size(sources: Sources) -> str:
    findings = sources.board.findings
    notes = [note for note in findings.notes() if note.startswith("smallest")] if findings else []
    return f"not beforehand, as far as the run knows; {readable(notes[0])}" if notes else NOT_STATED


def _partition(sources: Sources) -> Iterable[Item]:
    settings, facts = sources.settings[0], sources.runs[0].facts
    protocol = settings.protocol
    by = "by site" if protocol.folds_by == "site" else "stratified by class"
    drawn = "an official split" if isinstance(protocol.folds, str) else f"{protocol.folds} folds {by}"
    saw = ", ".join(row.method for row in sources.board.rows if SAW_TEST in row.marks) or "nothing"
    order = readable(sources.board.ranked_by) or "nothing was ranked"
    yield Item("Partition", "how, at which level", f"{drawn}, repeats: {protocol.repeats}, patients kept together")
    yield Item("Partition", "hash of who is tested where", facts["folds"]["digest"])
    yield Item(
        "Partition", "what was chosen, and on which data",
        f"order of modalities: {order}; models: the last epoch, no early stopping; what saw test folds: {saw}; "
        f"settings of the recipe: {NOT_STATED}",
    )  # fmt: skip
    yield Item("Partition", "external test data", "none: internal cross-validation only")


def _models(sources: Sources, settings: Comparison) -> Iterable[Item]:
    recipe, facts = settings.recipe, sources.runs[0].facts
    machine = facts["machine"]
    methods = ", ".join(row.method for row in sources.board.rows)
    loaded = sorted(
        {text for run in sources.runs for fit in run.facts["fits"].values() for text in fit["pretrained"].values()}
    )
    images = any(kind == "image" for kind, _ in sources.inputs.values())
    voxels = " x ".join(map(str, settings.preprocessing.resize or ())) or "not resized"
    size = voxels if images else "features as given"
    yield Item("Models", "methods compared", methods)
    yield Item("Models", "preprocessing", f"{size}; every setting in experiment.toml, below")
    yield Item("Models", "initialisation", "; ".join(loaded) or "random, from the seed; no pretrained weights")
    yield Item(
        "Models", "training",
        f"Adam, {recipe.epochs} epochs, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"batch {recipe.batch_size}; stages and options in experiment.toml",
    )  # fmt: skip
    yield Item("Models", "class imbalance", f"class weights of the loss: {recipe.class_weights}")
    yield Item("Models", "seeds", ", ".join(f"{name} {seed}" for name, seed in facts["seeds"].items()))
    yield Item("Models", "hardware", f"{machine['system']}, {machine['cores']} cores, device {machine['device']}")
    yield Item("Models", "software and plugins with hashes", "listed under Reproduction")
    yield Item("Models", "training time, memory, parameters", "per method, in the table of cost")


def _no_test(findings: Findings | None) -> str:
    if findings is None or not findings.undefined:
        return "none: too few folds" if findings is None or findings.folds > 1 else "none: a single test part"
    return "none: the score is not defined on every test fold"


def _results(sources: Sources) -> Iterable[Item]:
    failed = [f"{row.method}: {row.failed}" for row in sources.board.rows if row.failed]
    findings = sources.board.findings
    decided = "corrected resampled t-test, Holm" if findings and not findings.untested else _no_test(findings)
    yield Item("Results", "thresholds", "0.5, set beforehand; with more than two classes the most probable")
    yield Item("Results", "metrics with their uncertainty", "per fold, mean, deviation, 95 % intervals")
    yield Item("Results", "statistical test of differences", decided)
    yield Item("Results", "calibration", "curves, Brier score, expected calibration error")
    yield Item("Results", "failures", "; ".join(failed) or "no method failed")
    yield Item("Results", "analysis of errors by subject or subgroup")
    yield Item("Results", "explanations of decisions, and whether they were checked")
    yield Item("Results", "limits, risks, clinical meaning")


def _open(sources: Sources) -> Iterable[Item]:
    yield Item("Openness", "commands to reproduce", " && ".join(commands(sources)))
    yield Item("Openness", "availability of data", "built in" if sources.synthetic else NOT_STATED)
    yield Item("Openness", "availability of code", "fusionbench and the listed plugins")
    yield Item("Openness", "funding, interests, patient involvement")
