"""Which patch of a reference looks most like each patch of a picture, and its textures in that place (chapter 11).

The slow form that follows the paper's equations is `plain.ttsr`. Here no patch and no matrix of all pairs is ever made:

- The inner product of two patches is the sum of nine inner products of single features, those of the places that lie
  alike in both. The features are compared once, and every sum of patches picks its nine along a diagonal: three
  neighbours along the rows first, then three of these sums along the columns. That is done for some rows of the picture
  at a time, and only the largest relevance of each place is kept.
- A result of the transfer is the sum of nine values; they are gathered where they lie.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-12  # a patch that is shorter counts as zeros
_NUMBERS_CPU, _NUMBERS_GPU = 2**19, 2**26  # relevances held at once


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
    with torch.autocast(query.device.type, enabled=False):
        query, key = query.to(kind), key.to(kind)
        with torch.no_grad():
            index = torch.stack([_most_relevant(q, k, patch, rows) for q, k in zip(query, key, strict=True)])
        return index, _cosines(query, key, index, patch)


def transfer(value: Tensor, index: Tensor, step: int = 1) -> Tensor:
    """Return the reference's textures, laid where the picture has the patches that they were found for.

    value (B, C, step h', step w'): features of the reference, step times as fine as those searched; index (B, h, w):
    of `search`. Returns (B, C, step h, step w): patches of 3 step x 3 step overlap, and every sum is divided by 9, also
    at the border, where fewer meet (as in the official code). With gradient to value.

    Raises TypeError or ValueError for another shape or type, and on a CPU for an index that is not in the reference.
    """
    size = _check_transfer(value, index, step)
    cells = F.pad(F.pixel_unshuffle(value, step), (1, 1, 1, 1))
    table = cells.permute(0, 2, 3, 1).reshape(-1, cells.shape[1])
    width = size[1] + 2
    first = torch.arange(len(index), device=index.device)[:, None, None] * (width * (size[0] + 2))
    place = (index // size[1] + 1) * width + index % size[1] + 1
    place = F.pad(place, (1, 1, 1, 1), value=-2 * width)  # no patch is laid from outside the picture
    h, w = index.shape[-2:]
    total = torch.zeros((), device=value.device, dtype=value.dtype)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            here = place[:, 1 + i : 1 + i + h, 1 + j : 1 + j + w] - (i * width + j)
            total = total + table.index_select(0, (here.clamp(min=0) + first).flatten())
    return F.pixel_shuffle((total / 9).reshape(len(index), h, w, -1).permute(0, 3, 1, 2), step)


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
    if patch < 1 or patch % 2 == 0:
        raise ValueError(f"patch must be odd and at least 1, got {patch}")
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")


def _check_transfer(value: Tensor, index: Tensor, step: int) -> tuple[int, int]:
    """Return the size (h', w') of the reference in places."""
    if not value.is_floating_point():
        raise TypeError(f"value must be floating point, got {value.dtype}")
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    if value.dim() != 4 or value.shape[-2] % step or value.shape[-1] % step or 0 in value.shape:
        raise ValueError(f"value must be (B, C, {step} h', {step} w'), got {tuple(value.shape)}")
    if index.dim() != 3 or len(index) != len(value):
        raise ValueError(f"index must be ({len(value)}, h, w), got {tuple(index.shape)}")
    size = value.shape[-2] // step, value.shape[-1] // step
    if (
        index.device.type == "cpu"
        and index.numel()
        and not 0 <= int(index.min()) <= int(index.max()) < size[0] * size[1]
    ):
        raise ValueError(f"index must be in [0, {size[0] * size[1]}), got {int(index.min())} to {int(index.max())}")
    return size


def _most_relevant(query: Tensor, key: Tensor, patch: int, rows: int | None) -> Tensor:
    """Return the index (h, w) for one picture, query (C, h, w), and its reference, key (C, h', w').

    Pairs lie in one long line: row and column of the picture, row and column of the reference. There are `reach` zeros
    behind the columns of both and behind the rows of the reference, so that a step along a diagonal is the same way
    along the line wherever it begins, and one that leaves the picture or the reference ends on a zero.
    """
    reach, (channels, h, w), (height, width) = patch // 2, query.shape, key.shape[-2:]
    across, most = w + reach, width + reach
    line = (height + reach) * most  # pairs of one place of the picture
    row = across * line  # and of one row
    count = min(h, rows or max(1, (_NUMBERS_CPU if query.device.type == "cpu" else _NUMBERS_GPU) // row))
    left = F.pad(query, (0, reach)).reshape(channels, h * across)
    right = F.pad(key, (0, reach)).reshape(channels, height * most)
    scale = F.pad(_inverse_length(key[None], patch)[0, 0], (0, reach, 0, reach)).flatten()
    single = key.new_zeros(count * row + 2 * reach * (line + 1))
    beside = key.new_zeros((count + 3 * reach) * row + 2 * reach * most)
    whole = key.new_empty((count + reach) * row)
    index = torch.empty(h, w, device=key.device, dtype=torch.int64)
    for top in range(0, h, count):
        n = min(count, h - top)
        pairs = single[reach * (line + 1) :][: n * row].view(n * across, line)[:, : height * most]
        torch.mm(left[:, top * across : (top + n) * across].T, right, out=pairs)
        after = reach * most + 2 * reach * row  # the rows before are kept from the last block
        _sum(single, line + 1, patch, beside[after : after + n * row])
        last = top + n == h
        if last:
            beside[after + n * row : after + (n + reach) * row] = 0
        first, end = max(0, top - reach), h if last else top + n - reach
        if end > first:
            found = whole[: (end - first) * row]
            _sum(beside[(first - top + reach) * row :], row + most, patch, found)
            index[first:end] = _largest(found.view(end - first, across, line), scale, w, (height, width))
        kept = reach * most
        beside[kept : kept + 2 * reach * row] = beside[kept + n * row : kept + (n + 2 * reach) * row].clone()
    return index


def _sum(line: Tensor, way: int, count: int, out: Tensor) -> None:
    """Write into out, at each place, the sum of `count` numbers of a line, each so far behind the one before."""
    parts = [line[i * way : i * way + len(out)] for i in range(count)]
    if count == 1:
        out.copy_(parts[0])
        return
    torch.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        out += part


def _largest(inner: Tensor, scale: Tensor, w: int, size: tuple[int, int]) -> Tensor:
    """Return which relevance is the largest, the first of equal ones: (n, w), of inner products (n, across, line)."""
    inner *= scale
    reach = inner.shape[1] - w
    table = inner.view(*inner.shape[:2], size[0] + reach, -1)[:, :w, : size[0], : size[1]]
    row = table.amax(-1).argmax(-1)[..., None]
    column = table.take_along_dim(row[..., None], 2).argmax(-1)
    return (row * size[1] + column)[..., 0]


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
