"""Frames: precomputed pictures behind sliders, read back from their HTML at every value."""

import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from course_lib import show
from tests.widgets.page import Page, assert_self_contained, decoded

TONES = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def grey(tone, side=8):
    return torch.full((3, side, side), float(tone))


def made(**more):
    return show.frames(lambda tone: grey(tone), tone=TONES, watch="the tone", alt="a square", **more)


def two():
    return show.frames(
        lambda tone, side: grey(tone, side), tone=TONES[:3], side=[4, 6], start={"side": 6}, watch="it", alt="a square"
    )


def visible(page):
    return [e for e in page.all("img") if "display:block" in e.attributes["style"]]


def test_each_value_has_its_own_picture_without_loss():
    """Oracle: the tone that was asked for, in steps of 255, read back from the WebP bytes."""
    images = Page(made().html).all("img")
    assert len(images) == len(TONES)
    for tone, element in zip(TONES, images, strict=True):
        pixels = decoded(element.attributes["src"])
        assert pixels.shape == (8, 8, 3)
        assert np.array_equal(pixels, np.full((8, 8, 3), int(255 * tone + 0.5), np.uint8))
        assert element.attributes["alt"] == f"a square: tone = {tone:g}"


def test_two_parameters_are_laid_out_row_by_row():
    """Oracle: itertools.product, and the strides that the handler multiplies with."""
    page = Page(two().html)
    first, second = page.all("input")
    assert [int(e.attributes["data-stride"]) for e in (first, second)] == [2, 1]
    for i, j in itertools.product(range(3), range(2)):
        pixels = decoded(page.all("img", data_frame=str(2 * i + j))[0].attributes["src"])
        assert pixels.shape[0] == (4, 6)[j]
        assert pixels[0, 0, 0] == int(255 * TONES[i] + 0.5)


@pytest.mark.parametrize("frames", [made(), two()], ids=["one slider", "two sliders"])
def test_the_html_needs_nothing_from_outside(frames):
    """Oracle: HANDBOOK's list for a cell that works in JupyterLab, on a slide and in the book."""
    assert_self_contained(frames.html)
    assert len(frames.html) < 400_000
    page = Page(frames.html)
    assert 'onkeydown="event.stopPropagation()"' in frames.html
    assert page.all("div", data_lm_suppress_shortcuts="true")
    for element in page.all("input"):
        assert element.attributes["type"] == "range"
        assert element.attributes["oninput"]
        assert element.attributes["aria-valuetext"]
        values = json.loads(element.attributes["data-texts"])
        assert int(element.attributes["max"]) == len(values) - 1
    assert len(page.all("label")) == len(page.all("output")) == len(page.all("input"))


def test_only_the_start_is_visible_before_anyone_moves():
    """Oracle: exactly one picture with display:block; it belongs to the start value, as do slider and output."""
    page = Page(made(start={"tone": 0.4}).html)
    assert [e.attributes["data-frame"] for e in visible(page)] == ["2"]
    assert page.all("input")[0].attributes["value"] == "2"
    assert page.all("output")[0].text == "0.4"
    assert [e.attributes["alt"] for e in visible(Page(two().html))] == ["a square: tone = 0, side = 6"]


def test_the_watch_sentence_and_labels_are_shown_escaped():
    """Oracle: text with signs that HTML would swallow comes back whole; code and bold keep their meaning."""
    frames = show.frames(
        lambda tone_here: grey(tone_here), tone_here=[0, 1], watch="is `a<b` & **so**?", alt='say "x" <y>'
    )
    page = Page(frames.html)
    assert "Watch: is a<b & so?" in page.all("div")[0].text
    assert page.all("code")[0].text == "a<b"
    assert page.all("label")[0].text.startswith("tone here")
    assert visible(page)[0].attributes["alt"] == 'say "x" <y>: tone_here = 0'


def test_figures_are_drawn_and_closed():
    """Oracle: matplotlib's list of open figures."""

    def draw(a):
        fig, ax = plt.subplots(figsize=(3, 2))
        ax.plot([0, a])
        return fig

    frames = show.frames(draw, a=[1, 2], watch="it", alt="a line")
    assert plt.get_fignums() == []
    assert decoded(Page(frames.html).all("img")[0].attributes["src"]).shape == (200, 300, 3)


