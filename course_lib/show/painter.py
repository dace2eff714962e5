"""Turns a chapter's `render` function into encoded pictures, remembering the last ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal

from matplotlib.figure import Figure

from .pixels import Bytes3, Picture, encode, enlarge, is_small, to_bytes3

Form = Literal["auto", "jpeg", "png"]

SIDE: Final = 448
"""A small picture is enlarged by whole pixels to about this many screen pixels."""

_MOST_BYTES: Final = 32_000_000
_MOST_PICTURES: Final = 256


class Painter:
    """`render(**values)` as bytes for the browser; going back to recent values costs nothing (256 pictures, 32 MB)."""

    def __init__(self, render: Callable[..., Picture], form: Form = "auto") -> None:
        """form: "auto" writes photographs as JPEG and figures and small pictures as PNG, where each pixel counts."""
        if not callable(render):
            raise TypeError(f"render must be a function that returns a picture, got {type(render).__name__}")
        if form not in ("auto", "jpeg", "png"):
            raise ValueError(f'form must be "auto", "jpeg" or "png", got {form!r}')
        self._render, self._form = render, form
        self._kept: OrderedDict[tuple[tuple[str, Any], ...], bytes] = OrderedDict()
        self._size = 0

    def pixels(self, **values: Any) -> tuple[Bytes3, bool]:
        """The picture at these values as (H, W, 3) bytes, and whether it is a drawing (a figure)."""
        picture = self._render(**values)
        said = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return to_bytes3(picture, f"render({said})"), isinstance(picture, Figure)

    def paint(self, **values: Any) -> bytes:
        """The encoded picture at these values; errors of `render` are raised."""
        key = tuple(values.items())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        data = self._encode(*self.pixels(**values))
        self._kept[key] = data
        self._size += len(data)
        while len(self._kept) > 1 and (self._size > _MOST_BYTES or len(self._kept) > _MOST_PICTURES):
            self._size -= len(self._kept.popitem(last=False)[1])
        return data

    def _encode(self, pixels: Bytes3, drawing: bool) -> bytes:
        exact = drawing or is_small(pixels)
        if self._form == "png" or (self._form == "auto" and exact):
            return encode(enlarge(pixels, SIDE), "PNG", compress_level=1)
        return encode(enlarge(pixels, SIDE), "JPEG", quality=92, subsampling=0)
