"""Transposed convolution in two more views, zeros and scatter, and how often its copies overlap (chapter 05)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.upsampling.conv_matrix import Pair, check_weight, conv_transpose_size, pair
from course_lib.upsampling.grids import check_length
from course_lib.upsampling.resize import check_image


def insert_zeros(image: Tensor, stride: Pair) -> Tensor:
    """Spread the pixels apart and fill the gaps with zeros.

    image: float (..., C, H, W); stride: one number or (vertical, horizontal), at least 1. Returns
    (..., C, (H-1)*s+1, (W-1)*s+1) with pixel (i, j) at (i*s, j*s). Raises TypeError or ValueError naming the argument.
    """
    check_image(image)
    down, across = pair("stride", stride)
    height, width = ((n - 1) * s + 1 for n, s in zip(image.shape[-2:], (down, across), strict=True))
    out = image.new_zeros(*image.shape[:-2], height, width)
    out[..., ::down, ::across] = image
    return out


def conv_transpose_by_zeros(
    image: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution as an ordinary one: s-1 zeros between pixels, d(k-1)-p around, the kernel turned by 180°.

    image: float (..., C_in, H, W); weight: (C_in, C_out / groups, kh, kw), PyTorch's ConvTranspose2d layout.
    Returns (..., C_out, H', W'), equal to `torch.nn.functional.conv_transpose2d`; sizes as in `conv_transpose_size`.
    Raises TypeError or ValueError naming the argument. Dumoulin and Visin 2016, relationship 14.
    """
    size = _out_size(image, weight, stride, padding, output_padding, dilation, groups)
    (c_in, c_group, kh, kw), (dy, dx) = weight.shape, pair("dilation", dilation)
    (top, left), (more_y, more_x) = pair("padding", padding, 2, 0), pair("output_padding", output_padding, 2, 0)
    spread = insert_zeros(image.reshape(-1, *image.shape[-3:]), stride)
    reach_y, reach_x = dy * (kh - 1), dx * (kw - 1)
    spread = F.pad(spread, (reach_x, reach_x + more_x, reach_y, reach_y + more_y))
    # A padding beyond the kernel's reach takes away zeros and pixels alike, so cut rather than pad by less.
    spread = spread[..., top : spread.shape[-2] - top, left : spread.shape[-1] - left]
    turned = weight.flip(-2, -1).reshape(groups, c_in // groups, c_group, kh, kw)
    turned = turned.transpose(1, 2).reshape(groups * c_group, c_in // groups, kh, kw)
    out = F.conv2d(spread, turned, dilation=(dy, dx), groups=groups)
    return out.reshape(*image.shape[:-3], groups * c_group, *size)


def conv_transpose_by_scatter(
    image: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution as it is defined: every pixel lays down a copy of the kernel times its value; copies add.

    Arguments, result and errors as in `conv_transpose_by_zeros`.
    """
    size = _out_size(image, weight, stride, padding, output_padding, dilation, groups)
    (c_in, c_group, kh, kw), (height, width) = weight.shape, image.shape[-2:]
    (down, across), (dy, dx) = pair("stride", stride), pair("dilation", dilation)
    top, left = pair("padding", padding, 2, 0)
    planes = image.reshape(-1, groups, c_in // groups, height, width)
    kernels = weight.reshape(groups, c_in // groups, c_group, kh, kw)
    copies = torch.einsum("bgihw,giokl->bgohkwl", planes, kernels)  # (row, tap), (column, tap)
    rows, columns = _places(height, kh, down, dy), _places(width, kw, across, dx)
    tall, wide = size[0] + 2 * top, size[1] + 2 * left
    places = (rows[:, None] * wide + columns).flatten().to(image.device)
    out = copies.new_zeros(len(planes), groups * c_group, tall * wide)
    out = out.index_add(2, places, copies.flatten(3).flatten(1, 2))
    out = out.view(len(planes), groups * c_group, tall, wide)[..., top : tall - top, left : wide - left]
    return out.reshape(*image.shape[:-3], groups * c_group, *size)


def overlap_counts(size: Pair, kernel: Pair, stride: Pair, padding: Pair = 0, dilation: Pair = 1) -> Tensor:
    """Return how many input pixels reach each output of a transposed convolution: int64 (H', W'), or (n',) for a row.

    size: (H, W) of the input, or one number for a row; the others as in `conv_transpose_size`. It is the transposed
    convolution of ones with ones, and inside uniform exactly where stride divides kernel (for dilation 1).
    Raises TypeError or ValueError naming the argument. Odena, Dumoulin and Olah 2016.
    """
    axes = len(size) if isinstance(size, Sequence) else 1
    if axes not in (1, 2):
        raise ValueError(f"size must be a number, or (H, W), got {size!r}")
    options = (("size", size, 1), ("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0))
    arguments = [pair(name, value, axes, least) for name, value, least in (*options, ("dilation", dilation, 1))]
    counts = []
    for n, k, s, p, d in zip(*arguments, strict=True):
        n_out = conv_transpose_size(n, k, s, p, d)
        counts.append(torch.bincount(_places(n, k, s, d), minlength=n_out + 2 * p)[p : p + n_out])
    return counts[0] if axes == 1 else torch.outer(*counts)


def bilinear_weight(scale: int, channels: int = 1) -> Tensor:
    """Return the weights with which ConvTranspose2d(groups=channels) enlarges bilinearly: float32 (channels, 1, k, k).

    k = 2 * scale - scale % 2, with stride `scale` and padding (k - scale) / 2: the start of the upsampling layers of
    FCN (Long, Shelhamer and Darrell 2015). Equal to `resize(scale, "bilinear")` but for the outermost pixels, where
    `resize` repeats the edge and this adds zeros. Raises TypeError or ValueError naming the argument.
    """
    scale, channels = check_length("scale", scale), check_length("channels", channels)
    k = 2 * scale - scale % 2
    tent = 1 - (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs() / scale
    return torch.outer(tent, tent).float().expand(channels, 1, k, k).clone()


def _places(n: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """Return where each tap of each pixel lands along one axis: int64 (n * kernel,), pixel by pixel."""
    return (torch.arange(n, device="cpu")[:, None] * stride + torch.arange(kernel, device="cpu") * dilation).flatten()


def _out_size(
    image: Tensor, weight: Tensor, stride: Pair, padding: Pair, output_padding: Pair, dilation: Pair, groups: int
) -> tuple[int, int]:
    """Check all arguments and return the size of the result."""
    check_image(image)
    check_weight(weight, "(C_in, C_out / groups, kh, kw)")
    if weight.dim() != 4:
        raise ValueError(f"weight must be (C_in, C_out / groups, kh, kw), got {tuple(weight.shape)}")
    if weight.shape[0] != image.shape[-3]:
        raise ValueError(
            f"weight must be (C_in, C_out / groups, kh, kw) with C_in = {image.shape[-3]}, the channels of image "
            f"{tuple(image.shape)}, got {tuple(weight.shape)}"
        )
    kinds = [f"{one.dtype} on {one.device}" for one in (weight, image)]
    if kinds[0] != kinds[1] and not torch.is_autocast_enabled(image.device.type):
        raise TypeError(f"weight must be of the dtype and on the device of image, {kinds[1]}, got {kinds[0]}")
    if weight.shape[0] % check_length("groups", groups):
        raise ValueError(f"groups must divide the {weight.shape[0]} input channels of weight, got {groups}")
    options = (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    given = [pair(name, value, 2, least) for name, value, least in options]
    given.append(pair("output_padding", output_padding, 2, 0))
    height, width = (
        conv_transpose_size(n, k, *one)
        for n, k, one in zip(image.shape[-2:], weight.shape[2:], zip(*given, strict=True), strict=True)
    )
    return height, width
