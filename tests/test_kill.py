"""Nothing finished is lost or done again: a run that is killed goes on and ends byte for byte the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import table_cohort, write_tables
from test_cli import PROGRAM

from fusionbench import Store


def command(data: Path, place: Path) -> list[str]:
    return [
        str(PROGRAM), "run", "--cohort", "table", "--data", str(data), "--fusion", "guidance", "--jobs", "2",
        "--store", str(place / "store"), "--out", str(place / "run"),
        "--set", "recipe.epochs=12", "--set", "mlp.width=16", "--folds", "3",
    ]  # fmt: skip


def keys(place: Path) -> dict[str, int]:
    """The finished fits, and when their record was written."""
    records = (place / "store" / "fits").glob("*/[!.]*/job.json")  # not those half written
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def kill_at_moments(tmp_path: Path, moments: int, seed: int) -> None:
    data = tmp_path / "data"
    write_tables(data, table_cohort(subjects=60, features=6))
    environment = os.environ | {"FUSIONBENCH_HOME": str(tmp_path / "home")}
    whole = tmp_path / "whole"
    started = time.monotonic()
    subprocess.run(command(data, whole), env=environment, check=True, capture_output=True)
    duration = time.monotonic() - started
    expected = {name: (whole / "run" / name).read_bytes() for name in ("predictions.csv", "leaderboard.csv")}
    draw = random.Random(seed)
    broken = tmp_path / "broken"
    done: dict[str, int] = {}
    for moment in range(moments):
        if moment % 5 == 0:  # a new store now and then, so that early moments are hit too
            broken, done = tmp_path / f"broken{moment}", {}
        process = subprocess.Popen(
            command(data, broken), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(draw.uniform(0.3, duration))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = keys(broken)
        assert all(now[key] == when for key, when in done.items()), "a finished fit was done again"
        done = now
    last = subprocess.run(command(data, broken), env=environment, check=True, capture_output=True, text=True)
    assert all(keys(broken)[key] == when for key, when in done.items()), last.stdout
    assert {name: (broken / "run" / name).read_bytes() for name in expected} == expected
    store = Store(broken / "store").open()
    assert not list((store.root / "fits").rglob(".*"))
    assert keys(broken).keys() == keys(whole).keys()


def test_five_kills_lose_nothing(tmp_path: Path) -> None:
    kill_at_moments(tmp_path, moments=5, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    kill_at_moments(tmp_path, moments=50, seed=1)


def test_workers_end_with_the_killed_main_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_tables(data, table_cohort(subjects=60, features=6))
    environment = os.environ | {"FUSIONBENCH_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [*command(data, tmp_path), "--set", "recipe.epochs=2000"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children: set[int] = set()
    while len(children) < 3 and process.poll() is None:  # two workers and the resource tracker
        children = _children(process.pid)
        time.sleep(0.1)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_an_interrupted_run_says_in_one_line_that_it_goes_on(tmp_path: Path, stop: signal.Signals) -> None:
    data = tmp_path / "data"
    write_tables(data, table_cohort(subjects=60, features=6))
    environment = os.environ | {"FUSIONBENCH_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [*command(data, tmp_path), "--set", "recipe.epochs=2000"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    working = tmp_path / "store" / "working"
    while len(list(working.glob("*.lock"))) < 2 and process.poll() is None:  # both workers are at a fit
        time.sleep(0.1)
    started = time.monotonic()
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "fusionbench: interrupted; the same command goes on where it stopped\n"
    assert time.monotonic() - started < 30


def test_two_runs_at_once_share_a_store_and_do_no_work_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_tables(data, table_cohort(subjects=60, features=6))
    environment = os.environ | {"FUSIONBENCH_HOME": str(tmp_path / "home")}
    both = [[*command(data, tmp_path), "--out", str(tmp_path / name)] for name in ("one", "two")]
    running = [subprocess.Popen(asked, env=environment, stdout=subprocess.DEVNULL) for asked in both]
    assert [process.wait() for process in running] == [0, 0]
    one, two = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "two"))
    assert one == two


def _children(pid: int) -> set[int]:
    if sys.platform != "linux":
        pytest.skip("children are read from /proc")
    by_thread = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for listed in by_thread for child in listed.read_text().split()}
