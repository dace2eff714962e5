"""The book's pages in a real browser, from the disk. Oracle: the browser's own requests, layout and search results."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from publish.book.build import build
from tests.browser.conftest import WRITTEN, move_frames

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of a freshly built book; Sphinx treats every warning as an error."""
    return build(tmp_path_factory.mktemp("book") / "html").parent


def visit(watched, path) -> None:
    """Open a page and wait until its formulas are set."""
    watched.page.goto(path.as_uri())
    watched.page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
    watched.page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")


@pytest.mark.parametrize("chapter", WRITTEN, ids=lambda c: c.number)
def test_chapter_page(chapter, book, open_page):
    """Formulas are set, pictures described, sliders move, links to code and tests lead somewhere, nothing is remote."""
    watched = open_page(1280, 900)
    page = watched.page
    visit(watched, book / "notebooks" / chapter.path.with_suffix(".html"))
    formulas = page.locator("mjx-container").count()
    assert formulas or chapter.number == "00"
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    undescribed = page.evaluate("[...document.querySelectorAll('article img')].filter(i => !i.alt.trim()).length")
    assert undescribed == 0
    moved = move_frames(page, page.locator("body"), f"page {chapter.number}")
    assert moved >= 1
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"the page is {wide} px wider than the window"
    dead = page.evaluate("[...document.querySelectorAll('article a[href]')].map(a => a.href)")
    _assert_files_exist([url for url in dead if url.startswith("file:")])
    assert any("/code/tests." in url for url in dead)
    assert any("/code/course_lib." in url for url in dead)
    print(f"page {chapter.number}: {formulas} formulas, {moved} sliders moved, {len(dead)} links")
    watched.assert_calm()


def _assert_files_exist(urls) -> None:
    missing = {url for url in urls if not Path(unquote(urlsplit(url).path)).exists()}
    assert not missing


@pytest.mark.parametrize("name", ["index", "glossary", "bibliography", "symbols", "genindex"])
def test_other_pages(name, book, open_page):
    """Each page opens calmly and says what it is for."""
    expected = {
        "index": "Bicubic",
        "glossary": "双线性插值",
        "bibliography": "Keys",
        "symbols": "resize_matrix",
        "genindex": "resize()",
    }
    watched = open_page(1280, 900)
    visit(watched, book / f"{name}.html")
    assert expected[name] in watched.page.locator("article, main").first.inner_text()
    watched.assert_calm()


def test_search(book, open_page):
    """The word "checkerboard" is found in the glossary, without a server."""
    watched = open_page(1280, 900)
    watched.page.goto((book / "search.html").as_uri() + "?q=checkerboard")
    watched.page.wait_for_selector("#search-results li a", timeout=20_000)
    assert "Glossary" in watched.page.locator("#search-results").inner_text()
    watched.assert_calm()
