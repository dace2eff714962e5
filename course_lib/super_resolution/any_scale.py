"""Networks for every scale: what Meta-SR and LIIF share (chapters 09 and 10).

A network of this kind reads the small picture once, at its own size, and is then asked for the colour of any place.
Places are counted in small pixels, as everywhere in the book: output i looks at (i + 1/2) step - 1/2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from course_lib.super_resolution.encoders import make_encoder
from course_lib.upsampling.grids import Scale, as_fraction, border_indices, check_length, split_coordinates
from course_lib.upsampling.kernels import cubic
from course_lib.upsampling.resize import MOST_NUMBERS, MOST_SIDE
from course_lib.upsampling.taps import Axis, dense_band

_BAND = 64


@dataclass(frozen=True)
class Span:
    """One axis of a window of the large picture, and of the piece of the small picture that is at hand for it.

    n_in, n_out: pixels of the whole small and the whole large picture. first, end: the window holds outputs first to
    end - 1. origin, have: the piece holds `have` small pixels from `origin` on. step: small pixels per output pixel.
    Raises TypeError or ValueError where these do not fit together.
    """

    n_in: int
    n_out: int
    first: int
    end: int
    origin: int
    have: int
    step: Fraction

    def __post_init__(self) -> None:
        """Check every field, by name."""
        for name, least in (("n_in", 1), ("n_out", 1), ("first", 0), ("end", 1), ("origin", 0), ("have", 1)):
            check_length(name, getattr(self, name), least)
        if not self.first < self.end <= self.n_out:
            raise ValueError(f"first < end <= n_out = {self.n_out} must hold, got first {self.first}, end {self.end}")
        if self.origin + self.have > self.n_in:
            raise ValueError(f"origin + have must be at most n_in = {self.n_in}, got {self.origin} + {self.have}")
        if not isinstance(self.step, Fraction) or self.step <= 0:
            raise ValueError(f"step must be a Fraction above 0, got {self.step!r}")

    @classmethod
    def whole(cls, n_in: int, n_out: int, step: Fraction | None = None) -> Span:
        """Return the whole axis; step: n_in / n_out if None. Raises as the class does."""
        n_in, n_out = check_length("n_in", n_in), check_length("n_out", n_out)
        return cls(n_in, n_out, 0, n_out, 0, n_in, Fraction(n_in, n_out) if step is None else step)

    def part(self, first: int, end: int, radius: int) -> Span:
        """Return outputs first to end - 1 with the piece they need: `radius` small pixels around those they lie in.

        Raises TypeError or ValueError for an empty window or one that leaves the large picture, or a negative radius.
        """
        check_length("radius", radius, 0)
        window = replace(self, first=first, end=end)
        near, far = (min(math.floor((i + Fraction(1, 2)) * self.step), self.n_in - 1) for i in (first, end - 1))
        origin = max(near - radius, 0)
        return replace(window, origin=origin, have=min(far + radius + 1, self.n_in) - origin)

    @property
    def length(self) -> int:
        """How many outputs the window holds."""
        return self.end - self.first

    @property
    def axis(self) -> Axis:
        """The bicubic resampling of this axis: a = -1/2, symmetric border, never widened."""
        scale = None if self.step == Fraction(self.n_in, self.n_out) else 1 / self.step
        return Axis(self.n_in, self.n_out, scale, "bicubic", -0.5, False, "half_pixel", "symmetric")

    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Return where the window's outputs look in the whole small picture, exactly, as (floor, fraction).

        int64 and float64 in [0, 1), both (end - first,), on the CPU.
        """
        floor, fraction = split_coordinates(self.n_in, self.n_out, 1 / self.step)
        return floor[self.first : self.end], fraction[self.first : self.end]

    def here(self, low: int, high: int) -> slice:
        """Return where small pixels low to high - 1 of the whole stand in the piece. Raises ValueError if outside."""
        if low < self.origin or high > self.origin + self.have:
            raise ValueError(
                f"the piece must hold small pixels {low} to {high - 1} for outputs {self.first} to {self.end - 1}, "
                f"got {self.origin} to {self.origin + self.have - 1}"
            )
        return slice(low - self.origin, high - self.origin)


