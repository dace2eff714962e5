"""Which pixels each output reads along one axis, and with what weights: everything `resize` needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
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
_MOST_SLOPE = 1e6
# Tables up to this many numbers are kept for the next call; larger ones cost less to make than to hold.
_WORTH_KEEPING = 2**20

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


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
        if isinstance(self.a, bool) or not isinstance(self.a, (int, float)):
            raise TypeError(f"a must be a number, got {self.a!r}")
        if not abs(self.a) <= _MOST_SLOPE:
            raise ValueError(f"a must be a finite number, at most {_MOST_SLOPE:g} in size, got {self.a}")
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
    offset = ahead[:, None] + torch.arange(taps, dtype=torch.float64, device="cpu")
    weights = kernel((fraction[:, None] - offset) / stretch)
    return floor + ahead.long(), weights / weights.sum(1, keepdim=True)


def bounded_taps(axis: Axis) -> tuple[Tensor, Tensor]:
    """Return (pixels, weights) of every output inside the row: int64 and float64, both (n_out, taps), on the CPU.

    Pixels may repeat where a border folds back. Every row sums to 1. Treat both as read-only: they are shared.
    """
    small = axis.n_out * math.ceil(4 * axis.stretch) <= _WORTH_KEEPING
    index, weights = (_kept_tables if small else _tables)(axis)
    return torch.from_numpy(index), torch.from_numpy(weights)


def _tables(axis: Axis) -> tuple[Indices, Floats]:
    # NumPy arrays outlive the mode they were made in (inference, fake tensors, another default device); tensors do not.
    with torch.inference_mode(False):
        index, weights = _nearest_taps(axis) if axis.method == "nearest" else _kernel_taps(axis)
        return index.numpy(), weights.numpy()


_kept_tables = lru_cache(maxsize=32)(_tables)


def _kernel_taps(axis: Axis) -> tuple[Tensor, Tensor]:
    kernel = tent() if axis.method == "bilinear" else cubic(axis.a)
    first, weights = unbounded_taps(axis, kernel)
    index = first[:, None] + torch.arange(weights.shape[1], device="cpu")
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
    return index[:, None], torch.ones(axis.n_out, 1, dtype=torch.float64, device="cpu")


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
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating point type, got {dtype}")
    axis = Axis(n_in, n_out, scale, method, a, antialias, grid, border)
    columns, weights = bounded_taps(axis)
    rows = torch.arange(n_out, device="cpu")[:, None].expand_as(columns)
    kept = weights != 0
    coo = torch.sparse_coo_tensor(
        torch.stack([rows[kept], columns[kept]]), weights[kept], (n_out, n_in), device="cpu", check_invariants=True
    )
    return coo.coalesce().to(dtype)


def dense_band(axis: Axis, first: int, end: int, dtype: torch.dtype, device: torch.device) -> tuple[int, int, Tensor]:
    """Return rows first..end-1 of the matrix without its empty columns: (first column, end column, weights)."""
    index, weights = bounded_taps(axis)
    low, high, band = _band(index[first:end].numpy(), weights[first:end].numpy())
    return low, high, torch.from_numpy(band).to(device=device, dtype=dtype)


def dense_bands(axis: Axis, block: int, dtype: torch.dtype, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """Return the whole matrix as dense bands of `block` rows each (see `dense_band`).

    Neighbouring outputs read neighbouring pixels, so a few rows of the matrix touch one short run of columns: a
    handful of small matrix products does the work of a gather, at the speed of the machine's matrix kernels.
    """
    reach = block * axis.n_in / axis.n_out + 4 * axis.stretch
    runs, flat = (_kept_bands if axis.n_out * reach <= _WORTH_KEEPING else _bands)(axis, block)
    # One transfer for all bands, not one for each.
    numbers = torch.from_numpy(flat).to(device=device, dtype=dtype)
    pieces = torch.split(numbers, [rows * (high - low) for rows, low, high in runs])
    return [(low, high, piece.view(rows, high - low)) for (rows, low, high), piece in zip(runs, pieces, strict=True)]


def _bands(axis: Axis, block: int) -> tuple[list[tuple[int, int, int]], Floats]:
    index, weights = (part.numpy() for part in bounded_taps(axis))
    made = [_band(index[k : k + block], weights[k : k + block]) for k in range(0, axis.n_out, block)]
    runs = [(len(band), low, high) for low, high, band in made]
    return runs, np.concatenate([band.ravel() for _, _, band in made])


_kept_bands = lru_cache(maxsize=32)(_bands)


def _band(index: npt.NDArray[Any], weights: npt.NDArray[Any]) -> tuple[int, int, Floats]:
    low, high = int(index.min()), int(index.max()) + 1
    band = np.zeros((len(index), high - low))
    np.add.at(band, (np.arange(len(index))[:, None], index - low), weights)
    return low, high, band
