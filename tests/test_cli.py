"""The commands, as a user meets them: through the installed program, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import table_cohort, write_tables

PROGRAM = Path(sys.executable).with_name("fusionbench")
QUICK = ["--folds", "2", "--set", "recipe.epochs=1", "--set", "protocol.inner_folds=2", "--jobs", "1"]


def fusionbench(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"FUSIONBENCH_HOME": str(cwd / "home"), "COLUMNS": "100"} | environment
    return subprocess.run(
        [PROGRAM, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder of three CSVs and labels, as the table reader takes them."""
    return write_tables(tmp_path / "tables", table_cohort())


def test_the_main_job_on_tables(tables: Path, tmp_path: Path) -> None:
    asked = ["run", "--cohort", "table", "--data", str(tables), "--fusion", "guidance", *QUICK]
    done = fusionbench(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Cohort: ")
    assert (
        "Plan: 24 fits, of which 12 rank modalities or stack predictions inside training parts and 2 wait"
        in done.stdout
    )
    assert "without sharing it would be 32; 0 are in the store" in done.stdout
    assert re.search(r"^[abc] +\d of 2 +\d\.\d\d( +\d\.\d\d){3}$", done.stdout, re.MULTILINE)
    assert re.search(r"Kendall's W \d\.\d\d over 2 orders", done.stdout)
    table = done.stdout[done.stdout.index("Leaderboard") :]
    for method in ("a", "b", "c", "logistic", "ensemble", "guidance"):
        assert re.search(rf"^{method} +\d\.\d{{3}} ± \d\.\d{{3}}", table, re.MULTILINE)
    assert "positive class LGG" in table
    assert max(map(len, table.splitlines()[: table.splitlines().index("") if "" in table else None])) <= 100
    assert re.search(r"Next: fusionbench report runs/tables-[0-9a-f]{8}$", done.stdout, re.MULTILINE)
    again = fusionbench(*asked, cwd=tmp_path)
    assert (
        again.stdout[again.stdout.index("Modality ranking") :] == done.stdout[done.stdout.index("Modality ranking") :]
    )
    assert "0 fits done" in again.stdout


def test_a_dry_run_prints_the_plan_and_trains_nothing(tables: Path, tmp_path: Path) -> None:
    asked = ["run", "--cohort", "table", "--data", str(tables), "--fusion", "guidance", *QUICK]
    done = fusionbench(*asked, "--dry-run", "--out", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "Plan: 24 fits, of which 12 rank modalities or stack predictions inside training parts and 2 wait"
        in done.stdout
    )
    assert not (tmp_path / "there").exists()
    assert not list((tmp_path / "home").rglob("job.json"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fusion", "guidence"], "no fusion 'guidence': did you mean 'guidance'?"),
        (["--fusion", "guidance", "--modalities", "a,bb"], "tables has no modality 'bb'"),
        (["--fusion", "guidance", "--cohort", "brat"], "no cohort 'brat': did you mean 'brats'?"),
        (["--fusion", "guidance", "--data", "nowhere"], "nowhere"),
        (["--fusion", "guidance", "--set", "guidance.upsampling=nearest"], "did you mean 'upsample'?"),
        (["--fusion", "guidance", "--set", "guidance.upsample=cubic"], "guidance.upsample: "),
        (["--fusion", "guidance", "--set", "recipe.epoch=1"], "did you mean recipe.epochs?"),
        (["--fusion", "guidance", "--set", "recipe.stages.third.epochs=1"], "no training stage 'third'"),
        (["--fusion", "guidance", "--attention", "duel"], "no attention 'duel': did you mean 'dual'?"),
        (["--fusion", "guidance", "--backbone", "table=rmc"], "has the backbone rmc, which takes image modalities"),
        (["--fusion", "guidance", "--ranking", "nest"], "no ranker 'nest': did you mean 'nested'?"),
        (["--fusion", "guidance", "--folds", "20"], "class LGG has 12 patients, too few for 20 folds"),
        (["--fusion", "guidance", "--folds", "no.csv"], "no file of folds at no.csv"),
        (["--fusion", "guidance", "--device", "cuda:7"], "no device 'cuda:7'"),
        (["--fusion", "guidance", "--precision", "16", "--device", "cpu"], "--precision 16 needs a CUDA GPU"),
        (["--fusion", "guidance", "--engine", "dusk", "--data", "nowhere", "--dry-run"], "no engine 'dusk': did you"),
        (["--fusion", "guidance", "--scheduler", "a:1", "--data", "nowhere"], "--scheduler is for --engine dask"),
        (["--fusion", "guidance", "--out", "tables"], "is no run folder"),
        (["--fusion", "guidance", "--out", "tables/labels.csv"], "is no run folder"),
        (["--fusion", "guidance", "--store", "tables/labels.csv"], "cannot write"),
        (["--fusion", "guidance", "--no-plugin", "duel"], "cannot disable plugin 'duel'"),
        (["--fusion", "guidance", "--jobs", "-1"], "--jobs"),
        (["--fusion", "guidance", "--jobs", "many"], "--jobs"),
        (["--fusion", "guidance", "--fold", "3"], "--fold"),
        (["--fusion", "guidance", "--folds", "0"], "at least 2 folds"),
        (["--fusion", "guidance", "--repeats", "0"], "protocol.repeats"),
        (["--fusion", "guidance", "--backbone", "aa=mlp"], "a backbone for 'aa', which is no kind and no modality"),
        (["--fusion", "guidance", "--set", "recipe.learning_rate=inf"], "recipe.learning_rate"),
        (["--fusion", "guidance", "--set", "preprocessing.percentiles=[99, 1]"], "between 0 and 100, not [99, 1]"),
        (["--fusion", "guidance", "--set", "mlp.width=0"], "mlp"),
        (["--fusion", "guidance", "--home", "/dev/null"], "cannot write"),
        (
            ["--fusion", "ensemble", "--primary", "a"],
            "changes nothing: none of unimodal, logistic, ensemble orders",
        ),
        ([], "no fusion strategy: give --fusion NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_before_anything_trains(
    tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    from fusionbench_cli.app import main

    given = ["run", "--cohort", "table", "--data", str(tables), "--jobs", "1", *arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fusionbench", *given])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.rglob("job.json"))


def test_the_installed_program_says_it_too(tmp_path: Path) -> None:
    done = fusionbench("run", "--fusion", "guidence", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "fusionbench: no fusion 'guidence': did you mean 'guidance'? There are "
        "agg, all, decision, ensemble, feature, guidance, logistic, mmdvae, pixel, plain, unimodal\n"
    )


def test_data_without_a_reader_asks_for_one(tables: Path, tmp_path: Path) -> None:
    done = fusionbench("run", "--data", str(tables), "--fusion", "guidance", cwd=tmp_path)
    assert (done.returncode, "say what reads it with --cohort NAME" in done.stderr) == (2, True)


def test_list_describe_plugins_doctor(tmp_path: Path) -> None:
    listed = json.loads(fusionbench("list", "--format", "json", cwd=tmp_path).stdout)
    assert {"kind", "name", "plugin", "distribution", "version", "summary"} == listed[0].keys()
    assert {"backbone", "attention", "fusion", "cohort", "ranker", "extractor"} == {line["kind"] for line in listed}
    fusions = fusionbench("list", "fusion", cwd=tmp_path).stdout
    assert "guidance" in fusions
    assert "rmc" not in fusions
    described = fusionbench("describe", "guidance", cwd=tmp_path).stdout
    assert "--set guidance.OPTION=VALUE" in described
    assert "'trilinear' | 'nearest'" in described
    assert fusionbench("list", "fusions", cwd=tmp_path).returncode == 2
    assert "fusionbench_plugins.fusion.guidance" in fusionbench("plugins", cwd=tmp_path).stdout
    doctor = fusionbench("doctor", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stdout
    assert "ok  torch: " in doctor.stdout


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["plugins"], ["run", "--help"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['fusionbench', *{command!r}]\n"
        "from fusionbench_cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'pandas', 'torchio', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_leaderboard_imports_no_torch_and_speaks_four_formats(tables: Path, tmp_path: Path) -> None:
    asked = ["run", "--cohort", "table", "--data", str(tables), "--fusion", "logistic", "--baselines", "none"]
    assert fusionbench(*asked, *QUICK, "--out", "r", cwd=tmp_path).returncode == 0
    code = (
        "import sys; sys.argv = ['fusionbench', 'leaderboard', 'r', '--format', sys.argv[1]]\n"
        "from fusionbench_cli.app import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    printed = {}
    for format in ("table", "csv", "md", "json"):
        done = subprocess.run(
            [sys.executable, "-c", code, format], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        printed[format] = done.stdout
    assert printed["csv"] == (tmp_path / "r" / "leaderboard.csv").read_text()
    assert printed["md"].startswith("| method | roc_auc |")
    assert json.loads(printed["json"])["rows"][0]["method"] == "logistic"
    assert "positive class LGG" in printed["table"]


def test_ids_are_strangers_text_and_no_markup(tmp_path: Path) -> None:
    from fusionbench_cli.render import console, say

    terminal = console()
    with terminal.capture() as captured:
        say("[/red] sub-[/01] [bold]x", terminal)
    assert captured.get() == "[/red] sub-[/01] [bold]x\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["a=x.csv", "b=x.csv", "a=y.csv"], "--import a=FILE.csv is given twice: give each file a NAME of its own"),
        (["x.csv"], "--import 'x.csv': write it as NAME=FILE.csv"),
        (["=x.csv"], "--import '=x.csv': write it as NAME=FILE.csv"),
    ],
)
def test_an_import_needs_a_name_of_its_own(given: list[str], says: str) -> None:
    from fusionbench.errors import UsageError
    from fusionbench_cli.asked import imported

    assert imported(["a=x.csv", "b=x=y.csv"]) == {"a": Path("x.csv"), "b": Path("x=y.csv")}
    with pytest.raises(UsageError) as refused:
        imported(given)
    assert str(refused.value) == says


def test_check_tries_the_options_that_are_given(tmp_path: Path) -> None:
    done = fusionbench("check", "mlp", "--set", "mlp.width=8", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for wrong, says in {"mlp.widht=8": "no option 'widht'", "recipe.epochs=3": "only mlp.OPTION can be set"}.items():
        refused = fusionbench("check", "mlp", "--set", wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert says in refused.stderr
