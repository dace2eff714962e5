"""Attention in windows as attention among all tokens, most of which may not read each other (chapter 21)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_bias_loop(size: tuple[int, int], table: Tensor, window: int, shift: int = 0) -> Tensor:
    """What is added to the score of each pair of tokens of a map: (heads, h * w, h * w), -inf outside the window.

    size: (h, w), multiples of `window`; table ((2 window - 1)^2, heads); the borders of windows lie at shift,
    shift + window, ... of both axes, so that the first and the last windows may be cut by the map's border.
    """
    places = [(y, x) for y in range(size[0]) for x in range(size[1])]
    rows = []
    for y, x in places:
        for v, u in places:
            same = (y - shift) // window == (v - shift) // window and (x - shift) // window == (u - shift) // window
            dy, dx = y - v + window - 1, x - u + window - 1
            rows.append(table[dy * (2 * window - 1) + dx] if same else torch.full_like(table[0], -math.inf))
    return torch.stack(rows, dim=1).reshape(table.shape[1], len(places), len(places))


def window_attention_masked(
    q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int], table: Tensor, window: int, shift: int = 0
) -> Tensor:
    """Queries, keys and values (heads, h * w, d) of one map become what its tokens read, (heads, h * w, d).

    softmax(q k' / sqrt(d) + bias) v over all pairs of tokens: memory for (h * w)^2 numbers, nearly all of them 0.
    """
    scores = q @ k.mT / math.sqrt(q.shape[-1]) + window_bias_loop(size, table, window, shift)
    read: Tensor = scores.softmax(-1) @ v
    return read


def merge_loop(x: Tensor) -> Tensor:
    """One map (h, w, C), h and w even, becomes (h / 2, w / 2, 4 C): four neighbours side by side, column by column."""
    out = []
    for y in range(0, x.shape[0], 2):
        for u in range(0, x.shape[1], 2):
            out.append(torch.cat((x[y, u], x[y + 1, u], x[y, u + 1], x[y + 1, u + 1])))
    return torch.stack(out).reshape(x.shape[0] // 2, x.shape[1] // 2, -1)
