"""Tables in LaTeX: a stranger's text is never markup, wide tables fit the page, captions can be understood alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import FIRST, made_sources

from fusionbench.report import Sources, document, to_latex
from fusionbench.report.document import Cell, Document, Section, Table, number
from fusionbench.report.latex import NEEDED, TABLES
from fusionbench.report.latextext import escaped, not_in_fonts

NASTY = (
    "[1] a",
    "*b --x'' ,,y",
    "]c",
    "β₂−α 的 🧠 Ħ é ș ≤ ½µ ℵ",
    '& % _ ^ ~ # $ { } \\ < > | " `?` !`',
    "-1",
    "e\u0301",
)
NAMES = {name: 3.0 - position / 4 for position, name in enumerate(NASTY)}


def written(sources: Sources, *tables: Table) -> str:
    """Tables in LaTeX; if none are given those of the report."""
    return to_latex(sources, Document("", (), (Section("all", "All", tables),), "") if tables else document(sources))


def environments(text: str) -> list[str]:
    return re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)


def table(*rows: tuple[Cell, ...], header: tuple[str, ...] = ("Method", "Score"), name: str = "shapley") -> Table:
    return Table(name, "A caption.", header, rows)


# Text


def test_nothing_of_a_stranger_is_markup() -> None:
    assert escaped("a_b & 5% {x} \\ $1 ~^#") == (
        r"a\_b \& 5\% \{x\} \textbackslash{} \$1 \textasciitilde{}\textasciicircum{}\#"
    )


@pytest.mark.parametrize("name", ["[2pt]", "*", "*[2pt]", "]"])
def test_a_row_does_not_begin_with_an_argument_of_the_line_before(name: str, tmp_path: Path) -> None:
    text = written(made_sources(tmp_path), table((Cell("a"), number(0.5)), (Cell(name), number(0.5))))
    assert not re.search(r"(\\\\|\\midrule|\\addlinespace)\s*[\[*]", text)
    assert escaped(name).replace("{", "").replace("}", "") == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("−0.5", "$-$0.5"),
        ("α, Ω", r"$\alpha$, $\Omega$"),
        ("x₂ ≤ 1", r"x$_{2}$ $\le$ 1"),
        ("é ő ß ½ ·", "é ő ß ½ ·"),
        ("e\u0301", "é"),
        ("a--b", "a-{}-b"),
        ("''", "'{}'"),
        ("的", "{[}U+7684{]}"),
        ("🧠", "{[}U+1F9E0{]}"),
        ("Ħ", "{[}U+0126{]}"),
        ("Ж", "{[}U+0416{]}"),
        ("a\nb", r"a\textbackslash{}nb"),
    ],
)
def test_characters_that_the_fonts_have_and_lack(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_all_that_is_left_of_any_character_is_in_the_fonts() -> None:
    """As LaTeX itself lists them, where there is one."""
    kept = {c for code in (*range(0x20, 0xD800), *range(0xE000, 0x1F9FF)) for c in escaped(chr(code))}
    assert not kept & set("\u00adĦħĸĿŀŉŦŧſαΩ−₂的¸")
    assert kept > set("éőßș½·µ€→")
    if shutil.which("kpsewhich"):
        found = subprocess.run(["kpsewhich", "t1enc.dfu", "ts1enc.dfu"], capture_output=True, text=True, check=True)
        listed = "".join(Path(file).read_text(errors="replace") for file in found.stdout.split())
        codes = re.findall(r"^\s*\\DeclareUnicodeCharacter\{([0-9A-Fa-f]+)\}", listed, re.MULTILINE)
        assert not {c for c in kept if not c.isascii()} - {chr(int(code, 16)) for code in codes}


def test_what_is_replaced_is_told_in_a_comment(tmp_path: Path) -> None:
    text = written(made_sources(tmp_path, methods={"的": 3.0, FIRST: 0.3}))
    assert "% Warning: T1 fonts have no 的: U+7684 is printed instead" in text.splitlines()
    assert "Warning" not in written(made_sources(tmp_path / "other"))
    assert not_in_fonts("aé−α") == {}
    assert not [line for line in text.splitlines() if "的" in line and not line.startswith("%")]


def test_a_negative_number_has_a_minus_and_a_name_its_hyphen(tmp_path: Path) -> None:
    row = (Cell("t1-ce -1"), Cell("-0.500", -0.5, "-0.7 to 0.1"))
    text = written(made_sources(tmp_path), table(row))
    assert r"t1-ce -1 & $-$0.500 \\" in text
    assert r"{\footnotesize $-$0.7 to 0.1}" in text


# Tables


def test_the_best_is_bold_and_who_is_tied_underlined(tmp_path: Path) -> None:
    text = written(made_sources(tmp_path))
    assert re.search(r"^guidance & 1--2 & \\textbf\{", text, re.MULTILINE)
    assert re.search(r"^ensemble & 1--2 & \\underline\{", text, re.MULTILINE)
    assert re.search(r"^t1ce & 3 & \d", text, re.MULTILINE)
    assert "Bold: best mean; underlined: tied with it." in environments(text)[0]


def test_with_too_few_folds_nobody_is_marked_as_tied(tmp_path: Path) -> None:
    text = written(made_sources(tmp_path, repeats=1))
    assert r"\underline" not in text
    assert "whether another is tied with it was not tested" in environments(text)[0]


def test_a_clear_winner_is_tied_with_nobody(tmp_path: Path) -> None:
    text = written(made_sources(tmp_path, methods={"guidance": 3.0, FIRST: 0.3}))
    assert "none is tied with it" in environments(text)[0]


def test_intervals_stand_below_and_marks_at_the_foot(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, told={"guidance": {"saw_test_folds": True}})
    board = environments(written(sources))[0]
    assert r"guidance\textsuperscript{a} & " in board
    assert r"\par\footnotesize\textsuperscript{a} selection saw the test folds" in board
    lines = board.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("guidance"))
    assert re.match(r" &  & \{\\footnotesize 0\.\d+ to [01]\.\d+\} & ", lines[first + 1])
    assert "to" not in lines[first]


def test_every_caption_can_be_understood_alone(tmp_path: Path) -> None:
    told = environments(written(made_sources(tmp_path, cohort={"synthetic": True})))
    assert len(told) >= len(TABLES) - 1
    for one in told:
        caption, body = one.split(r"\begin{tabular}")
        assert "positive class LGG" in caption
        assert "12 " in caption
        assert "SYNTHETIC DATA" in caption
        assert ("\\textbf" in body) <= ("Bold" in caption)
        assert ("\\pm" in body) <= ("standard deviation" in caption)


def test_a_table_of_many_columns_comes_in_parts(tmp_path: Path) -> None:
    header = ("Method", *(f"s{n}" for n in range(11)))
    row = (Cell("m"), *(number(n / 100) for n in range(11)))
    parts = environments(written(made_sources(tmp_path), table(row, header=header)))
    assert [part.count(" & s") for part in parts] == [6, 5]
    assert ["Part 1 of 2." in parts[0], "Part 2 of 2." in parts[1]] == [True, True]
    numbers = [re.search(r"^m & (.*) \\\\$", part, re.MULTILINE)[1].split(" & ") for part in parts]  # type: ignore[index]
    assert [*numbers[0], *numbers[1]] == [f"{n / 100:.3f}" for n in range(11)]


def test_letters_stand_for_long_names_over_numbers(tmp_path: Path) -> None:
    header = ("Row minus column", *(f"a-method-with-a-long-name-{n}" for n in range(4)))
    (text,) = environments(written(made_sources(tmp_path), table((Cell("m"), *map(number, (0.1,) * 4)), header=header)))
    assert r"Row minus column & (a) & (b) & (c) & (d) \\" in text
    assert r"\par\footnotesize (d) a-method-with-a-long-name-3" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_hostile_tables_compile_and_fit_the_page(tmp_path: Path) -> None:
    marked = {name: {"outlines": "training"} for name in NASTY[:3]}
    many = NAMES | {f"another-method-with-a-long-name-{n}": 0.5 for n in range(5)}
    text = written(made_sources(tmp_path, methods=many, told=marked, repeats=4))
    needed = NEEDED.removeprefix("% ")
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}{needed}\\begin{{document}}\n{text}\\end{{document}}")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)
    assert "Overfull" not in (tmp_path / "t.log").read_text(errors="replace")
