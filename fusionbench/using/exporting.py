"""What is handed on of a trained run: the models and what they need, and nothing of whom they were trained on."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fusionbench.csvtext import csv_rows, csv_text
from fusionbench.fits import Fit
from fusionbench.jsontext import json_text
from fusionbench.places import without_places
from fusionbench.runs import write_export
from fusionbench.using.inference import TrainedRun

TOLD_OF_COHORT = ("name", "synthetic", "subjects", "classes", "positive_class", "modalities", "inputs", "grids")
"""What an export says of the cohort: counts, and no subject."""
TOLD_OF_METHOD = (
    "experiment", "fusion", "modalities", "attention", "backbones", "altered", "ranking", "ranked_by",
    "saw_test_folds", "outlines", "fits", "failed",
)  # fmt: skip
TOLD_OF_RUN = ("seeds", "refit", "plugins", "versions", "machine")


@dataclass(frozen=True)
class Export:
    """The files of an exported run: texts, and weights to copy, by their place in the folder."""

    texts: Mapping[str, str]
    copies: Mapping[str, Path]

    @classmethod
    def of(cls, run: TrainedRun, methods: Sequence[str] = (), leaderboard: str = "") -> Export:
        """What `predict` needs for these methods, or for all that did not fail, and their rows of leaderboard.csv.

        No id, label or digest of a subject, and no absolute path.
        """
        chosen = run.methods(methods)
        fits = {key: fit for method in chosen for key, fit in run.members(method).items()}
        texts = {
            "experiment.toml": _settings(run),
            "run.json": json_text(_facts(run, chosen, fits), sort_keys=True),
            **({"leaderboard.csv": _rows(leaderboard, chosen)} if leaderboard else {}),
        }
        copies = {}
        for key, fit in fits.items():
            place, source = f"fits/{key[:2]}/{key}", run.store.folder(key)
            texts[f"{place}/job.json"] = json_text(_record(run, key, fit), sort_keys=True)
            copies[f"{place}/weights.safetensors"] = source / "weights.safetensors"
        return cls(texts, copies)


def export_run(folder: Path, run: TrainedRun, out: Path, methods: Sequence[str] = ()) -> Export:
    """Write what is handed on of the run in `folder` into a new folder; UsageError if something is there."""
    board = folder / "leaderboard.csv"
    export = Export.of(run, methods, board.read_text(encoding="utf-8") if board.is_file() else "")
    write_export(out, export.texts, export.copies)
    return export


def _settings(run: TrainedRun) -> str:
    settings = tomllib.loads(run.comparison.to_toml())
    settings["cohort"].pop("data", None)
    return tomli_w.dumps(without_places(settings))


def _facts(run: TrainedRun, methods: Sequence[str], fits: Mapping[str, Fit]) -> dict[str, Any]:
    cohort = {name: run.facts["cohort"][name] for name in TOLD_OF_COHORT}
    told = {method: {n: run.facts["methods"][method][n] for n in TOLD_OF_METHOD} for method in methods}
    return {
        **{name: run.facts[name] for name in TOLD_OF_RUN},
        "cohort": {**cohort, "notes": [], "lacking": {}, "fingerprint": ""},
        "folds": {"count": run.facts["folds"]["count"], "digest": ""},
        "methods": {method: {**one, "remarks": {}} for method, one in told.items()},
        "fits": {key: run.facts["fits"][key] for key in fits},
        "left_out": {},
        "exported": True,
    }


def _record(run: TrainedRun, key: str, fit: Fit) -> dict[str, Any]:
    """job.json without its subjects, with the seed that came of them."""
    record = run.store.record(key)
    nobody = {"split": {"training": [], "test": []}, "labels": {}, "digests": {}, "absent": {}, "parents": []}
    return {
        "key": key,
        "fit": without_places({**record["fit"], **nobody}),
        "detached": {"trained_seed": fit.base_seed, "told_presence": fit.masks, "never_seen": fit.unseen},
        "pretrained": record["pretrained"],
        "parameters": record["parameters"],
    }


def _rows(table: str, methods: Sequence[str]) -> str:
    """The rows of these methods in a leaderboard.csv, without reasons of failure."""
    rows = [row for row in csv_rows(table) if row["method"] in methods]
    return csv_text(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
