"""Convolution and transposed convolution with nothing hidden: one multiplication at a time (chapter 05)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from course_lib.plain.resampling import Row


def convolve(
    picture: Sequence[Row], kernel: Sequence[Row], stride: int = 1, padding: int = 0, dilation: int = 1
) -> list[list[Any]]:
    """Every output collects: it reads the pixels under the kernel; in the padding there is nothing to read."""
    height, width = len(picture), len(picture[0])
    rows = (height + 2 * padding - dilation * (len(kernel) - 1) - 1) // stride + 1
    columns = (width + 2 * padding - dilation * (len(kernel[0]) - 1) - 1) // stride + 1
    out = [[0 * picture[0][0]] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            for t, line in enumerate(kernel):
                for u, weight in enumerate(line):
                    y, x = i * stride - padding + t * dilation, j * stride - padding + u * dilation
                    if 0 <= y < height and 0 <= x < width:
                        out[i][j] += weight * picture[y][x]
    return out


def convolve_transposed(
    picture: Sequence[Row],
    kernel: Sequence[Row],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
) -> list[list[Any]]:
    """Every input scatters: it adds a copy of the kernel, times its value, to the output; `padding` is cut off."""
    reach = [dilation * (len(side) - 1) + 1 - 2 * padding + output_padding for side in (kernel, kernel[0])]
    rows, columns = (len(picture) - 1) * stride + reach[0], (len(picture[0]) - 1) * stride + reach[1]
    out = [[0 * picture[0][0]] * columns for _ in range(rows)]
    for i, line in enumerate(picture):
        for j, value in enumerate(line):
            for t, weights in enumerate(kernel):
                for u, weight in enumerate(weights):
                    y, x = i * stride - padding + t * dilation, j * stride - padding + u * dilation
                    if 0 <= y < rows and 0 <= x < columns:
                        out[y][x] += value * weight
    return out
