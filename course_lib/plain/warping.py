"""Warping by a flow with nothing hidden: every pixel of the picture is asked how near it is (chapter 11)."""

from __future__ import annotations

import torch
from torch import Tensor


def warp_by_tents(picture: Tensor, flow: Tensor) -> Tensor:
    """The sum over all q of F(q) max(0, 1 - |p_y + V_y - q_y|) max(0, 1 - |p_x + V_x - q_x|).

    picture (B, C, H', W'), flow (B, 2, H, W) -> (B, C, H, W). A place beyond the edge moves onto it first; the formula
    alone would read black there. Zheng et al. 2018.
    """
    sides = []
    for axis in (0, 1):
        n_in, n_out = picture.shape[2 + axis], flow.shape[2 + axis]
        p = torch.arange(n_out, dtype=flow.dtype).unsqueeze(1 - axis)
        place = (p + flow[:, axis]).clamp(0, n_in - 1)
        q = torch.arange(n_in, dtype=flow.dtype)
        sides.append((1 - (place[..., None] - q).abs()).clamp(min=0))
    return torch.einsum("bcij,byxi,byxj->bcyx", picture, sides[0], sides[1])
