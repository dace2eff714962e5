"""The widgets' own scripts in a real browser: every position of a slider, a guess, and the pointer's conversation."""

from pathlib import Path

import pytest
import torch

from course_lib import show

SCRIPT = Path(show.__file__).with_name("pointer.js").read_text(encoding="utf-8")

# The least of a Jupyter front end that pointer.js needs; it writes down what is asked and answers when told to.
FRONT_END = """
async (script) => {
  const url = URL.createObjectURL(new Blob([script], {type: "text/javascript"}));
  const {default: widget} = await import(url);
  const traits = {height: 10, width: 20, shown: 400, crisp: true, snap: false, beside: true, step: 1, alt: "a ramp",
    watch: "<strong>Watch:</strong> it", base: null, picture: null, message: "", at: [0, 0], answered: [0, 0]};
  const heard = {};
  window.asked = [];
  window.model = {
    get: (name) => traits[name],
    set: (name, value) => { traits[name] = value; },
    save_changes: () => window.asked.push({at: traits.at, event: traits.event}),
    on: (name, call) => { heard[name] = call; },
    off: (name) => { delete heard[name]; },
  };
  window.tell = (name, value) => { traits[name] = value; heard["change:" + name](); };
  window.left = widget.render({model: window.model, el: document.body});
  window.listeners = () => Object.keys(heard).length;
}
"""


@pytest.fixture
def page(open_page):
    watched = open_page()
    yield watched.page
    watched.assert_calm()


def test_every_position_of_two_sliders_shows_its_picture(page):
    """Oracle: the text that names each picture holds the values the two outputs show; one picture at a time."""
    rows, columns = [1, 1.5, 2], ["nearest", "bicubic"]
    frames = show.frames(
        lambda scale, method: torch.full((1, 8, 8), scale / 2), scale=rows, method=columns, watch="it", alt="a square"
    )
    page.set_content(frames.html)
    sliders, outputs = page.locator("input"), page.locator("output")
    for i, scale in enumerate(rows):
        for j, method in enumerate(columns):
            for slider, position in ((sliders.nth(0), i), (sliders.nth(1), j)):
                slider.focus()
                page.keyboard.press("Home")
                for _ in range(position):
                    page.keyboard.press("ArrowRight")
            assert outputs.all_text_contents() == [f"{scale:g}", method]
            assert sliders.nth(0).get_attribute("aria-valuetext") == f"{scale:g}"
            shown = page.locator("img:visible")
            assert shown.count() == 1
            assert shown.get_attribute("alt") == f"a square: scale = {scale:g}, method = {method}"


def test_keys_of_a_slider_stay_with_the_slider(page):
    """Oracle: a listener on the document, as reveal.js and JupyterLab have one."""
    frames = show.frames(lambda k: torch.zeros(1, 8, 8) + k, k=[0, 1], watch="it", alt="a square")
    page.set_content(frames.html)
    page.evaluate("window.keys = 0; document.addEventListener('keydown', () => window.keys++)")
    page.locator("input").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.keys") == 0
    assert page.locator("output").text_content() == "1"


def test_the_marker_follows_the_sliders(page):
    """Oracle: the centre of the ring lies on the pixel that the outputs name, to half a screen pixel."""
    pointer = show.pointer(
        torch.zeros(1, 10, 20),
        lambda y, x: torch.full((1, 4, 4), y / 9),
        watch="it",
        alt="black",
        grid=(3, 3),
        snap=True,
    )
    page.set_content(pointer.frames.html)
    ring, base = page.locator("[data-marker]"), page.locator("img:not([data-frame])").bounding_box()
    for key, y, x in (("Home", 0, 0), ("End", 9, 19)):
        for slider in page.locator("input").all():
            slider.focus()
            page.keyboard.press(key)
        box = ring.bounding_box()
        assert box["x"] + box["width"] / 2 == pytest.approx(base["x"] + base["width"] * (x + 0.5) / 20, abs=0.6)
        assert box["y"] + box["height"] / 2 == pytest.approx(base["y"] + base["height"] * (y + 0.5) / 10, abs=0.6)


