"""What generated scenes are painted with: windows of photographs, or smooth noise, on the 8-bit scale."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from course_lib.datasets.counter import random_bits
from course_lib.datasets.photographs import PHOTOGRAPHS, photograph
from course_lib.datasets.tensors import to_uint8
from course_lib.upsampling import resize

Planes = npt.NDArray[np.float32]
Pyramid = list[npt.NDArray[np.uint8]]

TEXTURES = ("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "grass", "gravel", "text")
"""The photographs among PHOTOGRAPHS that are used: those in lossless files, so that every decoder gives the same."""

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_LEVELS = 3
_NOISE_SIDE, _NOISES = 256, 8


@functools.cache
def bank(photographs: bool) -> tuple[Pyramid, ...]:
    """Return pictures as uint8 (3, H, W), each with its halves: free photographs, or smooth noise."""
    pictures = _photographs() if photographs else _noise()
    return tuple(_pyramid(picture) for picture in pictures)


def _photographs() -> list[npt.NDArray[np.uint8]]:
    assert set(TEXTURES) <= set(PHOTOGRAPHS)
    arrays = [to_uint8(photograph(name)) for name in TEXTURES]
    return [a.transpose(2, 0, 1) if a.ndim == 3 else a[None].repeat(3, 0) for a in arrays]


def _noise() -> list[npt.NDArray[np.uint8]]:
    """Return waves of random heights, half as high where they are half as long."""
    pictures = []
    for number in range(_NOISES):
        total = torch.zeros(3, _NOISE_SIDE, _NOISE_SIDE, dtype=torch.float64)
        for octave in range(5):
            side = 4 * 2**octave
            bits = random_bits(0, number, 3 * side * side, stream=16 + octave)
            grid = torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5)
            total += resize(grid.view(3, side, side), size=_NOISE_SIDE) / 2**octave
        eight_bit = to_uint8((0.5 + 0.7 * total).clamp(0, 1))
        pictures.append(eight_bit.transpose(2, 0, 1))
    return pictures


def _pyramid(picture: npt.NDArray[np.uint8]) -> Pyramid:
    levels = [np.ascontiguousarray(picture)]
    while len(levels) < _LEVELS:
        wide = levels[-1].astype(np.uint16)
        height, width = (n - n % 2 for n in wide.shape[1:])
        blocks = wide[:, :height, :width].reshape(3, height // 2, 2, width // 2, 2)
        levels.append(((blocks.sum((2, 4)) + 2) // 4).astype(np.uint8))
    return levels


def window(pictures: tuple[Pyramid, ...], draw: Callable[[], float], height: int, width: int) -> Planes:
    """Return a window (3, height, width) in [0, 255] of a random picture, level and place, colours in random order.

    draw: returns the next uniform number in [0, 1); five are taken. Where no level is large enough the picture is
    continued by its mirror image.
    """
    pyramid = pictures[int(draw() * len(pictures))]
    large = [level for level in pyramid if level.shape[1] >= height and level.shape[2] >= width]
    coarseness, order, down, right = draw(), _ORDERS[int(draw() * 6)], draw(), draw()
    picture = large[int(coarseness * len(large))] if large else pyramid[0]
    top = int(down * max(1, picture.shape[1] - height + 1))
    left = int(right * max(1, picture.shape[2] - width + 1))
    if large:
        part = picture[:, top : top + height, left : left + width]
    else:
        rows, columns = _mirrored(top, height, picture.shape[1]), _mirrored(left, width, picture.shape[2])
        part = picture[:, rows[:, None], columns]
    # plane by plane is faster than an index array
    out = np.empty((3, height, width), dtype=np.float32)
    for plane, source in enumerate(order):
        out[plane] = part[source]
    return out


def _mirrored(first: int, count: int, length: int) -> npt.NDArray[np.intp]:
    place = np.arange(first, first + count) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
