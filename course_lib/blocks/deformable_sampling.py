"""Weighted sums of bilinear samples of several maps as sums of rows of a table, and their gradients (chapter 20).

A bilinear sample is a sum of four rows, and what a query reads with one head is a sum of 4 * levels * points of them:
`embedding_bag` adds these without ever holding them side by side. Backwards, the cells that were read are sorted; what
a row of the table receives is then a sum of rows again. Few cells and few queries are faster by a matrix: how much of
every cell each query reads, mostly zeros, as attention has it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = tuple[int, int]

ON_CPU, ON_OTHERS = 1 << 15, 1 << 20
"""Points whose numbers are held at once: what a CPU's cache holds of them, for each thread; and some GiB elsewhere."""
FEW_CELLS, FEW_PAIRS = 256, 1 << 20
"""Up to how many cells of a picture, and pairs of queries, heads and cells of a batch, a matrix of them is made.

Measured forwards and back on one thread (84 cells and queries, 4 heads of 16, 12 points, 16 pictures): it takes half
the time of the rows, and less than grid_sample; with three times as many pairs as this bound it is no faster any more.
"""


class Sampled(torch.autograd.Function):
    """`course_lib.blocks.deformable_attention.deformable_attention` of tensors of one dtype, float32 or float64."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, locations: Tensor, weights: Tensor, shapes: tuple[Size, ...]) -> Tensor:
        """Return (N, Q, heads * d)."""
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes, ctx.kept = shapes, None
        batch, queries, heads = locations.shape[:3]
        if _few(value, queries):
            (part,) = _parts(shapes, value, locations, weights, few=True)
            matrix = value.new_zeros(batch * queries * heads * value.shape[1])
            for cell, factor in zip(part.cells(), part.factors(), strict=True):
                matrix.scatter_add_(0, cell.flatten(), factor.flatten())
            ctx.kept = part, matrix.view(batch, queries, heads, -1)
            return _product("nqhs,nshd->nqhd", ctx.kept[1], value).flatten(2)
        table = value.reshape(-1, value.shape[3])
        found = table.new_empty(batch * queries * heads, value.shape[3])
        for part in _parts(shapes, value, locations, weights):
            cells, factors = part.by_head(part.cells()), part.by_head(part.factors())
            found[part.sums] = F.embedding_bag(cells, table, mode="sum", per_sample_weights=factors)
        return found.reshape(batch, queries, heads * value.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of value, locations and weights."""
        value, locations, weights = ctx.saved_tensors
        of_weights, of_locations = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (weights, locations)
        )
        points = of_weights.flatten(0, 1).flatten(1), of_locations.flatten(0, 1).flatten(1, 3)
        if ctx.kept is not None:
            part, matrix = ctx.kept
            cotangent = cotangents[0].reshape(*locations.shape[:3], value.shape[3])
            seen = _product("nqhd,nshd->nqhs", cotangent, value).reshape(-1)
            part.gradients([seen.take(cell) for cell in part.cells()], *points)
            return _product("nqhs,nqhd->nshd", matrix, cotangent), of_locations, of_weights, None
        table, cotangent = (x.reshape(-1, value.shape[3]) for x in (value, cotangents[0]))
        cells, factors = [], []
        for part in _parts(ctx.shapes, value, locations, weights):
            read = part.by_head(part.cells())
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                seen = (F.embedding(read, table) * cotangent[part.sums, None]).sum(-1)
                part.gradients(part.by_corner(seen), *points)
            if ctx.needs_input_grad[0]:
                cells.append(read)
                factors.append(part.by_head(part.factors()))
        of_value = None
        if cells:
            of_value = _given_back(torch.cat(cells), torch.cat(factors), cotangent, len(table)).view_as(value)
        elif ctx.needs_input_grad[0]:
            of_value = torch.zeros_like(value)
        return of_value, of_locations, of_weights, None


def _few(value: Tensor, queries: int) -> bool:
    """Whether a matrix of all queries and cells is made."""
    batch, cells, heads, _ = value.shape
    return queries > 0 and 0 < cells <= FEW_CELLS and batch * queries * heads * cells <= FEW_PAIRS


def _product(equation: str, one: Tensor, other: Tensor) -> Tensor:
    """Return an einsum in the tensors' own dtype, also under autocast."""
    kind = one.device.type
    if torch.amp.is_autocast_available(kind):
        with torch.autocast(kind, enabled=False):
            return torch.einsum(equation, one, other)
    return torch.einsum(equation, one, other)


def _given_back(cells: Tensor, factors: Tensor, cotangent: Tensor, rows: int) -> Tensor:
    """Return what each of a table's rows receives, (rows, d): the sum of the cotangents of the sums that read it.

    cells, factors: (sums, n), the rows that each sum read, and how much of them. cotangent: (sums, d).
    """
    order = cells.flatten().argsort()
    ends = torch.bincount(cells.flatten(), minlength=rows).cumsum(0)
    sums = order // cells.shape[1]
    return F.embedding_bag(
        sums,
        cotangent,
        F.pad(ends, (1, 0)),
        mode="sum",
        per_sample_weights=factors.flatten().take(order),
        include_last_offset=True,
    )


class _Plan(NamedTuple):
    """What is the same for all queries, for each of a query's P = heads * levels * points points: (P,)."""

    size: tuple[Tensor, Tensor]
    """Width and height of the map."""
    last: tuple[Tensor, Tensor]
    """int: the last column and row."""
    start: Tensor
    """int: the first row of its map and head in the table."""
    down: Tensor
    """int: how many rows of the table further the map's next row is."""
    right: int
    """The same of its next column."""


