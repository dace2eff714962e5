"""Resize pictures by any real factor: one operator for every method, grid and border of part 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.upsampling.grids import (
    Border,
    Grid,
    Scale,
    as_fraction,
    check_length,
    grid_step,
    output_size,
    source_coordinates,
)
from course_lib.upsampling.taps import Axis, Method, bounded_taps, dense_band, dense_bands

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_SIDE = 2**24
"""The longest side `resize` makes, in pixels."""
MOST_NUMBERS = 2**31
"""The largest result `resize` makes, in numbers (8 GiB of float32); larger pictures are made by tiles."""


def resize(
    image: Tensor,
    scale: Scale | Sequence[Scale] | None = None,
    size: int | Sequence[int] | None = None,
    method: Method = "bicubic",
    a: float = -0.5,
    antialias: bool = True,
    grid: Grid = "half_pixel",
    border: Border = "replicate",
) -> Tensor:
    """Resize a picture or a batch of them by any real factor, differentiably.

    image: float tensor (..., C, H, W), any range, finite wherever it is read. Exactly one of
    scale: one number for both axes or (vertical, horizontal); the result has ceil(scale * n) pixels (exact, as in
    MATLAB) and coordinates use `scale` itself; or
    size: one number for both axes or (height, width); coordinates use out / in.
    method: "nearest" (which reads one pixel and ignores `a`, `antialias` and `border`; on the `origin` grid it
    floors, like PyTorch's `nearest`), "bilinear" or "bicubic".
    a: slope of the cubic kernel at distance 1. antialias: widen the kernel when shrinking.
    grid: "half_pixel" (pixel centres), "align_corners" (first and last pixels meet) or "origin" (i / scale).
    border: "replicate" the edge pixel, "symmetric" mirror (MATLAB) or "renormalise" (drop outside pixels and rescale
    the rest; PyTorch's antialiased kernels and Pillow).

    Returns: (..., C, H', W') with the dtype and device of `image`; half precision is computed in float32. Values may
    overshoot the input's range when the kernel has negative lobes.
    Raises: TypeError or ValueError naming the argument, what came and what was expected. Keys 1981 for the kernel.
    """
    check_image(image)
    height, width = _axes(image, scale, size, method, a, antialias, grid, border)
    _check_result(image, height, width)
    # Half precision would lose the weights' last digits; float32 costs little and is exact enough.
    work = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    if image.numel() == 0:
        return image.new_empty(*image.shape[:-2], height.n_out, width.n_out)
    planes = work.reshape(1, -1, height.n_in, width.n_in)
    with _full_precision(image):
        out = _by_torch(planes, height, width)
        if out is None:
            out = (_by_gather if _reads_little(height, width) else _by_bands)(planes, height, width)
    check_finite(image, out)
    return out.reshape(*image.shape[:-2], height.n_out, width.n_out).to(image.dtype)


def _full_precision(image: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off: it would run the matrix products in half precision."""
    device = image.device.type
    if image.is_meta or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _reads_little(height: Axis, width: Axis) -> bool:
    """Return whether reading pixel by pixel beats matrix products: nearest, and shrinking by unwidened tents."""
    sparse = all(axis.stretch == 1.0 and axis.n_out < axis.n_in for axis in (height, width))
    return height.method == "nearest" or (height.method == "bilinear" and sparse)


def _by_gather(planes: Tensor, height: Axis, width: Axis) -> Tensor:
    """Read each output's pixels one by one and add them up: best where few of the input's pixels are read at all."""
    (rows, row_weights), (columns, column_weights) = bounded_taps(height), bounded_taps(width)
    flat = planes.flatten(-2)
    if height.method == "nearest":
        out = _read(flat, rows[:, 0], columns[:, 0], width.n_in)
        return out.reshape(*planes.shape[:-2], height.n_out, width.n_out)
    # A strip of outputs at a time: what is read then stays in the cache and needs no new memory.
    lines = max(1, 2**16 // width.n_out)
    strips = []
    for strip, strip_weights in zip(torch.split(rows, lines), torch.split(row_weights, lines), strict=True):
        total: Tensor | None = None
        for i, j in itertools.product(range(rows.shape[1]), range(columns.shape[1])):
            read = _read(flat, strip[:, i], columns[:, j], width.n_in)
            weight = (strip_weights[:, i, None] * column_weights[:, j]).flatten().to(planes)
            total = read.mul_(weight) if total is None else total.addcmul_(read, weight)
        assert total is not None
        strips.append(total.reshape(*planes.shape[:-2], len(strip), width.n_out))
    return torch.cat(strips, dim=-2)


def _read(flat: Tensor, rows: Tensor, columns: Tensor, n_in: int) -> Tensor:
    """Return the pixels at every pair of a row and a column: (..., rows * columns) of (..., H * W)."""
    index = (rows[:, None] * n_in + columns).flatten().to(flat.device)
    return flat.gather(-1, index.expand(*flat.shape[:-1], -1))


def _by_bands(planes: Tensor, height: Axis, width: Axis) -> Tensor:
    """Multiply by the two banded matrices, the cheaper order first."""
    shrink_first = height.n_out * width.n_in <= height.n_in * width.n_out
    if shrink_first:
        return _along_width(_along_height(planes, height), width)
    return _along_height(_along_width(planes, width), height)


def _block(axis: Axis, lines: int) -> int:
    # Long blocks waste products on zeros, short ones waste calls. Measured best: 64 outputs when enlarging, 16 when
    # each output reads many pixels, and longer ones where a thin strip makes every product cheap.
    enlarges = axis.n_out >= axis.n_in
    if lines < 32 and axis.n_out <= 2**13:
        return 512 if enlarges else 64
    return 64 if enlarges else 16


def _along_height(planes: Tensor, axis: Axis) -> Tensor:
    if planes.shape[-1] < 32:  # A thin standing strip: matrix kernels prefer it lying down.
        return _along_width(planes.mT.contiguous(), axis).mT
    bands = dense_bands(axis, _block(axis, planes.shape[-1]), planes.dtype, planes.device)
    return torch.cat([weights @ planes[..., low:high, :] for low, high, weights in bands], dim=-2)


def _along_width(planes: Tensor, axis: Axis) -> Tensor:
    bands = dense_bands(axis, _block(axis, planes.shape[-2]), planes.dtype, planes.device)
    return torch.cat([planes[..., low:high] @ weights.T for low, high, weights in bands], dim=-1)


def _by_torch(planes: Tensor, height: Axis, width: Axis) -> Tensor | None:
    """Call PyTorch's own kernel where it computes exactly what is asked, else return None.

    Its kernels compute coordinates in the picture's precision, so only steps that binary fractions hold exactly
    qualify. The plain kernels replicate at the border and the antialiased ones renormalise; where another border is
    asked, the few outputs that feel it are computed by matrices and written over.
    """
    axes = (height, width)
    if any(not _step_is_exact(axis) for axis in axes):
        return None
    size = (height.n_out, width.n_out)
    method, a, border, grid = height.method, height.a, height.border, height.grid
    if method == "nearest":
        mode = {"half_pixel": "nearest-exact", "origin": "nearest"}.get(grid)
        return F.interpolate(planes, size, mode=mode) if mode else None
    if grid != "half_pixel":
        return None
    unwidened = all(axis.stretch == 1.0 for axis in axes)
    # Enlarging, both of PyTorch's bilinear kernels would do; the antialiased one is the faster on one thread.
    if unwidened and (a == -0.75 if method == "bicubic" else not height.antialias):
        out = F.interpolate(planes, size, mode=method, align_corners=False)
        return out if border == "replicate" else _mend_border(out, planes, height, width)
    widened = all(axis.antialias or axis.n_out >= axis.n_in for axis in axes)
    if not widened or (method == "bicubic" and a != -0.5):
        return None
    out = F.interpolate(planes, size, mode=method, align_corners=False, antialias=True)
    return out if border == "renormalise" else _mend_border(out, planes, height, width)


def _step_is_exact(axis: Axis) -> bool:
    if axis.n_in == 1:  # PyTorch 2.13's antialiased kernel goes wrong where one side has a single pixel.
        return False
    step = grid_step(axis.n_in, axis.n_out, axis.scale, axis.grid)
    power_of_two = step.denominator & (step.denominator - 1) == 0
    fits = 2 * step.denominator * max(axis.n_in, axis.n_out) <= 2**24  # the digits of a float32
    return power_of_two and fits and step == Fraction(axis.n_in, axis.n_out)


def _mend_border(out: Tensor, planes: Tensor, height: Axis, width: Axis) -> Tensor:
    """Write over the outputs that read beyond the picture with those of the asked border."""
    for first, end in _border_runs(height):
        low, high, weights = dense_band(height, first, end, planes.dtype, planes.device)
        out[..., first:end, :] = _along_width(weights @ planes[..., low:high, :], width)
    for first, end in _border_runs(width):
        low, high, weights = dense_band(width, first, end, planes.dtype, planes.device)
        out[..., first:end] = _along_height(planes[..., low:high] @ weights.T, height)
    return out


def _border_runs(axis: Axis) -> list[tuple[int, int]]:
    """Return the runs of outputs, as (first, end), whose kernels reach beyond the row."""
    reach = (2 if axis.method == "bicubic" else 1) * axis.stretch
    centre = source_coordinates(axis.n_in, axis.n_out, axis.scale, axis.grid)
    # Pixels -1 and n_in are the first outside; at a distance of `reach` the kernel is zero already.
    before, after = int((centre + 1 < reach).sum()), int((axis.n_in - centre < reach).sum())
    return [run for run in ((0, before), (axis.n_out - after, axis.n_out)) if run[0] < run[1]]


def _axes(
    image: Tensor,
    scale: Scale | Sequence[Scale] | None,
    size: int | Sequence[int] | None,
    method: Method,
    a: float,
    antialias: bool,
    grid: Grid,
    border: Border,
) -> tuple[Axis, Axis]:
    if (scale is None) == (size is None):
        raise ValueError(f"give exactly one of scale and size, got scale={scale!r} and size={size!r}")
    scales: list[Fraction | None] = [None, None]
    if scale is not None:
        scales = [as_fraction(one) for one in _pair("scale", scale)]
        sizes = [output_size(n, one) for n, one in zip(image.shape[-2:], scales, strict=True) if one is not None]
    else:
        sizes = [check_length("size", one) for one in _pair("size", size)]
    height, width = (
        Axis(n_in, n_out, one, method, a, antialias, grid, border)
        for n_in, n_out, one in zip(image.shape[-2:], sizes, scales, strict=True)
    )
    return height, width


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, (Sequence, torch.Size)) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(f"{name} must be one number or two (vertical, horizontal), got {value!r}")
        return value[0], value[1]
    return value, value


def check_image(image: Tensor) -> None:
    """Raise TypeError or ValueError, naming what came, unless `image` is a dense float tensor (..., C, H, W)."""
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a torch.Tensor, got {type(image).__name__}")
    if image.layout != torch.strided:
        raise TypeError(f"image must be a dense tensor, got layout {image.layout}")
    if image.dim() < 3 or image.shape[-1] < 1 or image.shape[-2] < 1:
        raise ValueError(f"image must be (..., C, H, W) with H, W >= 1, got {tuple(image.shape)}")
    if image.dtype not in _DTYPES:
        raise TypeError(f"image must be floating point (16, 32 or 64 bit), such as values in [0, 1], got {image.dtype}")


def _check_result(image: Tensor, height: Axis, width: Axis) -> None:
    if max(height.n_out, width.n_out) > MOST_SIDE:
        raise ValueError(
            f"scale or size must leave sides of at most {MOST_SIDE:,} pixels, got {tuple(image.shape)} -> "
            f"{height.n_out} x {width.n_out}"
        )
    numbers = math.prod(image.shape[:-2]) * height.n_out * width.n_out
    if numbers > MOST_NUMBERS:
        raise ValueError(
            f"scale or size must leave a result of at most {MOST_NUMBERS:,} numbers, got {tuple(image.shape)} -> "
            f"{height.n_out} x {width.n_out}, which is {numbers:,}; `course upscale` works by tiles"
        )


def check_finite(image: Tensor, out: Tensor) -> None:
    """Raise ValueError, naming the first bad place, if `out` was made from pixels that are NaN or infinite."""
    if image.is_meta or torch.compiler.is_compiling():
        return
    # A sum meets every NaN and infinity in one pass; the smaller picture of the two is cheaper to read. Only a sum
    # that is not finite (which honest but huge values can also cause) pays for the exact look.
    smaller = out if out.numel() < image.numel() else image
    if not math.isfinite(smaller.detach().sum().item()) and not bool(torch.isfinite(image).all()):
        bad = torch.nonzero(~torch.isfinite(image))[0].tolist()
        raise ValueError(f"image must be finite, got {image[tuple(bad)].item()} at index {tuple(bad)}")
