"""Sliders that call Python at every move: a picture redrawn while the hand is still on the control."""

from __future__ import annotations

import html
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets  # type: ignore[import-untyped]
from matplotlib.figure import Figure

from .blocks import require_sentence, value_text
from .pixels import Bytes3, Picture, encode, enlarge, is_small, preview_png, to_bytes3

_CACHED_BYTES: Final = 32_000_000
_CACHED_PICTURES: Final = 256
_BUTTONS: Final = 5
SIDE: Final = 448
"""A small picture is enlarged by whole pixels to about this many screen pixels."""


@dataclass(frozen=True)
class Slider:
    """A range of numbers for `live`: min, min + step, ... up to max; starts at `value`."""

    min: float
    max: float
    step: float
    value: float

    @property
    def values(self) -> list[float]:
        """Every value the slider can take, rounded to the digits of its bounds: 3.4 is 3.4, not 3.4000000000000004."""
        count = math.floor((self.max - self.min) / self.step + 1e-9)
        return [self.snap(self.min + k * self.step) for k in range(count + 1)]

    def snap(self, value: float) -> float:
        """The value of the slider that is nearest to `value`."""
        if all(isinstance(v, int) for v in (self.min, self.max, self.step)):
            return int(self.min + round((value - self.min) / self.step) * self.step)
        digits = max(_digits(v) for v in (self.min, self.step))
        return round(self.min + round((value - self.min) / self.step) * self.step, digits)


def slider(min: float, max: float, step: float = 1, value: float | None = None) -> Slider:
    """A slider for `live` from min to max in steps; whole numbers stay whole numbers.

    value: where it starts (default: min). Raises ValueError when the range is empty, the step is not positive, or the
    value is outside.
    """
    numbers = {"min": min, "max": max, "step": step, "value": min if value is None else value}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number, got {number!r}")
    if step <= 0 or min >= max:
        raise ValueError(f"a slider needs min < max and step > 0, got min={min}, max={max}, step={step}")
    if not min <= numbers["value"] <= max:
        raise ValueError(f"value must be in {min}..{max}, got {value}")
    made = Slider(min, max, step, numbers["value"])
    return Slider(min, max, step, made.snap(made.value))


def _digits(number: float) -> int:
    text = repr(float(number))
    if "e" in text:
        return max(0, -int(text.split("e")[1]) + len(text.split("e")[0].replace("-", "").replace(".", "")) - 1)
    return len(text.split(".")[1].rstrip("0"))


