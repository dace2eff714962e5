"""Meta-Upscale: filters that a small network predicts for every place of an output pixel (chapter 09).

Output i of a row lies in small pixel i' = floor(i / r), at the offset i / r - i'. For r = p / q in lowest terms the
offset depends on i mod p alone: there are p different ones along an axis however large the picture is. All of it is
counted with integers; in floating point some outputs fall into the wrong small pixel.

Two ways to the result, both exact:

- by class: filters are predicted once for each of the p x p classes. The small pixels whose index leaves the same
  remainder by q own the same classes: one convolution with stride q makes all that they own.
- re-associated: with h = relu(W1 v + b1) for the place v of an output, and W2, b2 the last layer, the output is
  sum(f * (W2 h + b2)) = h . (W2^T f) + b2 . f. What stands in the bracket belongs to the small pixel and is one
  convolution to 3 (hidden + 1) channels; every output takes the row of its small pixel times its own h.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.kept import Kept
from course_lib.upsampling.grids import Scale, as_fraction, check_length

_BLOCK = 2**20  # numbers made at once in the re-associated form
_GATHER = 16  # multiplications of a convolution that last as long as one with a gathered row


def projection(n_in: int, n_out: int, scale: Scale) -> tuple[list[int], list[Fraction]]:
    """Return the small pixel floor(i / r) of each output i of an axis, and the offset i / r - floor(i / r), exactly.

    n_in, n_out: pixels of the small and the large axis. scale: r >= 1. Raises TypeError or ValueError, also where the
    last output would lie outside the small picture. Hu et al. 2019, equation 3.
    """
    r = check_scale(scale)
    n_in, n_out = check_length("n_in", n_in), check_length("n_out", n_out)
    if (n_out - 1) / r >= n_in:
        raise ValueError(f"n_out must be at most {math.ceil(r * n_in)} for {n_in} pixels at this scale, got {n_out}")
    index = [math.floor(i / r) for i in range(n_out)]
    return index, [i / r - small for i, small in enumerate(index)]


def residues(scale: Scale) -> list[range]:
    """Return, for r = p / q and each remainder a = i' mod q of a small pixel, the classes i mod p of outputs it owns.

    r = 3/2: [0..1], [2..2], the pattern 2, 1, 2, 1. All p classes occur once. Raises TypeError or ValueError as
    `check_scale`.
    """
    r = check_scale(scale)
    edges = [math.ceil(a * r) for a in range(r.denominator + 1)]
    return [range(first, end) for first, end in itertools.pairwise(edges)]


def check_scale(scale: Scale) -> Fraction:
    """Return a scale as a fraction. Raises TypeError or ValueError unless it is a number of at least 1."""
    r = as_fraction(scale)
    if r < 1:
        raise ValueError(f"scale must be at least 1, Meta-Upscale does not make pictures smaller; got {float(r):g}")
    return r


class FilterNetwork(nn.Module):
    """The weight prediction network: from the place of an output to its filters (Hu et al. 2019, equation 6).

    channels: of the features (C). width: of the hidden layer (K). Linear(3, K), ReLU, Linear(K, 27 C). In eval mode and
    without gradients the filters of the last whole scale are kept, see `kept.Kept` for when they are made anew.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Make the two layers, with PyTorch's own random weights."""
        super().__init__()
        self.channels, self.width = channels, width
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 27 * channels)
        self.kept = Kept()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.kept.forget()  # moved to another device or dtype: old weights are not held
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def forward(self, v: Tensor) -> Tensor:
        """Return filters (..., 27 C) for v (..., 3) = (1 / r, offset down, offset right).

        27 C is C channels x 3 rows x 3 columns x 3 colours, the colour varying fastest, as in the official code.
        """
        filters: Tensor = self.last(self.first(v).relu())
        return filters

    def hidden(self, scale: float | Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Return the hidden layer relu(W1 v + b1), (..., K), where rows and columns of outputs cross.

        scale: r. down, right: offsets in [0, 1), of shapes that broadcast; their dtype is the result's. Written out as
        products of numbers, which autocast leaves as they are: v is too fine for half precision.
        """
        blur, by_row, by_column = self.first.weight.to(down.dtype).unbind(1)
        start = self.first.bias.to(down.dtype) + blur / (scale[..., None] if isinstance(scale, Tensor) else scale)
        return ((start + down[..., None] * by_row) + right[..., None] * by_column).relu_()

    def kernels(self, hidden: Tensor) -> Tensor:
        """Return the filters of hidden layers (..., K) as kernels of convolutions: (3, ..., C, 3, 3)."""
        filters: Tensor = self.last(hidden.to(self.last.weight.dtype))
        return filters.view(*hidden.shape[:-1], self.channels, 3, 3, 3).movedim(-1, 0)

    def shuffled(self, r: int, features: Tensor) -> Tensor:
        """Return the convolution (3 r^2, C, 3, 3) that a whole scale r takes, in the order of a pixel shuffle."""

        def make() -> Tensor:
            offsets = _tensor([i / r for i in range(r)], features)
            return self.kernels(self.hidden(r, offsets[:, None], offsets)).flatten(0, 2)

        layers = self.first, self.last
        if self.training or any(type(a) is not nn.Linear or a._forward_hooks or a._forward_pre_hooks for a in layers):
            return make()  # these layers may depend on more than their parameters
        device = features.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        parameters = [self.first.weight, self.first.bias, self.last.weight, self.last.bias]
        return self.kept.get(parameters, (r, features.dtype == torch.float64, features.device, half), make)

    def by_colour(self) -> tuple[Tensor, Tensor]:
        """Return the last layer's weight (3, 3, 3, C, K) and bias (3, 3, 3, C): colour, row, column, channel."""
        weight = self.last.weight.view(self.channels, 3, 3, 3, self.width)
        return weight.permute(3, 1, 2, 0, 4), self.last.bias.view(self.channels, 3, 3, 3).permute(3, 1, 2, 0)

    def code_kernel(self, device: torch.device) -> Tensor:
        """Return the convolution (3 (K + 1), C, 3, 3) that makes codes of features: W2^T f, and b2 . f behind it."""
        weight, bias = self.by_colour()
        joined = torch.cat([weight, bias[..., None]], -1)  # (3, 3, 3, C, K + 1)
        kernel = joined.permute(0, 4, 3, 1, 2).flatten(0, 1)
        # on a CPU in the order of memory that makes a pixel's numbers lie side by side
        return kernel.contiguous(memory_format=torch.channels_last) if device.type == "cpu" else kernel

    def codes(self, features: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
        """Return what `code_kernel` makes of the 3x3 features around every small pixel: (B, h, w, 3, K + 1).

        features: (B, C, h + 2, w + 2), or (B, C, h, w) with padding=1, which is with zeros.
        """
        codes = F.conv2d(features, kernel, padding=padding).permute(0, 2, 3, 1)
        return codes.reshape(*codes.shape[:3], 3, self.width + 1)


def upscale(features: Tensor, net: FilterNetwork, rows: Span, columns: Span) -> Tensor:
    """Return the window (B, 3, n, m) of features (B, C, h, w) at hand, by the form that takes fewer multiplications.

    Zeros outside the small picture. Differentiable. Two different steps, those of a size that was rounded, are taken by
    the re-associated form. Raises ValueError where features are not those of the spans, a step is above 1, or the piece
    lacks what is read. Hu et al. 2019, equations 1-6.
    """
    if tuple(features.shape[1:]) != (net.channels, rows.have, columns.have):
        raise ValueError(
            f"features must be (B, {net.channels}, {rows.have}, {columns.have}), got {tuple(features.shape)}"
        )
    if max(rows.step, columns.step) > 1:
        raise ValueError(f"rows and columns must have steps of at most 1, got {rows.step} and {columns.step}")
    for span in (rows, columns):
        low, high = owners(span)
        if high > span.n_in:
            raise ValueError(f"outputs must lie in small pixels 0 to {span.n_in - 1}, got some in {high - 1}")
        span.here(max(low - 1, 0), min(high + 1, span.n_in))
    by_class, reassociated = costs(net, len(features), rows, columns)
    if rows.step != columns.step or by_class > reassociated:
        return upscale_reassociated(features, net, rows, columns)
    return (upscale_shuffled if rows.step.numerator == 1 else upscale_by_class)(features, net, rows, columns)


def costs(net: FilterNetwork, batch: int, rows: Span, columns: Span) -> tuple[int, int]:
    """Return the multiplications of both forms, by class and re-associated.

    The slower product with gathered rows counts as the multiplications of a convolution that last as long.
    """
    p, q = rows.step.denominator, rows.step.numerator
    area = math.prod((end - first) * p for first, end in (blocks(rows), blocks(columns)))
    (top, bottom), (left, right) = owners(rows), owners(columns)
    by_class = 27 * net.channels * (p * q * math.ceil(p / q) * net.width + batch * area)
    each = 9 * net.channels * (bottom - top) * (right - left) + _GATHER * rows.length * columns.length
    return by_class, batch * 3 * (net.width + 1) * each


def owners(span: Span) -> tuple[int, int]:
    """Return the first small pixel that a window's outputs lie in, and one more than the last."""
    p, q = span.step.denominator, span.step.numerator
    return span.first * q // p, (span.end - 1) * q // p + 1


def blocks(span: Span) -> tuple[int, int]:
    """Return the first block of q small pixels and p outputs that a window touches, and one more than the last."""
    p = span.step.denominator
    return span.first // p, (span.end - 1) // p + 1


def upscale_shuffled(features: Tensor, net: FilterNetwork, rows: Span, columns: Span) -> Tensor:
    """Return what `upscale` does for a whole r: one convolution to 3 r^2 channels, and a shuffle, as chapter 06's."""
    r = rows.step.denominator
    (top, bottom), (left, right) = owners(rows), owners(columns)
    around = (*_margins(columns, left, right), *_margins(rows, top, bottom))
    if around == (1, 1, 1, 1):  # the convolution pads, and nothing is copied
        small = F.conv2d(features, net.shuffled(r, features), padding=1)
    else:
        small = F.conv2d(F.pad(features, around), net.shuffled(r, features))
    height, width = small.shape[-2:]
    parts = small.view(len(small), 3, r, r, height, width).permute(0, 1, 4, 2, 5, 3)  # a pixel shuffle, in one copy
    large = parts.reshape(len(small), 3, height * r, width * r)
    i, j = rows.first - top * r, columns.first - left * r
    return large[..., i : i + rows.length, j : j + columns.length]


def upscale_by_class(features: Tensor, net: FilterNetwork, rows: Span, columns: Span) -> Tensor:
    """Return what `upscale` does, with filters predicted once for each class of outputs.

    For each remainder of small rows by q, and all remainders of columns at once: a convolution with stride q, written
    as a product of filters and patches.
    """
    p, q = rows.step.denominator, rows.step.numerator
    (top, bottom), (left, right) = blocks(rows), blocks(columns)
    around = (*_margins(columns, left * q, right * q), *_margins(rows, top * q, bottom * q))
    padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, *around))  # (B, small rows, small columns, C)
    owned, offsets = residues(Fraction(p, q)), [i * q % p / p for i in range(p)]
    most = math.ceil(p / q)  # a small column owns so many outputs, or one fewer, for which one is made and passed over
    across = _tensor([[offsets[min(own.start + k, p - 1)] for k in range(most)] for own in owned], features)
    weight, bias = (part.flatten(0, 3) for part in net.by_colour())
    lines = []
    for a, down in enumerate(owned):
        hidden = net.hidden(
            p / q, _tensor(offsets[down.start : down.stop], features)[:, None], across[:, None]
        )  # (q, n, most, K)
        filters = F.linear(hidden.to(weight.dtype), weight, bias).reshape(q, -1, 9 * net.channels)  # (q, n most 3, 9 C)
        lines.append(_strided(padded[:, a : a + (bottom - top - 1) * q + 3], filters, q, (len(down), most)))
    slots = [b * most + k for b, own in enumerate(owned) for k in range(len(own))]
    picked = [j // p * q * most + slots[j % p] for j in range(columns.first - left * p, columns.end - left * p)]
    large = torch.cat(lines, 3).flatten(2, 3)[:, :, rows.first - top * p : rows.end - top * p]
    return large.index_select(3, torch.tensor(picked, device=features.device))


def _strided(strip: Tensor, filters: Tensor, q: int, owned: tuple[int, int]) -> Tensor:
    """Return every q-th row of the convolution of (B, rows, columns, C), column x with filters x mod q.

    filters: (q, n m 3, 9 C). owned: n, m. Returns (B, 3, blocks down, n, blocks across * q * m). No more than some rows
    are worked on at once.
    """
    n, m = owned
    width = strip.shape[2] - 2
    around = strip.unfold(1, 3, q).unfold(2, 3, 1)  # (B, blocks, width, C, 3, 3), a view
    around = around.reshape(*around.shape[:2], width // q, q, *around.shape[3:]).permute(
        3, 0, 1, 2, 5, 6, 4
    )  # (q, B, blocks, blocks, 3, 3, C)
    step = max(1, 4 * _BLOCK // (filters.shape[2] * len(strip) * width))
    lines = []
    for part in torch.split(around, step, 2):
        outputs = part.reshape(q, -1, filters.shape[2]) @ filters.mT.to(part.dtype)
        lines.append(outputs.reshape(q, *part.shape[1:4], n, m, 3).permute(1, 6, 2, 4, 3, 0, 5).flatten(4))
    return torch.cat(lines, 2)


def upscale_reassociated(features: Tensor, net: FilterNetwork, rows: Span, columns: Span) -> Tensor:
    """Return what `upscale` does, in the re-associated form: one row of small pixels after the other.

    Of two different steps the filters are told the smaller one, the larger r.
    """
    (top, bottom), (left, right) = owners(rows), owners(columns)
    padded = F.pad(features, _margins(columns, left, right) + _margins(rows, top, bottom))
    (_, down), (small, across) = (_places(span, features) for span in (rows, columns))
    index, scale = (small - left).to(features.device), float(1 / min(rows.step, columns.step))
    lines = []
    for y, codes in enumerate(_code_lines(padded, net), start=top):
        first, end = (min(max(math.ceil(at / rows.step) - rows.first, 0), rows.length) for at in (y, y + 1))
        lines.append(_line(codes, net, scale, down[first:end], across, index))
    return torch.cat(lines, 2)


def _code_lines(padded: Tensor, net: FilterNetwork) -> Iterator[Tensor]:
    """Yield the codes (B, w, 3, K + 1) of each row of small pixels; some rows are made at once."""
    height, kernel = padded.shape[-2] - 2, net.code_kernel(padded.device)
    band = max(1, _BLOCK // (3 * (net.width + 1) * len(padded) * padded.shape[-1]))
    for y in range(0, height, band):
        yield from net.codes(padded[..., y : min(y + band, height) + 2, :], kernel).unbind(1)


def _line(codes: Tensor, net: FilterNetwork, scale: float, down: Tensor, across: Tensor, index: Tensor) -> Tensor:
    """Return the outputs (B, 3, n, m) that lie in one row of small pixels; index: the small pixel of each column."""
    columns = max(1, _BLOCK // (codes.shape[-1] * (3 * len(codes) + len(down))))
    parts = []
    for j in range(0, len(index), columns):
        here = slice(j, j + columns)
        hidden = F.pad(net.hidden(scale, down, across[here, None]), (0, 1), value=1.0)  # (m, n, K + 1)
        outputs = hidden.to(codes.dtype) @ codes.index_select(1, index[here]).mT  # (B, m, n, 3)
        parts.append(outputs.permute(0, 3, 2, 1))
    return torch.cat(parts, 3)


def _margins(span: Span, low: int, high: int) -> tuple[int, int]:
    """Return what pads the piece at hand, or cuts it where negative, to small pixels low - 1 to high."""
    return span.origin - (low - 1), high + 1 - (span.origin + span.have)


def _places(span: Span, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return small pixel (int64, on the CPU) and offset of each output of a window, from integers."""
    slope, denominator = span.step.numerator, span.step.denominator
    numerators = [i * slope for i in range(span.first, span.end)]
    index = torch.tensor([numerator // denominator for numerator in numerators])
    return index, _tensor([numerator % denominator / denominator for numerator in numerators], features)


def _tensor(values: Sequence[float] | Sequence[Sequence[float]], features: Tensor) -> Tensor:
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    return torch.tensor(values, dtype=dtype, device=features.device)