class AnyScale(nn.Module, ABC):
    """Enlarge pictures by any real factor: an encoder at the small size, and a decoder asked place by place.

    encoder: a name in `encoders.ENCODERS`. added: the result is added to the bicubic enlargement (a = -1/2, symmetric
    border), so that only what bicubic misses is learned; the papers' networks make the whole picture.
    """

    def __init__(self, encoder: str, added: bool = False) -> None:
        """Make the encoder. Raises ValueError for an unknown one."""
        super().__init__()
        self.trunk = make_encoder(encoder)
        self.encoder, self.added = encoder, added

    @property
    @abstractmethod
    def radius(self) -> int:
        """How many small pixels away from the one it lies in an output still depends on."""

    @abstractmethod
    def output_size(self, lr_size: Sequence[int], scale: Scale) -> tuple[int, int]:
        """Return (H, W) of the result for a small picture (h, w)."""

    @abstractmethod
    def decode(self, features: Tensor, rows: Span, columns: Span) -> Tensor:
        """Return the window (B, 3, n, m) of features (B, C, h, w) at hand, without what `added` adds."""

    @abstractmethod
    def query(self, features: Tensor, coordinates: Tensor, cells: Tensor) -> Tensor:
        """Return colours (B, Q, 3) at coordinates (B, Q, 2) for pixels of size cells (B, Q, 2), both (y, x).

        The picture is [-1, 1] x [-1, 1], pixel i of n has its centre at -1 + (2 i + 1) / n and the size 2 / n. Without
        what `added` adds.
        """

    def prepare(self, lr: Tensor) -> Tensor:
        """Return pictures in [0, 1] in the encoder's own range, here [-1, 1]."""
        return (lr - 0.5) / 0.5

    def steps(self, lr_size: Sequence[int], size: Sequence[int], scale: Scale | None) -> tuple[Fraction, Fraction]:
        """Return how far apart two outputs look, vertically and horizontally; `scale` is None where a size was asked.

        Here small / large: the picture's edges meet.
        """
        (h, w), (height, width) = lr_size, size
        return Fraction(h, height), Fraction(w, width)

    def spans(
        self, lr_size: Sequence[int], size: Sequence[int] | None = None, scale: Scale | None = None
    ) -> tuple[Span, Span]:
        """Return both axes, whole, of enlarging (h, w) to a size or by a scale, of which exactly one must be given.

        Raises TypeError or ValueError naming the argument.
        """
        if (scale is None) == (size is None):
            raise ValueError(f"give exactly one of size and scale, got size={size!r} and scale={scale!r}")
        h, w = _pair("lr_size", lr_size)
        if scale is not None:
            scale = as_fraction(scale)
            size = self.output_size((h, w), scale)
            if min(size) < 1:
                raise ValueError(f"scale must leave at least one pixel, got {float(scale):g} for {h} x {w} pixels")
        assert size is not None
        height, width = _pair("size", size)
        down, right = self.steps((h, w), (height, width), scale)
        return Span.whole(h, height, down), Span.whole(w, width, right)

    def features(self, lr: Tensor) -> Tensor:
        """Return the encoder's features (B, C, h, w) of pictures (..., 3, h, w) in [0, 1].

        Raises TypeError or ValueError for another shape.
        """
        check_pictures(lr)
        features: Tensor = self.trunk(self.prepare(lr.reshape(-1, *lr.shape[-3:])))
        return features

    def forward(self, lr: Tensor, size: Sequence[int] | None = None, scale: Scale | None = None) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, H, W); the result may leave [0, 1] a little.

        Exactly one of size (H, W), and scale, a number for both axes. Raises TypeError or ValueError naming the
        argument.
        """
        check_pictures(lr)
        rows, columns = self.spans(lr.shape[-2:], size, scale)
        if (
            max(rows.n_out, columns.n_out) > MOST_SIDE
            or lr[..., 0, 0].numel() * rows.n_out * columns.n_out > MOST_NUMBERS
        ):
            raise ValueError(
                f"size or scale must leave sides of at most {MOST_SIDE:,} pixels and {MOST_NUMBERS:,} numbers, got "
                f"{tuple(lr.shape)} -> {rows.n_out} x {columns.n_out}; `course upscale` works by tiles"
            )
        return self.render(lr, rows, columns)

    def render(self, lr: Tensor, rows: Span, columns: Span) -> Tensor:
        """Return a window (..., 3, n, m) of the enlarged picture, made from a piece (..., 3, h, w) of the small one.

        It is the same window of `forward` on the whole picture where the piece is what `Span.part` says for `radius`.
        Its dtype is that of `lr`. Raises TypeError or ValueError for another shape, or a piece that lacks what is read.
        """
        check_pictures(lr)
        if tuple(lr.shape[-2:]) != (rows.have, columns.have):
            raise ValueError(
                f"lr must be (..., 3, {rows.have}, {columns.have}) as rows and columns say, got {tuple(lr.shape)}"
            )
        if not lr.numel():  # a batch of no pictures
            return lr.new_empty(*lr.shape[:-2], rows.length, columns.length)
        below = bicubic_window(lr.reshape(-1, *lr.shape[-3:]), rows, columns) if self.added else None
        sr = self.decode(self.features(lr), rows, columns)
        sr = sr if below is None else below.add_(sr)
        return sr.reshape(*lr.shape[:-2], *sr.shape[-2:]).to(lr.dtype)

    def predict(self, lr: Tensor, coordinates: Tensor, cells: Tensor) -> Tensor:
        """Return colours (B, Q, 3) of pictures (B, 3, h, w) at single places: `query`, and what `added` adds.

        float32 for half precision. Raises TypeError or ValueError for other shapes.
        """
        check_pictures(lr)
        if lr.dim() != 4:
            raise ValueError(f"lr must be (B, 3, h, w), one row of coordinates for each picture, got {tuple(lr.shape)}")
        check_places(len(lr), coordinates, cells)
        rgb = self.query(self.features(lr), coordinates, cells)
        return rgb + bicubic_at(lr, coordinates) if self.added else rgb


def check_pictures(lr: Tensor) -> None:
    """Raise TypeError or ValueError, naming what came, unless `lr` is a float tensor (..., 3, h, w)."""
    if not isinstance(lr, Tensor):
        raise TypeError(f"lr must be a torch.Tensor, got {type(lr).__name__}")
    if lr.dim() < 3 or lr.shape[-3] != 3 or min(lr.shape[-2:]) < 1:
        raise ValueError(f"lr must be (..., 3, h, w) with h, w >= 1, got {tuple(lr.shape)}")
    if not lr.is_floating_point():
        raise TypeError(f"lr must be floating point, values in [0, 1], got {lr.dtype}")


def check_places(batch: int, coordinates: Tensor, cells: Tensor) -> None:
    """Raise ValueError unless coordinates and cells are both (batch, Q, 2)."""
    if coordinates.dim() != 3 or coordinates.shape[::2] != (batch, 2) or cells.shape != coordinates.shape:
        raise ValueError(
            f"coordinates and cells must be ({batch}, Q, 2), got {tuple(coordinates.shape)} and {tuple(cells.shape)}"
        )


def bicubic_window(picture: Tensor, rows: Span, columns: Span) -> Tensor:
    """Return a window (..., n, m) of the bicubic enlargement from a piece (..., h, w); half precision becomes float32.

    Raises ValueError where the piece lacks a pixel that is read.
    """
    work = _at_least_float32(picture)
    with torch.autocast(picture.device.type, enabled=False):
        wide = torch.cat([work[..., here] @ weights.T for here, weights in _bands(columns, work)], dim=-1)
        return torch.cat([weights @ wide[..., here, :] for here, weights in _bands(rows, work)], dim=-2)


def _bands(span: Span, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for first in range(span.first, span.end, _BAND):
        end = min(first + _BAND, span.end)
        low, high, weights = dense_band(span.axis, first, end, like.dtype, like.device)
        yield span.here(low, high), weights


def bicubic_at(picture: Tensor, coordinates: Tensor) -> Tensor:
    """Return colours (B, Q, C) of the bicubic picture through (B, C, h, w) at coordinates (B, Q, 2) as in `query`.

    The same curve as in `bicubic_window`; half precision becomes float32.
    """
    work = _at_least_float32(picture)
    places, weights = [], []
    for axis, n in enumerate(work.shape[-2:]):
        x = (coordinates[..., axis].to(work.dtype) + 1) * (n / 2) - 0.5
        first = x.floor()
        around = torch.arange(-1, 3, device=x.device)
        places.append(border_indices(first.long()[..., None] + around, n, "symmetric"))
        weights.append(cubic(-0.5)((x - first)[..., None] - around))
    (down, right), (by_row, by_column) = places, weights
    index = (down[..., :, None] * work.shape[-1] + right[..., None, :]).flatten(1)  # (B, Q * 16)
    read = work.flatten(2).gather(2, index[:, None].expand(-1, work.shape[1], -1))
    read = read.reshape(*work.shape[:2], coordinates.shape[1], 4, 4)  # (B, C, Q, 4, 4)
    colours: Tensor = ((read * by_column[:, None, :, None, :]).sum(-1) * by_row[:, None]).sum(-1)
    return colours.mT


def _at_least_float32(picture: Tensor) -> Tensor:
    return picture.float() if picture.dtype in (torch.float16, torch.bfloat16) else picture


def _pair(name: str, value: Sequence[int]) -> tuple[int, int]:
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name} must be (height, width), got {value!r}")
    return check_length(name, value[0]), check_length(name, value[1])
