"""The widgets of the chapters themselves: what is stored is read back, what is live is rendered at every value."""

import contextlib
import io
import itertools
import json
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from PIL import Image

from course_lib import chapters, show
from tests.widgets.page import Page, assert_self_contained, decoded

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WRITTEN = {c.stem: NOTEBOOKS / c.path for c in chapters.all_chapters() if c.written}


def stored(path, kind):
    """The stored HTML outputs of a notebook that hold a widget of this class."""
    cells = nbformat.read(path, 4).cells
    outputs = itertools.chain.from_iterable(cell.get("outputs", []) for cell in cells)
    found = (output.get("data", {}).get("text/html", "") for output in outputs)
    return [html for html in found if f'class="{kind}"' in html]


@pytest.mark.parametrize("stem", WRITTEN)
def test_stored_frames_are_whole(stem):
    """Oracle: as many pictures as the sliders have values, each decodable and named by its values."""
    frames_of_chapter = stored(WRITTEN[stem], "course-frames")
    assert frames_of_chapter, "a chapter has at least one slider that needs no kernel"
    for html in frames_of_chapter:
        assert_self_contained(html)
        assert len(html) < 400_000
        page = Page(html)
        texts = [json.loads(e.attributes["data-texts"]) for e in page.all("input")]
        frames = [e for e in page.all("img") if "data-frame" in e.attributes]
        assert len(frames) == np.prod([len(t) for t in texts])
        for frame, values in zip(frames, itertools.product(*texts), strict=True):
            assert frame.attributes["alt"].endswith(" = ".join(["", values[-1]]))
            assert decoded(frame.attributes["src"]).ndim == 3


@pytest.mark.parametrize("stem", WRITTEN)
def test_stored_guesses_are_whole(stem):
    """Oracle: HANDBOOK wants the reader to commit to a guess first; one answer of each is right."""
    guesses = stored(WRITTEN[stem], "course-guess")
    assert guesses
    for html in guesses:
        assert_self_contained(html)
        rights = [b.attributes["data-right"] for b in Page(html).all("button")]
        assert rights.count("1") == 1


@pytest.mark.parametrize("stem", WRITTEN)
def test_live_pictures_at_every_value(stem, monkeypatch):
    """Oracle: each control of each live cell, moved through all its values, and each place of each pointer, gives a
    picture that decodes, and no line of trouble appears."""
    monkeypatch.setenv("COURSE_PICTURE", "default")
    monkeypatch.chdir(WRITTEN[stem].parent)
    made = []
    for name in ("live", "pointer"):
        monkeypatch.setattr(show, name, recording(getattr(show, name), made))
    with mpl.rc_context(), contextlib.redirect_stdout(io.StringIO()):
        run_cells(WRITTEN[stem])
        assert made, "a chapter has at least one live picture or pointer"
        for widget in made:
            for data in everything(widget):
                assert Image.open(io.BytesIO(data)).size > (1, 1)


def recording(function, made):
    """The function, which also keeps what it makes."""

    def call(*args, **kwargs):
        made.append(function(*args, **kwargs))
        return made[-1]

    return call


def run_cells(path):
    """Run the code of a notebook in one name space, as its kernel would, up to its last live cell."""
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    last = max((k for k, c in enumerate(cells) if "show.live(" in c.source or "show.pointer(" in c.source), default=-1)
    space = {"__name__": "__main__"}
    for cell in cells[: last + 1]:
        exec(compile(cell.source, f"{path.stem}, cell {cell.id}", "exec"), space)


def everything(widget):
    """The picture at each value: one control at a time for live pictures, the stored grid for pointers."""
    if isinstance(widget, show.Pointer):
        yield from (widget.render_bytes(y, x) for y, x in widget.positions)
        return
    for name, control in widget.controls.items():
        start = control.value
        for value in widget.values(name):
            control.value = value
            assert widget.message.value == "", (name, value, widget.message.value)
            yield widget.image.value
        control.value = start