def test_a_guess_is_answered_by_mouse_and_by_keyboard(page):
    """Oracle: the words of the verdict; the reason is folded before and open after."""
    page.set_content(show.guess("One or two?", options=["one", "two"], answer=1, because="it is even").content)
    reason, verdict = page.get_by_text("it is even"), page.locator("[role=status]")
    assert not reason.is_visible()
    page.get_by_role("button", name="A").click()
    assert verdict.text_content() == "✗ You guessed A. Read why it is another."
    assert reason.is_visible()
    page.get_by_role("button", name="B").focus()
    page.keyboard.press("Enter")
    assert verdict.text_content() == "✓ Right: B."
    pressed = [b.get_attribute("aria-pressed") for b in page.get_by_role("button").all()]
    assert pressed == ["false", "true"]


def test_the_pointer_reports_picture_coordinates_one_question_at_a_time(page):
    """Oracle: pixel k of n covers [k/n, (k+1)/n] of the box, so a box fraction f is at f n - 1/2."""
    page.set_content("<body style='margin:0'></body>")
    page.evaluate(FRONT_END, SCRIPT)
    surface = page.get_by_role("application")
    # The picture is empty here, so the surface gets the height that it would have.
    page.evaluate("document.querySelector('[role=application] img').style.height = '200px'")
    box = surface.bounding_box()
    assert (box["width"], box["height"]) == (400, 200)

    def hover(fy, fx):
        page.mouse.move(box["x"] + fx * 400, box["y"] + fy * 200)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    hover(0.5, 0.5)
    for step in range(1, 6):
        hover(0.5, 0.5 + step / 100)
    asked = page.evaluate("window.asked")
    assert asked == [{"at": [pytest.approx(4.5), pytest.approx(9.5)], "event": "hover"}], "only one is under way"
    page.evaluate("window.tell('answered', window.asked[0].at)")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("window.asked")[1]["at"] == [pytest.approx(4.5), pytest.approx(10.5)], "the newest waited"
    assert "y = 4.5, x = 10.5" in page.get_by_role("status").first.text_content()


def test_the_pointer_holds_on_click_and_moves_by_keys(page):
    """Oracle: after a click hovering changes nothing; arrows move by one pixel, with shift by ten, to the edge."""
    page.set_content("<body style='margin:0'></body>")
    page.evaluate(FRONT_END, SCRIPT)
    page.evaluate("document.querySelector('[role=application] img').style.height = '200px'")
    page.evaluate("window.keys = 0; document.addEventListener('keydown', () => window.keys++)")
    box = page.get_by_role("application").bounding_box()
    status = page.get_by_role("status").first
    page.mouse.click(box["x"] + 210, box["y"] + 110)
    assert status.text_content().startswith("y = 5.0, x = 10.0 (held")
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    assert status.text_content().startswith("y = 5.0, x = 10.0 (held")
    page.get_by_role("application").focus()
    for key in ("ArrowUp", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert status.text_content().startswith("y = 4.0, x = 19.5 (held")
    assert page.evaluate("window.keys") == 0
    page.mouse.click(box["x"] + 10, box["y"] + 10)
    assert "(click to hold" in status.text_content()


def test_the_pointer_says_what_went_wrong_and_leaves_cleanly(page):
    """Oracle: the message as text (not as HTML), and no listener left when the cell goes."""
    page.set_content("<body></body>")
    page.evaluate(FRONT_END, SCRIPT)
    page.evaluate("window.tell('message', 'no <b>picture</b>')")
    assert page.get_by_text("no <b>picture</b>").is_visible()
    assert page.evaluate("window.listeners()") == 3
    page.evaluate("window.left()")
    assert page.evaluate("window.listeners()") == 0