def test_twice_the_same_bytes_and_a_text_without_addresses():
    """Oracle: byte equality of two runs; the text is what a front end without HTML shows."""
    assert made().html == made().html
    bundle = made()._repr_mimebundle_()
    assert bundle["text/html"] == made().html
    assert bundle["text/plain"] == "[slider without a kernel: tone 0 to 1 (6 values). a square]"


@pytest.mark.parametrize(("height", "width"), [(2000, 300), (300, 4000), (720, 1280), (30, 20)])
def test_every_shape_fits_a_slide(height, width):
    """Oracle: a slide of 1280 x 720 with room for title, sliders and sentence."""
    picture = torch.zeros(1, height, width)
    frames = show.frames(lambda t: picture + t, t=[0, 1], watch="it", alt="a plane", quality=1)
    shown = int(Page(frames.html).all("img")[0].attributes["width"])
    assert shown <= 1100
    assert shown * height / width <= 433


def test_small_pictures_are_enlarged_by_whole_factors():
    """Oracle: 48 pixels times 8 is the largest whole multiple not above 384."""
    frames = show.frames(lambda t: torch.zeros(1, 40, 48) + t, t=[0, 1], watch="it", alt="a plane")
    image = Page(frames.html).all("img")[0]
    assert image.attributes["width"] == "384"
    assert "pixelated" in image.attributes["style"]


def test_too_much_is_refused_with_its_size_and_a_remedy():
    """Oracle: noise does not compress, so 20 frames of it must pass the limit."""
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"take \d+ KB .*20 frames of 256 x 256.*limit is 400 KB.*fewer values"):
        show.frames(lambda t: (noise + t / 100) % 1, t=list(range(20)), watch="it", alt="noise")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"watch": ""}, ValueError, "watch must be a sentence"),
        ({"alt": " "}, ValueError, "alt must be a sentence"),
        ({"start": {"x": 1}}, ValueError, "start names"),
        ({"start": {"tone": 5}}, ValueError, "must be one of"),
        ({"tone": [1]}, ValueError, "at least two values"),
        ({"tone": [1, 1]}, ValueError, "read differently"),
        ({"tone": "ab"}, TypeError, "list of values"),
        ({"a": [1, 2], "b": [1, 2]}, ValueError, "one or two parameters"),
        ({"quality": 0}, ValueError, "quality must be in 1..100"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    """Oracle: the message says which argument, what came and what was expected."""
    arguments = {"watch": "it", "alt": "a square", "tone": [0, 1], **change}
    with pytest.raises(error, match=message):
        show.frames(lambda tone: grey(tone), **arguments)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (None, TypeError, r"render\(tone=0\) must be a tensor.*NoneType"),
        (torch.zeros(2, 4, 4), ValueError, r"\(2, 4, 4\)"),
        (torch.zeros(3, 0, 4), ValueError, r"\(3, 0, 4\)"),
        (torch.zeros(4), ValueError, r"\(4,\)"),
        (torch.full((1, 4, 4), float("nan")), ValueError, "16 NaN"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), TypeError, "int64"),
    ],
)
def test_what_is_no_picture_is_refused(picture, error, message):
    """Oracle: the message names the call that gave it and what came."""
    with pytest.raises(error, match=message):
        show.frames(lambda tone: picture, tone=[0, 1], watch="it", alt="a square")


@pytest.mark.parametrize(
    "picture",
    [
        torch.full((4, 5), 0.5),
        torch.full((1, 1, 4, 5), 0.5, dtype=torch.float16),
        torch.full((3, 4, 5), 0.5, dtype=torch.bfloat16, requires_grad=True),
        np.full((4, 5, 3), 128, np.uint8),
        np.full((4, 5), 0.5, np.float64),
    ],
    ids=["HW", "1CHW half", "bfloat16 with gradient", "HWC bytes", "float64 array"],
)
def test_pictures_of_every_kind_are_taken(picture):
    """Oracle: one half is 128 of 255, halves round up."""
    frames = show.frames(lambda t: picture, t=[0, 1], watch="it", alt="grey")
    assert np.array_equal(decoded(Page(frames.html).all("img")[0].attributes["src"]), np.full((4, 5, 3), 128, np.uint8))
