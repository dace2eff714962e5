"""LIIF with nothing hidden: the paper's equations, one row of numbers for each place and each code (chapter 10).

A picture is [-1, 1] x [-1, 1], and code i of n has its centre at -1 + (2 i + 1) / n.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = ((-1, -1), (-1, 1), (1, -1), (1, 1))
SHIFT = 1e-6  # the official code looks this much further down and right, and as much inside the edge


def centre(i: Tensor, n: int) -> Tensor:
    """Where code i of n is."""
    return (2 * i + 1) / n - 1


def nearest_code(x: Tensor, n: int, side: int) -> Tensor:
    """The code nearest to a place moved by half a code: up or left (-1), down or right (1), or not at all (0)."""
    moved = (x + side / n + SHIFT * abs(side)).clamp(-1 + SHIFT, 1 - SHIFT)
    return (((moved + 1) * n - 1) / 2).round().long()


def unfold(features: Tensor) -> Tensor:
    """Equation 3: the 3x3 features around each pixel side by side, zeros outside; (C, h, w) -> (9 C, h, w)."""
    h, w = features.shape[-2:]
    padded = F.pad(features, (1, 1, 1, 1))
    around = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return torch.stack(around, dim=1).flatten(0, 1)


def predict(
    codes: Tensor, f: Callable[[Tensor], Tensor], places: Tensor, cells: Tensor | None, side: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Equation 2 or 5: what f says of places (Q, 2) from the code to one side, and where they are, seen from it."""
    h, w = codes.shape[-2:]
    size = torch.tensor([h, w], device=places.device)
    row, column = (nearest_code(places[:, k], n, side[k]) for k, n in enumerate((h, w)))
    code = codes[:, row, column].T  # (Q, D)
    seen = (places - torch.stack([centre(row, h), centre(column, w)], dim=-1).to(places)) * size
    inputs = [code, seen] if cells is None else [code, seen, cells * size]
    return f(torch.cat(inputs, dim=-1)), seen


def liif_plain(
    features: Tensor,
    f: Callable[[Tensor], Tensor],
    places: Tensor,
    cells: Tensor | None,
    local_ensemble: bool = True,
    feature_unfolding: bool = True,
) -> Tensor:
    """Equation 4: predictions of four codes, each weighed by the area between the place and the code OPPOSITE to it.

    features (C, h, w), f the decoder (Q, D + 2 or D + 4) -> (Q, 3), places and cells (Q, 2) as (y, x). Without cells
    the decoder is not told how large a pixel is. Returns what the decoder makes, (Q, 3).
    """
    codes = unfold(features) if feature_unfolding else features
    sides = SIDES if local_ensemble else ((0, 0),)
    said, seen = zip(*(predict(codes, f, places, cells, side) for side in sides), strict=True)
    areas = [(place[:, 0] * place[:, 1]).abs() + 1e-9 for place in seen]
    opposite = areas[::-1]  # the last side is opposite to the first, the third to the second
    whole = torch.stack(areas).sum(0)
    return torch.stack([rgb * (area / whole)[:, None] for rgb, area in zip(said, opposite, strict=True)]).sum(0)
