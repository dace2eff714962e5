"""A convolution is a matrix; its transpose is the transposed convolution, and both have their sizes (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.upsampling.grids import check_length

Pair = int | Sequence[int]
MOST_ENTRIES = 2**28
"""The most weights `conv_matrix` writes into one matrix: 6 GiB of float64 values and their places, which take 16 GiB
while they are put together (64 bytes each)."""


def conv_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Return how many outputs a convolution makes of `n` inputs along one axis: floor((n + 2p - d(k-1) - 1) / s) + 1.

    All are whole numbers of at least 1 (padding: at least 0). Raises TypeError or ValueError naming the argument, and
    ValueError where the widened kernel does not fit into the padded row. Dumoulin and Visin 2016, relationship 15.
    """
    n, kernel, stride, dilation = _whole(n=n, kernel=kernel, stride=stride, dilation=dilation)
    (padding,) = _whole(0, padding=padding)
    reach = dilation * (kernel - 1) + 1
    if reach > n + 2 * padding:
        raise ValueError(
            f"kernel must fit into the padded row of {n + 2 * padding} pixels, but it reaches over {reach}"
        )
    return (n + 2 * padding - reach) // stride + 1


def conv_transpose_size(
    n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """Return how many outputs a transposed convolution makes of `n` inputs: (n-1)s - 2p + d(k-1) + output_padding + 1.

    output_padding: 0 up to, and not including, the larger of stride and dilation (PyTorch's bound): with a stride of s
    a convolution gives s different sizes the same result, and it says which of them to come back to.
    Raises TypeError or ValueError naming the argument, and ValueError where padding leaves no output.
    """
    n, kernel, stride, dilation = _whole(n=n, kernel=kernel, stride=stride, dilation=dilation)
    padding, output_padding = _whole(0, padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise ValueError(
            f"output_padding must be smaller than stride or dilation, got output_padding = {output_padding} "
            f"with stride {stride} and dilation {dilation}"
        )
    out = (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
    if out < 1:
        raise ValueError(f"padding must leave at least one output, got padding = {padding}, which leaves {out}")
    return out


def conv_matrix(
    weight: Tensor, size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """Return the matrix M of a convolution: `(M @ x.flatten()).view(C_out, H_out, W_out)` is `conv2d(x)` without bias.

    weight: float (C_out, C_in / groups, kh, kw) with size (H, W), or (C_out, C_in / groups, k) with size a number or
    (W,) for one dimension. stride, padding, dilation: one number, or one for each axis. Like every deep learning
    library, it does not flip the kernel.

    Returns: sparse COO (C_out*H_out*W_out, C_in*H*W), coalesced, rows and columns in (channel, row, column) order,
    dtype and device of `weight`, to which gradients flow; zeros of the kernel are kept as entries for their sake.
    `M.t()` is the transposed convolution. Raises TypeError or ValueError naming the argument.
    """
    check_weight(weight, "(C_out, C_in / groups, kh, kw) or (C_out, C_in / groups, k)")
    (groups,) = _whole(groups=groups)
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide the {weight.shape[0]} output channels of weight, got {groups}")
    axes = weight.dim() - 2
    sizes = pair("size", size, axes)
    places = [
        _axis_places(*one)
        for one in zip(
            sizes,
            weight.shape[2:],
            pair("stride", stride, axes),
            pair("padding", padding, axes, 0),
            pair("dilation", dilation, axes),
            strict=True,
        )
    ]
    if axes == 1:  # a row is a picture of height 1
        places, sizes, weight = [_axis_places(1, 1, 1, 0, 1), *places], (1, *sizes), weight.unsqueeze(2)
    entries = weight.numel() * math.prod(len(one) for one in places)
    if entries > MOST_ENTRIES:
        raise ValueError(f"size must need at most {MOST_ENTRIES:,} entries of the matrix, got {size}: {entries:,}")
    return _assemble(weight, places[0], places[1], (sizes[0], sizes[1]), groups)


def _axis_places(n: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return which input each output reads through each tap: int64 (n_out, kernel); outside 0..n-1 in the padding."""
    n_out = conv_size(n, kernel, stride, padding, dilation)
    # Places are made on the CPU and travel once, whole.
    starts = torch.arange(n_out, device="cpu")[:, None] * stride - padding
    return starts + torch.arange(kernel, device="cpu") * dilation


def _assemble(weight: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], groups: int) -> Tensor:
    """Write every weight to its place in (output channel, row, column, input channel, tap) order: sorted already."""
    (c_out, c_group, kh, kw), (height, width) = weight.shape, size
    shape = (c_out, len(rows), len(columns), c_group, kh, kw)
    group = torch.arange(c_out, device="cpu") // (c_out // groups)
    channels = group[:, None] * c_group + torch.arange(c_group, device="cpu")  # (c_out, c_group)
    pixels = rows[:, None, :, None] * width + columns[:, None, :]  # (H_out, W_out, kh, kw)
    column = channels[:, None, None, :, None, None] * (height * width) + pixels[:, :, None]
    row = torch.arange(c_out * len(rows) * len(columns), device="cpu").view(*shape[:3], 1, 1, 1).expand(shape)
    values = weight[:, None, None].expand(shape)
    inside_rows, inside_columns = ((rows >= 0) & (rows < height)), ((columns >= 0) & (columns < width))
    row, column, values = row.reshape(-1), column.reshape(-1), values.reshape(-1)
    if not (inside_rows.all() and inside_columns.all()):
        inside = (inside_rows[:, None, :, None] & inside_columns[:, None, :])[:, :, None].expand(shape)
        kept = inside.reshape(-1).nonzero()[:, 0]
        row, column, values = row[kept], column[kept], values[kept.to(values.device)]
    places = torch.stack([row, column]).to(weight.device)
    total = (c_out * len(rows) * len(columns), c_group * groups * height * width)
    # on the meta device there is nothing to check; the device is named for callers inside `with torch.device(...)`
    checked = not weight.is_meta
    return torch.sparse_coo_tensor(
        places, values, total, device=weight.device, is_coalesced=True, check_invariants=checked
    )


def check_weight(weight: Tensor, shape: str) -> None:
    """Raise TypeError or ValueError unless `weight` is a dense float tensor of 3 or 4 axes, none of them empty."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor, got {type(weight).__name__}")
    if weight.layout != torch.strided or not weight.dtype.is_floating_point:
        raise TypeError(f"weight must be a dense floating point tensor, got {weight.layout} of {weight.dtype}")
    if weight.dim() not in (3, 4) or 0 in weight.shape:
        raise ValueError(f"weight must be {shape}, nothing empty, got {tuple(weight.shape)}")


def pair(name: str, value: Any, axes: int = 2, least: int = 1) -> tuple[int, ...]:
    """Return one whole number of at least `least` for each axis from a number for all or one for each.

    Raises TypeError or ValueError naming the argument, what came and what was expected.
    """
    listed = isinstance(value, (Sequence, torch.Size)) and not isinstance(value, str)
    if listed and len(value) != axes:
        raise ValueError(f"{name} must be one number or one for each of {axes} axes, got {value!r}")
    return tuple(_whole(least, **{name: one})[0] for one in (value if listed else [value] * axes))


def _whole(least: int = 1, **named: Any) -> list[int]:
    return [check_length(name, value, least) for name, value in named.items()]
