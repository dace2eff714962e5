"""Enlarge a picture piece by piece, so that memory grows neither with the picture nor with the result.

An output depends on small pixels at most `radius` away. Cut the small picture into tiles, give the network each tile
with that many pixels around it, keep of its result what belongs to the tile: the same picture as in one piece, to
rounding. With fewer pixels around it, seams show where tiles meet.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.colour import check_picture
from course_lib.super_resolution.any_scale import AnyScale, Span, bicubic_window
from course_lib.upsampling.grids import Scale, as_fraction, check_length

MEMORY = 2**30
"""Bytes that the network's intermediate results for one tile may take."""

_STRIP = 2**27  # bytes of a strip of the result, and of the features that are kept for several of them
_BLOCK, _LARGE_BLOCK = 128, 1024  # small pixels, and pixels of the result, along the side of what is decoded at a time
_PROBE = 16  # side of the picture on which a network's memory is measured
_COPIES = 3  # a convolution holds its input, its result and copies of them in another order


class Tiles:
    """The rows of an enlarged picture, made tile by tile on demand; iterate over them from top to bottom.

    model: an `AnyScale`, or a network with whole numbers `scale` and `radius`. lr: (..., C, h, w) in [0, 1]; it may lie
    on another device than the network. size (H, W), scale: of the result, exactly one for an `AnyScale`; none is needed
    where the network has one scale only. tile: side in small pixels; None: as large as MEMORY allows. overlap: small
    pixels around a tile that the network sees too; None: the network's radius, with which tiles make the same picture
    as the whole. precision: torch.bfloat16 or torch.float16 for what autocast computes in them. done: called with the
    number of result pixels whenever some are finished. Iterating gives strips (..., C, rows, W) in the dtype and on the
    device of `lr`, computed without gradients. Raises TypeError or ValueError naming the argument, before anything is
    computed.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: Tensor,
        size: Sequence[int] | None = None,
        scale: Scale | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        precision: torch.dtype | None = None,
        done: Callable[[int], Any] | None = None,
    ) -> None:
        """See the class."""
        check_picture("lr", lr)
        self.model, self.lr, self.precision, self.done = model, lr, precision, done
        self.rows, self.columns = spans(model, lr.shape[-2:], size, scale)
        self.size = (self.rows.n_out, self.columns.n_out)
        self.weight = next(model.parameters())
        radius = int(model.radius)  # type: ignore[arg-type]
        self.least = _read_by_decoder(model) if isinstance(model, AnyScale) else 0
        self.overlap = radius if overlap is None else max(check_length("overlap", overlap, 0), self.least)
        self.exact = self.overlap >= radius
        sides = self._sides() if tile is None else (check_length("tile", tile),) * 2
        self.bands = _cuts(self.rows.n_out, -(-self.rows.n_in // sides[0]))
        self.parts = _cuts(self.columns.n_out, -(-self.columns.n_in // sides[1]))

    @property
    def cost(self) -> float:
        """How many times the arithmetic of the whole picture all tiles take together, because they overlap."""
        down, right = self._seen()
        return sum(down) / self.rows.n_in * sum(right) / self.columns.n_in

    @property
    def memory(self) -> int:
        """About how many bytes the network's intermediate results for the largest tile take at most."""
        down, right = self._seen()
        return max(down) * max(right) * self._bytes

    def _seen(self) -> list[list[int]]:
        """Return how many small pixels the network sees along each axis of the tiles."""
        axes = ((self.rows, self.bands), (self.columns, self.parts))
        return [[span.part(first, end, self.overlap).have for first, end in cuts] for span, cuts in axes]

    @functools.cached_property
    def _bytes(self) -> int:
        return max(1, math.prod(self.lr.shape[:-3]) * _bytes_per_pixel(self.model, self.lr.shape[-3]))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the strips."""
        row_bytes = 4 * math.prod(self.lr.shape[:-2]) * self.size[1]
        for first, end in self.bands:
            # a network for all scales is asked again for each strip of a tile, from the features that it has made
            strips = -(-(end - first) * row_bytes // _STRIP) if isinstance(self.model, AnyScale) else 1
            kept: dict[int, _Piece] = {}
            for top, bottom in _cuts(end - first, strips):
                made = []
                for k, (left, right) in enumerate(self.parts):
                    piece = kept.pop(k, None) or self._piece((first, end), (left, right))
                    if strips > 1:
                        kept[k] = piece
                    made.append(self._window(piece, (first + top, first + bottom), (left, right)))
                    if self.done is not None:
                        self.done((bottom - top) * (right - left))
                yield torch.cat(made, dim=-1)

    @torch.no_grad()
    def _piece(self, rows: tuple[int, int], columns: tuple[int, int]) -> _Piece:
        """Run the network on a tile and what is around it."""
        down, right = self.rows.part(*rows, self.overlap), self.columns.part(*columns, self.overlap)
        seen = _cut(self.lr, down, right).to(self.weight)
        with self._autocast():
            if isinstance(self.model, AnyScale):
                # of the features only what the decoder reads is worth its memory
                inner = (self.rows.part(*rows, self.least), self.columns.part(*columns, self.least))
                within = (_shifted(inner[0], down), _shifted(inner[1], right))
                features = _cut(self.model.features(seen), *within).clone(memory_format=torch.preserve_format)
                return _Piece(features, _cut(seen, *within).reshape(-1, 3, inner[0].have, inner[1].have), *inner)
            return _Piece(self.model(seen), seen, down, right)

    @torch.no_grad()
    def _window(self, piece: _Piece, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Return a window of the result out of a tile."""
        if not isinstance(self.model, AnyScale):
            factor = int(self.model.scale)  # type: ignore[arg-type]
            top, left = piece.down.origin * factor, piece.right.origin * factor
            return piece.made[..., rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left].to(self.lr)
        blocks = [
            torch.cat(
                [self._decoded(self.model, piece, row, column) for column in self._blocks(self.columns, columns)], -1
            )
            for row in self._blocks(self.rows, rows)
        ]
        out = torch.cat(blocks, dim=-2)
        return out.reshape(*self.lr.shape[:-2], *out.shape[-2:])

    def _blocks(self, span: Span, window: tuple[int, int]) -> Iterator[Span]:
        length = window[1] - window[0]
        for first, end in _cuts(length, max(math.ceil(length * span.step / _BLOCK), -(-length // _LARGE_BLOCK))):
            yield span.part(window[0] + first, window[0] + end, self.least)

    def _decoded(self, model: AnyScale, piece: _Piece, rows: Span, columns: Span) -> Tensor:
        within = (_shifted(rows, piece.down), _shifted(columns, piece.right))
        with self._autocast():
            sr = model.decode(_cut(piece.made, *within), rows, columns)
        if model.added:
            sr = bicubic_window(_cut(piece.seen, *within), rows, columns).add_(sr)
        return sr.to(self.lr)

    def _autocast(self) -> Any:
        return torch.autocast(self.weight.device.type, self.precision, enabled=self.precision is not None)

    def _sides(self) -> tuple[int, int]:
        """Return the height and width of a tile whose intermediate results fill MEMORY, or of the picture if less.

        Where the overlap takes most of that, the tile is as large as the overlap all the same, or it would take ages.
        """
        pixels = MEMORY // self._bytes
        height, width = self.rows.n_in, self.columns.n_in
        square = math.isqrt(pixels)
        least = max(self.overlap, _PROBE)
        # an axis that fits needs no overlap, which leaves more for the other
        tall = height if height <= square else max(pixels // min(width, square) - 2 * self.overlap, least)
        wide = width if width <= square else max(pixels // min(height, square) - 2 * self.overlap, least)
        if not isinstance(self.model, AnyScale):
            strip = 4 * math.prod(self.lr.shape[:-2]) * self.size[1] * int(self.model.scale)  # type: ignore[arg-type]
            tall = min(tall, max(_STRIP // strip, least))
        elif self.size[0] * self.size[1] > _STRIP:
            kept = 4 * math.prod(self.lr.shape[:-3]) * int(self.model.trunk.channels) * width  # type: ignore[arg-type]
            tall = min(tall, max(_STRIP // kept, least))
        return min(tall, height), min(wide, width)


class _Piece:
    """What the network made of a tile (features, or the result itself), the small pixels beside it, and their spans."""

    def __init__(self, made: Tensor, seen: Tensor, down: Span, right: Span) -> None:
        self.made, self.seen, self.down, self.right = made, seen, down, right


def tiled(
    model: nn.Module,
    lr: Tensor,
    size: Sequence[int] | None = None,
    scale: Scale | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    precision: torch.dtype | None = None,
    done: Callable[[int], Any] | None = None,
) -> Tensor:
    """Return the whole enlarged picture (..., C, H, W), made of tiles. Arguments and errors as of `Tiles`."""
    return torch.cat(list(Tiles(model, lr, size, scale, tile, overlap, precision, done)), dim=-2)


def spans(
    model: nn.Module, lr_size: Sequence[int], size: Sequence[int] | None = None, scale: Scale | None = None
) -> tuple[Span, Span]:
    """Return both axes of what a network makes of a small picture (h, w). Raises TypeError or ValueError.

    A network of one scale refuses another, and names its own.
    """
    if isinstance(model, AnyScale):
        return model.spans(lr_size, size, scale)
    own = int(model.scale)  # type: ignore[arg-type]
    height, width = (own * int(n) for n in lr_size)
    if scale is not None and as_fraction(scale) != own:
        raise ValueError(f"scale must be {own}, the only one this network was trained for; got {_shown(scale)}")
    if size is not None and tuple(size) != (height, width):
        raise ValueError(
            f"size must be {height} x {width}, because this network was trained for scale {own} only; got "
            f"{' x '.join(map(str, size))}"
        )
    return Span.whole(int(lr_size[0]), height), Span.whole(int(lr_size[1]), width)


def _shown(scale: Scale) -> str:
    exact = as_fraction(scale)
    return str(exact) if Fraction(str(float(exact))) != exact else f"{float(exact):g}"


def _read_by_decoder(model: AnyScale) -> int:
    """Return how many small pixels around its own an output reads, of features or of the picture."""
    reach = model.radius - int(model.trunk.radius)  # type: ignore[arg-type]
    return max(reach, 2) if model.added else reach


def _cuts(length: int, count: int) -> list[tuple[int, int]]:
    """Return `count` ranges, as even as can be, that together are 0..length - 1; none is empty."""
    count = max(1, min(count, length))
    edges = [k * length // count for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def _shifted(inner: Span, outer: Span) -> Span:
    """Return the inner piece, its origin counted from the outer's."""
    return replace(inner, origin=inner.origin - outer.origin)


def _cut(planes: Tensor, rows: Span, columns: Span) -> Tensor:
    return planes[..., rows.origin : rows.origin + rows.have, columns.origin : columns.origin + columns.have]


def _bytes_per_pixel(model: nn.Module, channels: int) -> int:
    """Return about how much memory a network takes at most for each pixel that it sees, measured on a small picture."""
    largest = 0

    def look(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal largest
        if not any(True for _ in module.children()):
            largest = max(largest, sum(t.numel() * t.element_size() for t in (*given, made)))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        weight = next(model.parameters())
        probe = torch.zeros(1, channels, _PROBE, _PROBE, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            if isinstance(model, AnyScale):
                model.features(probe)
            else:
                model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return _COPIES * largest // _PROBE**2
