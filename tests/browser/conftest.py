"""A real Chromium for the tests in this folder, and pages that remember every remote request and every error."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Playwright, sync_playwright

from course_lib.chapters import all_chapters

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = [c for c in all_chapters() if c.written]
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOW_TO_GET_IT = (
    "no Chromium found. Install one (Debian and Ubuntu: apt install chromium; macOS: Chrome; anywhere: "
    ".venv/bin/playwright install chromium) or name one: CHROMIUM=/path/to/chromium make test-browser"
)


def find_chromium(playwright: Playwright) -> str:
    """The browser named by CHROMIUM, else one on the path, else playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    pytest.exit(HOW_TO_GET_IT, returncode=3)


class WatchedPage:
    """A page and what it did that it should not: requests beyond this machine, uncaught errors, console errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.remote: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._request)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(f"console: {m.text}") if m.type == "error" else None)

    def _request(self, request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.remote.append(request.url)

    def assert_calm(self) -> None:
        """No remote request, no error."""
        assert self.remote == []
        assert self.errors == []


def move_frames(page: Page, within: Locator, where: str, after_each: Callable[[], None] = lambda: None) -> int:
    """Move each kernel-free slider below `within` by one key; another picture shows each time. Returns how many."""
    sliders = within.locator(".course-frames input[type=range]")
    shown = "e => [...e.closest('.course-frames').querySelectorAll('img[data-frame]')].findIndex(i => i.offsetParent)"
    for k in range(sliders.count()):
        slider = sliders.nth(k)
        was = slider.evaluate(shown)
        slider.focus()
        page.keyboard.press("ArrowRight" if slider.input_value() != slider.get_attribute("max") else "ArrowLeft")
        assert slider.evaluate(shown) != was, f"{where}: slider {k} moved, its picture did not"
        after_each()
    return sliders.count()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for the whole session."""
    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        flags = [*FLAGS, *(["--no-sandbox"] if root else [])]
        started = playwright.chromium.launch(executable_path=find_chromium(playwright), args=flags)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., WatchedPage]]:
    """A function that opens a fresh page of the size of a slide (or another)."""
    contexts = []

    def open_(width: int = 1280, height: int = 720) -> WatchedPage:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        return WatchedPage(contexts[-1].new_page())

    yield open_
    for context in contexts:
        context.close()
