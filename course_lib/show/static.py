"""Still figures, each with the sentence that says what it shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .blocks import require_sentence, show_png
from .pixels import Bytes3, Picture, to_bytes3
from .style import DPI, SETTINGS

WIDEST: Final = 1120
"""Screen pixels a static figure may take: it still fits a slide of 1280 without shrinking."""

_TITLE, _GAP = 34, 16


def figure(fig: Figure, sentence: str, alt: str | None = None) -> None:
    """Display a matplotlib figure with its sentence below, then close it.

    sentence: says what the figure shows (Markdown, formulas allowed); alt: text for those who cannot see it
    (default: the sentence). Raises TypeError or ValueError when the figure or the sentence is missing.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"fig must be a matplotlib Figure, got {type(fig).__name__}")
    text = require_sentence(sentence, "sentence", "that says what the figure shows")
    show_png(_png(fig, tight=True), text, alt or text)


def pictures(
    images: Mapping[str, Picture],
    sentence: str,
    zoom: int | None = None,
    cols: int | None = None,
    size: int | None = None,
    alt: str | None = None,
) -> None:
    """Display titled pictures side by side, pixels as hard squares, with the sentence below.

    images: {title: picture (C, H, W) or (H, W), floats in [0, 1] or uint8}. All in one box by default: every picture
    is `size` screen pixels on its longer side (default: what fits), so a small input stands as large as its x4 output.
    zoom: instead, screen pixels per picture pixel, the same for all, so that sizes can be compared.
    cols: pictures in a row. A picture that must shrink is filtered first, so that it shows no aliasing of its own.
    Raises TypeError or ValueError for a bad picture, both zoom and size, or a missing sentence.
    """
    text = require_sentence(sentence, "sentence", "that says what the pictures show")
    if not images:
        raise ValueError("images must hold at least one picture, got none")
    if zoom is not None and size is not None:
        raise ValueError("give zoom (pixels per pixel) or size (pixels per picture), got both")
    if zoom is not None and (zoom != int(zoom) or zoom < 1):
        raise ValueError(f"zoom must be a whole number >= 1, got {zoom}")
    arrays = [to_bytes3(image, f"picture {title!r}") for title, image in images.items()]
    columns = cols or min(len(arrays), 4)
    room = (WIDEST - _GAP * (columns - 1)) // columns
    screen = [_on_screen(a, zoom or (size or _side(arrays, room)) / max(a.shape[:2])) for a in arrays]
    fig = _contact_sheet(list(images), arrays, screen, columns)
    alt_text = alt or f"{', '.join(images)}. {text}"
    show_png(_png(fig, tight=False), text, alt_text)


def _side(arrays: Sequence[Bytes3], room: int) -> int:
    """The longer side of all pictures on the screen: a whole multiple of the smallest picture where there is room."""
    longest: list[int] = [max(array.shape[:2]) for array in arrays]
    wanted: int = min(room, max(420, *longest))
    return wanted // min(longest) * min(longest) if wanted > 2 * min(longest) else wanted


def _on_screen(array: Bytes3, factor: float) -> tuple[int, int]:
    """Height and width in screen pixels."""
    return max(1, round(array.shape[0] * factor)), max(1, round(array.shape[1] * factor))


def _contact_sheet(
    titles: Sequence[str], arrays: Sequence[Bytes3], screen: Sequence[tuple[int, int]], columns: int
) -> Figure:
    rows = [range(i, min(i + columns, len(arrays))) for i in range(0, len(arrays), columns)]
    lines = [max(title.count("\n") + 1 for title in (titles[k] for k in row)) for row in rows]
    # A cell is at least as wide as its title, about 9 screen pixels per character at this size.
    cells = [max(w, 9 * max(len(part) for part in t.split("\n"))) for (_, w), t in zip(screen, titles, strict=True)]
    column_width = [max(cells[k] for k in range(c, len(cells), columns)) for c in range(min(columns, len(cells)))]
    row_height = [max(screen[k][0] for k in row) + _TITLE + 22 * (n - 1) for row, n in zip(rows, lines, strict=True)]
    total_w = sum(column_width) + _GAP * (len(column_width) - 1)
    total_h = sum(row_height) + _GAP * (len(rows) - 1)
    with mpl.rc_context(dict(SETTINGS)):
        fig = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
        fig.set_layout_engine("none")
        top = 0
        for row, height in zip(rows, row_height, strict=True):
            left = 0
            for column, k in enumerate(row):
                h, w = screen[k]
                x, y = left + (column_width[column] - w) // 2, top + height - max(screen[j][0] for j in row)
                axes = fig.add_axes((x / total_w, 1 - (y + h) / total_h, w / total_w, h / total_h))
                axes.imshow(_fit(arrays[k], h, w), interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                axes.set_title(titles[k], fontsize=14, pad=7)
                left += column_width[column] + _GAP
            top += height + _GAP
    return fig


def _fit(array: Bytes3, height: int, width: int) -> Bytes3:
    if height >= array.shape[0]:
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS))


def matrix(
    values: torch.Tensor | npt.NDArray[Any] | Sequence[Sequence[float]],
    sentence: str,
    title: str = "",
    rows: Sequence[str] | str | None = None,
    columns: Sequence[str] | str | None = None,
    form: str = ".3g",
    limit: float | None = None,
    alt: str | None = None,
) -> None:
    """Display a small matrix as a grid: each number in its cell, blue below zero, orange above, white at zero.

    values: (n, m) with n, m in 1..24, finite; a 1-D row is shown as (1, n). rows, columns: a name for the axis, or one
    label per row or column. form: format of a number (zeros are shown as a dot). limit: the value of the strongest
    colour (default: the largest magnitude). Raises ValueError for another rank, a larger matrix or NaN.
    """
    text = require_sentence(sentence, "sentence", "that says what the matrix shows")
    table = _as_table(values)
    bound = limit or float(np.abs(table).max()) or 1.0
    with mpl.rc_context(dict(SETTINGS)):
        fig, axes = _grid_axes(table)
        axes.imshow(table, cmap="PuOr_r", vmin=-bound, vmax=bound, aspect="auto")
        strings = [["·" if v == 0 else format(v, form) for v in row] for row in table]
        longest = max(len(s) for row in strings for s in row)
        points = min(15.0, 72 / longest + 3)
        for (i, j), value in np.ndenumerate(table):
            dark = abs(value) / bound > 0.65
            axes.text(
                j, i, strings[i][j], ha="center", va="center", fontsize=points, color="white" if dark else "black"
            )
        _label(axes, rows, columns, table.shape)
        if title:
            axes.set_title(title)
    size = f"{table.shape[0]} by {table.shape[1]}"
    show_png(_png(fig, tight=True), text, alt or f"{title or 'Matrix'}, {size}. {text}")


def _as_table(values: torch.Tensor | npt.NDArray[Any] | Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    if isinstance(values, torch.Tensor):
        dense = values.to_dense() if values.layout != torch.strided else values
        values = dense.detach().cpu().double().numpy()
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or not all(1 <= n <= 24 for n in table.shape):
        raise ValueError(f"values must be a matrix of 1..24 rows and columns, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite, got NaN or infinity")
    return table


def _grid_axes(table: npt.NDArray[np.float64]) -> tuple[Figure, Axes]:
    n, m = table.shape
    cell = min(0.72, 10.5 / m, 5.6 / n)
    fig = Figure(figsize=(max(2.0, cell * m + 1.0), cell * n + 1.0), dpi=DPI, layout="constrained")
    axes = fig.add_subplot()
    axes.grid(False)
    axes.set_xticks(np.arange(m + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="#D1D5DB", linewidth=1)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return fig, axes


def _label(
    axes: Axes, rows: Sequence[str] | str | None, columns: Sequence[str] | str | None, shape: tuple[int, ...]
) -> None:
    for given, axis, count in ((rows, axes.yaxis, shape[0]), (columns, axes.xaxis, shape[1])):
        if given is None or isinstance(given, str):
            axis.set_label_text(given or "")
            axis.set_ticks(range(0, count, 1 if count <= 16 else 2))
            continue
        if len(given) != count:
            name = "rows" if axis is axes.yaxis else "columns"
            raise ValueError(f"{name} must hold {count} labels, got {len(given)}")
        axis.set_ticks(range(count), labels=list(given))


def _png(fig: Figure, tight: bool) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(fig)
    try:
        # The metadata would name the version of matplotlib: bytes should not change with it.
        options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08} if tight else {}
        fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, **options)
    finally:
        plt.close(fig)
    return buffer.getvalue()
