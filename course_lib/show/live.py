"""Sliders that call Python at every move: a picture redrawn while the hand is still on the control."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets  # type: ignore[import-untyped]

from .blocks import ACCENT, inline, require_sentence, value_text
from .painter import SIDE, Form, Painter
from .pixels import Picture, enlarge, preview_png

_BUTTONS: Final = 5
PICTURE: Final = {"max_width": "100%", "max_height": "80vh", "align_self": "flex-start", "margin": "0"}
"""Layout of a live picture: its own size, smaller only where the window is."""
_UNSEEN: Final = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap"
_CARD: Final = {
    "border": "1px solid rgba(127,127,127,.35)",
    "padding": "12px 16px",
    "width": "fit-content",
    "max_width": "100%",
    "min_width": "min(100%, 480px)",
    "overflow": "visible",
    "margin": "6px 0",
}


@dataclass(frozen=True)
class Slider:
    """A range of numbers for `live`: min, min + step, ... up to max; starts at `value`."""

    min: float
    max: float
    step: float
    value: float

    @property
    def whole(self) -> bool:
        """Whether it counts in whole numbers."""
        return all(isinstance(v, int) for v in (self.min, self.max, self.step))

    @property
    def digits(self) -> int:
        """Digits after the point that its values need."""
        return max(_digits(self.min), _digits(self.step))

    @property
    def values(self) -> list[float]:
        """Every value the slider can take, rounded to the digits of its bounds: 3.4 is 3.4, not 3.4000000000000004."""
        count = math.floor((self.max - self.min) / self.step + 1e-9)
        return [self.snap(self.min + k * self.step) for k in range(count + 1)]

    def snap(self, value: float) -> float:
        """The value of the slider that is nearest to `value`."""
        steps = round((value - self.min) / self.step)
        if self.whole:
            return int(self.min + steps * self.step)
        return round(self.min + steps * self.step, self.digits)


def slider(min: float, max: float, step: float = 1, value: float | None = None) -> Slider:
    """A slider for `live` from min to max in steps; when all three are whole numbers, so is what render gets.

    value: where it starts (default: min). Raises ValueError when the range is empty, the step is not positive, or the
    value is outside.
    """
    start = min if value is None else value
    for name, number in {"min": min, "max": max, "step": step, "value": start}.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number, got {number!r}")
    if step <= 0 or min >= max:
        raise ValueError(f"a slider needs min < max and step > 0, got min={min}, max={max}, step={step}")
    if not min <= start <= max:
        raise ValueError(f"value must be in {min}..{max}, got {start}")
    return Slider(min, max, step, Slider(min, max, step, start).snap(start))


def _digits(number: float) -> int:
    mantissa, _, exponent = repr(float(number)).partition("e")
    fraction = mantissa.partition(".")[2].rstrip("0")
    return max(0, len(fraction) - int(exponent or 0))


class Live:
    """A picture with live controls; `widget` is what is displayed, `controls` the widgets by parameter name.

    The stored output of its cell is the start picture (PNG), so a notebook read without a kernel still shows it.
    """

    def __init__(self, painter: Painter, choices: Mapping[str, Slider | tuple[Any, ...]], watch: str, alt: str) -> None:
        """Draw the start picture, so that an error in `render` is raised here and not hidden."""
        self._painter, self._choices, self._alt = painter, dict(choices), alt.strip()
        self.controls: dict[str, Any] = {name: _control(name, choice) for name, choice in choices.items()}
        self.start: dict[str, Any] = self._current()
        self._start_png = preview_png(enlarge(painter.pixels(**self.start)[0], SIDE))
        self.image = ipywidgets.Image(value=self.render_bytes(**self.start), layout=PICTURE)
        self.described = ipywidgets.HTML(self._hidden(self.start), layout={"height": "0", "margin": "0"})
        self.message = ipywidgets.HTML("", layout={"display": "none"})
        row = ipywidgets.Box(
            [_labelled(name, control) for name, control in self.controls.items()],
            layout={"flex_flow": "row wrap", "grid_gap": "4px 28px", "overflow": "visible", "margin": "0 0 6px 0"},
        )
        about = ipywidgets.HTML(f"<strong>Watch:</strong> {inline(watch)}")
        self.widget = ipywidgets.VBox([row, self.image, self.described, self.message, about], layout=_CARD)
        for control in self.controls.values():
            control.observe(self._moved, names="value")

    def values(self, name: str) -> list[Any]:
        """Every value that the control of this name can take."""
        choice = self._choices[name]
        return list(choice.values) if isinstance(choice, Slider) else list(choice)

    def render_bytes(self, **values: Any) -> bytes:
        """The encoded picture (JPEG or PNG) at these values; those not given keep their start. Errors are raised."""
        unknown = set(values) - set(self.controls)
        if unknown:
            raise ValueError(f"there is no control {sorted(unknown)}; the controls are {list(self.controls)}")
        return self._painter.paint(**{k: self._snap(k, values.get(k, self.start[k])) for k in self.controls})

    def _snap(self, name: str, value: Any) -> Any:
        choice = self._choices[name]
        return choice.snap(value) if isinstance(choice, Slider) else value

    def _current(self) -> dict[str, Any]:
        return {name: self._snap(name, control.value) for name, control in self.controls.items()}

    def _describe(self, values: Mapping[str, Any]) -> str:
        said = ", ".join(f"{name.replace('_', ' ')} = {value_text(value)}" for name, value in values.items())
        return f"{self._alt.rstrip('.')}: {said}"

    def _hidden(self, values: Mapping[str, Any]) -> str:
        # ipywidgets' Image has no alternative text of its own: this line is for screen readers only.
        return f'<span role="status" style="{_UNSEEN}">{html.escape(self._describe(values))}</span>'

    def _moved(self, change: object) -> None:
        values = self._current()
        try:
            data = self.render_bytes(**values)
        except Exception as error:  # whatever render raises, the last good picture stays
            self.message.value = f"<em>{html.escape(trouble(error))}</em>"
            self.message.layout.display = None
            return
        self.image.value = data
        self.described.value = self._hidden(values)
        self.message.layout.display = "none"
        self.message.value = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {**self.widget._repr_mimebundle_(), "image/png": self._start_png, "text/plain": repr(self)}
        return data, {"image/png": {"alt": self._describe(self.start)}}

    def __repr__(self) -> str:
        """What it is, in one line that never changes between runs."""
        return f"[live picture: {self._describe(self.start)}]"


def trouble(error: Exception) -> str:
    """The calm line that stands under the last good picture when `render` has raised."""
    return f"There is no picture for these values, so the last one stays. {type(error).__name__}: {error}"


def live(render: Callable[..., Picture], *, watch: str, alt: str, form: Form = "auto", **parameters: Any) -> Live:
    """A picture redrawn by Python at every move of its controls.

    render(**values) -> picture: (C, H, W) or (H, W), floats in [0, 1] or uint8, or a matplotlib Figure (closed here).
    parameters: name=show.slider(...), a list of choices (the first is shown first), or a bool (check box).
    watch: what to look for; alt: what the picture is. form: "auto" (JPEG for photographs, PNG for figures and small
    pictures), "jpeg" or "png". If render raises at some value, the last good picture stays and a calm line says why;
    at the start values it raises. Raises TypeError or ValueError for bad arguments.
    """
    require_sentence(watch, "watch", "that says what to look for")
    require_sentence(alt, "alt", "that says what the picture is")
    if not parameters:
        raise ValueError("live needs at least one control by keyword, such as scale=show.slider(1, 8, 0.1)")
    painter = Painter(render, form)
    return Live(painter, {name: _choice(name, given) for name, given in parameters.items()}, watch, alt)


def _choice(name: str, given: Any) -> Slider | tuple[Any, ...]:
    if isinstance(given, Slider):
        return given
    if isinstance(given, bool):
        return (given, not given)
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) >= 2:
        return tuple(given)
    raise TypeError(f"{name} must be show.slider(...), a list of at least two choices, or a bool, got {given!r}")


def _control(name: str, choice: Slider | tuple[Any, ...]) -> Any:
    label: dict[str, Any] = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    if isinstance(choice, Slider):
        label |= {"min": choice.min, "max": choice.max, "step": choice.step, "value": choice.value}
        label["style"] = {**label["style"], "handle_color": ACCENT}
        label |= {"continuous_update": True, "layout": {"width": "440px", "max_width": "100%"}}
        if choice.whole:
            return ipywidgets.IntSlider(**label)
        return ipywidgets.FloatSlider(**label, readout_format=f".{choice.digits}f")
    if all(isinstance(value, bool) for value in choice):
        return ipywidgets.Checkbox(value=choice[0], indent=False, **label)
    label |= {"options": [(value_text(value), value) for value in choice], "value": choice[0]}
    if len(choice) <= _BUTTONS:
        label["style"] = {**label["style"], "button_width": "auto"}
        label["layout"] = {"width": "max-content", "max_width": "100%"}
        label["description"] = ""
        return ipywidgets.ToggleButtons(**label)
    return ipywidgets.Dropdown(**label)


def _labelled(name: str, control: Any) -> Any:
    """Toggle buttons would put their own description on a line above them."""
    if not isinstance(control, ipywidgets.ToggleButtons):
        return control
    text = ipywidgets.Label(name.replace("_", " "))
    return ipywidgets.HBox([text, control], layout={"overflow": "visible", "grid_gap": "4px"})
