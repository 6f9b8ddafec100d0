"""The page, and the report in other forms: loads nothing, believes nobody, says everything."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import made_run, made_sources, predictions_csv, table, write_made
from typer.testing import CliRunner

from fusionbench.errors import UsageError
from fusionbench.report import Sources, document, model_card, to_csv, to_html, to_json, to_latex, to_markdown
from fusionbench_cli.app import app

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}"
PLACE = "/home/rosa"


class Page(HTMLParser):
    """The elements of a page: tag and attributes, in order, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(sources: Sources) -> str:
    return to_html(document(sources))


def hostile(tmp_path: Path) -> Sources:
    """Everything that strangers name is called by a piece of HTML."""
    run = made_run(
        methods={HOSTILE: 3.0, "t1ce": 0.3},
        classes=(HOSTILE, "LGG"),
        cohort={
            "name": HOSTILE,
            "notes": [HOSTILE, "a\nb"],
            "modalities": [HOSTILE],
            "inputs": [table(HOSTILE, 3)],
        },
        told={HOSTILE: {"remarks": {HOSTILE: HOSTILE}}, "t1ce": {"failed": HOSTILE}},
    )
    run.facts["plugins"][0] |= {"plugin": HOSTILE, "distribution": HOSTILE}
    run.facts["left_out"] = {HOSTILE: HOSTILE}
    return Sources.read(write_made(run, tmp_path / "made"))


def test_strangers_text_is_never_markup(tmp_path: Path) -> None:
    text = page(hostile(tmp_path))
    assert "<img" not in text
    assert "&lt;img src=x" in text
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;&#34;&#39;(\S{2})", text)
    tags = {tag for tag, _ in Page(text).elements}
    assert not tags & {"img", "iframe", "object", "link", "form", "base"}
    assert not [name for _, attributes in Page(text).elements for name in attributes if name.startswith("on")]


