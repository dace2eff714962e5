"""Pointer: Python's side of the conversation at every place of the grid, and its kernel-free form."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import show
from tests.widgets.page import Page, assert_self_contained, decoded

IMAGE = torch.linspace(0, 1, 12 * 20).reshape(1, 12, 20)


def one_tone(y, x):
    return torch.full((1, 4, 4), (round(y) * 20 + round(x)) / 255)


def made(render=one_tone, **more):
    return show.pointer(IMAGE, render, watch="the tone", alt="A ramp", **more)


def tone(data):
    return int(np.asarray(Image.open(io.BytesIO(data)).convert("L"))[0, 0])


@pytest.mark.parametrize("options", [{}, {"snap": True}, {"beside": False}, {"grid": (2, 15)}, {"start": (0, 19)}])
def test_every_place_of_the_grid_without_a_kernel(options):
    """Oracle: the tone is 20 y + x, read back from the frame that the two sliders select."""
    pointer = made(**options)
    assert_self_contained(pointer.frames.html)
    page = Page(pointer.frames.html)
    rows, columns = (json.loads(e.attributes["data-texts"]) for e in page.all("input"))
    assert len(pointer.positions) == len(rows) * len(columns)
    for k, (y, x) in enumerate(pointer.positions):
        frame = page.all("img", data_frame=str(k))[0]
        assert decoded(frame.attributes["src"])[0, 0, 0] == round(y) * 20 + round(x)
    assert min(pointer.positions)[0] >= 0
    assert max(pointer.positions) == (11, 19)
    assert pointer.start in pointer.positions


def test_the_marker_of_the_kernel_free_form_stands_on_the_pixel():
    """Oracle: pixel k of n covers [k/n, (k+1)/n] of the picture, so its centre is at (k + 1/2) / n."""
    pointer = made(snap=True, grid=(3, 3), start=(0, 0))
    y, x = Page(pointer.frames.html).all("input")
    assert (y.attributes["data-side"], x.attributes["data-side"]) == ("top", "left")
    for element, count in ((y, 12), (x, 20)):
        places = json.loads(element.attributes["data-places"])
        values = [int(v) for v in json.loads(element.attributes["data-texts"])]
        assert places == pytest.approx([(v + 0.5) / count * 100 for v in values], abs=1e-3)
    style = Page(pointer.frames.html).all("span", data_marker="1")[0].attributes["style"]
    assert "top:4.167%" in style
    assert "left:2.5%" in style


def test_every_question_of_the_browser_is_answered():
    """Oracle: the tone of each pixel; `answered` repeats the place, which lets the browser ask the next."""
    pointer = made()
    for y in range(12):
        for x in range(20):
            pointer.widget.at = [float(y), float(x)]
            assert pointer.widget.answered == [y, x]
            assert tone(pointer.widget.picture) == 20 * y + x


def test_places_outside_are_taken_at_the_border():
    """Oracle: round() of what render gets is always a pixel of the image."""
    seen = []

    def render(y, x):
        seen.append((y, x))
        return one_tone(y, x)

    pointer = made(render)
    for place in [(-5, -5), (-0.5, 19.5), (11.5, 40)]:
        pointer.render_bytes(*place)
    assert seen[-3:] == [(-0.499, -0.499), (-0.499, 19.499), (11.499, 19.499)]
    assert [(round(y), round(x)) for y, x in seen[-3:]] == [(0, 0), (0, 19), (11, 19)]
    snapped = made(render, snap=True)
    snapped.render_bytes(3.4, 7.6)
    assert seen[-1] == (3, 8)
    assert all(isinstance(v, int) for v in seen[-1])


def test_an_error_keeps_the_last_picture_and_is_answered():
    """Oracle: the last good bytes; an unanswered question would silence the browser for good."""

    def render(y, x):
        if round(y) == 3:
            raise RuntimeError("row <3>")
        return one_tone(y, x)

    pointer = made(render)
    pointer.widget.at = [2.0, 2.0]
    good = pointer.widget.picture
    pointer.widget.at = [3.0, 2.0]
    assert pointer.widget.picture == good
    assert "RuntimeError: row <3>" in pointer.widget.message
    assert pointer.widget.answered == [3.0, 2.0]
    pointer.widget.at = [4.0, 2.0]
    assert pointer.widget.message == ""
    assert tone(pointer.widget.picture) == 82


def test_the_base_picture_is_sent_only_where_it_stays():
    """Oracle: the PNG of the image, pixel for pixel."""
    base = np.asarray(Image.open(io.BytesIO(made().widget.base)).convert("L"))
    assert np.array_equal(base, np.floor(IMAGE[0].double().numpy() * 255 + 0.5).astype(np.uint8))
    assert made(beside=False).widget.base == b""


def test_the_stored_output_is_the_kernel_free_form():
    """Oracle: what is left when the widget view is taken away."""
    data = made()._repr_mimebundle_()
    assert data.pop("application/vnd.jupyter.widget-view+json")
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/html"] == made().frames.html
    assert data["text/plain"] == "[picture to point at: A ramp. Without a kernel: 25 places.]"


def test_the_script_asks_for_nothing_from_outside():
    """Oracle: no import, no address; keys are kept from JupyterLab."""
    script = made().widget._esm
    assert "import " not in script
    assert "http" not in script
    assert "stopPropagation" in script
    assert "requestAnimationFrame" in script


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"watch": ""}, "watch"),
        ({"alt": ""}, "alt"),
        ({"start": (12, 0)}, "start must be"),
        ({"start": 3}, "start must be"),
        ({"start": (float("nan"), 0)}, "start must be"),
        ({"grid": (1, 5)}, "grid must be"),
        ({"grid": (99, 5)}, "grid must be"),
        ({"grid": 5}, "grid must be"),
    ],
)
def test_bad_arguments_are_named(change, message):
    """Oracle: the message says which argument, what came and what was expected."""
    arguments = {"watch": "it", "alt": "a ramp", **change}
    with pytest.raises(ValueError, match=message):
        show.pointer(IMAGE, one_tone, **arguments)


def test_bad_pictures_are_named():
    """Oracle: the shape or type that came is in the message."""
    with pytest.raises(ValueError, match="at least 2 x 2"):
        show.pointer(torch.zeros(1, 1, 1), one_tone, watch="it", alt="a dot")
    with pytest.raises(TypeError, match="image must be a tensor"):
        show.pointer("cat.png", one_tone, watch="it", alt="a cat")
    with pytest.raises(TypeError, match=r"render\(y=5.5, x=9.5\) must be a tensor"):
        made(lambda y, x: None)
    noise = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="coarser grid"):
        _ = made(lambda y, x: (noise + y / 99) % 1, grid=(9, 9)).frames
