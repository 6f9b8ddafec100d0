"""A stranger's distribution is installed and used as ours are, and a faulty one takes only itself down."""

from __future__ import annotations

import csv
import inspect
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from fusionbench.doctor import examine
from fusionbench.errors import PluginError, UsageError
from fusionbench.registry import installed_plugins, load_registry
from fusionbench.testing.checks import CHECKS, promise_name

ROOT = Path(__file__).parent.parent
GATED = ROOT / "examples" / "fusionbench-gated"
GUIDANCE = Path(inspect.getfile(load_registry().get("fusion", "guidance").cls))
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "guidance-copy"
version = "9.8.7"

[project.entry-points.fusionbench]
guidance-copy = "guidance_copy"

[tool.hatch.build.targets.wheel]
only-include = ["guidance_copy.py"]
"""
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


def install(project: Path, place: Path) -> None:
    """Build the wheel of a project and unpack it, which is what pip does: offline, and with no second torch."""
    wheels = project / "dist"
    subprocess.run([sys.executable, "-c", BUILD, str(wheels)], cwd=project, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed distributions: the example, and our guidance under another name."""
    folder = tmp_path_factory.mktemp("third-party")
    shutil.copytree(GATED, folder / "gated", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    copy = folder / "copy"
    copy.mkdir()
    copy.joinpath("pyproject.toml").write_text(PYPROJECT)
    source = GUIDANCE.read_text().replace('name = "guidance"', 'name = "guidance-copy"')
    copy.joinpath("guidance_copy.py").write_text(source)
    for project in ("gated", "copy"):
        install(folder / project, folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small tables of 24 people."""
    folder = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    labels = ["yes" if number % 3 else "no" for number in range(24)]
    for name, features in (("blood", 3), ("genes", 5)):
        values = random.normal(size=(24, features)) + [[label == "yes"] for label in labels]
        header = ["subject", *(f"{name}-{number}" for number in range(features))]
        rows = [[f"person-{row}", *map(repr, values[row].tolist())] for row in range(24)]
        write_csv(folder / f"{name}.csv", [header, *rows])
    write_csv(
        folder / "labels.csv", [["subject", "label"], *([f"person-{n}", label] for n, label in enumerate(labels))]
    )
    return folder


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def fusionbench(*arguments: str, site: Path, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with that folder of distributions beside ours."""
    known = {"PYTHONPATH": str(site), "FUSIONBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    start = "import sys; from fusionbench_cli.app import main; sys.argv[0] = 'fusionbench'; main()"
    return run([sys.executable, "-c", start, *arguments], home, {**known, **environment})


def own_tests(*arguments: str, site: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the example's own tests with that folder of distributions beside ours, away from our configuration."""
    shutil.copytree(GATED / "tests", home / "tests")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(home / "tests")]
    return run(command, home, {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"})


def run(command: list[str], home: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=home, capture_output=True, text=True, check=False
    )


def test_the_example_is_one_short_file() -> None:
    lines = (GATED / "src" / "fusionbench_gated.py").read_text().splitlines()
    assert len(lines) < 40


def test_the_guide_shows_the_example_and_every_promise() -> None:
    guide = (ROOT / "docs" / "plugins.md").read_text()
    for file in ("src/fusionbench_gated.py", "tests/test_contract.py"):
        assert (GATED / file).read_text().partition('"""\n\n')[2] in guide
    assert '[project.entry-points.fusionbench]\ngated = "fusionbench_gated"\n' in guide
    assert '[project.entry-points.fusionbench]\ngated = "fusionbench_gated"\n' in (GATED / "pyproject.toml").read_text()
    for check in {check for checks in CHECKS.values() for check in checks}:
        assert f"| `{promise_name(check)}` | {inspect.getdoc(check)} |" in guide


def test_it_is_listed_with_where_it_comes_from(site: Path, tmp_path: Path) -> None:
    done = fusionbench("list", "fusion", "--format", "json", site=site, home=tmp_path)
    listed = {row["name"]: row for row in json.loads(done.stdout)}
    assert listed["gated"] == {
        "kind": "fusion",
        "name": "gated",
        "plugin": "gated",
        "distribution": "fusionbench-gated",
        "version": "1.2.3",
        "summary": "Weighs each modality's features by a gate that sees all of them.",
    }
    assert listed["guidance-copy"]["distribution"] == "guidance-copy"
    assert listed["guidance"]["distribution"] == "fusionbench"


def test_it_passes_the_check_of_the_command_line(site: Path, tmp_path: Path) -> None:
    done = fusionbench("check", "gated", site=site, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert "ok     samples-independent" in done.stdout


def test_its_own_tests_are_one_per_promise_and_pass(site: Path, tmp_path: Path) -> None:
    done = own_tests("-v", site=site, home=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "test_contract[gated-samples-independent] PASSED" in done.stdout


def test_it_stands_in_the_leaderboard_and_a_copy_of_guidance_predicts_as_guidance(
    site: Path, cohort: Path, tmp_path: Path
) -> None:
    done = fusionbench(
        *("run", "--cohort", "table", "--data", str(cohort), "--fusion", "gated,guidance,guidance-copy"),
        *("--folds", "2", "--jobs", "1", "--out", str(tmp_path / "run")),
        *("--set", "protocol.inner_folds=2", "--set", "recipe.epochs=4", "--set", "recipe.stages.secondary.epochs=4"),
        site=site,
        home=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    methods = {row["method"] for row in rows(tmp_path / "run" / "leaderboard.csv")}
    assert {"gated", "guidance", "guidance-copy"} <= methods
    predicted: dict[str, list[tuple[str, ...]]] = {}
    for row in rows(tmp_path / "run" / "predictions.csv"):
        values = tuple(value for column, value in row.items() if column.startswith("p_"))
        predicted.setdefault(row["method"], []).append((row["fold"], row["subject"], *values))
    assert len(predicted["gated"]) == 24
    assert predicted["guidance-copy"] == predicted["guidance"]
    assert predicted["guidance-copy"] != predicted["gated"]


def rows(path: Path) -> list[Mapping[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------- faults, in this process for their speed

WORKING = '''
from fusionbench import Ranker, hookimpl

class Backwards(Ranker):
    """From the last typed to the first."""
    name = "{name}"
    fusion = "unimodal"
    def splits(self, ground):
        return ()
    def order(self, evidence):
        return tuple(one.modality for one in reversed(evidence))

@hookimpl
def {hook}():
    return [Backwards]
'''


class Strangers:
    """Distributions that are installed for one test: a module and the metadata that name it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, plugin: str, source: str, version: str = "1.0") -> None:
        module = f"stranger_{plugin.replace('-', '_')}"
        self.folder.joinpath(f"{module}.py").write_text(source)
        metadata = self.folder / f"{module}-{version}.dist-info"
        metadata.mkdir()
        metadata.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: stranger-{plugin}\nVersion: {version}\n"
        )
        metadata.joinpath("entry_points.txt").write_text(f"[fusionbench]\n{plugin} = {module}\n")

    def add_ranker(self, plugin: str, name: str, hook: str = "fusionbench_rankers") -> None:
        self.add(plugin, WORKING.format(name=name, hook=hook))


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strangers]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("FUSIONBENCH_PLUGINS", raising=False)
    load_registry.cache_clear()
    yield Strangers(tmp_path)
    load_registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]


def test_a_plugin_needs_nothing_but_a_module_and_an_entry_point(strangers: Strangers) -> None:
    strangers.add_ranker("backwards", "backwards")
    found = load_registry().get("ranker", "backwards")
    assert (found.plugin, found.distribution, found.version) == ("backwards", "stranger-backwards", "1.0")
    assert found.summary == "From the last typed to the first."


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("raise RuntimeError('no licence\\nsecond line')", "RuntimeError: no licence"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_raises_takes_only_itself_down(
    strangers: Strangers, tmp_path: Path, source: str, reason: str
) -> None:
    strangers.add("broken", source)
    strangers.add_ranker("backwards", "backwards")
    registry = load_registry()
    assert registry.get("ranker", "backwards")
    assert registry.get("fusion", "guidance")
    assert registry.broken["broken"].startswith(reason)
    with pytest.raises(UsageError, match="Plugin broken is broken"):
        registry.get("fusion", "what-broken-would-offer")
    (finding,) = [finding for finding in examine(tmp_path) if finding.what == "plugin broken"]
    assert not finding.fine
    assert finding.value.startswith(reason)


def test_a_broken_plugin_is_reported_by_list_and_doctor(strangers: Strangers, tmp_path: Path) -> None:
    strangers.add("broken", "raise RuntimeError('no licence')")
    listed = fusionbench("list", "fusion", site=tmp_path, home=tmp_path)
    assert listed.returncode == 0
    assert "guidance" in listed.stdout
    assert "broken plugin broken: RuntimeError: no licence" in listed.stdout
    seen = fusionbench("doctor", site=tmp_path, home=tmp_path)
    assert seen.returncode == 1
    assert "BAD plugin broken: RuntimeError: no licence" in seen.stdout


def test_a_misspelt_hook_is_reported(strangers: Strangers) -> None:
    strangers.add_ranker("typo", "backwards", hook="fusionbench_rankerz")
    reason = load_registry().broken["typo"]
    assert "fusionbench_rankerz" in reason


def test_a_taken_name_is_an_error_that_names_both_plugins(strangers: Strangers) -> None:
    strangers.add_ranker("first", "backwards")
    strangers.add_ranker("second", "backwards")
    with pytest.raises(PluginError, match="'backwards' is taken twice, by plugin 'first' and plugin 'second'"):
        load_registry()
    assert load_registry(frozenset({"second"})).get("ranker", "backwards").plugin == "first"


def test_a_name_of_ours_cannot_be_taken(strangers: Strangers, tmp_path: Path) -> None:
    strangers.add_ranker("usurper", "nested")
    with pytest.raises(PluginError, match="'nested' is taken twice") as caught:
        load_registry()
    assert "'usurper'" in str(caught.value)
    assert "'rankers'" in str(caught.value)
    done = fusionbench("list", site=tmp_path, home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("fusionbench: the name 'nested' is taken twice")
    assert fusionbench("list", "-p", "usurper", site=tmp_path, home=tmp_path).returncode == 0


@pytest.mark.parametrize("selection", ["none", "", "another"])
def test_the_environment_switches_strangers_off_and_leaves_ours(
    strangers: Strangers, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    strangers.add("broken", "raise RuntimeError('imported')")
    monkeypatch.setenv("FUSIONBENCH_PLUGINS", selection)
    registry = load_registry()
    assert not registry.broken
    assert registry.get("fusion", "guidance")
    assert [plugin.name for plugin in installed_plugins() if not plugin.enabled] == ["broken"]


def test_the_environment_chooses_strangers_by_name(strangers: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers.add_ranker("first", "one")
    strangers.add_ranker("second", "two")
    monkeypatch.setenv("FUSIONBENCH_PLUGINS", "second, third")
    assert {"two"} == {"one", "two"} & {component.name for component in load_registry().components}


def test_a_plugin_is_switched_off_by_name(strangers: Strangers) -> None:
    strangers.add_ranker("first", "one")
    assert "one" not in {component.name for component in load_registry(frozenset({"first"})).components}
    with pytest.raises(PluginError, match=r"cannot disable plugin 'frist': did you mean .?first"):
        load_registry(frozenset({"frist"}))


def test_listing_plugins_imports_none_of_them(strangers: Strangers) -> None:
    strangers.add("broken", "raise RuntimeError('imported')")
    assert "broken" in {plugin.name for plugin in installed_plugins()}
    assert "stranger_broken" not in sys.modules


def test_the_pytest_plugin_imports_nothing_heavy_until_it_is_used() -> None:
    code = "import fusionbench.testing.plugin, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
