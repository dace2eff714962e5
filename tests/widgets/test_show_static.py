"""Still figures: the pixels, the sentence and the text for those who cannot see them."""

import io
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core import formatters
from PIL import Image

from course_lib import show
from course_lib.show import blocks
from course_lib.show.style import SETTINGS
from course_lib.upsampling import resize_matrix


@pytest.fixture
def shown(monkeypatch):
    """Everything that is displayed, as (data, metadata) bundles."""
    seen = []

    def display(*things):
        for thing in things:
            bundle = thing._repr_mimebundle_()
            seen.append(bundle if isinstance(bundle, tuple) else (bundle, {}))

    monkeypatch.setattr(blocks, "display", display)
    return seen


def pixels(shown):
    return np.asarray(Image.open(io.BytesIO(shown[0][0]["image/png"])).convert("RGB"))


def test_pictures_keep_every_pixel_as_a_square(shown):
    """Oracle: the picture repeated 20 times in both directions is found in the figure, value for value."""
    image = torch.linspace(0, 1, 3 * 6 * 9).reshape(3, 6, 9)
    show.pictures({"ramp": image}, sentence="A ramp.", zoom=20)
    wanted = np.floor(image.double().numpy() * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    wanted = wanted.repeat(20, 0).repeat(20, 1)
    figure = pixels(shown)
    places = [
        (y, x)
        for y, x in itertools.product(range(figure.shape[0] - 119), range(figure.shape[1] - 179))
        if np.array_equal(figure[y : y + 120, x : x + 180], wanted)
    ]
    assert len(places) == 1


def test_a_small_input_stands_as_large_as_its_enlargement(shown):
    """Oracle: extent of non-white columns; with zoom=, sizes are those of the pictures."""

    def widths():
        dark = (pixels(shown[-2:])[45] < 255).any(axis=1)
        runs = [len(list(run)) for value, run in itertools.groupby(dark) if value]
        return [run for run in runs if run > 5]

    pair = {"input": torch.zeros(1, 20, 30), "x4": torch.zeros(1, 80, 120)}
    show.pictures(pair, sentence="Both black.")
    assert len(set(widths())) == 1
    shown.clear()
    show.pictures(pair, sentence="Both black.", zoom=2)
    assert widths() == [60, 240]


def test_nothing_is_wider_than_a_slide(shown):
    """Oracle: a slide is 1280 wide."""
    for count in (1, 2, 5):
        shown.clear()
        show.pictures({f"p{k}": torch.zeros(3, 600, 900) for k in range(count)}, sentence="Black.")
        assert pixels(shown).shape[1] <= 1130


def test_each_figure_has_its_sentence_and_alternative_text(shown):
    """Oracle: the sentence as Markdown below, the alt in the metadata that nbconvert reads."""
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    show.figure(fig, sentence="A line that rises by $1$.")
    assert plt.get_fignums() == []
    (picture, about), (caption, _) = shown
    assert about == {"image/png": {"alt": "A line that rises by $1$."}}
    assert picture["text/plain"] == "[picture: A line that rises by $1$.]"
    assert caption["text/markdown"] == "↑ A line that rises by $1$."
    shown.clear()
    show.pictures({"one": torch.zeros(1, 4, 4)}, sentence="Black.", alt="a black square")
    assert shown[0][1]["image/png"]["alt"] == "a black square"
    shown.clear()
    show.matrix([[1, 2]], sentence="Two numbers.", title="row")
    assert shown[0][1]["image/png"]["alt"] == "row, 1 by 2. Two numbers."


def test_ipython_takes_the_picture_with_its_metadata():
    """Oracle: IPython's own formatter, which a kernel uses."""
    picture = blocks.Png(b"\x89PNG", "alt text")
    formatter = formatters.DisplayFormatter()
    formatter.active_types = ["image/png", "text/plain"]
    data, about = formatter.format(picture)
    assert data["image/png"] == b"\x89PNG"
    assert about["image/png"]["alt"] == "alt text"


def test_the_same_bytes_twice(shown):
    """Oracle: byte equality of two runs, and no trace of the version of matplotlib."""
    for _ in range(2):
        show.matrix(torch.eye(3), sentence="Identity.")
    first, second = (data["image/png"] for data, _ in shown[::2])
    assert first == second
    assert b"matplotlib" not in first.lower()


def test_a_matrix_is_orange_above_zero_and_purple_below(shown):
    """Oracle: the dominant colours of the cells of [[1, -1]]: brown has red over blue, purple blue over red."""
    show.matrix([[1.0, -1.0]], sentence="Signs.")
    colours, counts = np.unique(pixels(shown).reshape(-1, 3), axis=0, return_counts=True)
    top = [c.astype(int) for c in colours[np.argsort(-counts)] if np.ptp(c) > 40][:2]
    assert {bool(c[0] > c[2]) for c in top} == {True, False}


def test_a_matrix_of_every_form_is_taken(shown):
    """Oracle: none of these raises; sparse and half precision are what the library gives."""
    sparse = resize_matrix(4, 8)
    for values in (sparse, torch.ones(3, dtype=torch.float16), np.zeros((24, 24)), [[1, 2], [3, 4]]):
        show.matrix(values, sentence="Numbers.")
    assert len(shown) == 8
    show.matrix(torch.eye(2), sentence="Labelled.", rows=["a", "b"], columns="input", form=".1f", limit=2)


def test_bad_arguments_are_named(shown):
    """Oracle: the message says which argument, what came and what was expected; nothing has been displayed."""
    one = {"a": torch.zeros(1, 4, 4)}
    with pytest.raises(ValueError, match="sentence must be"):
        show.pictures(one, sentence="")
    with pytest.raises(ValueError, match="at least one picture"):
        show.pictures({}, sentence="None.")
    with pytest.raises(ValueError, match="got both"):
        show.pictures(one, sentence="Black.", zoom=2, size=100)
    with pytest.raises(ValueError, match="whole number"):
        show.pictures(one, sentence="Black.", zoom=1.5)
    with pytest.raises(ValueError, match="whole number"):
        show.pictures(one, sentence="Black.", zoom=0)
    with pytest.raises(ValueError, match="picture 'a' must be"):
        show.pictures({"a": torch.zeros(5)}, sentence="Black.")
    with pytest.raises(TypeError, match="matplotlib Figure"):
        show.figure(None, sentence="None.")
    with pytest.raises(ValueError, match=r"1\.\.24"):
        show.matrix(torch.zeros(25, 2), sentence="Too tall.")
    with pytest.raises(ValueError, match="shape"):
        show.matrix(torch.zeros(2, 2, 2), sentence="Too deep.")
    with pytest.raises(ValueError, match="finite"):
        show.matrix([[float("nan")]], sentence="Nothing.")
    with pytest.raises(ValueError, match="rows must hold 2 labels, got 1"):
        show.matrix(torch.eye(2), sentence="Labels.", rows=["a"])
    assert shown == []


def test_the_colours_of_curves_differ_for_the_colour_blind():
    """Oracle: luminance and line style; no two roles share both within a half-tone step."""

    def light(colour):
        red, green, blue = mpl.colors.to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    methods = ("nearest", "bilinear", "bicubic")
    assert len({show.COLOURS[m] for m in methods}) == 3
    assert len({show.DASHES[m] for m in methods}) == 3
    assert len({show.MARKERS[m] for m in methods}) == 3
    assert all(light(show.COLOURS[m]) < 0.75 for m in show.COLOURS), "too pale for a projector"


def test_the_style_is_set_and_large():
    """Oracle: points that can be read from the last row when a figure fills a slide of 13 inches."""
    with mpl.rc_context():
        show.style()
        assert mpl.rcParams["font.size"] >= 14
        assert mpl.rcParams["lines.linewidth"] >= 2.5
        assert mpl.rcParams["image.interpolation"] == "nearest"
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()
        assert len(set(zip(cycle["color"], cycle["linestyle"], strict=True))) == len(cycle["color"])
    assert set(SETTINGS) <= set(mpl.rcParams)
