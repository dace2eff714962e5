"""Guess: readable, answerable and closed in every front end, with live handlers or dead ones."""

import re

import pytest

from course_lib import show
from tests.widgets.page import Page, assert_self_contained


def made(answer=1):
    return show.guess(
        "What does `W(1)` say to <0>?", options=["exactly 0", "**more**", "less"], answer=answer, because="it is a zero"
    )


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_exactly_the_right_button_is_right(answer):
    """Oracle: the index that was given; every button carries a letter and a handler."""
    page = Page(made(answer).content)
    buttons = page.all("button")
    assert [b.attributes["data-right"] for b in buttons] == [str(int(k == answer)) for k in range(3)]
    assert [b.attributes["data-letter"] for b in buttons] == ["A", "B", "C"]
    assert [b.text for b in buttons] == ["A exactly 0", "B more", "C less"]
    assert all(b.attributes["onclick"] and b.attributes["type"] == "button" for b in buttons)


def test_with_dead_handlers_the_answer_waits_folded():
    """Oracle: a closed <details> that holds the answer and the reason; the options stay outside of it."""
    page = Page(made().content)
    (details,) = page.all("details")
    assert "open" not in details.attributes
    assert "B: more: it is a zero." in details.text
    assert "less" not in details.text
    assert "What does W(1) say to <0>?" in page.all("div")[0].text


def test_it_needs_nothing_from_outside_and_keeps_its_keys():
    """Oracle: HANDBOOK's list; the verdict is a sign and words, in a region that screen readers announce."""
    content = made().content
    assert_self_contained(content)
    assert 'onkeydown="event.stopPropagation()"' in content
    assert Page(content).all("div", role="status")
    handler = Page(content).all("button")[0].attributes["onclick"]
    assert {"✓", "✗"} <= set(handler)
    assert "Right" in handler
    assert not re.search(r"(?<!current)color\s*=", handler.lower())


def test_the_plain_form_says_the_same():
    """Oracle: the text a front end without HTML shows."""
    bundle = made()._repr_mimebundle_()
    assert bundle["text/html"] == made().content
    lines = bundle["text/plain"].splitlines()
    assert lines[1:4] == ["  A  exactly 0", "  B  **more**", "  C  less"]
    assert lines[4] == "(The answer: B: **more**: it is a zero.)"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"question": ""}, ValueError, "question"),
        ({"because": " "}, ValueError, "because"),
        ({"options": ["a"]}, ValueError, "options must be 2 to 6"),
        ({"options": ["a"] * 2}, ValueError, "different"),
        ({"options": list("abcdefg")}, ValueError, "2 to 6"),
        ({"options": "ab"}, ValueError, "options"),
        ({"answer": 2}, ValueError, r"0\.\.1"),
        ({"answer": -1}, ValueError, r"0\.\.1"),
        ({"answer": "b"}, TypeError, "index"),
        ({"answer": True}, TypeError, "index"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    """Oracle: the message says which argument, what came and what was expected."""
    with pytest.raises(error, match=message):
        show.guess(**{"question": "q?", "options": ["a", "b"], "answer": 0, "because": "c", **change})
