"""The benchmarks say what they measure and measure it; what is slow is tried in small."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks import fusilli_epoch, growth, input_pipeline, sharing, start_up, surroundings, targets
from benchmarks.targets import NotMeasured, Row, Target, alternating


@pytest.mark.parametrize("case", [*suite.CASES, *suite.LONG])
def test_a_case_imports_measures_and_says_how_it_is_called(case: str) -> None:
    module = import_module(f"benchmarks.{case}")
    assert inspect.isgeneratorfunction(module.measure)
    assert inspect.getdoc(module.measure)
    assert f"python -m benchmarks {case}\n" in str(module.__doc__)


def test_every_module_is_a_case_or_serves_one() -> None:
    shared = {"__init__", "__main__", "fusilli_side", "memory", "surroundings", "targets"}
    modules = {path.stem for path in Path(str(suite.__file__)).parent.glob("*.py")}
    assert modules == {*suite.CASES, *suite.LONG, *shared}


def test_the_examples_of_targets_hold() -> None:
    failed, tried = doctest.testmod(targets)
    assert tried >= 5
    assert not failed


def test_a_ratio_that_is_no_number_meets_nothing() -> None:
    assert not Target("", float("nan"), 1).met
    assert not Target("", float("nan"), 1, at_least=False).met


def test_the_first_call_of_each_way_is_not_counted() -> None:
    now = 0.0
    cost = {"slow": iter([100.0, 5.0, 7.0, 6.0]), "fast": iter([100.0, 1.0, 1.0, 50.0])}

    def spend(name: str) -> None:
        nonlocal now
        now += next(cost[name])

    taken = alternating({name: lambda name=name: spend(name) for name in cost}, rounds=3, clock=lambda: now)
    assert taken == {"slow": 6.0, "fast": 1.0}


def test_a_case_is_measured_once_however_it_was_asked_for() -> None:
    assert suite.chosen([]) == suite.CASES
    assert suite.chosen(["default_run", "--long"]) == suite.LONG
    assert suite.chosen(["jobs", "sharing", "jobs"]) == ("jobs", "sharing")
    assert suite.chosen(["--long"]) == (*suite.CASES, *suite.LONG)


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.chosen(["shearing"])
    assert "no case shearing: choose from sharing, " in capsys.readouterr().err


def test_the_table_has_what_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(case: str) -> list[Row]:
        return [NotMeasured(case, "no such machine")]

    monkeypatch.setattr(suite, "measured", rows)
    monkeypatch.setattr(suite, "chosen", lambda: suite.CASES)
    suite.main()
    table = capsys.readouterr().out
    assert "| jobs | not measured |  | no such machine |" in table
    assert "| default_run | not measured |  | left out for its time: call with --long |" in table


def test_what_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSILLI_PYTHON", raising=False)
    (row,) = fusilli_epoch.measure()
    assert isinstance(row, NotMeasured)
    assert "FUSILLI_PYTHON" in row.why
    assert not any("fusilli" in line for line in surroundings.settings())


def test_shared_fits_are_trained_once_and_predict_the_same(tmp_path: Path) -> None:
    trained, equal = sharing.tried(tmp_path, ("dual", "plain-pixel", "t1ce"))
    assert isinstance(trained, Target)
    assert isinstance(equal, Target)
    assert trained.ratio == equal.ratio == 1


def test_a_method_that_is_there_twice_is_counted_both_ways(tmp_path: Path) -> None:
    """Shared with itself guidance is half of guidance twice, and all of guidance once."""
    rows = list(sharing.counted(tmp_path, ("guidance", " + ".join(sharing.MODALITIES))))
    assert [row.ratio for row in rows if isinstance(row, Target)] == pytest.approx([0.5, 1, 0.5, 1])


def test_variants_whose_growth_is_counted_differ() -> None:
    assert len({tuple(one.items()) for one in growth.ALTERED}) == len(growth.ALTERED) == 8


def test_the_leaderboard_of_a_run_is_what_is_looked_at(tmp_path: Path) -> None:
    run = str(start_up.finished(tmp_path))
    assert start_up.heavy(["leaderboard", run], ("torch",)) == []
    assert start_up.heavy(["leaderboard", run], ("fusionbench.leaderboard",)) == ["fusionbench.leaderboard"]


def test_torchio_makes_our_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionbench.experiment import Preprocessing
    from fusionbench.imaging.volumes import Volumes

    monkeypatch.setattr(input_pipeline, "CROP", (10, 20, 24))
    cohort = input_pipeline.written(tmp_path, 2, (24, 20, 15), input_pipeline.NAMES)
    volumes = Volumes(cohort, Preprocessing(crop=(10, 20, 24)), tmp_path / "cache")
    mine = input_pipeline.ours(volumes, ["s0", "s1"], moved=False)
    theirs = input_pipeline.torchio_ways(cohort)["torchio"]()
    assert input_pipeline.largest_difference(mine, theirs) < input_pipeline.TOLERANCE
