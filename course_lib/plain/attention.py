"""Attention and positions with every step visible, one number at a time (chapters 19 and 21)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention_loop(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What each query (n, d) reads of keys (m, d) and values (m, e): (n, e), and by which shares: (n, m).

    mask: bool (n, m), True where a query may not read a key; bias: (n, m), added to the scores.
    """
    read, shares = [], []
    for i, query in enumerate(q):
        grown: list[Tensor] = []
        for j, key in enumerate(k):
            score = sum((a * b for a, b in zip(query, key, strict=True)), q.new_zeros(())) / math.sqrt(len(key))
            score = score if bias is None else score + bias[i, j]
            grown.append(q.new_zeros(()) if mask is not None and mask[i, j] else score.exp())
        total = sum(grown, q.new_zeros(()))
        share = torch.stack([one / total if total > 0 else one for one in grown])
        shares.append(share)
        read.append(sum((part * value for part, value in zip(share, v, strict=True)), torch.zeros_like(v[0])))
    return torch.stack(read), torch.stack(shares)


def multi_head_loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    qkv: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    heads: int,
    mask: Tensor | None = None,
) -> Tensor:
    """One head after the other on its own channels: query (n, C), key and value (m, C) become (n, C).

    qkv: weight (3 C, C) and bias (3 C,), the rows of the queries, of the keys, of the values; out: weight (C, C) and
    bias (C,). mask: bool (n, m), as of `attention_loop`.
    """
    width = query.shape[1]
    thirds = [slice(third * width, (third + 1) * width) for third in range(3)]
    inputs = zip((query, key, value), thirds, strict=True)
    q, k, v = (x @ qkv[0][rows].T + qkv[1][rows] for x, rows in inputs)
    size = width // heads
    found = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        found.append(attention_loop(q[:, own], k[:, own], v[:, own], mask)[0])
    return torch.cat(found, 1) @ out[0].T + out[1]


def sine_loop(mask: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """DETR's positions of one map with padding `mask` (h, w): (width, h, w), the channels of y first, then of x."""
    height, across = mask.shape
    result = torch.zeros(width, height, across, dtype=torch.float64)
    for r in range(height):
        for c in range(across):
            above, column = int((~mask[: r + 1, c]).sum()), int((~mask[:, c]).sum())
            left, row = int((~mask[r, : c + 1]).sum()), int((~mask[r]).sum())
            for half, (place, last) in enumerate(((above, column), (left, row))):
                angle = 2 * math.pi * place / (last + 1e-6)
                for pair in range(width // 4):
                    slow = angle / temperature ** (2 * pair / (width // 2))
                    channel = half * (width // 2) + 2 * pair
                    result[channel, r, c], result[channel + 1, r, c] = math.sin(slow), math.cos(slow)
    return result
