"""The card of the models of a run: what they are for, what they were trained on, how well they do, what they cannot."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from fusionbench.errors import UsageError
from fusionbench.markdown import escaped, markdown_table
from fusionbench.report.cohort import facts
from fusionbench.report.document import NOT_STATED, Table, listed
from fusionbench.report.reliability import reliability_table
from fusionbench.report.scores import costs, further, performance
from fusionbench.report.sources import Sources
from fusionbench.report.summary import brief

UNSAID = f"{NOT_STATED} by the run; whoever hands the models on has to"


def model_card(sources: Sources) -> str:
    """Markdown, for one run; UsageError for several."""
    if len(sources.runs) > 1:
        names = ", ".join(run.name for run in sources.runs)
        raise UsageError(f"a card is of one run, not of {names}: write one for each")
    return "\n\n".join(_parts(sources)) + "\n"


def _parts(sources: Sources) -> Iterator[str]:
    run, settings = sources.runs[0], sources.settings[0]
    yield f"# Models of {escaped(run.name)}"
    yield "**Not for clinical use.** These models were made to compare methods; they were tested on no new patients."
    yield _points([f"{line.what}: {line.text}" for line in brief(sources)])
    yield "## Intended use"
    yield _points(
        [
            "research: comparing fusion strategies, and as baselines",
            f"out of scope: any decision about a patient. Clinical use: {UNSAID}",
        ]
    )
    yield "## Training data"
    yield markdown_table(["", ""], facts(sources))
    yield _points(sources.board.cohort["notes"])
    yield "## Training"
    yield _points(_training(sources))
    yield "## How well they do"
    yield escaped(f"Each fold has its own model, tested on subjects that it did not train on.{_not_models(sources)}")
    for table in (performance(sources), further(sources), reliability_table(sources), costs(sources)):
        yield escaped(table.caption)
        yield _table(table)
    yield "## Limits"
    yield _points(_limits(sources))
    yield "## How to predict"
    yield f"```bash\nfusionbench predict {shlex.quote(run.name)} --data NEW\n```"
    yield f"The fits stay in the store of fits; settings: `experiment.toml`, seed {settings.seed}."


def _not_models(sources: Sources) -> str:
    """What stands in the tables and is no model of this run."""
    if not sources.elsewhere:
        return ""
    return f" Not of {listed(sources.elsewhere)}: predictions made elsewhere, by models that are not these."


def _training(sources: Sources) -> list[str]:
    recipe, facts = sources.settings[0].recipe, sources.runs[0].facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"methods: {', '.join(sources.trained)}",
        f"Adam, {recipe.epochs} epochs, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"batch {recipe.batch_size}, class weights {recipe.class_weights}; last epoch, no early stopping",
        f"order of modalities: {sources.board.ranked_by or 'nothing was ranked'}",
        f"{facts['machine']['system']}, device {facts['machine']['device']}; {versions}",
    ]


def _limits(sources: Sources) -> list[str]:
    origin = ["trained on synthetic data: they know nothing of patients"] if sources.synthetic else []
    failed = [f"{row.method} failed: {row.failed}" for row in sources.board.rows if row.failed]
    return [
        *origin,
        "one cohort: other scanners, sites and populations were not tested",
        "probabilities are not recalibrated; see the calibration error",
        f"performance in subgroups (age, sex, site): {UNSAID}",
        *failed,
    ]


def _table(table: Table) -> str:
    rows = ([cell.whole for cell in row] for row in table.rows)
    return markdown_table(list(table.header), rows)


def _points(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(text)}" for text in texts)
