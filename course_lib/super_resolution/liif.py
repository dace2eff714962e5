"""LIIF: a picture as a function of place, made of local codes and one small network (chapter 10).

The slow form that follows the paper's equations is `plain.liif`. Here the same function is computed with less:

- The first layer is linear in what is put side by side for it. What it makes of the 3x3 codes around a place is one
  convolution at the small size, and every place picks its row of the result; no row of 9 C + 4 numbers is ever made.
- A blend of four predictions weighs 1 - f and f along each axis, f being the place between two codes: the areas of
  equation 4, and the same numbers where the areas are all zero and their quotient is not defined.
- A block of places goes through all layers while it is in the processor's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.super_resolution.any_scale import AnyScale, Span
from course_lib.upsampling.grids import Scale, as_fraction, check_length

_NUMBERS_CPU, _NUMBERS_GPU = 2**19, 2**25  # of one layer for one block; on a CPU two megabytes for each thread
_MOST_NUMBERS_CPU = 2**22  # however many threads there are: two such pieces of memory are held


@dataclass(frozen=True)
class Neighbours:
    """The codes that places along one axis ask: two with the local ensemble, else the nearest one.

    code: which, int64 (k, n), in the whole small picture; the outermost code answers for those beyond it. place: where
    the place is, seen from that code, in half small pixels, float (k, n), in [-2, 2], or [-1, 1] of the nearest.
    weight: what the code's prediction counts, float (k, n); the k sum to 1. Two axes multiply.
    """

    code: Tensor
    place: Tensor
    weight: Tensor

    def cut(self, here: slice) -> Neighbours:
        """Return those of some of the places."""
        return Neighbours(self.code[:, here], self.place[:, here], self.weight[:, here])


def neighbours(floor: Tensor, fraction: Tensor, n: int, local_ensemble: bool = True) -> Neighbours:
    """Return the codes for places floor + fraction (fraction in [0, 1)) of n small pixels, both of any one shape.

    A place in the middle between two codes has two nearest ones; the even one is asked, as in the official code.
    """
    if local_ensemble:
        code = torch.stack([floor, floor + 1])
        weight = torch.stack([1 - fraction, fraction])
    else:
        code = (floor + ((fraction > 0.5) | ((fraction == 0.5) & (floor % 2 == 1))))[None]
        weight = torch.ones_like(fraction)[None]
    code = code.clamp(0, n - 1)
    return Neighbours(code, 2 * ((floor - code) + fraction), weight)


class LIIF(AnyScale):
    """Enlarge RGB pictures by any real factor with a local implicit image function (Chen et al. 2021).

    encoder: a name in `encoders.ENCODERS`. hidden: widths of the decoder's hidden layers (ReLU between them), at least
    one. local_ensemble: blend the predictions of the four codes around a place (equation 4), else ask the nearest one
    (equation 2). feature_unfolding: a code is what the encoder says of 3x3 pixels, zeros outside (equation 3), else of
    one. cell_decoding: the decoder is told the size of the pixel (equation 5). added: the result is added to the
    bicubic enlargement (a = -1/2, symmetric border), so that only what bicubic misses is learned; off in the paper.

    Coordinates and sizes of pixels are given to the decoder in half small pixels, (y, x), as in the official code.
    Raises TypeError or ValueError for an unknown encoder, or widths that are no whole numbers >= 1.
    """

    def __init__(
        self,
        encoder: str = "edsr-baseline",
        hidden: Sequence[int] = (256, 256, 256, 256),
        local_ensemble: bool = True,
        feature_unfolding: bool = True,
        cell_decoding: bool = True,
        added: bool = False,
    ) -> None:
        """Make encoder and decoder, with PyTorch's own random weights."""
        widths = tuple(check_length("hidden", width) for width in hidden)
        if not widths:
            raise ValueError(f"hidden must name at least one width, got {hidden!r}")
        super().__init__(encoder, added)
        self.hidden, self.local_ensemble = widths, local_ensemble
        self.feature_unfolding, self.cell_decoding = feature_unfolding, cell_decoding
        sizes = (self.channels * (9 if feature_unfolding else 1) + (4 if cell_decoding else 2), *widths, 3)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    @property
    def channels(self) -> int:
        """How many numbers the encoder gives for each small pixel."""
        return int(self.trunk.channels)  # type: ignore[arg-type]

    @property
    def radius(self) -> int:
        """How many small pixels away from the one it lies in an output still depends on."""
        reach = int(self.local_ensemble) + int(self.feature_unfolding)
        return max(int(self.trunk.radius) + reach, 2 if self.added else 0)  # type: ignore[arg-type]

    def output_size(self, lr_size: Sequence[int], scale: Scale) -> tuple[int, int]:
        """Return (H, W) of the result for a small picture (h, w): scale times it, rounded (halves to even), exactly."""
        height, width = (round(as_fraction(scale) * n) for n in lr_size)
        return height, width

    def decode(self, features: Tensor, rows: Span, columns: Span) -> Tensor:
        """Return the window (B, 3, n, m) of features (B, C, h, w) at hand, without what `added` adds.

        float32, or float64 for features that are. Raises ValueError where features are not those of the spans, or lack
        a code that is asked.
        """
        if features.dim() != 4 or tuple(features.shape[1:]) != (self.channels, rows.have, columns.have):
            raise ValueError(
                f"features must be (B, {self.channels}, {rows.have}, {columns.have}), got {tuple(features.shape)}"
            )
        down, right = self._along(rows, features), self._along(columns, features)
        size = [2 * float(rows.step), 2 * float(columns.step)]
        cell = torch.tensor(size, device=features.device, dtype=_work(features))
        codes = self._codes(features, cell).reshape(len(features), rows.have * columns.have, -1)
        if torch.is_grad_enabled():  # everything is kept for the gradient: blocks would save nothing
            whole = torch.stack([self._block(one, down, right, columns.have) for one in codes])
            return whole.permute(0, 3, 1, 2)
        out = torch.empty(len(features), 3, rows.length, columns.length, device=features.device, dtype=_work(features))
        most = self._most_rows(features.device)
        scratch = self._scratch(codes, most)
        for one, picture in zip(codes, out, strict=True):
            for here, there in _blocks(rows.length, columns.length, most // len(down.code) ** 2):
                block = self._block(one, down.cut(here), right.cut(there), columns.have, scratch)
                picture[:, here, there] = block.permute(2, 0, 1)
        return out

    def query(self, features: Tensor, coordinates: Tensor, cells: Tensor) -> Tensor:
        """Return colours (B, Q, 3) at coordinates (B, Q, 2) for pixels of size cells (B, Q, 2), both (y, x).

        The picture is [-1, 1] x [-1, 1], pixel i of n has its centre at -1 + (2 i + 1) / n and the size 2 / n. Without
        what `added` adds; float32, or float64 for features that are. Raises ValueError for other shapes.
        """
        if coordinates.shape != (len(features), coordinates.shape[1], 2) or cells.shape != coordinates.shape:
            raise ValueError(
                f"coordinates and cells must be ({len(features)}, Q, 2), got {tuple(coordinates.shape)} and "
                f"{tuple(cells.shape)}"
            )
        size = torch.tensor(features.shape[-2:], device=features.device)
        x = (coordinates.to(_work(features)) * size + (size - 1)) / 2  # in small pixels
        down, right = (
            neighbours(x[..., axis].floor().long(), x[..., axis] % 1, n, self.local_ensemble)
            for axis, n in enumerate(features.shape[-2:])
        )
        first = torch.arange(len(features), device=features.device)[:, None] * int(size.prod())
        index = down.code[:, None] * features.shape[-1] + right.code + first  # (k, k, B, Q)
        shape = index.shape
        inputs = [down.place[:, None].expand(shape), right.place.expand(shape)]
        if self.cell_decoding:
            inputs += [(cells[..., axis] * size[axis]).to(x.dtype).expand(shape) for axis in range(2)]
        rgb = self._predictions(self._codes(features), index.flatten(), torch.stack(inputs, -1).flatten(0, -2))
        return (rgb.reshape(*shape, 3) * (down.weight[:, None] * right.weight)[..., None]).sum((0, 1))

    def _codes(self, features: Tensor, cell: Tensor | None = None) -> Tensor:
        """Return what the first layer makes of the codes, (B h w, width): the rows that places pick from.

        cell: one size of pixels for all places, in half small pixels (2,), then in the rows too.
        """
        first, side = self._first, 3 if self.feature_unfolding else 1
        bias: Tensor = first.bias
        if cell is not None and self.cell_decoding:
            bias = bias + (first.weight[:, -2:] * cell).sum(1).to(bias.dtype)
        kernel = first.weight[:, : self.channels * side**2].reshape(-1, self.channels, side, side)
        rows: Tensor = F.conv2d(features, kernel, bias, padding=side // 2).permute(0, 2, 3, 1)
        return rows.reshape(-1, rows.shape[-1])

    def _most_rows(self, device: torch.device) -> int:
        """Return how many rows go through the layers together: those of one core's cache, for every core."""
        if device.type == "cpu":
            numbers = min(_NUMBERS_CPU * torch.get_num_threads(), _MOST_NUMBERS_CPU)
        else:
            numbers = _NUMBERS_GPU
        return max(4, numbers // max(self.hidden))

    def _scratch(self, codes: Tensor, rows: int) -> _Scratch | None:
        """Return memory for the layers where they may write into what is given: on a CPU, with one kind of number."""
        cpu = codes.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        same = codes.dtype == self._first.weight.dtype == _work(codes)
        return _Scratch(rows * max(self.hidden), codes) if cpu and same else None

    def _block(
        self, codes: Tensor, down: Neighbours, right: Neighbours, width: int, scratch: _Scratch | None = None
    ) -> Tensor:
        """Return the colours (n, m, 3) where rows and columns cross, of codes (h width, width of the first layer)."""
        index = down.code[:, :, None, None] * width + right.code  # (k, n, k, m)
        shape = index.shape
        inputs = torch.stack([down.place[:, :, None, None].expand(shape), right.place.expand(shape)], -1)
        rgb = self._predictions(codes, index.flatten(), inputs.flatten(0, -2), scratch).reshape(*shape, 3)
        return (rgb * (down.weight[:, :, None, None] * right.weight)[..., None]).sum((0, 2))

    def _predictions(self, codes: Tensor, index: Tensor, inputs: Tensor, scratch: _Scratch | None = None) -> Tensor:
        """Return what the decoder says of each code chosen (R,) and its further inputs (R, 2 or 4): (R, 3)."""
        weight = self._first.weight[:, -4 if self.cell_decoding else -2 :][:, : inputs.shape[1]]
        if scratch is None:
            x = codes.index_select(0, index).to(inputs.dtype)
        else:
            x = torch.index_select(codes, 0, index, out=scratch.take(len(index), codes.shape[1]))
        # places are too fine for half precision; autocast leaves what is done in place as it is
        x = x.addmm_(inputs, weight.to(inputs.dtype).T).relu_()
        x = x.to(self._first.weight.dtype)
        *hidden, last = list(self.mlp)[2::2]
        for layer in hidden:
            x = _linear(layer, x, scratch).relu_()
        rgb = _linear(last, x, scratch).to(inputs.dtype) / 2  # the decoder's range is [-1, 1]
        return rgb if self.added else rgb + 0.5

    @property
    def _first(self) -> nn.Linear:
        layer = self.mlp[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def _along(self, span: Span, features: Tensor) -> Neighbours:
        """Return the neighbours of a span's outputs as the piece at hand counts them, where the features are."""
        whole = neighbours(*span.coordinates(), span.n_in, self.local_ensemble)
        span.here(int(whole.code.min()), int(whole.code.max()) + 1)
        place, weight = (part.to(features.device, _work(features)) for part in (whole.place, whole.weight))
        return Neighbours((whole.code - span.origin).to(features.device), place, weight)


def _work(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


class _Scratch:
    """Two pieces of memory that the layers write into in turn: torch would ask the system for new memory each time."""

    def __init__(self, numbers: int, like: Tensor) -> None:
        """Ask for memory once."""
        self._memory = [like.new_empty(numbers) for _ in range(2)]

    def take(self, rows: int, width: int) -> Tensor:
        """Return the piece that was not taken last, as (rows, width)."""
        self._memory.reverse()
        return self._memory[0][: rows * width].view(rows, width)


def _linear(layer: nn.Module, x: Tensor, scratch: _Scratch | None) -> Tensor:
    assert isinstance(layer, nn.Linear)
    if scratch is None:
        result: Tensor = layer(x)
        return result
    return torch.addmm(layer.bias, x, layer.weight.T, out=scratch.take(len(x), layer.out_features))


def _blocks(height: int, width: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut a window into blocks of at most so many outputs."""
    columns = min(width, most)
    rows = max(1, most // columns)
    for i in range(0, height, rows):
        for j in range(0, width, columns):
            yield slice(i, min(i + rows, height)), slice(j, min(j + columns, width))
