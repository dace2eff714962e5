"""Which pixels each output reads along one axis, and with what weights: everything `resize` needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from course_lib.upsampling.grids import (
    Border,
    Grid,
    Scale,
    as_fraction,
    border_indices,
    check_choice,
    check_length,
    grid_step,
    nearest_indices,
    split_coordinates,
)
from course_lib.upsampling.kernels import Kernel, cubic, tent

Method = Literal["nearest", "bilinear", "bicubic"]

# Shrinking far below one pixel would spread each kernel over this many taps and more; nobody wants that on purpose.
_MOST_TAPS = 2**28


@dataclass(frozen=True)
class Axis:
    """One axis of a resampling: sizes, scale and rules. Two equal axes share their weights."""

    n_in: int
    n_out: int
    scale: Scale | None = None
    method: Method = "bicubic"
    a: float = -0.5
    antialias: bool = True
    grid: Grid = "half_pixel"
    border: Border = "replicate"

    def __post_init__(self) -> None:
        """Check every argument once, by name, before any work."""
        check_length("n_in", self.n_in)
        check_length("n_out", self.n_out)
        check_choice("method", self.method, Method)
        check_choice("grid", self.grid, Grid)
        check_choice("border", self.border, Border)
        if not math.isfinite(self.a):
            raise ValueError(f"a must be a finite number, got {self.a}")
        if self.scale is not None:
            object.__setattr__(self, "scale", as_fraction(self.scale))

    @property
    def stretch(self) -> float:
        """By how much the kernel is widened: 1, or the step between outputs where antialiasing a smaller picture."""
        return max(1.0, float(grid_step(self.n_in, self.n_out, self.scale, self.grid))) if self.antialias else 1.0


def unbounded_taps(axis: Axis, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Return (first pixel, weights) of every output as if the row went on forever.

    int64 (n_out,) and float64 (n_out, taps); row i reads pixels first[i], first[i]+1, ... Every row sums to 1, as in
    MATLAB's imresize (a stretched kernel's samples only nearly do). Raises ValueError for absurd shrinking.
    """
    stretch = axis.stretch
    radius = kernel.support * stretch
    taps = math.ceil(2 * radius)
    if taps * axis.n_out > _MOST_TAPS:
        raise ValueError(
            f"scale must not shrink this far: each of {axis.n_out} outputs would read {taps} pixels "
            f"of a row of {axis.n_in}"
        )
    floor, fraction = split_coordinates(axis.n_in, axis.n_out, axis.scale, axis.grid)
    # The first pixel at a distance of at most `radius`; the ones beyond the last carry weight zero.
    ahead = torch.ceil(fraction - radius)
    ahead = torch.where(fraction - ahead >= radius, ahead + 1, ahead)
    offset = ahead[:, None] + torch.arange(taps, dtype=torch.float64)
    weights = kernel((fraction[:, None] - offset) / stretch)
    return floor + ahead.long(), weights / weights.sum(1, keepdim=True)


@lru_cache(maxsize=32)
def bounded_taps(axis: Axis) -> tuple[Tensor, Tensor]:
    """Return (pixels, weights) of every output inside the row: int64 and float64, both (n_out, taps).

    Pixels may repeat where a border folds back. Every row sums to 1. Treat both as read-only: they are shared.
    """
    if axis.method == "nearest":
        return _nearest_taps(axis)
    kernel = tent() if axis.method == "bilinear" else cubic(axis.a)
    first, weights = unbounded_taps(axis, kernel)
    index = first[:, None] + torch.arange(weights.shape[1])
    if axis.border == "renormalise":
        inside = weights * ((index >= 0) & (index < axis.n_in))
        total = inside.sum(1, keepdim=True)
        # Rows that reach no pixel at all (possible when ceil adds one) keep their weights on the edge pixel.
        weights = torch.where(total != 0, inside / torch.where(total != 0, total, 1), weights)
    return border_indices(index, axis.n_in, axis.border), weights


def _nearest_taps(axis: Axis) -> tuple[Tensor, Tensor]:
    if axis.grid == "align_corners":
        floor, fraction = split_coordinates(axis.n_in, axis.n_out, axis.scale, axis.grid)
        index = (floor + (fraction >= 0.5)).clamp(0, axis.n_in - 1)
    else:
        rule: Literal["exact", "floor"] = "exact" if axis.grid == "half_pixel" else "floor"
        index = nearest_indices(axis.n_in, axis.n_out, rule, axis.scale)
    return index[:, None], torch.ones(axis.n_out, 1, dtype=torch.float64)


def resize_matrix(
    n_in: int,
    n_out: int,
    scale: Scale | None = None,
    method: Method = "bicubic",
    a: float = -0.5,
    antialias: bool = True,
    grid: Grid = "half_pixel",
    border: Border = "replicate",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return the resampling of one axis as a sparse matrix: `resize(x)` equals `A_h @ x @ A_w.T`.

    Arguments as in `resize`; `scale` (default n_out / n_in) fixes the coordinates, `n_out` how many there are.
    Returns: sparse COO (n_out, n_in), coalesced; every row sums to 1. Raises as `resize` does.
    """
    axis = Axis(n_in, n_out, scale, method, a, antialias, grid, border)
    columns, weights = bounded_taps(axis)
    rows = torch.arange(n_out)[:, None].expand_as(columns)
    kept = weights != 0
    coo = torch.sparse_coo_tensor(
        torch.stack([rows[kept], columns[kept]]), weights[kept], (n_out, n_in), check_invariants=True
    )
    return coo.coalesce().to(dtype)


def dense_band(axis: Axis, first: int, end: int, dtype: torch.dtype, device: torch.device) -> tuple[int, int, Tensor]:
    """Return rows first..end-1 of the matrix without its empty columns: (first column, end column, weights)."""
    columns, weights = (part[first:end] for part in bounded_taps(axis))
    low, high = int(columns.min()), int(columns.max()) + 1
    band = torch.zeros(end - first, high - low, dtype=torch.float64).scatter_add_(1, columns - low, weights)
    return low, high, band.to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
def dense_bands(
    axis: Axis, block: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[int, int, Tensor], ...]:
    """Return the whole matrix as dense bands of `block` rows each (see `dense_band`).

    Neighbouring outputs read neighbouring pixels, so a few rows of the matrix touch one short run of columns: a
    handful of small matrix products does the work of a gather, at the speed of the machine's matrix kernels.
    """
    starts = range(0, axis.n_out, block)
    return tuple(dense_band(axis, start, min(start + block, axis.n_out), dtype, device) for start in starts)
