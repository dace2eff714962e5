"""Every deck in a real browser, from the disk. Oracle: the browser's own layout, requests and pixels."""

import html
import inspect
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from course_lib.exercises.registry import exercises
from publish.slides.build import build, deck
from tests.browser.conftest import ROOT, WRITTEN, move_frames

pytestmark = pytest.mark.browser
# COURSE_SLIDES names a folder that receives a picture of each slide, to be looked at
PICTURES = os.environ.get("COURSE_SLIDES")

SLIDE = """() => {
  const slide = Reveal.getCurrentSlide();
  const box = slide.getBoundingClientRect();
  const seen = [...slide.querySelectorAll("*")].filter(e => {
    const r = e.getBoundingClientRect();
    const laid = getComputedStyle(e).position !== "absolute" && !e.closest(".notes, svg, mjx-assistive-mml");
    const folded = e.closest("details:not([open])") && !e.closest("summary");
    return laid && !folded && r.width > 0 && r.height > 0;
  });
  const bottom = Math.max(0, ...seen.map(e => e.getBoundingClientRect().bottom));
  const right = Math.max(0, ...seen.map(e => e.getBoundingClientRect().right));
  const small = [...slide.querySelectorAll("pre")].map(e => parseFloat(getComputedStyle(e).fontSize));
  return {
    index: Reveal.getSlidePastCount(), height: slide.scrollHeight, width: slide.scrollWidth, bottom, right,
    words: slide.innerText.trim().length, pictures: slide.querySelectorAll("img, svg, button").length,
    smallest: Math.min(99, ...small), clipped: [...slide.querySelectorAll("pre, table, mjx-container")].filter(
      e => !e.closest("details:not([open])") && e.scrollWidth > e.clientWidth + 2 && e.clientWidth > 0).length,
    head: slide.innerText.trim().slice(0, 50),
  };
}"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory) -> dict[str, Path]:
    """Every written chapter's deck, built into a fresh folder."""
    notebooks = [ROOT / "notebooks" / c.path for c in WRITTEN]
    out = tmp_path_factory.mktemp("slides")
    return dict(zip((c.number for c in WRITTEN), build(notebooks, out), strict=True))


@pytest.mark.parametrize("number", [c.number for c in WRITTEN])
def test_deck(number, decks, open_page):
    """No slide overflows, no request leaves, formulas are set, sliders move by key and the slide stays."""
    watched = open_page()
    page = watched.page
    page.goto(decks[number].as_uri())
    page.wait_for_selector("html[data-deck=ready]", timeout=60_000)
    total = page.evaluate("Reveal.getTotalSlides()")
    assert 15 <= total <= 30, f"{total} slides; a chapter is a lecture of 15 to 30"
    problems, sliders, formulas = [], 0, page.locator("mjx-container").count()
    for i in range(total):
        page.evaluate("document.querySelectorAll('section.present .fragment').forEach(f => f.classList.add('visible'))")
        found = page.evaluate(SLIDE)
        assert found["index"] == i
        problems += [f"slide {i + 1} ({found['head']!r}): {p}" for p in _problems(found)]
        if PICTURES:
            page.screenshot(path=f"{PICTURES}/{number}_{i + 1:02d}.png")
        sliders += _move_sliders(page)
        page.evaluate("Reveal.next(); document.querySelectorAll('section.present .fragment').forEach(() => 0)")
        _next_slide(page, i)
    print(
        f"deck {number}: {total} slides, {formulas} formulas, {sliders} sliders moved, {len(watched.remote)} requests"
    )
    assert not problems, "\n".join(problems)
    assert formulas or number == "00"
    assert sliders, "a chapter has at least one slider that needs no kernel"
    linked = page.evaluate("[...document.querySelectorAll('.slides a[href]')].map(a => a.href.split('#')[0])")
    assert {
        url for url in linked if url.startswith("file:") and not Path(unquote(urlsplit(url).path)).exists()
    } == set()
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    watched.assert_calm()


def _problems(found: dict) -> list[str]:
    problems = []
    if found["height"] > 721 or found["bottom"] > 721:
        problems.append(f"too tall ({max(found['height'], found['bottom']):.0f} px of 720)")
    if found["width"] > 1281 or found["right"] > 1281:
        problems.append(f"too wide ({max(found['width'], found['right']):.0f} px of 1280)")
    if found["smallest"] < 18:
        problems.append(f"code at {found['smallest']} px")
    if found["clipped"]:
        problems.append(f"{found['clipped']} blocks wider than their column")
    if found["words"] == 0 and found["pictures"] == 0:
        problems.append("empty")
    return problems


def _move_sliders(page) -> int:
    """Move each slider of the current slide by one key: another picture shows, the deck stays where it is."""
    before = page.evaluate("JSON.stringify(Reveal.getIndices())")

    def deck_stayed() -> None:
        assert page.evaluate("JSON.stringify(Reveal.getIndices())") == before, "the key turned the slide"

    moved = move_frames(page, page.locator("section.present:not(.stack)"), f"slide {before}", deck_stayed)
    page.evaluate("document.activeElement.blur()")
    return moved


def _next_slide(page, i: int) -> None:
    """Go on until the next slide shows (fragments are steps of their own)."""
    for _ in range(40):
        if page.evaluate("Reveal.getSlidePastCount()") != i or page.evaluate("Reveal.isLastSlide()"):
            return
        page.evaluate("Reveal.next()")


def test_speaker_notes_and_absent_solutions(decks):
    """Oracle: the pages' own text and the library's solutions. Notes are there for the speaker, solutions never."""
    for number, path in decks.items():
        page = path.read_text(encoding="utf-8")
        assert 'class="notes"' in page
        text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page)))
        for exercise in exercises(number).values():
            if inspect.isfunction(exercise.solution) and not exercise.id.endswith(".0"):
                body = inspect.getsource(exercise.solution).split(":", 1)[1]
                assert re.sub(r"\s+", " ", body).strip() not in text, f"the deck shows the solution of {exercise.id}"


def test_a_cell_tagged_solution_is_left_out(tmp_path):
    """Oracle: a deck of two cells, one of them tagged."""
    cells = [
        nbformat.v4.new_markdown_cell(t, metadata={"slideshow": {"slide_type": "slide"}}) for t in ("# Asked", "Told")
    ]
    cells[1].metadata["tags"] = ["solution"]
    page = deck(nbformat.v4.new_notebook(cells=cells))
    assert "Asked" in page
    assert "Told" not in page


def test_a_too_full_slide_is_seen(tmp_path, open_page):
    """The test above can fail: a deck with a slide of a hundred lines is reported as too tall."""
    cell = nbformat.v4.new_markdown_cell("# Full\n\n" + "\n\n".join(f"line {i}" for i in range(100)))
    cell.metadata["slideshow"] = {"slide_type": "slide"}
    path = tmp_path / "full.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    watched = open_page()
    watched.page.goto(build([path], tmp_path / "out")[0].as_uri())
    watched.page.wait_for_selector("html[data-deck=ready]")
    assert any("too tall" in p for p in _problems(watched.page.evaluate(SLIDE)))
