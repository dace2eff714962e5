"""Deformable DETR's encoder and decoder: every attention to maps reads a few sampled points (chapters 20 and 23).

Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", 2021, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention
from course_lib.blocks.deformable_attention import DeformableAttention
from course_lib.blocks.transformer import Activation, Residual
from course_lib.upsampling.grids import check_length

Size = tuple[int, int]

EDGE = 1e-5
"""How near to 0 and to 1 `inverse_sigmoid` goes."""


@dataclass(frozen=True)
class Pyramid:
    """Maps of several sizes as one sequence of their cells, row by row, one map behind the other.

    source: (N, S, C). shapes: (height, width) of each map. padding: bool (N, S), True where a cell is padding, or None.
    valid: (N, levels, 2), the part of each map's width and height that is picture.
    """

    source: Tensor
    shapes: tuple[Size, ...]
    padding: Tensor | None
    valid: Tensor


def pyramid(maps: Sequence[Tensor], masks: Sequence[Tensor] | None = None) -> Pyramid:
    """Return maps (N, C, h, w) as a `Pyramid`; masks: bool (N, h, w) of each, True for padding, None: there is none."""
    source = torch.cat([x.flatten(2).mT for x in maps], dim=1)
    shapes = tuple((x.shape[2], x.shape[3]) for x in maps)
    dtype = torch.promote_types(source.dtype, torch.float32)  # half precision would round places to a cell
    if masks is None:
        return Pyramid(source, shapes, None, source.new_ones((len(source), len(maps), 2), dtype=dtype))
    padding = torch.cat([mask.flatten(1) for mask in masks], dim=1)
    return Pyramid(source, shapes, padding, torch.stack([valid_part(mask, dtype) for mask in masks], dim=1))


def valid_part(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return which part of the width and of the height is no padding, (N, 2), of a mask bool (N, h, w).

    The first row and the first column tell it: padding is to the right and below. At least one cell's part, so that
    places in a mask that pads otherwise stay finite.
    """
    own = (~mask).to(dtype)
    parts = (own[:, 0].mean(1).clamp(min=1 / mask.shape[2]), own[:, :, 0].mean(1).clamp(min=1 / mask.shape[1]))
    return torch.stack(parts, dim=-1)


def cell_centres(size: Size, like: Tensor) -> Tensor:
    """Return the centres (x, y) of a map's cells in cells, (h * w, 2), with the dtype and device of `like`."""
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5 for n in size)
    return torch.stack([x.expand(size), y[:, None].expand(size)], dim=-1).reshape(-1, 2)


def cell_references(shapes: Sequence[Size], valid: Tensor) -> Tensor:
    """Return where every cell of a pyramid looks first on each of its maps: at its own place, (N, S, levels, 2).

    A cell's centre in parts of the picture without padding (padding cells lie beyond 1), times the valid part of each
    map. valid: (N, levels, 2).
    """
    own = []
    for level, (height, width) in enumerate(shapes):
        extent = valid[:, level, None] * valid.new_tensor((width, height))
        own.append(cell_centres((height, width), valid) / extent)
    return torch.cat(own, dim=1)[:, :, None] * valid[:, None]


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Return log(x / (1 - x)) with both cut at `EDGE`, so that it is finite for all x."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=EDGE) / (1 - x).clamp(min=EDGE))


def moved(change: Tensor, references: Tensor) -> Tensor:
    """Return boxes cxcywh (..., 4) in [0, 1]: sigmoid(change + inverse_sigmoid(references)).

    references: (..., 4) boxes, or (..., 2) points, which move the centre alone. Zhu et al. 2021, appendix A.4.
    """
    change, base = change.to(references.dtype), inverse_sigmoid(references)
    if base.shape[-1] == 2:
        base = torch.cat([base, torch.zeros_like(base)], dim=-1)
    return (change + base).sigmoid()


