"""The steps of a vision transformer with nothing hidden: one patch, one place, one token at a time (chapter 21)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from course_lib.plain.attention import multi_head_loop
from course_lib.plain.resampling import W


def patches_loop(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each whole patch of an image (C, H, W), row by row, laid flat and times one matrix: (h * w, D).

    weight: (D, C, P, P), as a convolution holds it; laid flat it is the matrix. bias: (D,).
    """
    side = weight.shape[-1]
    matrix = weight.flatten(1)
    tokens = []
    for y in range(0, image.shape[1] - side + 1, side):
        for x in range(0, image.shape[2] - side + 1, side):
            patch = image[:, y : y + side, x : x + side].flatten()
            tokens.append(matrix @ patch + bias)
    return torch.stack(tokens)


def positions_loop(table: Tensor, old: tuple[int, int], new: tuple[int, int], a: float = -0.75) -> Tensor:
    """Positions (h * w, D) of the grid old = (h, w) at the places of another grid: each the mean of 16 by Keys' cubic.

    a: slope of the cubic at distance 1. A neighbour outside the grid is the nearest inside.
    """
    (h, w), (height, width) = old, new
    rows = []
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * h / height - 0.5, (j + 0.5) * w / width - 0.5
            total = torch.zeros_like(table[0])
            for k in range(math.floor(y) - 1, math.floor(y) + 3):
                for m in range(math.floor(x) - 1, math.floor(x) + 3):
                    inside = min(max(k, 0), h - 1) * w + min(max(m, 0), w - 1)
                    total = total + W(y - k, a) * W(x - m, a) * table[inside]
            rows.append(total)
    return torch.stack(rows)


def vit_block_loop(x: Tensor, tensors: Mapping[str, Tensor], heads: int, eps: float = 1e-6) -> Tensor:
    """One block on the tokens (n, D) of one picture, by the tensors of a `Block`: (n, D)."""

    def linear(name: str, token: Tensor) -> Tensor:
        return tensors[f"{name}.weight"] @ token + tensors[f"{name}.bias"]

    def normed(name: str, token: Tensor) -> Tensor:
        around = token - token.mean()
        scaled = around / torch.sqrt((around**2).mean() + eps)
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    asked = torch.stack([normed("attention_norm", token) for token in x])
    qkv, out = ((tensors[f"attention.{name}.weight"], tensors[f"attention.{name}.bias"]) for name in ("qkv", "out"))
    x = x + multi_head_loop(asked, asked, asked, qkv, out, heads)
    changed = []
    for token in x:
        hidden = linear("feed_forward.first", normed("feed_forward_norm", token))
        bent = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        changed.append(token + linear("feed_forward.second", bent))
    return torch.stack(changed)
