"""A run folder: what was asked, what came out, and what it was computed with, in files that stay as documented."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench.atomic import atomic_folder, sweep, writable_folder, write_text
from fusionbench.csvtext import csv_rows, csv_text, number
from fusionbench.errors import StoreError, UsageError
from fusionbench.experiment import Comparison, Experiment, difference, load_comparison
from fusionbench.fits import built
from fusionbench.folds import folds_digest, folds_rows
from fusionbench.histories import Epoch, epochs_of, history_csv, read_history
from fusionbench.jsontext import json_text
from fusionbench.methods import Method
from fusionbench.metrics import metric
from fusionbench.predictions import Predictions, as_table
from fusionbench.seeds import content_digest
from fusionbench.setups import setup_digests
from fusionbench.study import Study, open_study, used_components

if TYPE_CHECKING:
    from fusionbench.engine import Outcome
    from fusionbench.planning import Decision
    from fusionbench.ranking import Ranker
    from fusionbench.registry import Component

PACKAGES = ("fusionbench", "torch", "torchio", "numpy", "scikit-learn", "nibabel", "lightning-fabric")


@dataclass(frozen=True)
class Result:
    """What one method predicts on one fold, or why it does not."""

    experiment: str
    method: str
    repeat: int
    fold: int
    predictions: Predictions | None
    failed: str = ""


@dataclass(frozen=True)
class Ranked:
    """One line of ranking.csv: a modality's place in the order found for an experiment on a fold."""

    experiment: str
    repeat: int
    fold: int
    rank: int
    modality: str
    score: float
    inner_scores: tuple[float, ...]
    probabilities: tuple[float, ...] = ()
    """P(first), P(second), ... if the patients behind the ranking were drawn again; none without evidence."""


@dataclass(frozen=True)
class Run:
    """The tables of a run, as its folder holds them."""

    name: str
    facts: dict[str, Any]
    """run.json: cohort, methods, fits, versions, machine."""
    results: tuple[Result, ...]
    ranking: tuple[Ranked, ...]
    history: tuple[Epoch, ...] = ()
    """The losses of the fits that are tested."""

    @classmethod
    def of(cls, outcome: Outcome, name: str = "run", seconds: float = 0.0) -> Run:
        """The tables of what a run found out."""
        tables = (tuple(_results(outcome)), tuple(_ranking(outcome)), tuple(epochs_of(outcome)))
        return cls(name, _facts(outcome, seconds), *tables)


def run_name(study: Study) -> str:
    """A name for the run: its cohort, and a hash of everything else but its methods, which may be added to later."""
    settings = study.comparison.model_dump(
        mode="json", exclude={"fusion", "baselines", "variants", "options", "cohort"}
    )
    chosen = [built(component, study.comparison.options).content()["options"] for component in _shared(study)]
    return f"{slug(study.cohort.name)}-{content_digest([settings, chosen, study.cohort.fingerprint])[:8]}"


def _shared(study: Study) -> list[Component]:
    """The components that every method of a run shares: all but the strategies."""
    return [component for component in used_components(study) if component.kind not in ("fusion", "extractor")]


