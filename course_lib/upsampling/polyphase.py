"""Integer factors: the same few weights return at every pixel, so resizing is an ordinary convolution."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.upsampling.grids import border_indices, check_length
from course_lib.upsampling.kernels import cubic, tent
from course_lib.upsampling.resize import check_finite, check_image
from course_lib.upsampling.taps import Axis, Method, unbounded_taps


def polyphase_filters(r: int, method: Method = "bicubic", a: float = -0.5) -> tuple[Tensor, int]:
    """Return the r filters that enlarge a row r times, and where they start: (weights, first).

    Output r*i + p is sum_t weights[p, t] * x[i + first + t]: an ordinary filter bank, one filter for each of the r
    places an output can have within a pixel (half-pixel grid). weights: float64 (r, taps), rows sum to 1.
    Raises ValueError for r < 1 or an unknown method.
    """
    axis = Axis(1, check_length("r", r), r, method, a)
    if method == "nearest":
        return torch.ones(r, 1, dtype=torch.float64), 0
    first, weights = unbounded_taps(axis, tent() if method == "bilinear" else cubic(a))
    return _aligned(first, weights)


def _aligned(first: Tensor, weights: Tensor) -> tuple[Tensor, int]:
    """Give all filters the same first pixel, padding with zeros."""
    start = int(first.min())
    shift = first - start
    out = torch.zeros(len(weights), weights.shape[1] + int(shift.max()), dtype=weights.dtype)
    return out.scatter_(1, shift[:, None] + torch.arange(weights.shape[1]), weights), start


def polyphase_upscale(image: Tensor, r: int, method: Method = "bicubic", a: float = -0.5) -> Tensor:
    """Enlarge by an integer factor as one convolution with r * r filters followed by PixelShuffle.

    image: float (..., C, H, W). Returns (..., C, r*H, r*W), equal to `resize(image, scale=r, method=method, a=a)`
    (half-pixel grid, replicated border). Raises as `polyphase_filters`.
    """
    check_image(image)
    weights, first = polyphase_filters(r, method, a)
    weights = weights.to(image)
    taps = weights.shape[1]
    filters = torch.einsum("pt,qu->pqtu", weights, weights).reshape(r * r, 1, taps, taps)
    planes = image.reshape(-1, 1, *image.shape[-2:])
    padded = _pad(planes, -first, taps - 1 + first)
    phases = F.conv2d(padded, filters)  # (planes, r * r, H, W): every phase of every pixel
    check_finite(image, phases)
    return F.pixel_shuffle(phases, r).reshape(*image.shape[:-2], r * image.shape[-2], r * image.shape[-1])


def polyphase_downscale(image: Tensor, r: int, method: Method = "bicubic", a: float = -0.5) -> Tensor:
    """Shrink by an integer factor with antialiasing as one strided convolution.

    image: float (..., C, H, W) with H and W multiples of r. Returns (..., C, H/r, W/r), equal to
    `resize(image, scale=Fraction(1, r), method=method, a=a)`. Raises ValueError for other sizes, r < 1 or
    method="nearest", which reads one pixel and is no convolution to speak of.
    """
    check_image(image)
    check_length("r", r)
    if image.shape[-2] % r or image.shape[-1] % r:
        raise ValueError(f"image must have H and W that are multiples of r = {r}, got {tuple(image.shape)}")
    if method == "nearest":
        raise ValueError("method must be 'bilinear' or 'bicubic' to shrink with a filter, got 'nearest'")
    axis = Axis(r, 1, Fraction(1, r), method, a)
    first, weights = unbounded_taps(axis, tent() if method == "bilinear" else cubic(a))
    row = weights[0].to(image)
    start = int(first[0])
    planes = image.reshape(-1, 1, *image.shape[-2:])
    padded = _pad(planes, -start, len(row) - r + start)
    out = F.conv2d(padded, torch.outer(row, row)[None, None], stride=r)
    check_finite(image, out)
    return out.reshape(*image.shape[:-2], *out.shape[-2:])


def _pad(planes: Tensor, before: int, after: int) -> Tensor:
    """Repeat the edge pixels; PyTorch's own padding refuses more than the picture's size, this does not."""
    rows, columns = (
        border_indices(torch.arange(-before, n + after, device=planes.device), n, "replicate")
        for n in planes.shape[-2:]
    )
    return planes.index_select(-2, rows).index_select(-1, columns)
