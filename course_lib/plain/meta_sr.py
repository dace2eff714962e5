"""Meta-SR's upscale module with nothing hidden: filters are predicted for one output pixel at a time (chapter 09)."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""The network that predicts filters: (..., 3) -> (..., 27 C)."""


def location(i: int, j: int, r: Fraction) -> tuple[int, int]:
    """The small pixel that an output pixel belongs to: T(i, j), equation 3."""
    return math.floor(i / r), math.floor(j / r)


def place(i: int, j: int, r: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """What the filters depend on: v of equation 6, with 1 / r first, as the official code has it."""
    return 1 / r, i / r - math.floor(i / r), j / r - math.floor(j / r)


def meta_upscale_plain(features: Tensor, predict: Predict, r: Fraction, size: tuple[int, int]) -> Tensor:
    """Features (C, h, w) become the picture (3, H, W): equations 1, 4 and 5, one output pixel after the other."""
    around = F.pad(features, (1, 1, 1, 1))  # zeros outside the picture
    out = features.new_empty(3, *size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = location(i, j, r)
            v = features.new_tensor([float(number) for number in place(i, j, r)])
            filters = predict(v).view(-1, 3, 3, 3)  # channel, row, column, colour
            patch = around[:, y : y + 3, x : x + 3]
            out[:, i, j] = (patch[..., None] * filters).sum((0, 1, 2))
    return out


def meta_upscale_chunked(
    features: Tensor, predict: Predict, r: Fraction, size: tuple[int, int], chunk: int = 1024
) -> Tensor:
    """The same with filters predicted for `chunk` output pixels at once, as fast as filters for each can be."""
    height, width = size
    patches = F.unfold(features[None], 3, padding=1)[0].T.contiguous()  # (h w, 9 C)
    rows, columns = ([(math.floor(i / r), float(i / r % 1)) for i in range(n)] for n in size)
    small = torch.tensor([[y * features.shape[-1] + x for x, _ in columns] for y, _ in rows]).flatten()
    v = torch.stack(
        [
            features.new_full(size, float(1 / r)),
            features.new_tensor([offset for _, offset in rows])[:, None].expand(size),
            features.new_tensor([offset for _, offset in columns]).expand(size),
        ],
        dim=-1,
    ).flatten(0, 1)
    out = []
    for begin in range(0, height * width, chunk):
        here = slice(begin, begin + chunk)
        filters = predict(v[here]).reshape(-1, patches.shape[1], 3)  # (chunk, 9 C, 3)
        out.append(patches[small[here]][:, None] @ filters)
    return torch.cat(out).view(height, width, 3).permute(2, 0, 1)