def slug(name: str) -> str:
    """A name as a file may have it.

    >>> slug("../my data=1")
    'my-data-1'
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-.")[:60] or "run"


def join_run(study: Study, folder: Path) -> Study:
    """The study with the methods that the folder has already, if it holds the same experiment otherwise.

    Raises StoreError with what differs if it holds another, and UsageError if it is no folder of ours.
    """
    toml = folder / "experiment.toml"
    if folder.exists() and not toml.is_file() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise UsageError(f"{folder} exists and is no run folder: choose another with --out")
    if not toml.is_file():
        return study
    before = load_comparison(toml)
    if changed := difference(_comparable(before, study.comparison), _comparable(study.comparison, before)):
        raise StoreError(f"{folder} holds another experiment ({changed}): choose another folder with --out")
    if (folder / "run.json").is_file() and read_facts(folder)["cohort"]["fingerprint"] != study.cohort.fingerprint:
        raise StoreError(f"{folder} was made from other data: choose another folder with --out")
    union = {
        "fusion": tuple(dict.fromkeys((*before.fusion, *study.comparison.fusion))),
        "baselines": tuple(dict.fromkeys((*before.baselines, *study.comparison.baselines))),
        "variants": before.variants | study.comparison.variants,
        "options": before.options | study.comparison.options,
    }
    extended = study.comparison.model_copy(update=union)
    if extended == study.comparison:
        return study
    joined = open_study(extended, registry=study.registry, cohort=study.cohort)
    return replace(joined, left_out=study.left_out, devices=study.devices)


def begin_run(study: Study, folder: Path) -> None:
    """Write what is asked: experiment.toml and folds.csv. StoreError if the folder cannot be written."""
    writable_folder(folder)
    sweep(folder)
    write_text(folder / "experiment.toml", study.comparison.to_toml())
    rows = [[r, f, s, study.cohort.subject(s).label] for r, f, s in folds_rows(study.folds)]
    write_text(folder / "folds.csv", csv_text(["repeat", "fold", "subject", "label"], rows))


def write_run(run: Run, folder: Path, tables: Mapping[str, str] | None = None) -> None:
    """Write what came out: predictions.csv, ranking.csv, history.csv, further tables by file name, run.json last."""
    write_text(folder / "predictions.csv", _predictions_csv(run))
    header = ["experiment", "repeat", "fold", "rank", "modality", "score", "inner_scores", "probabilities"]
    rows = [
        [r.experiment, r.repeat, r.fold, r.rank, r.modality, r.score]
        + [" ".join(map(repr, several)) for several in (r.inner_scores, r.probabilities)]
        for r in run.ranking
    ]
    write_text(folder / "ranking.csv", csv_text(header, rows))
    write_text(folder / "history.csv", history_csv(run.history))
    for name, text in (tables or {}).items():
        write_text(folder / name, text)
    write_text(folder / "run.json", json_text(run.facts, sort_keys=True))


def read_run(folder: Path) -> Run:
    """The tables of a finished run; UsageError if the folder holds none."""
    facts = read_facts(folder)
    if not (folder / "predictions.csv").is_file():
        raise UsageError(f"{folder} holds models and no results: `fusionbench predict {folder} --data NEW` uses them")
    epochs = folder / "history.csv"
    history = read_history(epochs.read_bytes().decode()) if epochs.is_file() else ()
    return Run(folder.name, facts, tuple(_read_results(folder, facts)), tuple(_read_ranking(folder)), history)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Several of them, each called by as much of the end of its path as no other has."""
    return [replace(read_run(f), name=name) for f, name in zip(folders, _told_apart(folders), strict=True)]


def _told_apart(folders: Sequence[Path]) -> Iterator[str]:
    paths = [folder.absolute() for folder in folders]
    for path in paths:
        others = [other.parts for other in paths if other != path]
        lengths = range(1, len(path.parts) + 1)
        enough = next(n for n in lengths if not any(parts[-n:] == path.parts[-n:] for parts in others))
        yield "/".join(path.parts[-enough:])


def read_facts(folder: Path) -> dict[str, Any]:
    """What run.json says; UsageError if the folder holds no finished run."""
    if not (folder / "run.json").is_file():
        raise UsageError(f"{folder} holds no finished run (no run.json): run `fusionbench run --out {folder}` first")
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError:
        raise UsageError(f"{folder / 'run.json'} is damaged: remove it and run the command again") from None
    return facts


def _comparable(comparison: Comparison, other: Comparison) -> str:
    """The configuration without what may differ between two parts of one run: its methods, and options of new ones."""
    shared = {name: values for name, values in comparison.options.items() if name in other.options}
    settings = tomllib.loads(comparison.to_toml())
    for name in ("fusion", "baselines", "variants"):
        settings.pop(name, None)
    settings["cohort"].pop("data", None)  # the same data may lie elsewhere; their fingerprint is compared
    return Comparison(**settings).model_copy(update={"options": shared}).to_toml()


def _results(outcome: Outcome) -> Iterable[Result]:
    fingerprint = outcome.study.cohort.fingerprint
    for row in outcome.plan.rows:
        failed = row.failed or outcome.failed.get(row.key, "")
        key, label, fold = row.experiment.key(fingerprint), row.experiment.label, row.fold
        yield Result(key, label, fold.repeat, fold.number, None if failed else outcome.known[row.key], failed)


def _ranking(outcome: Outcome) -> Iterable[Ranked]:
    fingerprint = outcome.study.cohort.fingerprint
    for decision in outcome.decisions:
        key, fold = decision.experiment.key(fingerprint), decision.fold
        evidence = {one.modality: one for one in decision.evidence}
        places = _places(decision, outcome.study)
        for rank, modality in enumerate(decision.order, 1):
            one = evidence[modality]
            score = one.mean if one.scores else float("nan")
            yield Ranked(key, fold.repeat, fold.number, rank, modality, score, one.scores, places.get(modality, ()))


