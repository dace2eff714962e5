"""Multi-scale deformable attention: each query reads a few points of several maps (chapters 20 and 23)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.blocks.deformable_sampling import Sampled
from course_lib.upsampling.grids import check_length

Size = tuple[int, int]


def deformable_attention(value: Tensor, shapes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Return sums of bilinear samples of several maps, (N, Q, heads * d), by the weights of their points.

    value: (N, S, heads, d), the places of all maps, row by row, one map behind the other. shapes: (height, width) of
    each. locations: (N, Q, heads, levels, points, 2), (x, y) in parts of each map; beyond its edges it is 0. weights:
    (N, Q, heads, levels, points). Half precision is computed in float32. Gradients go to value, locations and weights,
    and cannot be differentiated again. Raises TypeError or ValueError for tensors that do not fit each other. Zhu et
    al. 2021, equation 3 without its two projections; the textbook form is
    `course_lib.plain.deformable_attention_grid_sample`.
    """
    _check(value, shapes, locations, weights)
    dtype = torch.promote_types(torch.promote_types(value.dtype, locations.dtype), torch.float32)
    apply: Any = Sampled.apply
    found: Tensor = apply(value.to(dtype), locations.to(dtype), weights.to(dtype), tuple(shapes))
    return found.to(value.dtype)


def _check(value: Tensor, shapes: Sequence[Size], locations: Tensor, weights: Tensor) -> None:
    for name, x in (("value", value), ("locations", locations), ("weights", weights)):
        given: Any = x
        if not isinstance(given, Tensor) or not given.is_floating_point():
            came = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"{name} must be a floating point torch.Tensor, got {came}")
    if value.dim() != 4:
        raise ValueError(f"value must be (N, S, heads, d), got {tuple(value.shape)}")
    batch, places, heads, _ = value.shape
    if not shapes or any(min(shape) < 1 for shape in shapes) or sum(h * w for h, w in shapes) != places:
        raise ValueError(f"shapes must be (height, width) of maps with {places} places together, got {list(shapes)}")
    known = (batch, heads, len(shapes), 2)
    if locations.dim() != 6 or tuple(locations.shape[k] for k in (0, 2, 3, 5)) != known:
        wanted = f"({batch}, Q, {heads}, {len(shapes)}, points, 2)"
        raise ValueError(f"locations must be {wanted}, got {tuple(locations.shape)}")
    if weights.shape != locations.shape[:-1]:
        raise ValueError(f"weights must be {tuple(locations.shape[:-1])} as locations, got {tuple(weights.shape)}")


class DeformableAttention(nn.Module):
    """Queries read `points` places of each of `levels` maps around a reference, with each of `heads` heads.

    Where and how strongly is a linear function of the query alone; no query is compared with a key. New: all points
    weigh the same, and head m looks along direction m of a ring, its point k (from 1) k cells away. Raises TypeError or
    ValueError for numbers that are not whole and >= 1, and where heads does not divide width. Zhu et al. 2021,
    equation 3.
    """

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 4, points: int = 4) -> None:
        """Make the four projections: offsets and weights of the points, values, and the heads' join."""
        super().__init__()
        for name, number in {"width": width, "heads": heads, "levels": levels, "points": points}.items():
            check_length(name, number)
        if width % heads:
            raise ValueError(f"heads must divide width, {width}, got {heads}")
        self.width, self.heads, self.levels, self.points = width, heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reset()

    def reset(self) -> None:
        """Set the numbers of a new module."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # onto the square around the reference
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)[:, None]
        ring = (direction[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(ring.flatten())
        for layer in (self.values, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        references: Tensor,
        source: Tensor,
        shapes: Sequence[Size],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return what the queries read, (N, Q, width).

        query: (N, Q, width), with positions added. references: (N, Q, levels, 2), points (x, y) in parts of each map,
        or (..., 4), boxes cxcywh. source: (N, S, width), the places of all maps. shapes: (height, width) of each map.
        padding: bool (N, S), True where a place is padding and counts as 0. Raises TypeError or ValueError for shapes
        that do not fit.
        """
        self._check(query, references, source, shapes, padding)
        values = self.values(source)
        if padding is not None:
            values = values.masked_fill(padding[..., None], 0)  # behind the projection, whose bias would fill it again
        locations, weights = self.sampling(query, references, shapes)
        found = deformable_attention(values.unflatten(-1, (self.heads, -1)), shapes, locations, weights)
        joined: Tensor = self.out(found)
        return joined

    def sampling(self, query: Tensor, references: Tensor, shapes: Sequence[Size]) -> tuple[Tensor, Tensor]:
        """Return locations (N, Q, heads, levels, points, 2), (x, y) in parts of a map, and weights without the 2.

        Offsets count in cells of each map where references are points, and in parts of half the box, divided by
        `points`, where they are boxes. The weights of a head sum to 1. Arguments as in `forward`.
        """
        offsets = self.offsets(query).unflatten(-1, (self.heads, self.levels, self.points, 2))
        logits = self.weights(query).unflatten(-1, (self.heads, self.levels * self.points))
        weights = logits.to(references.dtype).softmax(-1).unflatten(-1, (self.levels, self.points))
        around = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            scale = 1 / references.new_tensor([(width, height) for height, width in shapes])[:, None]
        else:
            scale = around[..., 2:] * (0.5 / self.points)
        return around[..., :2] + offsets * scale, weights

    def _check(
        self, query: Tensor, references: Tensor, source: Tensor, shapes: Sequence[Size], padding: Tensor | None
    ) -> None:
        if query.dim() != 3 or query.shape[2] != self.width:
            raise ValueError(f"query must be (N, Q, {self.width}), got {tuple(query.shape)}")
        known = (*query.shape[:2], self.levels)
        if references.dim() != 4 or references.shape[:3] != known or references.shape[3] not in (2, 4):
            raise ValueError(f"references must be {(*known, '2 or 4')}, got {tuple(references.shape)}".replace("'", ""))
        if len(shapes) != self.levels:
            raise ValueError(f"shapes must be {self.levels} maps' (height, width), got {list(shapes)}")
        places = (len(query), sum(height * width for height, width in shapes))
        if source.shape != (*places, self.width):
            raise ValueError(f"source must be {(*places, self.width)}, got {tuple(source.shape)}")
        if padding is not None and (padding.dtype != torch.bool or padding.shape != places):
            raise ValueError(f"padding must be bool {places}, got {padding.dtype} {tuple(padding.shape)}")
