"""Where output pixels look: the three grid conventions, in exact integer arithmetic.

Coordinates count pixels: pixel k of a row sits at coordinate k and covers [k - 1/2, k + 1/2].
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Grid = Literal["half_pixel", "align_corners", "origin"]
Border = Literal["replicate", "symmetric", "renormalise"]
Rule = Literal["floor", "exact", "round"]
Scale = float | int | Fraction

_INT64_SAFE = 2**62
_LEAST_SCALE = Fraction(1, 10**30)


def as_fraction(scale: Scale) -> Fraction:
    """Return the simplest fraction that rounds to `scale`.

    A float such as 3.4 is not 17/5, only the nearest double to it; computing with 17/5 gives the sizes and
    coordinates its writer meant. `scale`: positive, finite. Raises TypeError or ValueError naming what came.
    """
    given: Any = scale
    if isinstance(given, bool) or not isinstance(given, (int, float, Fraction, np.integer, np.floating)):
        raise TypeError(f"scale must be a number (int, float or Fraction), got {type(given).__name__}")
    inexact = isinstance(given, (float, np.floating))
    if (inexact and not math.isfinite(given)) or given <= 0:
        raise ValueError(f"scale must be a positive finite number, got {given}")
    exact = Fraction(float(given) if inexact else given if isinstance(given, Fraction) else int(given))
    if not _LEAST_SCALE <= exact <= 1 / _LEAST_SCALE:
        raise ValueError(f"scale must be from 1e-30 to 1e30, got a number {'above' if exact > 1 else 'below'} that")
    if not inexact:
        return exact
    for digits in range(1, 17):
        simple = exact.limit_denominator(10**digits)
        if simple > 0 and type(given)(float(simple)) == given:  # np.float32(3.4) means 17/5 too
            return simple
    return exact


def output_size(n: int, scale: Scale) -> int:
    """Return ceil(scale * n), the size rule of MATLAB's imresize, without rounding error.

    `n`: pixels along one axis, at least 1. Raises ValueError for n < 1 or a scale that is not positive and finite.
    """
    return math.ceil(as_fraction(scale) * check_length("n", n))


def check_length(name: str, n: int, least: int = 1) -> int:
    """Return `n` as an int if it is a whole number >= `least`; otherwise raise an error that names the argument."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {n!r}")
    if n < least:
        raise ValueError(f"{name} must be at least {least}, got {n}")
    return int(n)


def check_choice(name: str, value: str, allowed: object) -> None:
    """Raise ValueError unless `value` is one of the strings of the Literal type `allowed`."""
    choices = get_args(allowed)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def grid_step(n_in: int, n_out: int, scale: Scale | None, grid: Grid) -> Fraction:
    """Return how far apart, in input pixels, two neighbouring outputs look (exact).

    `align_corners` always steps (n_in - 1) / (n_out - 1): its definition leaves no room for a scale. A single output
    pixel on that grid has no neighbour; its step is n_in, the whole row.
    """
    if grid == "align_corners":
        return Fraction(n_in - 1, n_out - 1) if n_out > 1 else Fraction(n_in)
    return Fraction(n_in, n_out) if scale is None else 1 / as_fraction(scale)


def split_coordinates(
    n_in: int, n_out: int, scale: Scale | None = None, grid: Grid = "half_pixel"
) -> tuple[Tensor, Tensor]:
    """Return the source coordinate of every output pixel as (floor, fraction), computed with integers.

    half_pixel: (i + 1/2) / s - 1/2; align_corners: i (n_in - 1) / (n_out - 1); origin: i / s, where s is `scale`, or
    n_out / n_in when `scale` is None.

    Returns: int64 (n_out,) and float64 (n_out,) in [0, 1). Raises ValueError for sizes below 1 or an unknown grid.
    """
    check_choice("grid", grid, Grid)
    n_in, n_out = check_length("n_in", n_in), check_length("n_out", n_out)
    step = grid_step(n_in, n_out, scale, grid)
    if grid == "half_pixel":
        # (i + 1/2) step - 1/2 over the common denominator 2 * step.denominator
        slope, offset = 2 * step.numerator, step.numerator - step.denominator
        denominator = 2 * step.denominator
    else:
        slope, offset, denominator = step.numerator, 0, step.denominator
    if grid == "align_corners" and n_out == 1:
        slope = 0
    fits = (slope * n_out + abs(offset) < _INT64_SAFE) and denominator < _INT64_SAFE
    index: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    index = np.arange(n_out, dtype=np.int64) if fits else np.arange(n_out).astype(object)
    numerator = index * slope + offset
    floor = numerator // denominator
    fraction = (numerator - floor * denominator) / denominator
    return torch.from_numpy(floor.astype(np.int64)), torch.from_numpy(fraction.astype(np.float64))


def source_coordinates(n_in: int, n_out: int, scale: Scale | None = None, grid: Grid = "half_pixel") -> Tensor:
    """Return where each output pixel looks, in input pixels: float64 (n_out,).

    The sum of the two parts of `split_coordinates`; same arguments and errors.
    """
    floor, fraction = split_coordinates(n_in, n_out, scale, grid)
    return floor + fraction


def nearest_indices(
    n_in: int, n_out: int, rule: Rule = "exact", scale: Scale | None = None, clamp: bool = True
) -> Tensor:
    """Return which input pixel each output pixel copies: int64 (n_out,).

    floor: floor(i / s), PyTorch's `nearest` and OpenCV; exact: floor((i + 1/2) / s), the pixel that holds the
    output's centre, PyTorch's `nearest-exact` and, but for ties, Pillow; round: i / s rounded half up, which runs
    off the image for s >= 2 unless `clamp` is true. Raises ValueError for an unknown rule or sizes below 1.
    """
    check_choice("rule", rule, Rule)
    if rule == "floor":
        index, _ = split_coordinates(n_in, n_out, scale, "origin")
    else:
        floor, fraction = split_coordinates(n_in, n_out, scale, "half_pixel" if rule == "exact" else "origin")
        index = floor + (fraction >= 0.5)
    return index.clamp(0, n_in - 1) if clamp else index


def border_indices(index: Tensor, n: int, border: Border) -> Tensor:
    """Return, for indices that may lie outside 0..n-1, the pixel that stands in for each.

    replicate: the edge pixel; symmetric: the mirror image with the edge repeated (c b a | a b c | c b a), as often
    as needed; renormalise: the edge pixel, whose weight the caller sets to zero. Same shape as `index`.
    """
    check_choice("border", border, Border)
    if border == "symmetric":
        folded = index.remainder(2 * n)
        return torch.where(folded < n, folded, 2 * n - 1 - folded)
    return index.clamp(0, n - 1)