def _places(decision: Decision, study: Study) -> dict[str, tuple[float, ...]]:
    """Modality -> how likely each place is, by the predictions that ranked it."""
    from fusionbench.comparing import rank_probabilities

    if not all(one.scores for one in decision.evidence):
        return {}
    said = {one.modality: one.parts for one in decision.evidence}
    groups = {subject.id: subject.group for subject in study.cohort.subjects}
    score = metric(decision.experiment.protocol.ranking.score)
    return rank_probabilities(said, score, study.cohort.positive_class, groups)


def _facts(outcome: Outcome, seconds: float) -> dict[str, Any]:
    study, cohort = outcome.study, outcome.study.cohort
    return {
        "cohort": {
            "name": cohort.name,
            "synthetic": cohort.synthetic,
            "subjects": len(cohort.subjects),
            "classes": cohort.counts(),
            "positive_class": cohort.positive_class,
            "fingerprint": cohort.fingerprint,
            "notes": [*cohort.notes, *outcome.file_notes],
            "groups": {s.id: s.group for s in cohort.subjects if s.group and s.group != s.id},
            "modalities": list(study.comparison.modalities),
            "inputs": [asdict(modality) for modality in cohort.modalities],
            "grids": _grids(outcome),
            "lacking": {s.id: list(lacks) for s in cohort.subjects if (lacks := s.lacks(study.comparison.modalities))},
        },
        "folds": {"count": len(study.folds), "digest": folds_digest(study.folds), "sites": _sites(study)},
        "refit": study.comparison.protocol.refit,
        "seeds": {"seed": study.comparison.seed, "fold_seed": study.comparison.protocol.fold_seed},
        "methods": {e.label: _method_facts(study, e, outcome) for e in study.experiments},
        "fits": {key: _fit_facts(record) for key, record in sorted(outcome.records.items())},
        "left_out": dict(study.left_out),
        "plugins": [_component_facts(c) for c in used_components(study)],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "device": study.comparison.recipe.device,
            "python": sys.implementation.name,
        },
        "seconds": round(seconds, 1),
    }


def _sites(study: Study) -> dict[str, str]:
    """Number of a fold -> the site that is tested in it, where each fold is a site."""
    if study.comparison.protocol.folds_by != "site":
        return {}
    return {str(fold.number): study.cohort.subject(fold.split.test[0]).site for fold in study.folds if fold.split.test}