class DeformableEncoderLayer(Residual):
    """Every cell reads points of all maps around itself, then is changed alone: (N, S, width) -> the same.

    hidden, activation: of FeedForward. levels, points: as of `DeformableAttention`. dropout: of hidden numbers and of
    what is added. pre_norm: as of `Residual`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        levels: int = 4,
        points: int = 4,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make attention, feed-forward and two norms."""
        super().__init__()
        self.attention = DeformableAttention(width, heads, levels, points)
        self.finish(2, width, hidden, dropout, pre_norm, activation)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        references: Tensor,
        shapes: Sequence[Size],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the new cells; x, positions (N, S, width), references (N, S, levels, 2), padding (N, S)."""
        y = self.before(self.norm1, x)
        x = self.after(self.norm1, x, self.attention(y + positions, references, y, shapes, padding))
        return self.after(self.norm2, x, self.feed(self.before(self.norm2, x)))


class DeformableDecoderLayer(Residual):
    """Queries read each other, then points of the maps around their references; then each is changed alone.

    (N, Q, width) -> the same. Arguments as of `DeformableEncoderLayer`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        levels: int = 4,
        points: int = 4,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make two attentions, feed-forward and three norms."""
        super().__init__()
        self.self_attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.cross_attention = DeformableAttention(width, heads, levels, points)
        self.finish(3, width, hidden, dropout, pre_norm, activation)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, memory: Pyramid) -> Tensor:
        """Return the new queries; x, positions (N, Q, width), references (N, Q, levels, 2 or 4) in parts of a map."""
        y = self.before(self.norm1, x)
        x = self.after(self.norm1, x, self.self_attention(y + positions, value=y))
        query = self.before(self.norm2, x) + positions
        read = self.cross_attention(query, references, memory.source, memory.shapes, memory.padding)
        x = self.after(self.norm2, x, read)
        return self.after(self.norm3, x, self.feed(self.before(self.norm3, x)))


class DeformableEncoder(nn.Module):
    """`depth` encoder layers over a pyramid's cells, and with `pre_norm` a norm behind the last.

    Other arguments as of `DeformableEncoderLayer`. A depth of 0 gives the cells back as they are.
    """

    def __init__(self, depth: int, width: int, heads: int, hidden: int, pre_norm: bool = False, **options: Any) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(width, heads, hidden, pre_norm=pre_norm, **options)
            for _ in range(check_length("depth", depth, 0))
        )
        self.norm = nn.LayerNorm(width) if pre_norm and depth else None

    def forward(self, cells: Pyramid, positions: Tensor) -> Pyramid:
        """Return the pyramid with new cells; positions (N, S, width), with what tells the levels apart."""
        references = cell_references(cells.shapes, cells.valid)
        x = cells.source
        for layer in self.layers:
            x = layer(x, positions, references, cells.shapes, cells.padding)
        x = x if self.norm is None else self.norm(x)
        return Pyramid(x, cells.shapes, cells.padding, cells.valid)


class DeformableDecoder(nn.Module):
    """`depth` decoder layers around references, which each layer's box may replace; with `pre_norm` one common norm.

    Other arguments as of `DeformableEncoderLayer`.
    """

    def __init__(self, depth: int, width: int, heads: int, hidden: int, pre_norm: bool = False, **options: Any) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(width, heads, hidden, pre_norm=pre_norm, **options)
            for _ in range(check_length("depth", depth))
        )
        self.norm = nn.LayerNorm(width) if pre_norm else None

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        references: Tensor,
        memory: Pyramid,
        box_heads: Sequence[nn.Module],
        refine: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return every layer's queries (depth, N, Q, width), boxes (depth, N, Q, 4), and where each layer looked first.

        x, positions: (N, Q, width), the queries and what is added to them in every attention. references: (N, Q, 2)
        points or (N, Q, 4) boxes in parts of the picture without padding. box_heads: one for each layer (it may be one
        and the same), (N, Q, width) -> (N, Q, 4), how the references move. refine: each layer looks around the boxes of
        the one before, through which no gradient flows (section 4.1); otherwise all look around the first references.
        The list has the references of each layer, (N, Q, 2 or 4).
        """
        if len(box_heads) != len(self.layers):
            raise ValueError(f"box_heads must be one for each of {len(self.layers)} layers, got {len(box_heads)}")
        results, boxes, looked = [], [], []
        for layer, head in zip(self.layers, box_heads, strict=True):
            valid = memory.valid if references.shape[-1] == 2 else torch.cat([memory.valid] * 2, dim=-1)
            x = layer(x, positions, references[:, :, None] * valid[:, None], memory)
            looked.append(references)
            results.append(x if self.norm is None else self.norm(x))
            boxes.append(moved(head(results[-1]), references))
            if refine:
                references = boxes[-1].detach()
        return torch.stack(results), torch.stack(boxes), looked
