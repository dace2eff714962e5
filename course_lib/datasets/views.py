"""A photograph seen once more: moved, turned, nearer or farther, in another light; exactly and fast."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.upsampling.grids import border_indices
from course_lib.upsampling.kernels import cubic

Levels = npt.NDArray[Any]
"""Whole numbers 0..255, of any dtype."""

_KERNEL = cubic(-0.5)


def light(gain: float, offset: float, gamma: float, cast: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return what light makes of each level and colour, gain * cast * value ** gamma + offset in [0, 1]: (256, 3) in
    levels.
    """
    fractions = np.linspace(0, 1, 256)[:, None]
    return np.asarray(255 * (gain * np.array(cast) * fractions**gamma + offset), np.float32)


def view(
    picture: Levels,
    centre: tuple[float, float],
    size: tuple[int, int],
    degrees: float,
    zoom: float,
    lighting: npt.NDArray[np.float32],
) -> Levels:
    """Return a view (3, *size) of a picture (H, W, 3), both in levels; its middle is at the pixel `centre`, (y, x).

    Turned counter-clockwise by `degrees` and `zoom` times as large; lighting: of `light`. The bicubic kernel with
    a = -1/2 reads between pixels; the picture is mirrored beyond its edge.
    """
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    down, right = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size)
    y = centre[0] + cosine * down[:, None] + sine * right
    x = centre[1] - sine * down[:, None] + cosine * right
    rows, row_weights = _taps(y.flatten(), picture.shape[0])
    columns, column_weights = _taps(x.flatten(), picture.shape[1])
    top, left = int(rows.min()), int(columns.min())
    window = picture[top : int(rows.max()) + 1, left : int(columns.max()) + 1]
    lit = lighting[window, np.arange(3)].reshape(-1, 3)
    places = (rows - top)[:, :, None] * window.shape[1] + (columns - left)[:, None]
    weights = row_weights[:, :, None] * column_weights[:, None]
    # a sum of 16 weighted rows of a table, each a pixel: what this function does in one pass
    made = F.embedding_bag(places.flatten(1), torch.from_numpy(lit), per_sample_weights=weights.flatten(1), mode="sum")
    levels: Levels = made.clamp_(0, 255).add_(0.5).floor_().T.reshape(3, *size).numpy()
    return levels


def _taps(places: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the 4 pixels (P, 4) of a row of n that each place reads, and their float32 weights."""
    first = places.floor()
    near = torch.arange(-1, 3, dtype=torch.int32)
    weights = _KERNEL((places - first).to(torch.float32)[:, None] - near)
    return border_indices(first.to(torch.int32)[:, None] + near, n, "symmetric"), weights


def extent(side: int, degrees: float, zoom: float) -> float:
    """Return how many pixels of a picture, along each axis, a square view of `side` pixels looks at."""
    angle = math.radians(degrees)
    return 1 + (side - 1) * (abs(math.cos(angle)) + abs(math.sin(angle))) / zoom
