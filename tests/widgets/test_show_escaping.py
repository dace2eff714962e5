"""What an author writes is text: no sign of it becomes HTML, wherever it is shown."""

import torch

from course_lib import show
from tests.widgets.page import Page

TEXT = 'the <i>"sign"</i> & so'
GREY = torch.full((1, 8, 8), 0.5)


def assert_only_text(content, times):
    """Oracle: the text comes back whole from the parsed page, `times` times or more, and no element <i> is born."""
    page = Page(f"<div>{content}</div>")
    assert not page.all("i")
    leaves = [e.text for e in page.elements] + [v for e in page.elements for v in e.attributes.values()]
    assert sum(TEXT in leaf for leaf in leaves) >= times


def test_guess():
    """Oracle: question, options, answer and reason come back whole."""
    for k, field in enumerate(("question", "option", "because")):
        texts = {**dict.fromkeys(("question", "option", "because"), "plain"), field: TEXT}
        block = show.guess(texts["question"], [texts["option"], "b"], answer=0, because=texts["because"])
        assert_only_text(block.content, 2 if k == 1 else 1)


def test_frames():
    """Oracle: watch, alt and the values of a slider come back whole."""
    assert_only_text(show.frames(lambda k: GREY, k=[0, 1], watch=TEXT, alt="grey").html, 1)
    assert_only_text(show.frames(lambda k: GREY, k=[0, 1], watch="it", alt=TEXT).html, 2)
    page = Page(show.frames(lambda k: GREY, k=[TEXT, "b"], watch="it", alt="grey").html)
    assert page.all("output")[0].text == TEXT
    assert page.all("input")[0].attributes["aria-valuetext"] == TEXT


def test_live():
    """Oracle: watch, and the line for screen readers with alt and values, come back whole."""
    live = show.live(lambda k: GREY, k=[TEXT, "b"], watch=TEXT, alt=TEXT)
    assert_only_text(live.widget.children[-1].value, 1)
    assert_only_text(live.described.value, 1)
    assert Page(live.described.value).all("span")[0].text == f"{TEXT}: k = {TEXT}"


def test_pointer():
    """Oracle: watch and alt come back whole, live and in the stored form, where the base picture has an alt too."""
    pointer = show.pointer(GREY, lambda y, x: GREY, watch=TEXT, alt=TEXT, grid=(2, 2))
    assert_only_text(pointer.widget.watch, 1)
    assert_only_text(pointer.frames.html, 6)


def test_the_box_for_a_picture(monkeypatch, tmp_path):
    """Oracle: the path of a damaged picture, named in the message."""
    monkeypatch.delenv("COURSE_PICTURE", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "<i>"))
    show.store_picture("mine.png", show.live(lambda k: GREY.repeat(1, 3, 3), k=[1, 2], watch="it", alt="x").image.value)
    next((tmp_path / "<i>").iterdir()).write_bytes(b"nonsense")
    assert "&lt;i&gt;" in show.upload().message.value