class Live:
    """A picture with live controls; `widget` is what is displayed, `controls` the widgets by parameter name.

    The stored output of its cell is the start picture (PNG), so a notebook read without a kernel still shows it.
    """

    def __init__(
        self,
        render: Callable[..., Picture],
        choices: Mapping[str, Slider | tuple[Any, ...]],
        watch: str,
        alt: str,
        form: str,
    ) -> None:
        """Draw the start picture, so that an error in `render` is raised here and not hidden."""
        self._render, self._choices, self._alt, self._form = render, dict(choices), alt, form
        self._cache: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._cached_bytes = 0
        self.controls = {name: _control(name, choice) for name, choice in choices.items()}
        self.start: dict[str, Any] = self._current()
        self._start_png = preview_png(self._draw(self.start)[0])
        self.image = ipywidgets.Image(value=self.render_bytes(**self.start), layout={"max_width": "100%"})
        self.message = ipywidgets.HTML("", layout={"min_height": "24px", "margin": "0"})
        self.image.tooltip = self._describe(self.start)
        about = ipywidgets.HTML(f"<strong>Watch:</strong> {html.escape(watch)}")
        controls = ipywidgets.Box(
            list(self.controls.values()),
            layout={"flex_flow": "row wrap", "grid_gap": "4px 28px", "overflow": "visible"},
        )
        self.widget = ipywidgets.VBox([controls, self.image, self.message, about], layout=_CARD)
        for control in self.controls.values():
            control.observe(self._moved, names="value")

    def values(self, name: str) -> list[Any]:
        """Every value that the control of this name can take."""
        choice = self._choices[name]
        return list(choice.values) if isinstance(choice, Slider) else list(choice)

    def render_bytes(self, **values: Any) -> bytes:
        """The encoded picture (JPEG or PNG) at these values; those not given keep their start. Errors are raised.

        The last pictures are kept (256 of them, at most 32 MB), so going back costs nothing.
        """
        unknown = set(values) - set(self.controls)
        if unknown:
            raise ValueError(f"there is no control {sorted(unknown)}; the controls are {list(self.controls)}")
        full = {name: self._snap(name, values.get(name, self.start[name])) for name in self.controls}
        key = tuple(full.values())
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        data = self._encode(*self._draw(full))
        self._cache[key] = data
        self._cached_bytes += len(data)
        while len(self._cache) > 1 and (self._cached_bytes > _CACHED_BYTES or len(self._cache) > _CACHED_PICTURES):
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])
        return data

    def _snap(self, name: str, value: Any) -> Any:
        choice = self._choices[name]
        return choice.snap(value) if isinstance(choice, Slider) else value

    def _current(self) -> dict[str, Any]:
        return {name: self._snap(name, control.value) for name, control in self.controls.items()}

    def _draw(self, values: Mapping[str, Any]) -> tuple[Bytes3, bool]:
        picture = self._render(**values)
        pixels = to_bytes3(picture, f"render({', '.join(f'{k}={v!r}' for k, v in values.items())})")
        return enlarge(pixels, SIDE), isinstance(picture, Figure) or is_small(pixels)

    def _encode(self, pixels: Bytes3, drawing: bool) -> bytes:
        if self._form == "png" or (self._form == "auto" and drawing):
            return encode(pixels, "PNG", compress_level=1)
        return encode(pixels, "JPEG", quality=92, subsampling=0)

    def _describe(self, values: Mapping[str, Any]) -> str:
        said = ", ".join(f"{name.replace('_', ' ')} = {value_text(value)}" for name, value in values.items())
        return f"{self._alt.rstrip('.')}: {said}"

    def _moved(self, change: Any) -> None:
        values = self._current()
        try:
            data = self.render_bytes(**values)
        except Exception as error:  # whatever the render raises, the last good picture stays
            self.message.value = (
                f"<em>No picture for these values, the last one stays. "
                f"{html.escape(type(error).__name__)}: {html.escape(str(error))}</em>"
            )
            return
        self.image.tooltip = self._describe(values)
        self.image.value = data
        self.message.value = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        view = self.widget._repr_mimebundle_()
        alt = self._describe(self.start)
        data = {**view, "image/png": self._start_png, "text/plain": repr(self)}
        return data, {"image/png": {"alt": alt}}

    def __repr__(self) -> str:
        """What it is, in one line that never changes between runs."""
        return f"[live picture: {self._describe(self.start)}]"


_CARD: Final = {
    "border": "1px solid rgba(127,127,127,.35)",
    "padding": "12px 16px",
    "width": "fit-content",
    "max_width": "100%",
    "min_width": "min(100%, 480px)",
    "overflow": "visible",
    "margin": "6px 0",
}


def live(render: Callable[..., Picture], *, watch: str, alt: str, form: str = "auto", **parameters: Any) -> Live:
    """A picture redrawn by Python at every move of its controls.

    render(**values) -> picture: (C, H, W) or (H, W), floats in [0, 1] or uint8, or a matplotlib Figure (closed here).
    parameters: name=show.slider(...), a list of choices, or a bool (check box). watch: what to look for; alt: what the
    picture is. form: "auto" (JPEG for photographs, PNG for figures and small pictures), "jpeg" or "png".
    If render raises at some value, the last good picture stays and a calm line says why; at the start it raises.
    Raises TypeError or ValueError for bad arguments.
    """
    require_sentence(watch, "watch", "that says what to look for")
    require_sentence(alt, "alt", "that says what the picture is")
    if form not in ("auto", "jpeg", "png"):
        raise ValueError(f'form must be "auto", "jpeg" or "png", got {form!r}')
    if not parameters:
        raise ValueError("live needs at least one control by keyword, such as scale=show.slider(1, 8, 0.1)")
    return Live(render, {name: _choice(name, given) for name, given in parameters.items()}, watch, alt, form)


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
        options = {"min": choice.min, "max": choice.max, "step": choice.step, "value": choice.value}
        layout = {"width": "440px", "max_width": "100%"}
        if isinstance(choice.value, int):
            return ipywidgets.IntSlider(**options, **label, layout=layout, continuous_update=True)
        digits = max(_digits(choice.step), _digits(choice.min))
        return ipywidgets.FloatSlider(
            **options, **label, layout=layout, continuous_update=True, readout_format=f".{digits}f"
        )
    if all(isinstance(value, bool) for value in choice):
        return ipywidgets.Checkbox(value=choice[0], indent=False, **label)
    options_ = [(value_text(value), value) for value in choice]
    if len(choice) <= _BUTTONS:
        style = {**label["style"], "button_width": "auto"}
        return ipywidgets.ToggleButtons(
            options=options_, value=choice[0], description=label["description"], style=style
        )
    return ipywidgets.Dropdown(options=options_, value=choice[0], **label)