def _grids(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct grids of preprocessed images, (D, H, W), their spacing to a hundredth of a millimetre."""
    rounded = {(grid.size, tuple(round(mm, 2) for mm in grid.spacing)) for grid in outcome.grids}
    return [{"size": list(size), "spacing": list(spacing)} for size, spacing in sorted(rounded)]


def _component_facts(component: Component) -> dict[str, str]:
    names = ("kind", "name", "plugin", "distribution", "version")
    return {name: getattr(component, name) for name in names} | {"sha256": component.source}


def _method_facts(study: Study, experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    method = Method(experiment, study.cohort, study.registry)
    strategy: Any = study.registry.get("fusion", experiment.fusion).cls
    ranker: Any = study.registry.get("ranker", experiment.protocol.ranking.ranker).cls
    ranked = strategy.uses_order and len(experiment.modalities) > 1
    failures = {
        row.failed or outcome.failed[row.key]
        for row in outcome.plan.rows
        if row.experiment == experiment and (row.failed or row.key in outcome.failed)
    }
    return {
        "experiment": experiment.key(study.cohort.fingerprint),
        "fusion": experiment.fusion,
        "modalities": list(experiment.modalities),
        "attention": experiment.attention if strategy.uses_parts else "",
        "backbones": sorted({backbone.name for backbone in method.backbones.values()}),
        "altered": _altered(method),
        "setup": setup_digests(method),
        "ranking": ranker.name if ranked else "",
        "ranked_by": _ranked_by(experiment, ranker) if ranked else "",
        "saw_test_folds": bool(ranked and ranker.saw_test) or _primary_saw_test(experiment, strategy, study),
        "outlines": method.needs.outlines,
        "remarks": _remarks(experiment, outcome),
        "fits": [row.key for row in outcome.plan.rows if row.experiment == experiment],
        "failed": sorted(failures)[0] if failures else "",
    }


def _altered(method: Method) -> list[str]:
    """The options of its strategy that are not at their default."""
    chosen, default = method.strategy.chosen(method.experiment.options), method.strategy.chosen({})
    return sorted(name for name, value in chosen.items() if value != default[name])


def _primary_saw_test(experiment: Experiment, strategy: Any, study: Study) -> bool:
    """The primary came first most often over all folds, so their test subjects had a say in it, and it counts here."""
    counts = strategy.uses_order or set(experiment.modalities) != set(study.comparison.modalities)
    ranking = experiment.protocol.ranking
    return bool(counts and ranking.primary) and ranking.primary_is == "most-frequent"


def _ranked_by(experiment: Experiment, ranker: type[Ranker]) -> str:
    whose = "the test folds" if ranker.saw_test else "inner folds of the training part"
    ranking = experiment.protocol.ranking
    first = f"; primary {ranking.primary} {ranking.primary_is.replace('-', ' ')}" if ranking.primary else ""
    return f"{ranker.name}: mean {ranking.score} on {whose}{first}"


def _remarks(experiment: Experiment, outcome: Outcome) -> dict[str, str]:
    """Column of a strategy's notes -> what they come to: a mean of numbers, or how many subjects have one."""
    keys = [row.key for row in outcome.plan.rows if row.experiment == experiment and row.key in outcome.known]
    notes = [note for key in keys for note in outcome.known[key].notes]
    columns = sorted({column for note in notes for column, remark in note.items() if remark})
    return {column: _summed_up([note.get(column, "") for note in notes]) for column in columns}


def _summed_up(remarks: list[str]) -> str:
    """
    >>> _summed_up(["0.5", "1.0", ""]), _summed_up(["yes", "", ""])
    ('mean 0.750 over 2 predictions', 'yes for 1 of 3 predictions')
    """
    given = [remark for remark in remarks if remark]
    try:
        numbers = [float(remark) for remark in given]
    except ValueError:
        counted = Counter(given)
        return ", ".join(f"{word} for {times} of {len(remarks)} predictions" for word, times in counted.most_common(3))
    return f"mean {statistics.fmean(numbers):.3f} over {len(numbers)} predictions"


def _fit_facts(record: Any) -> dict[str, Any]:
    names = ("parameters", "pretrained", "seconds", "predict_seconds", "peak_memory_bytes")
    return {name: record[name] for name in names} | {
        "fusion": record["fit"]["fusion"]["name"],
        "modalities": [modality["name"] for modality in record["fit"]["modalities"]],
        "training_subjects": len(record["fit"]["split"]["training"]),
        "test_subjects": len(record["fit"]["split"]["test"]),
        "parents": [key for parent in record["fit"]["parents"] for key in parent["keys"]],
    }


def _predictions_csv(run: Run) -> str:
    classes = list(run.facts["cohort"]["classes"])
    header = ["experiment", "method", "repeat", "fold", "subject", "label", *(f"p_{c}" for c in classes), "notes"]
    rows = []
    for result in run.results:
        for index, subject in enumerate(result.predictions.ids if result.predictions else ()):
            assert result.predictions is not None
            p = result.predictions
            notes = "; ".join(f"{k}={v}" for k, v in sorted(p.notes[index].items())) if p.notes else ""
            where = [result.experiment, result.method, result.repeat, result.fold]
            rows.append([*where, subject, p.labels[index], *p.probabilities[index].tolist(), notes])
    rows.sort(key=lambda row: [str(cell) for cell in row[1:5]])
    return csv_text(header, rows)


def _read_results(folder: Path, facts: dict[str, Any]) -> Iterable[Result]:
    classes = tuple(facts["cohort"]["classes"])
    groups: dict[tuple[str, str, int, int], list[dict[str, str]]] = {}
    for row in csv_rows((folder / "predictions.csv").read_bytes().decode()):
        where = (row["experiment"], row["method"], int(row["repeat"]), int(row["fold"]))
        groups.setdefault(where, []).append(row)
    for where, several in groups.items():
        probabilities = as_table([[float(row[f"p_{name}"]) for name in classes] for row in several], classes)
        ids, labels = (tuple(row[column] for row in several) for column in ("subject", "label"))
        yield Result(*where, Predictions(ids, labels, classes, probabilities))
    for method, told in facts["methods"].items():
        if told["failed"]:
            yield Result(told["experiment"], method, 0, 0, None, told["failed"])


def _read_ranking(folder: Path) -> Iterable[Ranked]:
    for row in csv_rows((folder / "ranking.csv").read_bytes().decode()):
        scores, places = (tuple(map(float, row[name].split())) for name in ("inner_scores", "probabilities"))
        where = (row["experiment"], int(row["repeat"]), int(row["fold"]))
        yield Ranked(*where, int(row["rank"]), row["modality"], number(row["score"]), scores, places)


def write_export(folder: Path, texts: Mapping[str, str], copies: Mapping[str, Path]) -> None:
    """Write the files of an exported run, by their place in it, whole or not at all; UsageError if one is there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists: choose another folder with --out")
    with atomic_folder(folder) as partial:
        for name, text in texts.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8", newline="")
        for name, source in copies.items():
            shutil.copyfile(source, partial / name)
