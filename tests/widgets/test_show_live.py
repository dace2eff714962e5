"""Live: every value of every control is rendered headless; what is stored is a picture."""

import io
import itertools

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import show

METHODS = ["up", "down"]


def wedge(tone, method, negative=False):
    ramp = torch.linspace(0, float(tone), 16).expand(1, 8, 16)
    ramp = ramp if method == "up" else ramp.flip(-1)
    return 1 - ramp if negative else ramp


def made(render=wedge, **more):
    return show.live(
        render,
        tone=show.slider(0, 1, 0.1, value=0.5),
        method=METHODS,
        negative=False,
        watch="the ramp",
        alt="A ramp.",
        **more,
    )


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_every_combination_of_values_gives_its_picture():
    """Oracle: the picture computed here and enlarged by whole pixels (16 x 28 = 448 wide)."""
    live = made()
    for tone, method, negative in itertools.product(*(live.values(n) for n in ("tone", "method", "negative"))):
        came = opened(live.render_bytes(tone=tone, method=method, negative=negative))
        tensor = wedge(tone, method, negative)[0].double()
        wanted = np.floor(tensor.numpy() * 255 + 0.5).astype(np.uint8).repeat(28, 0).repeat(28, 1)
        assert np.array_equal(came[..., 0], wanted)


def test_moving_each_control_through_all_its_values_changes_the_picture():
    """Oracle: the bytes of render_bytes at the same values."""
    live = made()
    for name, control in live.controls.items():
        for value in live.values(name):
            control.value = value
            now = {n: c.value for n, c in live.controls.items()}
            assert live.image.value == live.render_bytes(**now)
            assert f"{name} = " in live.described.value
    assert live.message.value == ""


def test_slider_values_are_the_decimals_one_reads():
    """Oracle: decimals written by hand; 0.1 * 3 is 0.30000000000000004 in floats, but the slider says 0.3."""
    assert show.slider(0, 1, 0.1).values == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert show.slider(1, 8, 0.1, 3.4).values[24] == 3.4
    assert show.slider(-1, 0, 0.25).values == [-1, -0.75, -0.5, -0.25, 0]
    assert show.slider(0, 3e-7, 1e-7).values == [0, 1e-7, 2e-7, 3e-7]
    whole = show.slider(2, 9, 3)
    assert whole.values == [2, 5, 8]
    assert all(isinstance(v, int) for v in whole.values)


def test_what_the_browser_sends_is_snapped_before_render_sees_it():
    """Oracle: the values that render was called with."""
    seen = []

    def render(scale):
        seen.append(scale)
        return torch.zeros(1, 4, 4)

    live = show.live(render, scale=show.slider(1, 8, 0.1), watch="it", alt="black")
    live.controls["scale"].value = 3.4000000000000004
    assert seen[-1] == 3.4


def test_recent_pictures_are_kept_and_their_number_is_bounded():
    """Oracle: how often render was called."""
    calls = []

    def render(k):
        calls.append(k)
        return torch.full((1, 4, 4), k / 1000)

    live = show.live(render, k=show.slider(0, 600), watch="it", alt="grey")
    calls.clear()
    live.render_bytes(k=7)
    live.render_bytes(k=7)
    assert calls == [7]
    for k in range(10, 310):
        live.render_bytes(k=k)
    calls.clear()
    live.render_bytes(k=309)
    live.render_bytes(k=7)
    assert calls == [7]


def test_an_error_keeps_the_last_picture_and_says_why():
    """Oracle: the last good bytes; the error's name and text, escaped; and no line once it works again."""

    def render(k):
        if k == 3:
            raise RuntimeError("no <3>")
        return torch.full((1, 4, 4), k / 10)

    live = show.live(render, k=show.slider(0, 5), watch="it", alt="grey")
    live.controls["k"].value = 2
    good = live.image.value
    live.controls["k"].value = 3
    assert live.image.value == good
    assert "RuntimeError: no &lt;3&gt;" in live.message.value
    assert live.message.layout.display is None
    live.controls["k"].value = 4
    assert live.image.value == live.render_bytes(k=4) != good
    assert live.message.value == ""
    with pytest.raises(RuntimeError, match="no <3>"):
        live.render_bytes(k=3)


