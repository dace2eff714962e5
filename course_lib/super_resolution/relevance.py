"""Which patch of a reference looks most like each patch of a picture, and its textures in that place (chapter 11).

The slow form that follows the paper's equations is `plain.ttsr`. Here no patch and no matrix of all pairs is ever made:

- The inner product of two patches is the sum of nine inner products of single features, those of the places that lie
  alike in both. All features are compared once, and nine neighbours along a diagonal are added: three along the rows,
  then three of these sums along the columns. That is done for some rows of both at a time, while the numbers are in the
  processor's cache, and only the largest relevance of each place is kept.
- A result of the transfer is the sum of nine values, which are read where they lie.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.upsampling.grids import check_length

_EPSILON = 1e-12  # a patch that is shorter counts as zeros
_FEW_CPU = 2**19  # inner products made at once: two megabytes, near one core
_ROWS_CPU, _MANY_CPU, _MANY_GPU = 4, 2**25, 2**26  # rows of the picture in a block, and how many sums it keeps


def search(query: Tensor, key: Tensor, patch: int = 3, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Return where in the reference the patch most like each one of the picture is, and how like it is.

    query (B, C, h, w): features of the picture; key (B, C, h', w'): of the reference. index (B, h, w), int64: i w' + j
    for row i and column j of the reference; the first one of those equally relevant. score (B, 1, h, w), in [-1, 1]:
    the cosine of the two patches of patch x patch features, zeros outside; a patch of zeros has 0 with every other.
    score has a gradient to query and key, index has none. rows: of the picture, compared at once; None: chosen by
    memory. Computed in float32, or float64 for features that are, also under autocast.

    Raises TypeError or ValueError for features that do not fit, an even patch, or rows < 1. Yang et al. 2020 (TTSR),
    equations 2 to 4.
    """
    _check(query, key, patch, rows)
    kind = torch.float64 if torch.float64 in (query.dtype, key.dtype) else torch.float32
    query, key = query.to(kind), key.to(kind)
    with torch.no_grad():  # autocast leaves products alone that are written into what is given
        pairs = [_Diagonals(q, k, patch, rows).most_relevant() for q, k in zip(query, key, strict=True)]
        index, score = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        return index, _cosines(query, key, index, patch)
    return index, score[:, None] * _inverse_length(query, patch)


def transfer(value: Tensor, index: Tensor, step: int = 1) -> Tensor:
    """Return the reference's textures, laid where the picture has the patches that they were found for.

    value (B, C, step h', step w'): features of the reference, step times as fine as those searched; index (B, h, w):
    of `search`. Returns (B, C, step h, step w): patches of 3 step x 3 step overlap, and every sum is divided by 9, also
    at the border, where fewer meet (as in the official code). With gradient to value.

    Raises TypeError or ValueError for another shape or type, and on a CPU for an index that is not in the reference.
    """
    height, width = _check_transfer(value, index, step)
    batch, (h, w) = len(index), index.shape[-2:]
    cells = value.reshape(batch, -1, height, step, width, step).permute(0, 2, 4, 1, 3, 5)
    table = F.pad(cells, (0, 0, 0, 0, 0, 0, 1, 1, 1, 1)).flatten(3).flatten(0, 2)  # a cell is a row; zeros around all
    most = width + 2
    place = F.pad((index // width + 1) * most + index % width + 1, (1, 1, 1, 1), value=-2 * most)
    ways = torch.tensor([i * most + j for i in (-1, 0, 1) for j in (-1, 0, 1)], device=index.device)
    # the patch laid one place below (i = 1) covers this place with its upper part, and none is laid outside the picture
    met = (place.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3) - ways).clamp(min=0)
    met = met + torch.arange(batch, device=index.device)[:, None, None, None] * (most * (height + 2))
    made = F.embedding_bag(met.reshape(-1, 9), table, mode="sum") / 9
    return made.view(batch, h, w, -1, step, step).permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, step * h, step * w)


def _check(query: Tensor, key: Tensor, patch: int, rows: int | None) -> None:
    for name, given in (("query", query), ("key", key)):
        if not given.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {given.dtype}")
        if given.dim() != 4 or 0 in given.shape:
            raise ValueError(f"{name} must be (B, C, h, w), got {tuple(given.shape)}")
    if query.shape[:2] != key.shape[:2]:
        raise ValueError(f"key must have query's (B, C) = {tuple(query.shape[:2])}, got {tuple(key.shape[:2])}")
    if query.device != key.device:
        raise ValueError(f"key must be on query's device {query.device}, got {key.device}")
    if check_length("patch", patch) % 2 == 0:
        raise ValueError(f"patch must be odd and at least 1, got {patch}")
    if rows is not None:
        check_length("rows", rows)


