"""Resampling with nothing hidden: one output at a time, one pixel at a time (chapters 01-04)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Row = Sequence[Any]


def W(x: Any, a: Any) -> Any:
    """Keys' cubic kernel at distance `x`; exact on fractions."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0 * x


def source_coordinate(i: int, n_in: int, n_out: int, scale: Any, grid: str) -> Any:
    """Where output pixel `i` looks, in input pixels; `scale` may be a Fraction, and then so is the answer."""
    if grid == "half_pixel":
        return (i + scale / scale / 2) / scale - scale / scale / 2
    if grid == "align_corners":
        return i * (n_in - 1) * (scale / scale) / (n_out - 1) if n_out > 1 else 0 * scale
    return i / scale


def pixel_at(row: Row, k: int, border: str) -> Any:
    """The value that stands at place `k`, inside the row or beyond its ends."""
    n = len(row)
    if border == "symmetric":
        k %= 2 * n
        return row[k] if k < n else row[2 * n - 1 - k]
    return row[min(max(k, 0), n - 1)]


def resample_row(
    row: Row,
    n_out: int,
    scale: Any,
    kernel: Callable[[Any], Any],
    radius: int,
    grid: str,
    border: str,
    stretch: Any = 1,
) -> list[Any]:
    """One row: for every output, the weighted mean of the pixels within the (stretched) kernel."""
    out = []
    for i in range(n_out):
        x = source_coordinate(i, len(row), n_out, scale, grid)
        reach = math.ceil(radius * stretch) + 1
        total, weight = 0, 0
        for k in range(math.floor(x) - reach, math.floor(x) + reach + 1):
            if border == "renormalise" and not 0 <= k < len(row):
                continue
            w = kernel((x - k) / stretch)
            total, weight = total + w * pixel_at(row, k, border), weight + w
        # Beyond the last pixel a dropped border may leave nothing to read: then the edge answers.
        out.append(total / weight if weight else pixel_at(row, math.floor(x), "replicate"))
    return out


def resize_plain(
    picture: Sequence[Row],
    size: tuple[int, int],
    scale: tuple[Any, Any],
    kernel: Callable[[Any], Any],
    radius: int,
    grid: str = "half_pixel",
    border: str = "replicate",
    antialias: bool = True,
) -> list[list[Any]]:
    """A grey picture as lists of rows: first every row along the width, then every column along the height.

    `size` and `scale` are (vertical, horizontal); `kernel` is a function of distance that is zero beyond `radius`.
    """
    steps = [
        (n_in - 1) / (n_out - 1) if grid == "align_corners" and n_out > 1 else 1 / s
        for n_in, n_out, s in zip((len(picture), len(picture[0])), size, scale, strict=True)
    ]
    stretch = [max(1, step) if antialias else 1 for step in steps]
    wide = [resample_row(row, size[1], scale[1], kernel, radius, grid, border, stretch[1]) for row in picture]
    columns = [
        resample_row(list(column), size[0], scale[0], kernel, radius, grid, border, stretch[0])
        for column in zip(*wide, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]
