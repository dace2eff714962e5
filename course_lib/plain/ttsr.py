"""TTSR's search and transfer with nothing hidden: all patches are made and all pairs compared (chapter 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def patches(features: Tensor, patch: int = 3) -> Tensor:
    """The patch around each place as one column, zeros outside; (B, C, h, w) -> (B, C patch^2, h w)."""
    return F.unfold(features, patch, padding=patch // 2)


def relevance(query: Tensor, key: Tensor, patch: int = 3) -> Tensor:
    """Equation 2: the cosine of every patch of the reference (rows) with every patch of the picture (columns).

    query (B, C, h, w), key (B, C, h', w') -> (B, h' w', h w), in [-1, 1].
    """
    q, k = (F.normalize(patches(features, patch), dim=1) for features in (query, key))
    return k.transpose(1, 2) @ q


def hard_and_soft(matrix: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Equations 3 and 4: for each place of a picture of this size, which row is largest, and how large it is.

    matrix (B, h' w', h w) -> index (B, h, w) into the reference, and score (B, 1, h, w).
    """
    score, index = matrix.max(dim=1)
    return index.reshape(-1, *size), score.reshape(-1, 1, *size)


def transfer_folded(value: Tensor, index: Tensor, step: int = 1) -> Tensor:
    """The chosen patches of the reference laid side by side; they overlap, and every sum is divided by 9.

    value (B, C, step h', step w'), index (B, h, w) -> (B, C, step h, step w). A patch is 3 step wide. At the border
    fewer than nine patches meet, and the official code divides by 9 there too.
    """
    side, (h, w) = 3 * step, index.shape[-2:]
    columns = F.unfold(value, side, padding=step, stride=step)
    chosen = index.reshape(len(index), 1, h * w).expand(-1, columns.shape[1], -1)
    return F.fold(torch.gather(columns, 2, chosen), (step * h, step * w), side, padding=step, stride=step) / 9
