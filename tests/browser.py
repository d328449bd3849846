"""A real Chromium for tests of pages: what it showed, what it complained of, and what it asked for."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import missing
from .overlap import GUARD

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing of the browser's own may ask for anything, and it runs as root in containers.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def started() -> Iterator[Browser]:
    """A headless Chromium. While it runs this thread has a running event loop, so keep it no longer than a module."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        pytest.skip("needs a browser, which the tests have on Linux with CPython only")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    found = next((path for name in NAMES if (path := shutil.which(name))), None) or missing("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=GUARD * 1000)
        try:
            yield browser
        finally:
            browser.close()


class Shown:
    """A tab of a browser that shows pages of timings, one after the other.

    Attributes:
        page: The tab, for what is not here.
        complaints: What it wrote to the console, and its uncaught errors.
        requests: What it asked for besides itself.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(GUARD * 1000)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        """Opens a page, in a window of the usual size, with the mouse out of the way."""
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.mouse.move(0, 0)
        self.complaints.clear()
        self.requests.clear()
        self.page.goto(path.as_uri())
        self.requests.remove(path.as_uri())

    def drawn(self) -> Shown:
        """Waits until the charts are there."""
        self.page.wait_for_selector("html[data-drawn]")
        return self

    def text(self, selector: str) -> str:
        """The text of one element as it is laid out, with spaces made one."""
        return re.sub(r"\s+", " ", self.page.locator(selector).inner_text()).strip()

    def value(self, script: str) -> Any:
        """What a piece of script in the page's world makes."""
        return self.page.evaluate(script)

    def range(self) -> tuple[float, float]:
        """From when to when the timeline shows, in seconds, of builds shorter than a minute."""
        first, last = (float(number) for number in re.findall(r"[\d.]+", self.text("#range")))
        return first, last

    def until_range(self, condition: str) -> tuple[float, float]:
        """Waits until `from` and `to` fulfil a condition, written in the page's language."""
        self.page.wait_for_function(
            "() => { const [from, to] = document.getElementById('range').textContent.match(/[\\d.]+/g).map(Number);"
            f" return {condition}; }}"
        )
        return self.range()

    def place(self, selector: str, time: float, down: float) -> tuple[float, float]:
        """The point of the window at a time, `down` pixels below the top of an element, which is scrolled into view."""
        element = self.page.locator(selector)
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        assert box is not None, f"{selector} is not shown"
        first, last = self.range()
        return box["x"] + (time - first) / (last - first) * box["width"], box["y"] + down

    def hover(self, selector: str, time: float, down: float) -> dict[str, str]:
        """Moves the mouse to a point and returns the figures that are shown beside it."""
        self.page.mouse.move(*self.place(selector, time, down))
        return self.figures()

    def figures(self) -> dict[str, str]:
        """The figures beside the pointer or the cursor; "title" is what they are about, "command" its command."""
        self.page.wait_for_selector("#hover:not([hidden])")
        found = self.value(
            "() => ({title: document.querySelector('#hover .title').textContent,"
            " command: document.querySelector('#hover code')?.textContent ?? '',"
            " names: [...document.querySelectorAll('#hover dt')].map((term) => term.textContent),"
            " values: [...document.querySelectorAll('#hover dd')].map((value) => value.textContent)})"
        )
        # What is of the process comes first, so it stands where the machine has a figure of the same name.
        pairs = list(zip(found["names"], found["values"], strict=True))
        return {**dict(reversed(pairs)), "title": found["title"], "command": found["command"]}
