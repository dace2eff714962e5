"""Two-stage Deformable DETR: every cell of the encoder proposes a box, the best become the queries (chapter 20).

Zhu et al., "Deformable DETR", 2021, section 4.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.blocks.mlp import MLP
from course_lib.blocks.positions import TURN, sine_of
from course_lib.detection.families.detr.deformable_transformer import Pyramid, cell_centres
from course_lib.upsampling.grids import check_length

SIDE = 0.05
"""Side of the box that a cell of the finest map starts from, in parts of the picture; each next map doubles it."""
INSIDE = 0.01
"""A cell proposes only if its box has all four numbers from here to as far below 1."""


@dataclass(frozen=True)
class Proposals:
    """What the first stage says of all cells, and what it hands on.

    logits: (N, S, classes). boxes: (N, S, 4), cxcywh; cells that propose nothing have all ones. chosen: int64 (N, Q),
    the cells with the highest logits of class 0. references: (N, Q, 4), their boxes. queries, positions:
    (N, Q, width), made of these boxes alone. No gradient flows from the last three to the boxes.
    """

    logits: Tensor
    boxes: Tensor
    chosen: Tensor
    references: Tensor
    queries: Tensor
    positions: Tensor


class TwoStage(nn.Module):
    """The first stage: a class and a box at every cell of the encoder, and queries from the best of them.

    width: a multiple of 4. queries: how many are handed on. class_head, box_head: of the cells; only class 0 decides
    who is handed on, as officially, where all objects are class 0 for the proposals. temperature: of the sines that
    tell the queries their boxes.
    """

    def __init__(
        self, width: int, queries: int, class_head: nn.Linear, box_head: MLP, temperature: float = 10000.0
    ) -> None:
        """Make the layers."""
        super().__init__()
        if check_length("width", width, 4) % 4:
            raise ValueError(f"width must be a multiple of 4, got {width}")
        self.width, self.queries, self.temperature = width, check_length("queries", queries), temperature
        self.cells, self.cells_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.places, self.places_norm = nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width)
        self.class_head, self.box_head = class_head, box_head
        for layer in (self.cells, self.places):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, memory: Pyramid) -> Proposals:
        """Return the proposals. Raises ValueError where there are fewer cells than queries."""
        if memory.source.shape[1] < self.queries:
            cells = memory.source.shape[1]
            raise ValueError(f"images must have at least {self.queries} cells, one a query; their maps have {cells}")
        base = base_boxes(memory)
        proposing = base.isfinite().all(-1, keepdim=True)
        cells = self.cells_norm(self.cells(memory.source.masked_fill(~proposing, 0)))
        logits = self.class_head(cells)
        unbound = self.box_head(cells).to(base.dtype) + base
        chosen = logits[..., 0].topk(self.queries, dim=1).indices
        references = unbound.detach().gather(1, chosen[..., None].expand(-1, -1, 4)).sigmoid()
        told = sine_of(references * TURN, self.width // 2, self.temperature).flatten(-2)
        positions, queries = self.places_norm(self.places(told.to(cells.dtype))).chunk(2, dim=-1)
        return Proposals(logits, unbound.sigmoid(), chosen, references, queries, positions)


def base_boxes(memory: Pyramid) -> Tensor:
    """Return what each cell's box moves from, (N, S, 4): cxcywh as inverse sigmoids, infinite where none is proposed.

    The centre is the cell's own in parts of the picture without padding, the sides `SIDE` 2^level. Padding proposes
    nothing, nor do cells whose centre lies within `INSIDE` of an edge.
    """
    boxes = []
    for level, (height, width) in enumerate(memory.shapes):
        extent = memory.valid[:, level, None] * memory.valid.new_tensor((width, height))
        centres = cell_centres((height, width), memory.valid) / extent
        boxes.append(torch.cat([centres, torch.full_like(centres, SIDE * 2**level)], dim=-1))
    whole = torch.cat(boxes, dim=1)
    proposing = ((whole > INSIDE) & (whole < 1 - INSIDE)).all(-1, keepdim=True)
    if memory.padding is not None:
        proposing &= ~memory.padding[..., None]
    return whole.logit().masked_fill(~proposing, float("inf"))
