"""PixelShuffle: r * r channels become one channel of r times the height and width, and nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_choice, check_length

Order = Literal["torch", "tensorflow"]
"""Who varies fastest within the C * r * r channels: the place in the block ("torch"), or the colour ("tensorflow")."""


def pixel_shuffle(image: Tensor, r: int, order: Order = "torch") -> Tensor:
    """Lay the r * r channels of every pixel out as an r by r block of pixels.

    image: any dtype, (..., C * r * r, H, W). Returns (..., C, r * H, r * W), whose pixel (r h + i, r w + j) of colour c
    is image[..., k, h, w] with k = c r^2 + i r + j for order="torch" (as `torch.nn.PixelShuffle`), or
    k = C (r i + j) + c for order="tensorflow" (as `tf.nn.depth_to_space`, and the paper's equation 4 with x the column
    and y the row). The same for C = 1. Linear and orthogonal: its gradient is `pixel_unshuffle`. As with a reshape, the
    result may share the input's memory (where r = 1, or the picture is one pixel).
    Raises TypeError or ValueError naming image, r or order. Shi et al. 2016, equations 3 and 4.
    """
    channels = _check(image, r, order, divisible="channels")
    *batch, _, h, w = image.shape
    if order == "torch":
        blocks = image.reshape(*batch, channels, r, r, h, w).movedim((-4, -3), (-3, -1))
    else:
        blocks = image.reshape(*batch, r, r, channels, h, w).movedim((-5, -4), (-3, -1))
    return blocks.reshape(*batch, channels, r * h, r * w)  # from (..., c, h, i, w, j)


def pixel_unshuffle(image: Tensor, r: int, order: Order = "torch") -> Tensor:
    """Gather every r by r block of pixels into r * r channels: the inverse of `pixel_shuffle`, and its transpose.

    image: any dtype, (..., C, r * H, r * W). Returns (..., C * r * r, H, W), channels in the given order; it may share
    the input's memory, as there.
    Raises TypeError or ValueError naming image, r or order.
    """
    channels = _check(image, r, order, divisible="sides")
    *batch, _, height, width = image.shape
    h, w = height // r, width // r
    blocks = image.reshape(*batch, channels, h, r, w, r)  # (..., c, h, i, w, j)
    parts = blocks.movedim((-3, -1), (-4, -3) if order == "torch" else (-5, -4))
    return parts.reshape(*batch, channels * r * r, h, w)


def channel_order(channels: int, r: int) -> Tensor:
    """Return the permutation p that turns TensorFlow's order of channels into torch's: weight_torch = weight_tf[p].

    channels: colours C after the shuffle. Returns int64 (C * r * r,); entry c r^2 + i r + j is C (r i + j) + c. For
    C = 2 and r = 2: [0, 2, 4, 6, 1, 3, 5, 7]. `p.argsort()` leads back. Raises TypeError or ValueError.
    """
    n = check_length("channels", channels) * check_length("r", r) ** 2
    return torch.arange(n).view(r, r, channels).permute(2, 0, 1).flatten()


def icnr_(
    weight: Tensor, r: int, init: Callable[[Tensor], Any] = nn.init.kaiming_normal_, order: Order = "torch"
) -> Tensor:
    """Initialise a sub-pixel convolution in place so that it starts as nearest upsampling of a smaller convolution.

    weight: float (C * r * r, C_in, kh, kw); `init` fills the tensor that it is given, in place as those of
    torch.nn.init do: one filter for each colour. The r * r channels of a colour all get a copy, so that every r by r
    block comes out constant and no checkerboard is there to begin with (the bias must be equal within each colour too,
    or zero). Returns weight.
    Raises TypeError or ValueError naming weight, r, order or init, and leaves weight as it was then.
    Aitken et al. 2017 ("ICNR").
    """
    colours = _check_weight(weight, r, order)
    if not weight.is_floating_point():
        raise TypeError(f"weight must be floating point, got {weight.dtype}")
    with torch.no_grad():
        filters = torch.full_like(weight[:colours], math.nan)
        init(filters)
        if not filters.is_meta and bool(filters.isnan().any()):
            raise ValueError(f"init must fill the tensor that it is given, in place; {init} left NaN in it")
        index = torch.arange(colours, device=weight.device)
        repeated = index.repeat_interleave(r * r) if order == "torch" else index.repeat(r * r)
        return weight.copy_(filters[repeated])


def subpixel_to_transposed(weight: Tensor, r: int, order: Order = "torch") -> Tensor:
    """Return the one transposed convolution that equals this convolution followed by `pixel_shuffle`.

    weight: (C * r * r, C_in, kh, kw) of a convolution with stride 1 and padding p. Returns (C_in, C, r * kh, r * kw) in
    ConvTranspose layout, to be used with stride r and padding (k - 1 - p) r per axis: for k = 3, p = 1, r = 2 kernel 6
    and padding 2. Its taps are interleaved: out[..., r (kh-1-u) + i, r (kw-1-v) + j] = weight[channel (i, j), :, u, v].
    Differentiable. A bias carries over only where it is equal within each colour.
    Raises TypeError or ValueError naming weight, r or order. Shi et al. 2016, section 2.2; Shi et al. 2016b.
    """
    colours = _check_weight(weight, r, order)
    _, c_in, kh, kw = weight.shape
    phases = weight.flip(-2, -1)
    if order == "torch":
        parts = phases.reshape(colours, r, r, c_in, kh, kw).permute(3, 0, 4, 1, 5, 2)
    else:
        parts = phases.reshape(r, r, colours, c_in, kh, kw).permute(3, 2, 4, 0, 5, 1)
    return parts.reshape(c_in, colours, r * kh, r * kw)  # from (c_in, c, u, i, v, j)


def transposed_to_subpixel(weight: Tensor, r: int, order: Order = "torch") -> Tensor:
    """Return the convolution that, followed by `pixel_shuffle`, equals this transposed convolution of stride r.

    weight: (C_in, C, r * kh, r * kw) in ConvTranspose layout, both sides divisible by r. Returns
    (C * r * r, C_in, kh, kw): the inverse of `subpixel_to_transposed`, so that padding P of the one is padding
    p = k - 1 - P / r of the other. Differentiable. Raises TypeError or ValueError naming weight, r or order.
    """
    r = check_length("r", r)
    check_choice("order", order, Order)
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[-2] % r or weight.shape[-1] % r:
        raise ValueError(f"weight must be (C_in, C, r * kh, r * kw) with r = {r}, got {_came(weight)}")
    c_in, colours, height, width = weight.shape
    kh, kw = height // r, width // r
    parts = weight.reshape(c_in, colours, kh, r, kw, r)  # (c_in, c, u, i, v, j)
    phases = parts.permute(1, 3, 5, 0, 2, 4) if order == "torch" else parts.permute(3, 5, 1, 0, 2, 4)
    return phases.reshape(colours * r * r, c_in, kh, kw).flip(-2, -1)


def _check(image: Tensor, r: int, order: Order, divisible: Literal["channels", "sides"]) -> int:
    """Check every argument by name and return how many colours the large picture has."""
    r = check_length("r", r)
    check_choice("order", order, Order)
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a tensor, got {_came(image)}")
    wanted = "(..., C * r * r, H, W)" if divisible == "channels" else "(..., C, r * H, r * W)"
    if image.ndim < 3:
        raise ValueError(f"image must be {wanted}, got {_came(image)}")
    channels, height, width = image.shape[-3:]
    if divisible == "channels" and channels % (r * r):
        raise ValueError(f"image must be {wanted}: channels divisible by {r * r} for r = {r}, got {_came(image)}")
    if divisible == "sides" and (height % r or width % r):
        raise ValueError(f"image must be {wanted}: height and width divisible by r = {r}, got {_came(image)}")
    return channels // (r * r) if divisible == "channels" else channels


def _check_weight(weight: Tensor, r: int, order: Order) -> int:
    """Check a sub-pixel convolution's weight and return how many colours it makes."""
    r = check_length("r", r)
    check_choice("order", order, Order)
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[0] % (r * r) or not weight.shape[0]:
        raise ValueError(f"weight must be (C * r * r, C_in, kh, kw) with r = {r}, got {_came(weight)}")
    return weight.shape[0] // (r * r)


def _came(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
