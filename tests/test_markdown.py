"""Markdown of strangers' text shows the text, wherever it stands, as CommonMark with tables reads it."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fusionbench.errors import one_line
from fusionbench.markdown import escaped, markdown_table

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = [
    "# x", "###### ", "- x", "-", "---", "- - -", "+ x", "+", "* x", "***", "1. x", "12) x", "1.", "> x", "    x",
    "\tx", "===", "```", "~~~", "~~x~~", "`x`", "``", "|", "a|b", "\\|", "\\", "x\\", "<b>", "<!-- x", "&amp;", "&#35;",
    "[x](y)", "[x]: y", "![x](y)", "_x_", "__x__", "a_b_c", "a__b__c", "___", "*x*", "x\n# y", "x\n---", "x\r\n\r\n- y",
    "\u2028- x", "<http://x>",
    "https://x", ":---", "--- | ---", "-0.5", "0.757 ± 0.061", "1.5", "t1ce+dual", "$x$", " ", "",
]  # fmt: skip
"""What means something to Markdown, and what looks so and does not."""

PLACES = {
    "paragraph": ("{}", r"<p>(.*)</p>"),
    "heading": ("# {}", r"<h1>(.*)</h1>"),
    "item": ("- {}", r"<ul>\n<li>(.*)</li>\n</ul>"),
    "behind": ("x\n\n- a\n- {}\n- b", r"<p>x</p>\n<ul>\n<li>a</li>\n<li>(.*)</li>\n<li>b</li>\n</ul>"),
}
"""Where the product puts text, and what must come out."""


def read(text: str, expected: str) -> str:
    """The text that a reader of Markdown shows, if the blocks are as expected."""
    page = READER.render(text).strip()
    found = re.fullmatch(expected, page)
    assert found is not None, page
    assert "<" not in found[1], page
    return unescape(found[1])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip()])
def test_hostile_text_is_shown_as_it_is(text: str, place: str) -> None:
    around, expected = PLACES[place]
    assert read(around.format(escaped(text)), expected) == one_line(text).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_cell(text: str) -> None:
    page = READER.render(markdown_table([text, "b"], [["a", text], [text, "c"]]))
    cells = re.findall(r"<t[hd]>(.*)</t[hd]>", page)
    assert [unescape(cell) for cell in cells] == [one_line(cell).strip() for cell in (text, "b", "a", text, text, "c")]


@given(st.text(alphabet="-+*_#=>`~|\\[](){}!&;<:/.0159 ax\n\té", max_size=12).filter(str.strip))
@example("1. 2. x")
@example("- 1) #")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    for around, expected in PLACES.values():
        assert read(around.format(escaped(text)), expected) == one_line(text).strip()


def test_plain_text_stays_legible_in_the_source() -> None:
    for text in ("-0.5", "0.757 ± 0.061", "t1ce+dual", "roc_auc", "1.5 T", "25 % of 3 (mean)", "a - b", "x, y; z?"):
        assert escaped(text) == text


def test_no_address_is_made_a_link() -> None:
    assert "://" not in escaped("https://there")
    assert "www." not in escaped("see www.there.org, WWW.there.org").lower()