def _check_transfer(value: Tensor, index: Tensor, step: int) -> tuple[int, int]:
    """Return the size (h', w') of the reference in places."""
    if not value.is_floating_point():
        raise TypeError(f"value must be floating point, got {value.dtype}")
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    check_length("step", step)
    if value.dim() != 4 or value.shape[-2] % step or value.shape[-1] % step or 0 in value.shape:
        raise ValueError(f"value must be (B, C, {step} h', {step} w'), got {tuple(value.shape)}")
    if index.dim() != 3 or len(index) != len(value) or 0 in index.shape:
        raise ValueError(f"index must be ({len(value)}, h, w), got {tuple(index.shape)}")
    if index.device != value.device:
        raise ValueError(f"index must be on value's device {value.device}, got {index.device}")
    size = value.shape[-2] // step, value.shape[-1] // step
    if index.device.type == "cpu" and not 0 <= int(index.min()) <= int(index.max()) < size[0] * size[1]:
        raise ValueError(f"index must be in [0, {size[0] * size[1]}), got {int(index.min())} to {int(index.max())}")
    return size


class _Diagonals:
    """The sums over patches of all inner products of one picture's features with its reference's, in blocks.

    A block is some rows of the picture with all the reference, which it passes in strips of some rows. Pairs lie in one
    line: by row and column of the picture, then of the reference. There are `reach` zeros behind the columns of both
    and behind the rows of the reference, so that a step along a diagonal is the same way along the line wherever it
    begins, and one that leaves the picture or the reference ends on a zero.
    """

    def __init__(self, query: Tensor, key: Tensor, patch: int, rows: int | None) -> None:
        """Lay out query (C, h, w) and key (C, h', w')."""
        self.reach, self.patch = patch // 2, patch
        (channels, self.h, self.w), self.size = query.shape, key.shape[-2:]
        self.across, self.most = self.w + self.reach, self.size[1] + self.reach  # columns, with the zeros behind them
        self.line = (self.size[0] + self.reach) * self.most  # pairs of one place of the picture
        few, many, most_rows = _MANY_GPU, _MANY_GPU, self.h
        if query.device.type == "cpu":
            few, many, most_rows = _FEW_CPU, _MANY_CPU, _ROWS_CPU
        self.rows = _even(self.h, rows or min(most_rows, many // (self.across * self.line)))
        self.strip = _even(self.size[0], few // (self.rows * self.across * self.most))
        self.left = F.pad(query, (0, self.reach)).reshape(channels, -1).T
        self.right = F.pad(key, (0, self.reach)).reshape(channels, -1)
        self.scale = F.pad(_inverse_length(key[None], patch)[0, 0], (0, self.reach))
        self.places = torch.arange((self.rows + self.reach) * self.across, device=key.device)
        n = self.rows * self.across * self.strip * self.most
        self.single = key.new_zeros(n + 2 * self.reach * (self.strip * self.most + 1))
        slots = (self.rows + 3 * self.reach) * self.across
        self.beside = key.new_zeros(slots * self.line + 2 * self.reach * self.most)
        self.views: dict[tuple[int, ...], list[Tensor]] = {}
        self.found = key.new_empty((self.rows + self.reach) * self.across * (self.strip + self.reach) * self.most)

    def most_relevant(self) -> tuple[Tensor, Tensor]:
        """Return index and score, before it is divided by the picture's lengths, both (h, w)."""
        made: list[tuple[Tensor, Tensor]] = []
        kept = self.beside[self.reach * self.most : len(self.beside) - self.reach * self.most]
        kept = kept.view(-1, self.across * self.line)
        for top in range(0, self.h, self.rows):
            n = min(self.rows, self.h - top)
            last = top + n == self.h
            if last:
                kept[2 * self.reach + n : 3 * self.reach + n] = 0
            first, end = max(0, top - self.reach), self.h if last else top + n - self.reach
            best: tuple[Tensor, Tensor] | None = None
            for start in range(0, self.size[0], self.strip):
                self._add_beside(top, n, start)
                best = self._compare(first - top, (end - first) * self.across, start, best)
            if best is not None:
                made.append(best)
            for slot in range(2 * self.reach):
                kept[slot] = kept[n + slot]
        score, index = (torch.cat(parts).view(self.h, self.across)[:, : self.w] for parts in zip(*made, strict=True))
        return index, score

    def _add_beside(self, top: int, rows: int, start: int) -> None:
        """Compare some rows of features with a strip's, and keep the sums along rows."""
        end, before = min(start + self.strip, self.size[0]), self.reach * (self.strip * self.most + 1)
        n, m = rows * self.across, (end - start) * self.most
        (pairs,) = self._lines(self.single, before, n, m, m)
        left = self.left[top * self.across : top * self.across + n]
        torch.mm(left, self.right[:, start * self.most : end * self.most], out=pairs)
        slot = self.reach * self.most + 2 * self.reach * self.across * self.line + start * self.most
        (total,) = self._lines(self.beside, slot, n, m, self.line)
        _sum(self._lines(self.single, before - self.reach * (m + 1), n, m, m, m + 1), total)

    def _compare(
        self, first: int, n: int, start: int, best: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the best score (n,), and its index: the best before, or what the strip completes where that is more.

        first: the row of the picture that the n places begin with, counted from the block's first.
        """
        last = start + self.strip >= self.size[0]
        above, below = max(0, start - self.reach), self.size[0] if last else start + self.strip - self.reach
        if n <= 0 or below <= above:
            return best
        m = (below - above) * self.most
        slot = (first + self.reach) * self.across * self.line + above * self.most
        (found,) = self._lines(self.found, 0, n, m, m)
        _sum(self._lines(self.beside, slot, n, m, self.line, self.across * self.line + self.most), found)
        found *= self.scale[above:below].flatten()
        score, row = found.view(n, below - above, self.most)[..., : self.size[1]].amax(-1).max(-1)
        chosen = found.view(-1, self.most).index_select(0, row + self.places[:n] * (below - above))
        index = (row + above) * self.size[1] + chosen[:, : self.size[1]].argmax(-1)
        if best is None:
            return score, index
        larger = score > best[0]
        return torch.where(larger, score, best[0]), torch.where(larger, index, best[1])

    def _lines(self, numbers: Tensor, start: int, n: int, m: int, apart: int, way: int = 0) -> list[Tensor]:
        """Return n pieces of m numbers of a long line, each so far behind the one before; with a way, `patch` of these.

        Blocks ask for the same ones again and again, and making them takes time.
        """
        asked = (id(numbers), start, n, m, apart, way)
        if asked not in self.views:
            starts = [start + i * way for i in range(self.patch if way else 1)]
            self.views[asked] = [numbers.as_strided((n, m), (apart, 1), begin) for begin in starts]
        return self.views[asked]


def _even(whole: int, most: int) -> int:
    """Return how long pieces are, of at most so many but at least one, where all are about equally long."""
    return -(-whole // -(-whole // max(1, most)))


def _sum(parts: list[Tensor], out: Tensor) -> None:
    if len(parts) == 1:
        out.copy_(parts[0])
        return
    torch.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        out += part


def _cosines(query: Tensor, key: Tensor, index: Tensor, patch: int) -> Tensor:
    """Return the cosine (B, 1, h, w) of each patch with the one chosen for it, with gradients."""
    reach, width = patch // 2, key.shape[-1]
    h, w = index.shape[-2:]
    around = F.pad(query, (reach,) * 4)
    table = F.pad(key, (reach,) * 4).permute(0, 2, 3, 1)
    most = table.shape[2]
    rows = table.reshape(-1, key.shape[1])
    first = torch.arange(len(index), device=index.device)[:, None, None] * (table.shape[1] * most)
    place = index // width * most + index % width + first
    total = query.new_zeros(())
    for i in range(patch):
        for j in range(patch):
            chosen = rows.index_select(0, (place + i * most + j).flatten()).view(*index.shape, -1)
            total = total + (around[:, :, i : i + h, j : j + w].permute(0, 2, 3, 1) * chosen).sum(-1)
    length = _inverse_length(key, patch).reshape(len(key), -1).gather(1, index.flatten(1)).view(index.shape)
    return (total * length)[:, None] * _inverse_length(query, patch)


def _inverse_length(features: Tensor, patch: int) -> Tensor:
    """Return 1 / length of the patch around each place, (B, 1, h, w); 0 of a patch of zeros."""
    squares = features.square().sum(1, keepdim=True)
    squares = F.avg_pool2d(squares, patch, 1, patch // 2, divisor_override=1)
    some = squares > _EPSILON**2
    return torch.where(some, torch.where(some, squares, 1).rsqrt(), 0)
