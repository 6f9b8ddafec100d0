"""`fusionbench data`: every fault at once, a card without secrets, proposals written, the synthetic cohort labelled."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tomli_w
from conftest import table_cohort, write_tables

from fusionbench import Proposal, read_cohort
from fusionbench.experiment import merged, read_config
from fusionbench_cli.app import main
from fusionbench_cli.render_data import command
from fusionbench_plugins.cohorts.table import Table

SECRET = "Jane^Doe"
RECORD = "MRN-0042"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def fusionbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["fusionbench", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return Done(stopped.value.code or 0, printed.out, printed.err)

    return call


def write_brats(folder: Path, subjects: int = 9, shape: tuple[int, int, int] = (8, 10, 6)) -> Path:
    """A folder of 2018 whose headers name the patient, as an export from a scanner may."""
    random = np.random.default_rng(0)
    for number in range(subjects):
        name = f"S{number:02d}"
        home = folder / ("LGG" if number % 3 == 0 else "HGG") / name
        home.mkdir(parents=True)
        for kind in ("t1ce", "flair", "seg"):
            voxels = (random.random(shape) > 0.8) * 2 if kind == "seg" else random.integers(1, 900, shape)
            image = nibabel.Nifti1Image(voxels.astype(np.int16), np.eye(4))
            image.header["descrip"] = f"{SECRET} {RECORD}"
            image.header["aux_file"] = "/home/jane/x"
            image.header["db_name"] = SECRET
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{SECRET} {RECORD}".encode()))
            nibabel.save(image, home / f"{name}_{kind}.nii.gz")
    return folder


def crop(*words: str) -> list[str]:
    return [*words, "--set", "preprocessing.crop=[6, 10, 8]"]


# check


def test_check_shows_the_cohort_in_short_and_how_to_go_on(tmp_path: Path, fusionbench) -> None:
    write_brats(tmp_path / "data")
    done = fusionbench(*crop("data", "check", "data", "--cohort", "brats"))
    assert done.code == 0, done.err
    assert "  subjects: 9 (6 HGG, 3 LGG; positive class LGG)" in done.out
    assert "  t1ce: 9 images; 6 x 10 x 8 voxels; 1 x 1 x 1 mm" in done.out
    assert "  outlines: 9 of 9" in done.out
    run = next(line for line in done.out.splitlines() if line.startswith("Next: ")).removeprefix("Next: ")
    assert shlex.split(run) == [
        *("fusionbench", "run", "--data", "data", "--cohort", "brats"),
        *("--set", "preprocessing.crop=[6, 10, 8]", "--fusion", "all"),
    ]


def test_check_lists_every_fault_each_on_its_line(tmp_path: Path, fusionbench) -> None:
    write_brats(tmp_path / "data", 12)
    broken = sorted((tmp_path / "data").rglob("*_t1ce.nii.gz"))[:10]
    for path in broken:
        path.write_bytes(f"version https://git-lfs.github.com/spec/v1\noid sha256:{path.name}\n".encode())
    next((tmp_path / "data").rglob("S11_flair.nii.gz")).unlink()
    done = fusionbench(*crop("data", "check", "data", "--cohort", "brats"))
    assert done.code == 1
    assert "Next" not in done.out
    lines = done.out[done.out.index("11 faults:") :].splitlines()[1:]
    assert len(lines) == 11
    assert all(any(f"'{path.parent.name}', t1ce" in line for line in lines) for path in broken)
    assert any("'S11' has no flair" in line for line in lines)
    mended = fusionbench(*crop("data", "check", "data", "--cohort", "brats", "--missing", "mask"))
    assert "10 faults:" in mended.out


def test_check_lists_what_the_reader_refuses(tmp_path: Path, fusionbench) -> None:
    folder = write_tables(tmp_path / "tables", table_cohort(features=12))
    lines = (folder / "a.csv").read_text().splitlines()
    lines[1] = ",".join(["s00", *["NA"] * 12])
    (folder / "a.csv").write_text("\n".join(lines))
    done = fusionbench("data", "check", "tables", "--cohort", "table")
    assert done.code == 1
    assert [f"column 'f{n}'" in done.out for n in range(12)] == [True] * 12
    assert "12 faults:" in done.out


def test_check_says_who_reads_it_if_nobody_said(tmp_path: Path, fusionbench) -> None:
    write_tables(tmp_path / "tables", table_cohort())
    done = fusionbench("data", "check", "tables")
    assert done.code == 0, done.err
    assert "Cohort: tables, read by table." in done.out.splitlines()
    assert "images" not in done.out
    assert "--data tables --cohort table" in done.out
    assert "  a: 36 rows of 4 features; " in done.out


def test_check_takes_the_reader_of_a_configuration(tmp_path: Path, fusionbench) -> None:
    write_brats(tmp_path / "data")
    mine = "[cohort]\nreader = 'brats'\n[preprocessing]\ncrop = [6, 10, 8]\n"
    shipped = read_config("brats")
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(merged(shipped, tomllib.loads(mine))))
    done = fusionbench("data", "check", "data", "--config", "mine.toml")
    assert done.code == 0, done.out
    assert "fusionbench run --data data --cohort brats --config mine.toml --fusion all" in done.out


def test_check_passes_the_flags_on(tmp_path: Path, fusionbench) -> None:
    write_tables(tmp_path / "tables", table_cohort())
    done = fusionbench("data", "check", "tables", "--cohort", "table", "--modalities", "a,b")
    assert "fusionbench run --data tables --cohort table --modalities a,b --fusion all" in done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "check", "nowhere"], "nothing is at 'nowhere'"),
        (["data", "check", "tables", "--cohort", "tabel"], "no cohort 'tabel': did you mean 'table'?"),
        (["data", "check", "tables", "--cohort", "table", "--modalities", "aa"], "no modality 'aa'"),
        (["data", "check", "tables", "--cohort", "table", "--set", "table.lable=x"], "did you mean"),
        (["data", "card", "tables", "--cohort", "table", "--out", "tables/a.csv"], "cannot write"),
        (["data", "phantom", "new", "--set", "phantm.subjects=3"], "did you mean 'phantom'?"),
        (["data", "phantom", "tables"], "exists and is no phantom"),
        (["data", "init", "empty"], "no reader knows what 'empty' holds: looked for "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line(tmp_path: Path, fusionbench, words: list[str], says: str) -> None:
    write_tables(tmp_path / "tables", table_cohort())
    (tmp_path / "empty").mkdir()
    done = fusionbench(*words)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


# card


def test_a_card_holds_nothing_of_headers_paths_users_or_hosts(
    tmp_path: Path, fusionbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "user-jane")
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-jane")
    data = write_brats(tmp_path / "home" / "user-jane" / "data")
    done = fusionbench(*crop("data", "card", str(data), "--cohort", "brats", "--out", "out"))
    assert done.code == 0, done.err
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"card.md", "card.json"} < files.keys()
    assert len([name for name in files if name.endswith(".png")]) == 2
    planted = [SECRET, RECORD, "/home/jane", "user-jane", "host-of-jane", str(tmp_path)]
    assert not [(secret, name) for secret in planted for name in files if secret.encode() in files[name]]
    monkeypatch.chdir(data.parent)
    printed = fusionbench(*crop("data", "check", "data", "--cohort", "brats")).out
    assert "No faults." in printed
    assert not [secret for secret in planted if secret in printed]
    told = json.loads(files["card.json"])
    assert (told["subjects"], told["outlines"], told["synthetic"]) == (9, 9, False)
    pictures = [name for name in files if name.endswith(".png")]
    assert all(f"]({name})" in files["card.md"].decode() for name in pictures)


def test_a_card_of_tables_needs_no_picture(tmp_path: Path, fusionbench) -> None:
    write_tables(tmp_path / "tables", table_cohort())
    done = fusionbench("data", "card", "tables", "--cohort", "table", "--out", "out/deep")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "out" / "deep").iterdir()} == {"card.md", "card.json"}


def test_a_card_may_be_of_some_modalities_and_without_whom_they_are_missing(tmp_path: Path, fusionbench) -> None:
    write_brats(tmp_path / "data")
    next((tmp_path / "data").rglob("S01_flair.nii.gz")).unlink()
    for path in (tmp_path / "data").rglob("*_t1ce.nii.gz"):
        path.write_bytes(b"no image")
    words = ["data", "card", "data", "--cohort", "brats", "--out", "out/deep"]
    failed = fusionbench(*words)
    assert (failed.code, (tmp_path / "out").exists()) == (2, False)
    done = fusionbench(*words, "--modalities", "flair")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out" / "deep" / "card.json").read_text())
    assert ([image["name"] for image in told["images"]], told["subjects"]) == (["flair"], 8)
    assert "1 left out, for they have none" in told["notes"][0]
    left = fusionbench(*words, "--modalities", "flair", "--missing", "drop-subject")
    assert "left out, for they lack a modality: 'S01' (no flair)" in left.out
    strict = fusionbench(*words, "--modalities", "flair", "--missing", "error")
    assert (strict.code, "'S01' has no flair" in strict.err) == (2, True)


# init


def test_one_more_file_beside_a_download_does_not_change_who_reads_it(tmp_path: Path, fusionbench) -> None:
    data = write_brats(tmp_path / "data")
    (data / "templates" / "mni").mkdir(parents=True)
    source = next(data.rglob("*_t1ce.nii.gz"))
    (data / "templates" / "mni" / "mni_t1.nii.gz").write_bytes(source.read_bytes())
    done = fusionbench(*crop("data", "check", "data"))
    assert done.code == 0, done.err
    assert "Cohort: data, read by brats." in done.out
    assert "It could also be read by manifest (10 subjects)" in done.out
    assert "brats would read 9 subjects." in fusionbench("data", "init", "data").out
    assert not (data / "manifest.csv").exists()


def test_init_writes_what_the_reader_proposes_and_names_the_next_command(
    tmp_path: Path, fusionbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(tmp_path / "my tables", table_cohort())
    proposal = Proposal(("table.labels=labels.csv",), {"manifest.csv": "subject\n=1+1\n"}, ("grade\nunknown",), 10**6)
    monkeypatch.setattr(Table, "propose", lambda self, path: proposal)
    asked = fusionbench("data", "check", "my tables")
    assert (asked.code, asked.err.count("\n")) == (2, 1)
    assert "fusionbench data init 'my tables' writes it" in asked.err
    first = fusionbench("data", "init", "my tables")
    assert first.code == 0, first.err
    manifest = tmp_path / "my tables" / "manifest.csv"
    assert manifest.read_bytes() == b"subject\n=1+1\n"
    assert "table would read 1000000 subjects." in first.out
    assert "  grade\\nunknown" in first.out.splitlines()
    following = "fusionbench data check 'my tables' --cohort table --set table.labels=labels.csv"
    assert f"Next: {following}" in first.out.splitlines()
    manifest.write_text("mine")
    again = fusionbench("data", "init", "my tables")
    assert "Kept as they are in my tables: manifest.csv (--force" in again.out
    assert manifest.read_text() == "mine"
    assert fusionbench("data", "init", "my tables", "--force").code == 0
    assert manifest.read_text() == "subject\n=1+1\n"


def test_a_reader_cannot_write_outside_the_folder(tmp_path: Path, fusionbench, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(Table, "propose", lambda self, path: Proposal(files={"../stolen.csv": "x"}, subjects=10**6))
    done = fusionbench("data", "init", "data", "--cohort", "table")
    assert (done.code, "is no file name" in done.err) == (2, True)
    assert not (tmp_path / "stolen.csv").exists()


# phantom


def test_the_synthetic_cohort_is_written_labelled_and_read_back(tmp_path: Path, fusionbench) -> None:
    small = ["--set", "phantom.subjects=6", "--set", "phantom.spacing=10", "--set", "phantom.hgg_share=0.5"]
    done = fusionbench("data", "phantom", "new/made", *small)
    assert done.code == 0, done.err
    assert "synthetic" in done.out.splitlines()[0]
    assert "6 synthetic subjects (3 HGG, 3 LGG)." in done.out
    following = f"fusionbench data check new/made --cohort phantom {' '.join(small)}"
    assert done.out.splitlines()[-1] == f"Next: {following}"
    assert "No faults." in fusionbench(*following.split()[1:]).out
    assert read_cohort("brats", tmp_path / "new" / "made").synthetic
    again = fusionbench("data", "phantom", "new/made", *small)
    assert (again.code, "Writing it" in again.out) == (0, False)
    card = fusionbench("data", "card", "new/made", "--cohort", "brats", "--out", "out")
    assert "synthetic: made by equations" in card.out
    assert "**This cohort is synthetic" in (tmp_path / "out" / "card.md").read_text()


# What is printed


def test_a_command_can_be_copied_into_a_shell_whatever_it_names() -> None:
    words = ["plain", "two words", "a\nb", "it's\n\\n", "=1+1", "[/x]", "$(id)", "ü雪", "\x1b[31m", "\u202e"]
    line = command(*words)
    assert line.isprintable()
    shown = subprocess.run(
        ["bash", "-c", f"fusionbench() {{ printf '%s\\0' \"$@\"; }}; {line}"],
        capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"},
    ).stdout.decode()  # fmt: skip
    assert shown.split("\0")[:-1] == words


def test_folders_and_ids_of_strangers_are_printed_on_one_line(tmp_path: Path, fusionbench) -> None:
    folder = write_tables(tmp_path / "[red]\nnew", table_cohort())
    ids = {"s00": '"a\nb"', "s01": "[/x]", "s02": "=1+1", "s03": "<img src=x onerror=1>", "s04": "n" * 200}
    for path in folder.iterdir():
        text = path.read_text()
        for plain, hostile in ids.items():
            text = text.replace(f"{plain},", f"{hostile},")
        path.write_text(text)
    done = fusionbench("data", "check", str(folder), "--cohort", "table")
    assert done.code == 0, done.err
    assert "[red]\\nnew, read by table." in done.out.splitlines()[0]
    (folder / "a.csv").write_text((folder / "a.csv").read_text().replace("[/x],", "[/x],NA"))
    faulty = fusionbench("data", "check", str(folder), "--cohort", "table")
    assert (faulty.code, "'[/x]'" in faulty.out) == (1, True)
    card = fusionbench("data", "card", str(folder), "--cohort", "table", "--out", "out")
    assert card.code == 2
    assert card.err.count("\n") == 1


@pytest.mark.parametrize("words", [["data", "--help"], ["data", "check", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['fusionbench', *{words!r}]\n"
        "from fusionbench_cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'pandas', 'torchio', 'PIL', 'nibabel', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout
