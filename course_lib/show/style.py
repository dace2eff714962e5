"""One look for every figure: large type, fixed colours per role, nothing said by colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import matplotlib as mpl
from cycler import cycler

# Okabe and Ito's palette: its colours stay apart for all common kinds of colour blindness.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _VERMILLION, _PURPLE, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#6B7280"

COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input": _BLUE,
        "output": _VERMILLION,
        "nearest": _ORANGE,
        "bilinear": _GREEN,
        "bicubic": _PURPLE,
        "weight": _SKY,
        "error": _VERMILLION,
        "truth": _BLACK,
        "grid": _GREY,
    }
)
"""The colour of each role, the same in formula, matrix and picture."""

DASHES: Final[Mapping[str, str]] = MappingProxyType({"nearest": ":", "bilinear": "--", "bicubic": "-", "truth": "-"})
"""A line style per method, so that curves can be told apart in grey print."""

MARKERS: Final[Mapping[str, str]] = MappingProxyType({"nearest": "s", "bilinear": "o", "bicubic": "D", "input": "o"})
"""A marker per role, for the same reason."""

DPI: Final = 100
"""Dots per inch of every figure; a figure 11 inches wide fills a slide."""

_CYCLE = cycler(color=[_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY, _BLACK]) + cycler(
    linestyle=["-", "--", "-.", ":", "-", "--", "-."]
)

SETTINGS: Final[Mapping[Any, Any]] = MappingProxyType(
    {
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "figure.figsize": (9.0, 4.5),
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "font.family": ["DejaVu Sans"],
        "font.size": 15,
        "axes.titlesize": 16,
        "axes.titlepad": 8,
        "axes.labelsize": 15,
        "xtick.labelsize": 13,
        "ytick.labelsize": 13,
        "legend.fontsize": 14,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _GREY,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E5E7EB",
        "lines.linewidth": 2.6,
        "lines.markersize": 8,
        "axes.prop_cycle": _CYCLE,
        "image.interpolation": "nearest",
        "image.cmap": "gray",
        "svg.hashsalt": "course_lib",
    }
)
"""What `style` sets."""


def style() -> None:
    """Give matplotlib the book's look for the rest of the notebook.

    Type readable from the last row, colours safe for the colour-blind, line styles that differ as well as colours,
    100 dots per inch, nearest-neighbour display of images.
    """
    mpl.rcParams.update(SETTINGS)
