"""A picture one points at: Python draws what belongs to the place under the pointer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .blocks import inline, require_sentence
from .frames import Axis, Frames, assemble, shown_width
from .live import trouble
from .painter import Painter
from .pixels import Bytes3, Picture, encode, is_small, to_bytes3


class _Surface(anywidget.AnyWidget):
    """What JavaScript and Python share; `at` is asked by the one and `answered` by the other."""

    _esm = Path(__file__).with_name("pointer.js")
    height = traitlets.Int(1).tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    shown = traitlets.Int(1).tag(sync=True)
    crisp = traitlets.Bool(False).tag(sync=True)
    snap = traitlets.Bool(False).tag(sync=True)
    beside = traitlets.Bool(True).tag(sync=True)
    step = traitlets.Float(1.0).tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    watch = traitlets.Unicode("").tag(sync=True)
    base = traitlets.Bytes(b"").tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    event = traitlets.Unicode("").tag(sync=True)
    at: traitlets.List[float] = traitlets.List([0.0, 0.0]).tag(sync=True)
    answered: traitlets.List[float] = traitlets.List([0.0, 0.0]).tag(sync=True)


class Pointer:
    """A picture to point at; `widget` is what is displayed, `frames` its stored, kernel-free form."""

    def __init__(
        self,
        image: Bytes3,
        painter: Painter,
        start: tuple[float, float],
        grid: tuple[int, int],
        watch: str,
        alt: str,
        beside: bool,
        snap: bool,
    ) -> None:
        """Draw the start picture, so that an error in `render` is raised here and not hidden."""
        self._image, self._painter, self._grid = image, painter, grid
        self._watch, self._alt, self._beside, self._snap = watch, alt.strip(), beside, snap
        self.start = self._inside(*start)
        height, width = image.shape[:2]
        shown = shown_width([(image, False)], None, 560)
        options = {"optimize": True} if is_small(image) else {"quality": 92}
        self.widget = _Surface(
            height=height,
            width=width,
            shown=shown,
            crisp=width < shown,
            snap=snap,
            beside=beside,
            step=1.0 if snap or max(height, width) > 32 else 0.1,
            alt=self._alt,
            watch=f"<strong>Watch:</strong> {inline(watch)}",
            base=encode(image, "PNG" if is_small(image) else "JPEG", **options) if beside else b"",
            picture=self.render_bytes(*self.start),
            at=list(self.start),
            answered=list(self.start),
        )
        self.widget.observe(self._moved, names="at")

    def render_bytes(self, y: float, x: float) -> bytes:
        """The encoded picture for a place, in pixels of the image; places outside are taken at the border."""
        y, x = self._inside(y, x)
        return self._painter.paint(y=y, x=x)

    @property
    def positions(self) -> list[tuple[float, float]]:
        """The places (y, x) that the kernel-free form shows, row by row."""
        ys, xs = self._axes()
        return list(itertools.product(ys.values, xs.values))

    @cached_property
    def frames(self) -> Frames:
        """The kernel-free form: one slider for y and one for x over a grid of places."""
        pictures = [self._painter.pixels(y=y, x=x) for y, x in self.positions]
        base = self._image if self._beside else None
        remedy = "a coarser grid= or a smaller picture from render"
        return assemble(self._axes(), pictures, watch=self._watch, alt=self._alt, base=base, remedy=remedy)

    def _inside(self, y: float, x: float) -> tuple[float, float]:
        # Within half a pixel of the first and last pixel, short of the edge: round(y) is always a pixel.
        pairs = zip((y, x), self._image.shape[:2], strict=True)
        kept = [min(max(float(v), -0.499), n - 0.501) for v, n in pairs]
        if self._snap:
            return round(kept[0]), round(kept[1])
        return round(kept[0], 3), round(kept[1], 3)

    def _axes(self) -> tuple[Axis, Axis]:
        return (
            _axis("y", self._image.shape[0], self._grid[0], self.start[0], self._snap, "top"),
            _axis("x", self._image.shape[1], self._grid[1], self.start[1], self._snap, "left"),
        )

    def _moved(self, change: Any) -> None:
        y, x = change["new"]
        with self.widget.hold_sync():
            try:
                self.widget.picture = self.render_bytes(y, x)
                self.widget.message = ""
            except Exception as error:  # whatever render raises, the last good picture stays
                self.widget.message = trouble(error)
            self.widget.answered = [y, x]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = self.widget._repr_mimebundle_()
        view = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**(view or {}), "text/html": self.frames.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        """What it is, in one line that never changes between runs."""
        return f"[picture to point at: {self._alt.rstrip('.')}. Without a kernel: {len(self.positions)} places.]"


def _axis(name: str, count: int, places: int, start: float, snap: bool, side: str) -> Axis:
    """Places spread over an axis of `count` pixels, first and last pixel included; the one nearest the start is it."""
    places = min(places, count) if snap else places
    spread = [round(k * (count - 1) / max(places - 1, 1), 2) for k in range(places)]
    values: list[float] = [round(v) for v in spread] if snap else spread
    near = min(range(places), key=lambda k: abs(values[k] - start))
    values[near] = start
    per_cent = tuple(round((v + 0.5) / count * 100, 3) for v in values)
    return Axis(name, tuple(values), near, per_cent, side)


def pointer(
    image: Picture,
    render: Callable[..., Picture],
    *,
    watch: str,
    alt: str,
    start: tuple[float, float] | None = None,
    grid: tuple[int, int] = (5, 5),
    beside: bool = True,
    snap: bool = False,
) -> Pointer:
    """A picture that the reader points at (hover, click to hold, drag, arrow keys); render(y, x) draws the answer.

    image: (C, H, W) or (H, W), floats in [0, 1] or uint8. render(y, x) -> picture or matplotlib Figure; y, x in pixels
    of the image, pixel k at coordinate k, from -0.499 to H - 0.501 (so round(y) is always a pixel); with snap=True they
    are whole numbers. beside=True: the image stays, with a ring at the place, and the drawing stands beside it;
    beside=False: the drawing takes the image's place. start: (y, x), default the middle. grid: rows and columns of
    places in the stored form, which needs no kernel. watch: what to look for; alt: what the picture is.
    Raises TypeError or ValueError for bad arguments, and when the stored form would pass 400 KB.
    """
    require_sentence(watch, "watch", "that says what to look for")
    require_sentence(alt, "alt", "that says what the picture is")
    pixels = to_bytes3(image, "image")
    if not _pair(grid) or not all(isinstance(n, int) and 2 <= n <= 15 for n in grid):
        raise ValueError(f"grid must be (rows, columns), each in 2..15, got {grid!r}")
    if min(pixels.shape[:2]) < 2:
        raise ValueError(f"image must be at least 2 x 2 pixels to be pointed at, got {pixels.shape[:2]}")
    middle = ((pixels.shape[0] - 1) / 2, (pixels.shape[1] - 1) / 2)
    place = middle if start is None else start
    if not _pair(place) or not all(-0.5 <= v <= n - 0.5 for v, n in zip(place, pixels.shape[:2], strict=True)):
        raise ValueError(f"start must be (y, x) inside the image of {pixels.shape[:2]}, got {start!r}")
    return Pointer(pixels, Painter(render), (place[0], place[1]), grid, watch, alt, beside, snap)


def _pair(value: object) -> bool:
    numbers = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return numbers and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)  # type: ignore[attr-defined]
