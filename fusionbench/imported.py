"""Predictions made elsewhere, as one more method of a run: on the same folds, and marked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fusionbench.comparing import Place, Tested
from fusionbench.csvtext import number, strict_rows
from fusionbench.errors import UsageError, summary
from fusionbench.predictions import Predictions, as_table
from fusionbench.runs import Result, Run
from fusionbench.seeds import content_digest

SUM = 1e-3
"""How far from 1 the probabilities of a subject may add up, for they were rounded; they are then divided by it."""

Cell = tuple[str, str, str]
"""(repeat, fold, subject); empty where the file does not say."""


def with_imported(run: Run, name: str, path: Path) -> Run:
    """The run with the predictions of a CSV as the method `name`, on every fold of the run.

    Columns: `subject`, `p_<class>` for each class (of two classes one is enough), and `repeat` and `fold` where a
    subject was predicted by several models; without them one prediction stands for every repeat. Rows about subjects
    who are not tested there are left out, and noted; a method whose predictions stand in several repeats is marked.
    Raises UsageError in one line for a file that does not cover every test subject, or holds what is no probability.
    """
    check_free(run, name, path)
    classes: tuple[str, ...] = tuple(run.facts["cohort"]["classes"])
    said = _read(path, classes)
    tested = {(r.repeat, r.fold): r.predictions for r in run.results if r.predictions is not None}
    if not tested:
        raise UsageError(f"{run.name} tested nothing, so nothing can stand beside it")
    id = f"imported-{content_digest([name, sorted((cell, tuple(p)) for cell, p in said.items())])[:16]}"
    found = [
        Result(id, name, repeat, fold, _matched(predictions, (repeat, fold), said, path.name))
        for (repeat, fold), predictions in sorted(tested.items())
    ]
    told = {"remarks": _left_out(said, tested, path.name), "reused": _reused(said, tested)}
    methods = {**run.facts["methods"], name: _facts(id) | told}
    return replace(run, facts={**run.facts, "methods": methods}, results=(*run.results, *found))


def check_free(run: Run, name: str, path: Path) -> None:
    """UsageError if the run has a method of that name."""
    if name in run.facts["methods"]:
        raise UsageError(f"{path.name}: {run.name} has a method {name!r} already; import it under another name")


def _facts(id: str) -> dict[str, object]:
    """What run.json would say of such a method."""
    unknown: dict[str, object] = dict.fromkeys(("fusion", "attention", "ranking", "ranked_by", "failed"), "")
    empty: dict[str, object] = {name: [] for name in ("modalities", "backbones", "altered")}
    return {
        **unknown, **empty, "experiment": id, "imported": True, "saw_test_folds": False, "outlines": "none",
        "remarks": {}, "fits": [id],
    }  # fmt: skip


def _reused(said: Collection[Cell], tested: Tested) -> bool:
    """Whether what is said of a subject stands in several repeats, whose models then are not several."""
    repeats: dict[Cell | None, set[int]] = {}
    for (repeat, fold), part in tested.items():
        for id in part.ids:
            repeats.setdefault(_found((repeat, fold), id, said), set()).add(repeat)
    return any(len(several) > 1 for several in repeats.values())


def _left_out(said: Collection[Cell], tested: Tested, file: str) -> dict[str, str]:
    """A remark if some rows are about nobody who is tested there."""
    asked = {cell for place, part in tested.items() for id in part.ids for cell in _cells(place, id)}
    strangers = [subject for repeat, fold, subject in said if (repeat, fold, subject) not in asked]
    if not strangers:
        return {}
    return {"left_out": f"{len(strangers)} rows of {file} on whom no fold tests, such as {strangers[0]!r}"}


def _cells(place: Place, id: str) -> list[Cell]:
    """Where a file may say something of a subject in a fold, the most exact first."""
    repeat, fold = map(str, place)
    return [(repeat, fold, id), ("", fold, id), (repeat, "", id), ("", "", id)]


def _found(place: Place, id: str, said: Collection[Cell]) -> Cell | None:
    """The most exact of what is said of a subject in a fold."""
    return next((cell for cell in _cells(place, id) if cell in said), None)


def _read(path: Path, classes: Sequence[str]) -> dict[Cell, list[float]]:
    try:
        rows = strict_rows(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path.name} is not text in UTF-8: save it as CSV UTF-8") from None
    except ValueError as fault:
        raise UsageError(f"{path.name} {fault}") from None
    columns = list(rows[0][1]) if rows else []
    given = [name for name in classes if f"p_{name}" in columns]
    if "subject" not in columns or len(given) < len(classes) - (len(classes) == 2):
        wanted = ", ".join(f"p_{name}" for name in classes)
        raise UsageError(f"{path.name} needs the columns subject, {wanted}; it has {', '.join(columns) or 'none'}")
    said: dict[Cell, list[float]] = {}
    for line, row in rows:
        cell = (row.get("repeat", ""), row.get("fold", ""), row["subject"])
        if cell in said:
            raise UsageError(f"{path.name}, line {line}: {row['subject']!r} is predicted twice in the same fold")
        said[cell] = _probabilities([row[f"p_{name}"] for name in given], [n in given for n in classes], path, line)
    return said


def _probabilities(cells: Sequence[str], given: Sequence[bool], path: Path, line: int) -> list[float]:
    """One per class, which add up to 1."""
    try:
        known = [number(cell) for cell in cells]
    except ValueError:
        known = [math.nan]
    if not all(0 <= p <= 1 for p in known):
        raise UsageError(f"{path.name}, line {line}: {', '.join(map(repr, cells))} is no probability from 0 to 1")
    if not all(given):
        return [known[0] if there else 1 - known[0] for there in given]
    if abs(sum(known) - 1) > SUM:
        raise UsageError(f"{path.name}, line {line}: the probabilities add up to {sum(known):g}, not to 1")
    return [p / sum(known) for p in known]


def _matched(predictions: Predictions, place: Place, said: Mapping[Cell, list[float]], file: str) -> Predictions:
    """What the file says of the test subjects of a fold."""
    rows, lost = [], []
    for id in predictions.ids:
        cell = _found(place, id, said)
        if cell is None:
            lost.append(repr(id))
        else:
            rows.append(said[cell])
    if lost:
        raise UsageError(f"{file} says nothing of {summary(lost, ', ')} in repeat {place[0]}, fold {place[1]}")
    return replace(predictions, probabilities=as_table(rows, predictions.classes), notes=())
