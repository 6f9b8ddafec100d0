"""What a report of such a study has to state, and what the run knows: TRIPOD+AI, CLAIM 2024 and MI-CLAIM in short.

The items are told in our words and grouped by topic; the guidelines themselves have more, and are to be followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fusionbench.comparing import Findings
from fusionbench.experiment import Comparison
from fusionbench.report.document import NOT_STATED, Block, Cell, Paragraph, Table, listed
from fusionbench.report.reproduce import commands
from fusionbench.report.scores import classes_line, readable
from fusionbench.report.sources import Sources
from fusionbench.report.summary import saw_test
from fusionbench.runs import Run


@dataclass(frozen=True)
class Item:
    """One thing to state."""

    topic: str
    asks: str
    answer: str = NOT_STATED
    left: str = ""
    """What the answer leaves open, for the authors to say."""

    @property
    def known(self) -> bool:
        """Whether the run knew anything of it."""
        return self.answer != NOT_STATED

    @property
    def stated(self) -> bool:
        """Whether nothing of it is left to the authors."""
        return self.known and not self.left

    @property
    def cell(self) -> Cell:
        """The answer, below it what it leaves open; only what nothing is known of stands out."""
        return Cell(self.answer, note=f"{self.left}: {NOT_STATED}" if self.left else "", strong=not self.known)


def checklist(sources: Sources) -> Iterator[Block]:
    """The table, and how much of it is left to the authors."""
    items = checked(sources)
    full, none = sum(item.stated for item in items), sum(not item.known for item in items)
    yield Paragraph(
        f"Of {len(items)} items {full} are filled in from the run and {len(items) - full - none} in part; {none} say "
        f"“{NOT_STATED}” and nothing else. What is not stated is the authors' to fill in. After TRIPOD+AI (BMJ 2024), "
        "CLAIM 2024 (Radiol. Artif. Intell.) and MI-CLAIM (Nat. Med. 2020), in short and in our words; it replaces "
        "none of them."
    )
    rows = tuple((Cell(i.topic), Cell(i.asks), i.cell) for i in items)
    yield Table("checklist", "Reporting checklist.", ("Topic", "To be stated", "This run"), rows, left=3)


def checked(sources: Sources) -> list[Item]:
    """Every item, answered where the run can; of several runs each where they differ."""
    return [
        *_study(),
        *_data(sources),
        *_partition(sources),
        *_models(sources),
        *_results(sources),
        *_open(sources),
    ]


def _study() -> Iterable[Item]:
    yield Item("Study", "intended use, users, place in care")
    yield Item("Study", "hypotheses, registration, protocol")
    yield Item("Study", "ethical approval, consent")


def _data(sources: Sources) -> Iterable[Item]:
    cohort = sources.board.cohort
    source = "made by equations: no patients, no setting, no dates" if sources.made_up else NOT_STATED
    lacking = cohort.get("lacking", {})
    handled = sources.each(lambda run, settings: f"setting missing = {settings.missing}")
    missing = f"{len(lacking)} subjects lack a modality; {handled}"
    yield Item("Data", "are they synthetic", "yes" if sources.synthetic else "not marked as such by their reader")
    yield Item("Data", "source, setting, dates, consecutive or not", source)
    yield Item("Data", "inclusion and exclusion criteria", source)
    yield Item(
        "Data", "what was excluded while reading, with reasons", "; ".join(cohort["notes"]) or "nothing was noted"
    )
    yield Item("Data", "subjects and classes", f"{cohort['subjects']} ({classes_line(cohort['classes'])})")
    yield Item("Data", "age, sex, scanners, sites, fairness between groups")
    yield Item("Data", "reference standard, annotators and their agreement")
    yield Item("Data", "positive class", cohort["positive_class"])
    yield Item("Data", "missing data", missing if lacking else "no subject lacks a modality")
    yield Item("Data", "identification of the data", f"SHA-256 {cohort['fingerprint']}")
    yield _sample_size(sources)


def _sample_size(sources: Sources) -> Item:
    findings = sources.board.findings
    notes = [note for note in findings.notes() if note.startswith("smallest")] if findings else []
    left = "whether it was justified beforehand" if notes else ""
    return Item("Data", "sample size justified", readable(notes[0]) if notes else NOT_STATED, left)


def _partition(sources: Sources) -> Iterable[Item]:
    saw = listed(saw_test(sources)) or "nothing"
    order = readable(sources.board.ranked_by) or "nothing was ranked"
    yield Item("Partition", "how, at which level", sources.each(_drawn))
    yield Item("Partition", "hash of who is tested where", sources.runs[0].facts["folds"]["digest"])
    yield Item(
        "Partition", "what was chosen, and on which data",
        f"order of modalities: {order}; models: the last epoch, no early stopping; what saw test folds: {saw}",
        left=f"how the settings of the recipe were chosen{_and_elsewhere(sources)}",
    )  # fmt: skip
    yield Item("Partition", "external test data", "none: internal cross-validation only")


def _drawn(run: Run, settings: Comparison) -> str:
    protocol = settings.protocol
    by = "by site" if protocol.folds_by == "site" else "stratified by class"
    drawn = "an official split" if isinstance(protocol.folds, str) else f"{protocol.folds} folds {by}"
    return f"{drawn}, repeats: {protocol.repeats}, patients kept together"


def _models(sources: Sources) -> Iterable[Item]:
    images = any(kind == "image" for kind, _ in sources.inputs.values())
    theirs = _of_elsewhere(sources)
    methods = ", ".join(sources.trained) or "none"
    made = f"; made elsewhere: {', '.join(sources.elsewhere)}" if sources.elsewhere else ""
    size = sources.each(_voxels) if images else "features as given"
    how = f"how {listed(sources.elsewhere)} came about" if theirs else ""
    yield Item("Models", "methods compared", f"{methods}{made}", how)
    yield Item("Models", "preprocessing", f"{size}; every setting in experiment.toml, below", theirs)
    yield Item("Models", "initialisation", sources.each(_loaded), theirs)
    yield Item("Models", "training", sources.each(_trained), theirs)
    yield Item("Models", "class imbalance", sources.each(_class_weights), theirs)
    yield Item("Models", "seeds", sources.each(_seeds), theirs)
    yield Item("Models", "hardware", sources.each(_machine), theirs)
    yield Item("Models", "software and plugins with hashes", "listed under Reproduction", theirs)
    yield Item("Models", "training time, memory, parameters", "per method, in the table of cost", theirs)


def _of_elsewhere(sources: Sources) -> str:
    """What is left to say of predictions that no run made."""
    return f"of {listed(sources.elsewhere)}, made elsewhere" if sources.elsewhere else ""


def _and_elsewhere(sources: Sources) -> str:
    return f", and all of {listed(sources.elsewhere)}, made elsewhere" if sources.elsewhere else ""


def _voxels(run: Run, settings: Comparison) -> str:
    return " x ".join(map(str, settings.preprocessing.resize or ())) or "not resized"


def _loaded(run: Run, settings: Comparison) -> str:
    loaded = sorted({text for fit in run.facts["fits"].values() for text in fit["pretrained"].values()})
    return "; ".join(loaded) or "random, from the seed; no pretrained weights"


def _trained(run: Run, settings: Comparison) -> str:
    recipe = settings.recipe
    return (
        f"Adam, {recipe.epochs} epochs, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"batch {recipe.batch_size}; stages and options in experiment.toml"
    )


def _class_weights(run: Run, settings: Comparison) -> str:
    return f"class weights of the loss: {settings.recipe.class_weights}"


def _seeds(run: Run, settings: Comparison) -> str:
    seeds = run.facts["seeds"]
    return f"seed {seeds['seed']}, fold_seed {seeds['fold_seed']}"


def _machine(run: Run, settings: Comparison) -> str:
    machine = run.facts["machine"]
    return f"{machine['system']}, {machine['cores']} cores, device {machine['device']}"


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
    yield Item("Results", "calibration", "curves, intercept, slope, Brier score and its parts, calibration error")
    yield Item("Results", "failures", "; ".join(failed) or "no method failed")
    yield Item("Results", "analysis of errors by subject or subgroup")
    yield Item("Results", "explanations of decisions, and whether they were checked")
    yield Item("Results", "limits, risks, clinical meaning")


def _open(sources: Sources) -> Iterable[Item]:
    theirs = _of_elsewhere(sources)
    yield Item("Openness", "commands to reproduce", " && ".join(commands(sources)), theirs)
    yield Item("Openness", "availability of data", "built in" if sources.made_up else NOT_STATED)
    yield Item("Openness", "availability of code", "fusionbench and the listed plugins", theirs)
    yield Item("Openness", "funding, interests, patient involvement")