def test_an_error_at_the_start_is_raised():
    """Oracle: a broken cell must not look whole."""

    def render(k):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        show.live(render, k=show.slider(0, 5), watch="it", alt="grey")


def test_without_its_widget_view_the_output_is_still_a_picture():
    """Oracle: the start picture, decoded; the text names the start values and holds no address."""
    data, about = made()._repr_mimebundle_()
    assert data.pop("application/vnd.jupyter.widget-view+json")["model_id"]
    assert set(data) == {"image/png", "text/plain"}
    wanted = np.floor(wedge(0.5, "up")[0].double().numpy() * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(opened(data["image/png"])[::28, ::28, 0], wanted)
    assert data["text/plain"] == "[live picture: A ramp: tone = 0.5, method = up, negative = off]"
    assert about["image/png"]["alt"] == "A ramp: tone = 0.5, method = up, negative = off"


def test_a_large_photograph_is_stored_small_and_sent_as_jpeg():
    """Oracle: the JPEG marker; the stored picture stays under 200 KB though its exact PNG would not."""
    noise = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    live = show.live(lambda k: noise * k, k=show.slider(0.5, 1, 0.5), watch="it", alt="noise")
    assert live.image.value[:2] == b"\xff\xd8"
    stored = live._repr_mimebundle_()[0]["image/png"]
    assert len(stored) < 350_000
    assert opened(stored).shape[1] <= 512
    png = show.live(lambda k: noise * k, k=show.slider(0.5, 1, 0.5), watch="it", alt="noise", form="png")
    assert png.image.value[:4] == b"\x89PNG"


def test_controls_fit_their_values():
    """Oracle: the widget a reader expects for each kind of value."""
    live = show.live(
        lambda **values: torch.zeros(1, 4, 4),
        whole=show.slider(0, 5),
        real=show.slider(0, 5, 0.05),
        few=["a", "b"],
        many=[1, 2, 3, 4, 5, 6],
        either=True,
        watch="it",
        alt="black",
    )
    kinds = {name: type(control) for name, control in live.controls.items()}
    assert kinds == {
        "whole": ipywidgets.IntSlider,
        "real": ipywidgets.FloatSlider,
        "few": ipywidgets.ToggleButtons,
        "many": ipywidgets.Dropdown,
        "either": ipywidgets.Checkbox,
    }
    assert live.controls["real"].readout_format == ".2f"
    assert live.controls["real"].continuous_update
    assert live.start == {"whole": 0, "real": 0.0, "few": "a", "many": 1, "either": True}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"watch": ""}, ValueError, "watch"),
        ({"alt": ""}, ValueError, "alt"),
        ({"form": "gif"}, ValueError, "form"),
        ({"k": [1]}, TypeError, "k must be show.slider"),
        ({"k": "ab"}, TypeError, "k must be show.slider"),
        ({"k": 3}, TypeError, "k must be show.slider"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    """Oracle: the message says which argument, what came and what was expected."""
    arguments = {"k": show.slider(0, 5), "watch": "it", "alt": "black", **change}
    with pytest.raises(error, match=message):
        show.live(lambda k: torch.zeros(1, 4, 4), **arguments)
    with pytest.raises(ValueError, match="at least one control"):
        show.live(lambda: torch.zeros(1, 4, 4), watch="it", alt="black")
    with pytest.raises(ValueError, match="no control"):
        made().render_bytes(scale=1)
    with pytest.raises(TypeError, match="render must be a function"):
        show.live(torch.zeros(3), k=show.slider(0, 5), watch="it", alt="black")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1), "min < max"),
        ((0, 1, 0), "step > 0"),
        ((0, 1, -1), "step > 0"),
        ((0, 1, 1, 2), "value must be in"),
        ((0, float("inf")), "max must be a finite"),
        ((float("nan"), 1), "min must be a finite"),
        ((0, "1"), "max must be a finite"),
        ((0, 5, True), "step must be a finite"),
    ],
)
def test_impossible_sliders_are_refused(arguments, message):
    """Oracle: the message names the argument."""
    with pytest.raises(ValueError, match=message):
        show.slider(*arguments)
