"""What is written is whole, and what is done stays done."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionbench import Predictions, Store
from fusionbench.atomic import atomic_file, atomic_folder, sweep, writable_folder
from fusionbench.errors import StoreError

PREDICTIONS = Predictions(("a", "b"), ("x", "y"), ("x", "y"), np.array([[0.1, 0.9], [1 / 3, 2 / 3]]))


def test_a_saved_fit_reads_back_exactly(store: Store) -> None:
    weights = {"w": torch.randn(3, 4)[:, ::2], "n": torch.tensor(7)}
    assert not store.has("k" * 32)
    store.save("k" * 32, weights, PREDICTIONS, [{"stage": "fit", "epoch": 0, "loss": 0.1}], {"seconds": 1.0})
    assert store.has("k" * 32)
    again = store.weights("k" * 32)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    read = store.predictions("k" * 32, ("x", "y"))
    assert read.ids == PREDICTIONS.ids
    assert np.array_equal(read.probabilities, PREDICTIONS.probabilities)
    assert store.record("k" * 32) == {"seconds": 1.0}
    assert (store.folder("k" * 32) / "history.csv").read_text() == "stage,epoch,loss\nfit,0,0.1\n"


def test_a_torn_checkpoint_falls_back_to_the_one_before(store: Store) -> None:
    checkpoint = store.checkpoint("k")
    assert checkpoint.load() is None
    for epoch in range(3):
        checkpoint.save({"epoch": epoch, "model": {"w": torch.full((50,), float(epoch))}})
    assert checkpoint.load()["epoch"] == 2
    content = checkpoint.newest.read_bytes()
    for torn in (content[: len(content) // 2], b"", b"garbage"):
        checkpoint.newest.write_bytes(torn)
        assert checkpoint.load()["epoch"] == 1
    checkpoint.drop()
    assert checkpoint.load() is None


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    for writer in (_fail_in_a_file, _fail_in_a_folder):
        with pytest.raises(ZeroDivisionError):
            writer(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _fail_in_a_file(path: Path) -> None:
    with atomic_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError


def _fail_in_a_folder(path: Path) -> None:
    with atomic_folder(path.with_name("folder")) as partial:
        (partial / "half").touch()
        raise ZeroDivisionError


def test_the_first_of_two_writers_of_a_folder_wins(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "x") as late:
        (late / "late").touch()
        with atomic_folder(tmp_path / "x") as early:
            (early / "early").touch()
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["early"]


def test_what_dead_processes_left_is_swept_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fusionbench.atomic import atomic_file, atomic_folder\n"
        "with atomic_file(Path(sys.argv[1]) / 'f') as p, atomic_folder(Path(sys.argv[1]) / 'd'):\n"
        "    p.touch(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_file(tmp_path / "mine") as partial:
        partial.touch()
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [partial]


def test_an_unwritable_place_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        writable_folder(tmp_path / "file" / "below")


def _hold(root: Path, ready: str) -> None:
    with Store(root).lock("key"):
        Path(ready).touch()
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_free_at_once(store: Store, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(store.root, str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.05)
    holder.kill()
    holder.join()
    with store.lock("key"):
        assert (store.root / "working" / "key.lock").read_text().split()[-1] == str(os.getpid())