class _Axis(NamedTuple):
    """The two cells around each point along one axis; (R, P) each, lower and upper."""

    cells: tuple[Tensor, Tensor]
    """int, moved onto the map where they are outside."""
    on_map: tuple[Tensor, Tensor]
    """1 or 0."""
    shares: tuple[Tensor, Tensor]
    """How much each counts, 0 outside."""


class _Part(NamedTuple):
    """Points of R queries."""

    rows: slice
    sums: slice
    """Which of all N * Q * heads sums are theirs."""
    plan: _Plan
    x: _Axis
    y: _Axis
    kept: Tensor
    """Weights of the points, (R, P)."""
    first: Tensor
    """int (R, 1): the first row of the query's picture in the table."""
    heads: int

    def cells(self) -> list[Tensor]:
        """Return the table's rows that each point reads, int, four (R, P): above left and right, then below."""
        start = self.plan.start + self.first
        columns = [cell * self.plan.right + start for cell in self.x.cells]
        rows = [cell * self.plan.down for cell in self.y.cells]
        return [row + column for row in rows for column in columns]

    def factors(self) -> list[Tensor]:
        """Return how much of each."""
        rows = [share * self.kept for share in self.y.shares]
        return [row * column for row in rows for column in self.x.shares]

    def by_head(self, four: list[Tensor]) -> Tensor:
        """Return four (R, P) as one row for each sum: (R * heads, 4 * levels * points)."""
        heads = (len(self.kept), self.heads, -1)
        return torch.stack([x.reshape(heads) for x in four], dim=2).reshape(len(self.kept) * self.heads, -1)

    def by_corner(self, together: Tensor) -> list[Tensor]:
        """Return what `by_head` joined."""
        return [x.reshape(self.kept.shape) for x in together.view(len(self.kept), self.heads, 4, -1).unbind(2)]

    def gradients(self, seen: list[Tensor], of_weights: Tensor, of_locations: Tensor) -> None:
        """Write the gradients of the points; seen: cotangent . cell, of the four cells."""
        above_left, above_right, below_left, below_right = seen
        (left, right), (above, below) = self.x.shares, self.y.shares
        (has_left, has_right), (has_above, has_below) = self.x.on_map, self.y.on_map
        on_left, on_right = above * above_left + below * below_left, above * above_right + below * below_right
        on_top, on_bottom = left * above_left + right * above_right, left * below_left + right * below_right
        of_weights[self.rows] = left * on_left + right * on_right
        width, height = self.plan.size
        of_locations[self.rows, :, 0] = (has_right * on_right - has_left * on_left) * (self.kept * width)
        of_locations[self.rows, :, 1] = (has_below * on_bottom - has_above * on_top) * (self.kept * height)


def _parts(
    shapes: tuple[Size, ...], value: Tensor, locations: Tensor, weights: Tensor, few: bool = False
) -> Iterator[_Part]:
    """Go through all queries, some at a time. The table has a row for each picture, cell and head (in this order).

    few: all queries at once, and the table is a matrix: a row for each query, head and cell.
    """
    batch, queries, heads, _, points, _ = locations.shape
    cells = value.shape[1]
    whole = torch.int64 if few or batch * cells * heads >= 2**31 else torch.int32
    plan = _plan(shapes, heads, points, locations, whole, *((cells, 1) if few else (1, heads)))
    places, kept = locations.flatten(0, 1).flatten(1, 3), weights.flatten(0, 1).flatten(1)
    first = torch.arange(len(places) if few else batch, dtype=whole, device=value.device)[:, None] * (cells * heads)
    first = first if few else first.repeat_interleave(queries, 0)
    held = ON_CPU * torch.get_num_threads() if value.device.type == "cpu" else ON_OTHERS
    step = len(places) if few else max(1, held // max(1, kept.shape[1]))
    for begin in range(0, len(places), step):
        rows = slice(begin, min(begin + step, len(places)))
        x, y = (_axis(places[rows, :, axis], plan.size[axis], plan.last[axis]) for axis in (0, 1))
        yield _Part(rows, slice(rows.start * heads, rows.stop * heads), plan, x, y, kept[rows], first[rows], heads)


def _plan(
    shapes: tuple[Size, ...], heads: int, points: int, like: Tensor, whole: torch.dtype, next_head: int, next_cell: int
) -> _Plan:
    rows, start = [], 0
    for height, width in shapes:
        rows += [(width, height, start * next_cell, width * next_cell)] * points
        start += height * width
    table = torch.tensor([rows] * heads, dtype=whole, device=like.device)
    table[..., 2] += torch.arange(heads, dtype=whole, device=like.device)[:, None] * next_head
    width, height, starts, down = table.reshape(-1, 4).T.contiguous()
    return _Plan((width.to(like.dtype), height.to(like.dtype)), (width - 1, height - 1), starts, down, next_cell)


def _axis(locations: Tensor, size: Tensor, last: Tensor) -> _Axis:
    """Return the cells around locations (R, P), in parts of maps of `size` (P,) cells, whose centres are at 1/2."""
    # beyond -2 and the size nothing changes any more, and int32 holds what is left; of NaN it makes some cell
    place = (locations * size - 0.5).clamp(min=-2).minimum(size)
    floor = place.floor()
    part, cell = place - floor, floor.to(last.dtype)
    low, high = cell.clamp(min=0).minimum(last), (cell + 1).clamp(min=0).minimum(last)
    has_low, has_high = (low == cell).to(place.dtype), (high == cell + 1).to(place.dtype)
    return _Axis((low, high), (has_low, has_high), ((1 - part) * has_low, part * has_high))
