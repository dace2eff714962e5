"""PixelShuffle with nothing hidden: one output pixel at a time, by its index formula (chapter 06)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Channels = Sequence[Sequence[Sequence[Any]]]


def source_channel(c: int, i: int, j: int, colours: int, r: int, order: str = "torch") -> int:
    """Which of the C r^2 channels fills row `i`, column `j` of the blocks of colour `c`."""
    if order == "torch":
        return c * r * r + i * r + j  # the place in the block varies fastest
    return colours * (r * i + j) + c  # the colour varies fastest


def pixel_shuffle_plain(channels: Channels, r: int, order: str = "torch") -> list[list[list[Any]]]:
    """Channels (C r^2, H, W) as lists of rows become colours (C, rH, rW): each output pixel looks up where it is."""
    colours, height, width = len(channels) // (r * r), len(channels[0]), len(channels[0][0])
    return [
        [
            [
                channels[source_channel(c, y % r, x % r, colours, r, order)][y // r][x // r]
                for x in range(r * width)
            ]
            for y in range(r * height)
        ]
        for c in range(colours)
    ]  # fmt: skip


def pixel_unshuffle_plain(colours: Channels, r: int, order: str = "torch") -> list[list[list[Any]]]:
    """The way back: every pixel of (C, rH, rW) is put into its channel of (C r^2, H, W)."""
    height, width = len(colours[0]) // r, len(colours[0][0]) // r
    channels: list[list[list[Any]]] = [
        [[None] * width for _ in range(height)] for _ in range(len(colours) * r * r)
    ]  # fmt: skip
    for c, picture in enumerate(colours):
        for y, row in enumerate(picture):
            for x, value in enumerate(row):
                channels[source_channel(c, y % r, x % r, len(colours), r, order)][y // r][x // r] = value
    return channels
