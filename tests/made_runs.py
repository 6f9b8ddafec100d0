"""Run folders without training: predictions drawn from numbers, everything else as a run writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench.csvtext import csv_text
from fusionbench.histories import Epoch
from fusionbench.predictions import Predictions
from fusionbench.report import Sources
from fusionbench.runs import Ranked, Result, Run, write_run

FIRST, SECOND = "t1ce", "t2"
TOML = """
modalities = ["t1ce", "t2"]
attention = "none"
fusion = ["guidance"]
[cohort]
reader = "table"
data = "/home/rosa/gliomas"
[backbone]
table = "mlp"
[protocol.ranking]
ranker = "nested"
[options.table]
labels = "/home/rosa/labels.csv"
"""


def made_run(
    name: str = "made",
    methods: Mapping[str, float] | None = None,
    *,
    repeats: int = 4,
    folds: int = 3,
    subjects: int = 60,
    classes: Sequence[str] = ("HGG", "LGG"),
    cohort: Mapping[str, Any] | None = None,
    told: Mapping[str, Mapping[str, Any]] | None = None,
) -> Run:
    """Methods by how far apart they put the classes; `told` replaces what run.json says of a method."""
    methods = methods or {"guidance": 3.0, "ensemble": 2.9, FIRST: 0.3}
    random = np.random.default_rng(0)
    ids = [f"s{n:03d}" for n in range(subjects)]
    label = {id: classes[n % len(classes)] for n, id in enumerate(ids)}
    noise = random.normal(size=(repeats, subjects, len(classes)))
    facts = _facts(name, methods, label, classes, repeats * folds) | {"name": name}
    facts["cohort"] |= dict(cohort or {})
    for method, changes in (told or {}).items():
        facts["methods"][method] |= dict(changes)
    results = []
    for number, (method, strength) in enumerate(methods.items()):
        if facts["methods"][method]["failed"]:
            results.append(Result(f"e-{method}", method, 0, 0, None, facts["methods"][method]["failed"]))
            continue
        own = np.random.default_rng(number + 1).normal(size=noise.shape) * 0.2
        for repeat in range(repeats):
            shuffled = np.random.default_rng(repeat).permutation(subjects)
            for fold in range(folds):
                test = sorted(ids[row] for row in shuffled[fold::folds])
                rows = [ids.index(id) for id in test]
                truth = np.array([[label[id] == c for c in classes] for id in test], dtype=float)
                logits = strength * truth + noise[repeat, rows] + own[repeat, rows]
                shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                said = Predictions(tuple(test), tuple(label[id] for id in test), tuple(classes), shares)
                results.append(Result(f"e-{method}", method, repeat, fold, said))
    return Run(name, facts, tuple(results), tuple(_ranking(repeats, folds)), tuple(_history(methods, repeats, folds)))


def write_made(run: Run, folder: Path) -> Path:
    """The folder of a run, as a command leaves it."""
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text(TOML)
    write_run(run, folder)
    return folder


def made_sources(tmp_path: Path, *args: Any, **kwargs: Any) -> Sources:
    """A made run, written and read again."""
    return Sources.read(write_made(made_run(*args, **kwargs), tmp_path / "made"))


def _facts(
    name: str, methods: Mapping[str, float], label: Mapping[str, str], classes: Sequence[str], folds: int
) -> dict[str, Any]:
    fits = {f"{method}-{fold}": _fit(method, fold) for method in methods for fold in range(folds)}
    return {
        "cohort": {
            "name": "gliomas", "synthetic": False, "subjects": len(label),
            "classes": {c: list(label.values()).count(c) for c in classes}, "positive_class": classes[-1],
            "fingerprint": "f" * 64, "notes": ["2 subjects left out: no label"], "groups": {},
            "modalities": [FIRST, SECOND], "inputs": [table(FIRST, 3), table(SECOND, 1)], "grids": [],
            "lacking": {},
        },
        "folds": {"count": folds, "digest": "d" * 64},
        "refit": False,
        "seeds": {"seed": 0, "fold_seed": 0},
        "methods": {method: _method(method, folds) for method in methods},
        "fits": fits,
        "left_out": {"agg": "takes image modalities"},
        "plugins": [
            {"kind": "fusion", "name": "guidance", "plugin": "guidance", "distribution": "fusionbench",
             "version": "0.1.0", "sha256": "a" * 64},
        ],
        "versions": {"python": "3.11.7", "fusionbench": "0.1.0", "torch": "2.15.0"},
        "machine": {"system": "Linux x86_64", "cores": 2, "device": "cpu", "python": "cpython"},
        "seconds": 12.5,
    }  # fmt: skip


def table(name: str, features: int) -> dict[str, Any]:
    """A modality as run.json tells it."""
    return {"name": name, "kind": "table", "channels": features, "columns": []}


def _method(method: str, folds: int) -> dict[str, Any]:
    alone = method in (FIRST, SECOND)
    return {
        "experiment": f"e-{method}", "fusion": "unimodal" if alone else method,
        "modalities": [method] if alone else [FIRST, SECOND], "attention": "none", "backbones": ["mlp"],
        "altered": [], "setup": {"strategy": "s" * 16, "shared": "t" * 16},
        "ranking": "", "ranked_by": "nested: mean roc_auc on inner folds of the training part",
        "saw_test_folds": False, "outlines": "none", "remarks": {}, "failed": "",
        "fits": [f"{method}-{fold}" for fold in range(folds)],
    }  # fmt: skip


def _fit(method: str, fold: int) -> dict[str, Any]:
    parents = [f"{FIRST}-{fold}"] if method == "guidance" else []
    return {
        "fusion": method, "modalities": [FIRST, SECOND], "parameters": 1000, "pretrained": {}, "seconds": 4.0,
        "predict_seconds": 1.0, "peak_memory_bytes": 2**20 * (100 + fold), "training_subjects": 40, "test_subjects": 20,
        "parents": parents,
    }  # fmt: skip


def _ranking(repeats: int, folds: int) -> list[Ranked]:
    lines = []
    for repeat in range(repeats):
        for fold in range(folds):
            first, second = (SECOND, FIRST) if (repeat, fold) == (0, 0) else (FIRST, SECOND)
            lines.append(Ranked("e-guidance", repeat, fold, 1, first, 0.8, (0.7, 0.9), (0.75, 0.25)))
            lines.append(Ranked("e-guidance", repeat, fold, 2, second, 0.6, (0.5, 0.7), (0.25, 0.75)))
    return lines


def _history(methods: Mapping[str, float], repeats: int, folds: int) -> list[Epoch]:
    return [
        Epoch(method, repeat, fold, "fit", epoch, 0.7 - 0.1 * epoch)
        for method in sorted(methods)
        for repeat in range(repeats)
        for fold in range(folds)
        for epoch in range(3)
    ]


def card(run: Run, **changes: Any) -> str:
    """card.json of the run's cohort."""
    facts = {"fingerprint": run.facts["cohort"]["fingerprint"], "classes": {"HGG": 30, "LGG": 30}}
    return json.dumps(facts | {"present": {FIRST: {"HGG": 30, "LGG": 29}}, "sites": {}, "images": []} | changes)


def predictions_csv(run: Run, folder: Path) -> Path:
    """Predictions made elsewhere, of every subject of the run."""
    positive = run.facts["cohort"]["positive_class"]
    labels = {
        id: label
        for r in run.results
        if r.predictions
        for id, label in zip(r.predictions.ids, r.predictions.labels, strict=True)
    }
    file = folder / "elsewhere.csv"
    file.write_text(
        csv_text(
            ["subject", f"p_{positive}"], [[id, 0.6 if label == positive else 0.4] for id, label in labels.items()]
        )
    )
    return file
