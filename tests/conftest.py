"""Small real objects that several tests stand on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fusionbench import Cohort, Comparison, Modality, Store, Study, Subject, load_comparison, open_study

os.environ.setdefault("OMP_NUM_THREADS", "1")


def table_cohort(subjects: int = 36, features: int = 4, seed: int = 0, informative: float = 1.5) -> Cohort:
    """Three tables, of which `a` says most about the label, `b` less and `c` nothing."""
    random = np.random.default_rng(seed)
    labels = [("LGG", "HGG")[n % 3 > 0] for n in range(subjects)]
    signal = np.array([label == "LGG" for label in labels]) * 1.0
    strength = {"a": informative, "b": informative / 2, "c": 0.0}
    tables = {
        name: random.normal(size=(subjects, features)) + weight * signal[:, None] for name, weight in strength.items()
    }
    return Cohort(
        name="toys",
        classes=("HGG", "LGG"),
        positive_class="LGG",
        modalities=tuple(Modality(name, "table", features) for name in tables),
        subjects=tuple(
            Subject(f"s{n:02d}", label, features={name: tuple(table[n]) for name, table in tables.items()})
            for n, label in enumerate(labels)
        ),
    )


def write_tables(folder: Path, cohort: Cohort) -> Path:
    """A cohort of tables as a folder that the table reader takes: a CSV per modality, and labels.csv."""
    folder.mkdir()
    for modality in cohort.modalities:
        lines = ["subject," + ",".join(f"f{n}" for n in range(modality.channels))]
        lines += [",".join([s.id, *map(str, s.features[modality.name])]) for s in cohort.subjects]
        (folder / f"{modality.name}.csv").write_text("\n".join(lines))
    (folder / "labels.csv").write_text("\n".join(["subject,label", *(f"{s.id},{s.label}" for s in cohort.subjects)]))
    return folder


def comparison(**changes: object) -> Comparison:
    """A quick comparison on tables: guidance with its baselines, two folds."""
    quick = {
        "fusion": ["guidance"],
        "baselines": ["unimodal", "ensemble"],
        "protocol": {"folds": 2, "inner_folds": 2},
        "recipe": {"epochs": 3, "batch_size": 8},
        "options": {"mlp": {"width": 8}},
    }
    return load_comparison("table", quick, changes)


@pytest.fixture
def cohort() -> Cohort:
    return table_cohort()


@pytest.fixture
def study(cohort: Cohort) -> Study:
    return open_study(comparison(), cohort=cohort)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's data home."""
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path_factory.getbasetemp() / "home"))
