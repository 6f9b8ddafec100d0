"""The page in a real browser: nothing blocked, nothing thrown, sorting by keyboard, nothing too wide for a phone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run, write_made

from fusionbench.report import Sources, document, to_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here: `apt-get install chromium`"),
]
TROUBLE = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Audits.issueAdded")


class Browser:
    """A headless Chromium, spoken to through pipes: no port, no driver."""

    def __init__(self, profile: Path) -> None:
        read_theirs, write_ours = os.pipe()
        read_ours, write_theirs = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}', str(BROWSER), *flags, "about:blank"],
            pass_fds=(read_theirs, write_theirs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_theirs)
        os.close(write_theirs)
        self.to, self.back = os.fdopen(write_ours, "wb"), os.fdopen(read_ours, "rb")
        self.numbers, self.events, self.session = count(1), list[dict[str, Any]](), ""
        pages = [t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Audits", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; what happens meanwhile is kept."""
        number = next(self.numbers)
        told = {"id": number, "method": method, "params": parameters} | (
            {"sessionId": self.session} if self.session else {}
        )
        self.to.write(json.dumps(told).encode() + b"\0")
        self.to.flush()
        while (message := self._next()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        answer: dict[str, Any] = message["result"]
        return answer

    def open(self, page: Path, width: int, height: int = 844, scheme: str = "light") -> None:
        """Show a page in a window of that size."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=13, **text)

    def picture(self) -> bytes:
        """What is on the screen, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])

    def close(self) -> None:
        """End it."""
        self.session = ""
        self.ask("Browser.close")
        self.to.close()
        self.process.wait(20)
        self.back.close()

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (letter := self.back.read(1)) != b"\0":
            assert letter, "the browser is gone"
            text += letter
        message: dict[str, Any] = json.loads(bytes(text))
        return message


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    chromium = Browser(tmp_path / "profile")
    yield chromium
    chromium.close()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    methods = {"guidance": 3.0, "ensemble": 2.9, "t1ce": 0.3, "a method with a name that is rather long + t2": 1.0}
    run = made_run(methods=methods, told={"ensemble": {"saw_test_folds": True}}, cohort={"synthetic": True})
    file = tmp_path / "report.html"
    file.write_text(to_html(document(Sources.read(write_made(run, tmp_path / "made")))), encoding="utf-8")
    return file


def test_nothing_is_blocked_loaded_or_thrown(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [page.as_uri()]
    assert [event for event in browser.events if event.get("method") in TROUBLE] == []


def test_the_policy_stops_what_is_planted(browser: Browser, page: Path) -> None:
    planted = page.read_text().replace(
        "</main>", "<script>document.title = 'taken'</script><p style='color:red'></main>"
    )
    page.write_text(planted)
    browser.open(page, 1200)
    assert browser.run("document.title").startswith("Fusion strategies")
    assert [event for event in browser.events if event.get("method") in TROUBLE]


def test_tables_are_sorted_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)
    head = "document.querySelector('#scores table thead th:nth-child(3)')"
    order = "[...document.querySelectorAll('#scores table tbody')][0].innerText.split('\\n').filter(t => t)"
    names = "[...document.querySelector('#scores table').tBodies[0].rows].map(r => r.cells[0].firstChild.textContent)"
    before = browser.run(names)
    assert browser.run(order)
    browser.run(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert browser.run(names) == before  # by mean ROC-AUC, as it came
    browser.press("Enter")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert browser.run(names) == before[::-1]
    browser.run("document.querySelector('#scores table thead th button').click()")
    assert browser.run(names) == sorted(before)
    assert browser.run("document.querySelectorAll('#scores table')[0].querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_is_wider_than_the_window(width: int, browser: Browser, page: Path) -> None:
    browser.open(page, width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    wide = """[...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.scroll, .panels, pre, .hidden, .skip, script')
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.run(wide) == []


def test_the_first_screen_of_a_phone_has_what_must_be_known(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    bottoms = browser.run("[...document.querySelectorAll('.brief > div')].map(e => e.getBoundingClientRect().bottom)")
    assert len(bottoms) == 4
    assert max(bottoms) <= 844


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, browser: Browser, page: Path) -> None:
    """WCAG's AA: 4.5 to 1, for every text, also in figures."""
    browser.open(page, 1200, scheme=scheme)
    weak = browser.run("""(() => {
      const parse = c => c.match(/[\\d.]+/g).map(Number);
      const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = c => { const [r, g, b] = parse(c).map(v => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (parse(c).length < 4 || parse(c)[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
      const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('script') &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !['title', 'desc'].includes(e.tagName));
      return texts.map(e => { const s = getComputedStyle(e);
        const [a, b] = [light(e.tagName === 'text' ? s.fill : s.color), light(ground(e))].sort((x, y) => y - x);
        return [(a + .05) / (b + .05), e.textContent.trim().slice(0, 40)]; }).filter(([ratio]) => ratio < 4.5);
    })()""")
    assert weak == []


def test_without_a_mouse_every_scrolled_part_can_be_reached(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    stuck = """[...document.querySelectorAll('.scroll, .panels, pre')]
        .filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"""
    assert browser.run(stuck) == 0
    assert browser.picture().startswith(b"\x89PNG")
