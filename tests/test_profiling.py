"""A stopwatch gives every second to one part, and a run says where its time went without changing anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import table_cohort, write_tables

from fusionbench import Leaderboard, Run, Store, Study, run
from fusionbench.engine import Outcome
from fusionbench.profiling import ALL, Profile
from fusionbench.stopwatch import BESIDE, OTHER, PARTS, Stopwatch, unwatched

PROGRAM = Path(sys.executable).with_name("fusionbench")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_belongs_to_one_part_and_the_innermost_has_it() -> None:
    clock = Clock()
    watch = Stopwatch(now=clock)
    clock.now += 1
    for _ in range(2):
        with watch("forward"):
            clock.now += 2
            with watch("augment"):
                clock.now += 4
            clock.now += 8
    clock.now += 16
    assert watch.stop() == {OTHER: 17, "forward": 20, "augment": 8}
    assert sum(watch.stop().values()) == clock.now - 100


def test_what_is_done_beside_is_taken_from_no_part() -> None:
    clock = Clock()
    watch = Stopwatch(now=clock)
    with ThreadPoolExecutor(1) as thread, watch("forward"):
        clock.now += 1
        reading = watch("read")
        thread.submit(reading.__enter__).result()
        clock.now += 2
        with watch("backward"):
            clock.now += 4
            thread.submit(reading.__exit__, None, None, None).result()
            clock.now += 8
    assert watch.stop() == {OTHER: 0, "forward": 3, "backward": 12, "read": 6}


def failing(clock: Clock) -> float:
    clock.now += 1
    return 1 / 0


def test_a_part_that_raises_ends_all_the_same() -> None:
    clock = Clock()
    watch = Stopwatch(now=clock)
    for part in ("wait", "read"):
        with pytest.raises(ZeroDivisionError), watch(part):
            failing(clock)
    clock.now += 2
    assert watch.stop() == {OTHER: 3, "wait": 1, "read": 1}


def test_the_device_is_waited_for_before_the_clock_is_read() -> None:
    clock = Clock()

    def settle() -> None:
        clock.now += 1

    watch = Stopwatch(settle, clock)
    with watch("forward"):
        pass
    assert watch.seconds["forward"] == 1


@pytest.fixture
def watched(study: Study, store: Store) -> Outcome:
    return run(study, store, profile=True)


def test_the_parts_of_a_fit_add_up_to_its_time(watched: Outcome) -> None:
    assert watched.records
    for record in watched.records.values():
        parts = record["profile"]
        assert set(parts) <= {*PARTS, *BESIDE}
        assert sum(parts.get(part, 0) for part in PARTS) == pytest.approx(record["seconds"], abs=0.02)
    trained = [r["profile"] for r in watched.records.values() if r["fit"]["fusion"]["name"] == "guidance"]
    assert trained
    assert all(parts[part] > 0 for parts in trained for part in (*PARTS, *BESIDE))
    assert all(parts["read"] < parts["wait"] for parts in trained)  # no thread reads tables, so they are waited for


def test_a_profile_sums_the_fits_of_each_strategy(watched: Outcome) -> None:
    profile = Profile.of(watched, 12.0)
    assert [*profile.kinds][-1] == ALL
    assert profile.fits[ALL] == len(watched.records)
    assert {kind for kind in profile.kinds if kind != ALL} == {
        record["fit"]["fusion"]["name"] for record in watched.records.values()
    }
    for part in (*PARTS, *BESIDE):
        total = sum(record["profile"].get(part, 0) for record in watched.records.values())
        assert profile.kinds[ALL].get(part, 0) == pytest.approx(total)
        several = [parts.get(part, 0) for kind, parts in profile.kinds.items() if kind != ALL]
        assert sum(several) == pytest.approx(total)
    assert all(len(row) == len(profile.header) for row in profile.rows())
    for row in profile.rows():
        shares = dict(zip(profile.header, row, strict=True))
        assert sum(float(shares[part].rstrip("%")) for part in PARTS) == pytest.approx(100, abs=0.4)
    assert json.loads(profile.to_json())["fits"] == profile.fits


def test_fits_from_the_store_have_no_profile_and_it_is_said(watched: Outcome, study: Study, store: Store) -> None:
    again = Profile.of(run(study, store, profile=True), 1.0)
    assert not again.kinds
    assert not again.rows()
    assert again.stored == len(watched.records)
    assert any("came from the store" in note for note in again.notes())


def test_a_profile_changes_no_table_and_no_key(watched: Outcome, study: Study, tmp_path: Path) -> None:
    plain = run(study, Store(tmp_path / "plain").open())
    assert plain.records.keys() == watched.records.keys()
    assert not any("profile" in record for record in plain.records.values())
    assert Leaderboard.of(Run.of(plain)).to_csv() == Leaderboard.of(Run.of(watched)).to_csv()


def test_nobody_watches_unless_asked() -> None:
    assert unwatched("read") is unwatched("forward")
    with unwatched("read"), unwatched("read"):
        pass


def test_run_with_profile_prints_and_keeps_it_with_worker_processes_too(tmp_path: Path) -> None:
    data = write_tables(tmp_path / "tables", table_cohort())
    asked = "--fusion pixel --baselines none --folds 2 --jobs 2 --out there --profile --set recipe.epochs=1"
    done = subprocess.run(
        [PROGRAM, "run", "--cohort", "table", "--data", data, *asked.split()],
        cwd=tmp_path,
        env=os.environ | {"FUSIONBENCH_HOME": str(tmp_path / "home"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    after = done.stdout[done.stdout.index("Leaderboard") :]
    assert "Where the time went" in after
    kept = json.loads((tmp_path / "there" / "profile.json").read_text())
    assert kept["fits"] == {"pixel": 2, "all": 2}
    assert kept["kinds"]["pixel"]["backward"] > 0
