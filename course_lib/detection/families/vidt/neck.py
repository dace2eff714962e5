"""The encoder-free neck: a deformable decoder that reads the body's maps as they are (chapter 23).

Song et al. 2022, section 3.2: the body is trained on the very task and its [DET] tokens have read the picture already,
so that no encoder stands between, and the tokens enter the decoder as its queries. The body's own tokens are the first
prediction; each layer of the decoder refines the boxes of the one before (Zhu et al. 2021, section 4.1).
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from course_lib.blocks.mlp import MLP
from course_lib.detection.families.detr.deformable_heads import GROUPS, Projection, begin_small, box_head, draw
from course_lib.detection.families.detr.deformable_transformer import DeformableDecoder, moved, pyramid
from course_lib.detection.families.detr.detr import shrunk
from course_lib.detection.families.vidt.body import BodyOutput


class NeckOutput(NamedTuple):
    """What an `EncoderFreeNeck` returns.

    states: (L + 1, N, Q, width), the queries before the first layer and behind each. boxes: (L + 1, N, Q, 4), what the
    box heads make of them, cxcywh in [0, 1]. references: (N, Q, 2), the points (x, y) that the first box is predicted
    from. maps: the projected maps, (N, width, h, w).
    """

    states: Tensor
    boxes: Tensor
    references: Tensor
    maps: list[Tensor]


class EncoderFreeNeck(nn.Module):
    """Queries that read maps, [DET] tokens first of all: `BodyOutput` -> `NeckOutput`.

    channels: of the maps. dets: channels of the [DET] tokens. positions: of their positions. width: of everything
    behind the projections. layers: of the decoder. heads, points: of its deformable attention, which reads as many
    levels as there are maps. hidden: of its feed-forward. dropout: everywhere in the decoder, in training. groups: of
    the projections' norms. Raises TypeError or ValueError for numbers that do not fit.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dets: int,
        positions: int = 256,
        width: int = 256,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        groups: int = GROUPS,
    ) -> None:
        """Make the parts, drawn as the official code draws them: each box begins as its reference."""
        super().__init__()
        self.maps = nn.ModuleList(Projection(count, width, groups) for count in channels)
        self.dets, self.positions = Projection(dets, width, groups), Projection(positions, width, groups)
        self.reference = nn.Linear(width, 2)
        self.decoder = DeformableDecoder(
            layers, width, heads, hidden, levels=len(channels), points=points, dropout=dropout
        )
        self.box_heads = nn.ModuleList(box_head(width) for _ in range(layers + 1))
        begin_small(cast(MLP, self.box_heads[0]))
        draw(self.decoder)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, body: BodyOutput, mask: Tensor | None = None) -> NeckOutput:
        """Return queries and boxes of every layer. mask: bool (N, H, W) of the pictures, True for padding."""
        maps = [project(one) for project, one in zip(self.maps, body.maps, strict=True)]
        masks = None if mask is None else [shrunk(mask, (one.shape[2], one.shape[3])) for one in maps]
        memory = pyramid(maps, masks)
        queries = self.dets.tokens(body.dets)
        positions = self.positions.tokens(body.positions).expand_as(queries)
        points = self.reference(positions).sigmoid().to(memory.valid.dtype)
        first = moved(self.box_heads[0](queries), points)
        later = self.decoder(queries, positions, first.detach(), memory, list(self.box_heads)[1:], refine=True)
        states, boxes = (
            torch.cat([own[None], of_layers]) for own, of_layers in zip((queries, first), later, strict=False)
        )
        return NeckOutput(states, boxes, points, maps)
