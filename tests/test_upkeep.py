"""Only what nothing reads any more is removed, unless runs to keep are named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import comparison

from fusionbench import Cohort, Leaderboard, Run, Store, Study, engine, open_study, plan, run
from fusionbench.atomic import _host
from fusionbench.engine import Outcome, prepare
from fusionbench.errors import StoreError, UsageError
from fusionbench.imaging.volumes import Volumes
from fusionbench.runs import begin_run, write_run
from fusionbench.store import FILES
from fusionbench.upkeep import Waste, cached, collect, waste

PROGRAM = Path(sys.executable).with_name("fusionbench")
KILLED = """
import os, pathlib, sys, fusionbench
with fusionbench.Store(pathlib.Path(sys.argv[1])).marked():
    os._exit(9)
"""


@pytest.fixture
def study(cohort: Cohort) -> Study:
    """Two methods on two folds, six fits."""
    return open_study(comparison(fusion=["ensemble"], baselines=[], modalities=["a", "b"]), cohort=cohort)


@pytest.fixture
def outcome(study: Study, store: Store) -> Outcome:
    return run(study, store)


def fits(store: Store) -> set[str]:
    return {folder.name for folder in store.root.glob("fits/??/*")}


def reasons(found: tuple[Waste, ...]) -> Counter[str]:
    return Counter(one.why for one in found)


def written(outcome: Outcome, folder: Path) -> Path:
    begin_run(outcome.study, folder)
    write_run(Run.of(outcome, folder.name), folder)
    return folder


def test_a_store_after_a_run_holds_no_waste_but_locks(outcome: Outcome, store: Store) -> None:
    before = fits(store)
    found, _ = collect(store)
    assert reasons(found) == {"checkpoints and locks of finished fits": len(before)}
    assert {one.path.suffix for one in found} == {".lock"}
    assert waste(store) == ()
    assert fits(store) == before == outcome.records.keys()


def test_what_the_dead_left_goes_and_what_the_living_write_stays(outcome: Outcome, store: Store) -> None:
    collect(store)
    done = next(iter(outcome.records))
    dead, alive = (f".x~{_host()}~{pid}~0123abcd.partial" for pid in (2**22 + 1, os.getpid()))
    (store.root / "volumes").mkdir()
    for name in (dead, alive):
        (store.folder(done).parent / name).mkdir()
        (store.folder(done).parent / name / "weights.safetensors").write_bytes(b"12345678")
        (store.root / "volumes" / name).write_bytes(b"1234")
    store.checkpoint(done).save({"epoch": 3})
    store.checkpoint("0" * 32).save({"epoch": 3})
    found = waste(store)
    assert reasons(found) == {"half-written by the dead": 2, "checkpoints and locks of finished fits": 1}
    size = store.checkpoint(done).newest.stat().st_size
    assert sum(one.size for one in found) == 8 + 4 + size
    assert collect(store) == (found, 8 + 4 + size)
    assert not store.checkpoint(done).newest.exists()
    assert store.checkpoint("0" * 32).load() == {"epoch": 3}
    assert (store.folder(done).parent / alive / "weights.safetensors").exists()
    assert (store.root / "volumes" / alive).exists()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_fit_goes(outcome: Outcome, store: Store, name: str) -> None:
    key = min(outcome.records)
    (store.folder(key) / name).unlink()
    assert reasons(waste(store))["damaged fits"] == 1
    collect(store)
    assert fits(store) == outcome.records.keys() - {key}


def test_a_run_to_keep_keeps_all_it_stands_on_and_nothing_else(
    outcome: Outcome, store: Store, cohort: Cohort, tmp_path: Path
) -> None:
    folder = written(outcome, tmp_path / "kept")
    table = Leaderboard.of(Run.of(outcome)).to_csv()
    other = open_study(comparison(fusion=["pixel"], baselines=[], modalities=["a", "b"]), cohort=cohort)
    run(other, store)
    store.checkpoint("0" * 32).save({"epoch": 3})
    mine = {job.key for job in plan(other).jobs}
    assert mine
    assert not any(one.path.name in mine for one in waste(store))
    found, _ = collect(store, [folder])
    assert {one.path.name for one in found if one.why == "fits of no kept run"} == mine
    assert fits(store) == outcome.records.keys()
    assert store.checkpoint("0" * 32).load() is None
    again = run(outcome.study, store)
    assert again.stored == outcome.records.keys()
    assert Leaderboard.of(Run.of(again)).to_csv() == table


def test_a_run_of_another_store_keeps_nothing_here(outcome: Outcome, store: Store, tmp_path: Path) -> None:
    folder = written(outcome, tmp_path / "kept")
    other = Store(tmp_path / "other").open()
    key = min(outcome.records)
    with pytest.raises(UsageError, match=r"6 of the 6 fits of .*kept are not in the store .*other: .* --store"):
        collect(other, [folder])
    shutil.copytree(store.folder(key), other.folder(key))
    with pytest.raises(UsageError, match=r"^5 of the 6 fits"):
        collect(other, [folder])
    assert fits(other) == {key}


def test_nothing_is_taken_from_under_a_run_at_work(
    outcome: Outcome, store: Store, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads, plans and is between fits, too; a lock on a fit alone says as much."""
    folder = written(outcome, tmp_path / "kept")
    refused: list[str] = []

    def gc(event: object) -> None:
        with pytest.raises(StoreError, match="a run is at work in "):
            collect(store, [folder])
        collect(store)
        refused.append(type(event).__name__)

    def reading(*asked: Any) -> Volumes:
        gc("reading")
        return prepare(*asked)

    monkeypatch.setattr(engine, "prepare", reading)
    other = open_study(comparison(fusion=["pixel"], baselines=[], modalities=["a", "b"]), cohort=cohort)
    run(other, store, listener=gc)
    assert {*refused} == {"str", "Planned", "Progress", "Finished"}
    with store.lock("f" * 32), pytest.raises(StoreError, match="a run is at work in "):
        waste(store, [folder])
    assert waste(store, [folder])


def test_no_run_begins_while_waste_is_removed(outcome: Outcome, store: Store) -> None:
    began = threading.Event()

    def begin() -> None:
        with store.marked():
            began.set()

    with store.alone(at_rest=True):
        beginning = threading.Thread(target=begin)
        beginning.start()
        assert not began.wait(0.3)
    beginning.join(10)
    assert began.is_set()


def test_the_mark_of_a_run_that_was_killed_goes_and_stops_nobody(
    outcome: Outcome, store: Store, tmp_path: Path
) -> None:
    folder = written(outcome, tmp_path / "kept")
    code = (
        "import os, sys, fusionbench, pathlib\nwith fusionbench.Store(pathlib.Path(sys.argv[1])).marked(): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, store.root], check=False)
    (mark,) = store.root.glob("working/mark-*")
    with store.marked() as alive:
        assert [one.path for one in waste(store) if one.why == "half-written by the dead"] == [mark]
    collect(store, [folder])
    assert not mark.exists()
    assert not (store.root / "working" / alive).exists()


def test_a_folder_that_is_no_run_or_no_store_is_refused(outcome: Outcome, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished run"):
        waste(store, [tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="there is no store at"):
        waste(Store(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_caches_are_counted_and_left(outcome: Outcome, store: Store) -> None:
    (store.root / "volumes").mkdir()
    (store.root / "volumes" / "a.npy").write_bytes(b"12345")
    assert cached(store) == 5
    collect(store)
    assert cached(store) == 5


def test_the_command_says_what_it_would_do_and_does_it(outcome: Outcome, store: Store, tmp_path: Path) -> None:
    shutil.rmtree(store.root / "working")
    (store.root / "working").mkdir()
    (store.folder(min(outcome.records)) / "job.json").unlink()

    def gc(*flags: str) -> str:
        asked = [PROGRAM, "store", "gc", "--store", store.root, *flags]
        return subprocess.run(asked, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert "damaged fits: 1, " in gc("--dry-run")
    assert "can go." in gc("--dry-run")
    assert "freed." in gc()
    assert gc() == "0 B freed.\n"
    (store.root / "volumes").mkdir(exist_ok=True)
    (store.root / "volumes" / "a.npy").write_bytes(b"12345")
    assert "Caches of volumes and features hold 5 B" in gc()