def test_the_policy_allows_the_style_and_script_of_the_page_and_no_more(tmp_path: Path) -> None:
    text = page(made_sources(tmp_path))
    found = Page(text)
    (policy,) = (m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'")
    assert "unsafe" not in str(policy)
    assert not [attributes for _, attributes in found.elements if "style" in attributes or "src" in attributes]


def test_nothing_is_loaded_and_no_place_is_told(tmp_path: Path) -> None:
    text = page(made_sources(tmp_path))
    assert "://" not in text
    assert all(str(a["href"]).startswith("#") for a in Page(text).all("a"))
    assert PLACE not in text
    assert str(tmp_path) not in text


def test_the_page_can_be_read_by_a_machine_that_reads_aloud(tmp_path: Path) -> None:
    found = Page(page(made_sources(tmp_path)))
    ids = [str(attributes["id"]) for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = " ".join(str(a["aria-labelledby"]) for _, a in found.elements if "aria-labelledby" in a).split()
    assert set(named) <= set(ids)
    assert {str(a["href"])[1:] for a in found.all("a")} <= set(ids)
    assert len(found.all("main")) == len(found.all("header")) == len(found.all("h1")) == 1
    assert len(found.all("caption")) == len(found.all("table"))
    assert len(found.all("figcaption")) == len(found.all("figure")) > 4
    assert all(svg["role"] == "img" for svg in found.all("svg"))
    assert all(th.get("scope") in ("row", "col") for th in found.all("th"))
    assert found.all("html") == [{"lang": "en"}]


def test_the_first_screen_comes_first(tmp_path: Path) -> None:
    text = page(made_sources(tmp_path, told={"guidance": {"saw_test_folds": True}}, cohort={"synthetic": True}))
    head = text[text.index("<header>") : text.index("</header>")]
    for said in ("Synthetic: 60 subjects", "LGG: sensitivity", "are tied", "Selection saw the test folds: guidance"):
        assert said in head


def test_the_same_run_is_the_same_page(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    assert page(sources) == page(sources)


@pytest.mark.parametrize("classes", [("I", "II", "III"), ("HGG", "LGG")])
@pytest.mark.parametrize("repeats", [1, 4])
def test_all_forms_of_all_kinds_of_runs(classes: tuple[str, ...], repeats: int, tmp_path: Path) -> None:
    sources = made_sources(tmp_path, classes=classes, repeats=repeats)
    report = document(sources)
    assert to_html(report).count("<section") == 10
    for text in (to_markdown(report), to_latex(sources, report), to_csv(sources), to_json(sources, report)):
        assert "guidance" in text
    shown = re.sub(r"<(script|style)>.*?</\1>", "", to_html(report), flags=re.DOTALL)
    assert not re.findall(r"\bnan\b|\binf\b", shown, re.IGNORECASE)


def test_everything_failed(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, methods={"guidance": 3.0}, told={"guidance": {"failed": "out of memory"}})
    text = page(sources)
    assert "guidance failed: out of memory" in text
    assert to_json(sources, document(sources))
    assert "failed" in to_latex(sources, document(sources))


def test_a_run_that_lacks_a_history_has_no_panels(tmp_path: Path) -> None:
    folder = write_made(made_run(), tmp_path / "made")
    (folder / "history.csv").unlink()
    assert 'id="training"' not in page(Sources.read(folder))


# Other forms


def test_markdown_escapes(tmp_path: Path) -> None:
    text = to_markdown(document(hostile(tmp_path)))
    assert "<img" not in text
    assert "&lt;img src=x" in text
    assert model_card(hostile(tmp_path / "other")).count("<img") == 0


def test_a_spreadsheet_calculates_nothing(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, methods={"=1+1": 3.0, "@x": 0.3})
    rows = list(csv.DictReader(io.StringIO(to_csv(sources))))
    assert [row["method"] for row in rows] == ["'=1+1", "'@x"]
    assert float(rows[0]["roc_auc_mean"]) == sources.board.rows[0].mean("roc_auc")
    assert rows[0]["parameters"] == "1000.0"


def test_json_has_values_and_no_nan(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, repeats=1)
    told = json.loads(to_json(sources, document(sources)))
    assert told["findings"]["pairs"][0]["p"] is None
    assert told["costs"]["guidance"]["parameters"] == 1000
    assert told["rankings"][0]["came_first"] == {"t1ce": 2, "t2": 1}
    assert told["commands"][0].startswith("pip install")


def test_the_card_is_not_for_clinical_use_and_of_one_run(tmp_path: Path) -> None:
    one, two = (write_made(made_run(name), tmp_path / name) for name in ("one", "two"))
    text = model_card(Sources.read(one))
    for said in ("Not for clinical use", "## Intended use", "## Training data", "## Limits", "fusionbench predict one"):
        assert said in text
    with pytest.raises(UsageError, match="a card is of one run, not of one, two"):
        model_card(Sources.read(one, two))


# The command


def run_command(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_writes_a_page_into_the_run(tmp_path: Path) -> None:
    folder = write_made(made_run(), tmp_path / "made")
    assert "report.html" in run_command(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == page(Sources.read(folder))


def test_the_command_writes_other_forms_and_figures(tmp_path: Path) -> None:
    run = made_run()
    folder = write_made(run, tmp_path / "made")
    assert "\\toprule" in run_command(folder, "--format", "latex")
    run_command(folder, "--format", "card", "--out", tmp_path / "model-card.md")
    assert "Not for clinical use" in (tmp_path / "model-card.md").read_text()
    run_command(folder, "--figures", "svg", "--out", tmp_path / "figures")
    assert (tmp_path / "figures" / "ranks.svg").is_file()
    there = predictions_csv(run, tmp_path)
    assert "theirs" in run_command(folder, "--import", f"theirs={there}", "--format", "md")
    assert "published" in run_command(folder, "--published", "brats2018", "--format", "csv")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["{run}", "{run}"], "say where to write it with --out"),
        (["{run}", "--figures", "png"], "into which folder with --out"),
        (["{run}", "--out", "{run}"], "is a folder: give --out a file"),
        (["{run}", "--figures", "svg", "--out", "{run}/run.json"], "is a file: give --out a folder"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], complaint: str, tmp_path: Path) -> None:
    folder = write_made(made_run(), tmp_path / "made")
    with pytest.raises(UsageError, match=complaint):
        CliRunner().invoke(
            app, ["report", *(word.format(run=folder) for word in words)], catch_exceptions=False, standalone_mode=False
        )


def test_the_command_imports_no_torch(tmp_path: Path) -> None:
    folder = write_made(made_run(), tmp_path / "made")
    code = (
        "import sys; from fusionbench_cli.app import app; "
        f"app(['report', {str(folder)!r}], standalone_mode=False); "
        "print(sorted({'torch', 'torchio', 'nibabel', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_templates_are_in_the_wheel() -> None:
    from importlib.resources import files

    folder = files("fusionbench.report") / "templates"
    assert {file.name for file in folder.iterdir()} == {"report.html", "report.css", "report.js"}
