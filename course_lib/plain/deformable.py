"""Deformable attention as its formula reads: a bilinear sample of every point, then a weighted sum (chapter 20)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_attention_grid_sample(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The sum over levels l and points k of A_mqlk x^l(p_mqlk), with one grid_sample for each level.

    value (N, S, heads, d): the levels' places one behind the other; locations (N, Q, heads, levels, points, 2): (x, y)
    in parts of the map, outside is 0; weights (N, Q, heads, levels, points) -> (N, Q, heads * d). Zhu et al. 2021,
    equation 3 without its two projections.
    """
    batch, _, heads, depth = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    sampled = []
    for level, part in enumerate(torch.split(value, [height * width for height, width in shapes], dim=1)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, *shapes[level])
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled.append(F.grid_sample(maps, grid, "bilinear", "zeros", align_corners=False))
    of_levels = torch.stack(sampled, dim=-2)  # (N * heads, d, Q, levels, points)
    kept = weights.transpose(1, 2).reshape(batch * heads, 1, queries, *weights.shape[3:])
    summed = (of_levels * kept).sum((-2, -1))
    return summed.reshape(batch, heads * depth, queries).transpose(1, 2)
