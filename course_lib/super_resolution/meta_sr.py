"""Meta-SR: one network for every scale, whose last layer's filters are predicted (chapter 09).

The slow form that follows the paper's equations is `plain.meta_sr`; `meta_upscale` computes the same faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from course_lib.super_resolution.any_scale import AnyScale, Span
from course_lib.super_resolution.layers import MeanShift
from course_lib.super_resolution.meta_upscale import FilterNetwork, check_scale, upscale
from course_lib.upsampling.grids import Scale, check_length

_DATA_RANGE = 255.0


class MetaSR(AnyScale):
    """Enlarge RGB pictures by any factor r >= 1 with predicted filters (Hu et al. 2019).

    encoder: a name in `encoders.ENCODERS`, "rdn" in the paper. hidden: width of the network that predicts filters, 256
    in the paper. mean_shift: the network computes with pictures times 255 less the mean colour of DIV2K, which is
    trained, as the official code does; otherwise with pictures in [-1, 1]. added: the result is added to the bicubic
    enlargement (a = -1/2, symmetric border), so that only what bicubic misses is learned, and no mean colour is added;
    off in the paper.

    The filters' network is told (1 / r, offset down, offset right), in the order of the official code; the paper writes
    1 / r last. One r for both axes. Raises TypeError or ValueError for an unknown encoder, or a width that is no whole
    number >= 1.
    """

    def __init__(self, encoder: str = "rdn", hidden: int = 256, mean_shift: bool = True, added: bool = False) -> None:
        """Make encoder and filters' network, with PyTorch's own random weights."""
        width = check_length("hidden", hidden)
        super().__init__(encoder, added)
        self.hidden, self.mean_shift = width, mean_shift
        self.subtract = MeanShift(-1, _DATA_RANGE, trained=True) if mean_shift else None
        self.add = MeanShift(1, _DATA_RANGE, trained=True) if mean_shift and not added else None
        self.filters = FilterNetwork(self.channels, width)

    @property
    def channels(self) -> int:
        """How many numbers the encoder gives for each small pixel."""
        return int(self.trunk.channels)  # type: ignore[arg-type]

    @property
    def radius(self) -> int:
        """How many small pixels away from the one its centre lies in an output still depends on.

        The filter reaches one further than the encoder; an output belongs to the small pixel at its upper left corner,
        which may be another one before that of its centre.
        """
        return int(self.trunk.radius) + 2  # type: ignore[arg-type]

    def output_size(self, lr_size: Sequence[int], scale: Scale) -> tuple[int, int]:
        """Return (H, W) of the result for a small picture (h, w): scale times it, rounded down, exactly.

        Raises TypeError or ValueError unless scale is a number of at least 1.
        """
        r = check_scale(scale)
        height, width = (math.floor(r * n) for n in lr_size)
        return height, width

    def steps(self, lr_size: Sequence[int], size: Sequence[int], scale: Scale | None) -> tuple[Fraction, Fraction]:
        """Return 1 / r for both axes; where a size was asked, small / large of each, and the picture's edges meet.

        Sizes are rounded, so that those two may differ a little; the filters are told the larger r. Raises ValueError
        for r < 1, and for a size of another shape than the small picture's, for which one r would not do.
        """
        if scale is not None:
            r = check_scale(scale)
            return 1 / r, 1 / r
        (h, w), (height, width) = lr_size, size
        if height < h or width < w:
            raise ValueError(
                f"size must be at least {h} x {w}, the network makes no picture smaller; got {tuple(size)}"
            )
        r = max(Fraction(height, h), Fraction(width, w))
        # sizes that come from one scale, rounded up or down on each axis, are at most this much apart
        if any(r * n - out > Fraction(n, min(h, w)) + 1 for n, out in ((h, height), (w, width))):
            raise ValueError(
                f"size must have the shape of the small picture, about {round(r * h)} x {round(r * w)}, because there "
                f"is one scale for both axes; got {height} x {width}"
            )
        return Fraction(h, height), Fraction(w, width)

    def prepare(self, lr: Tensor) -> Tensor:
        """Return pictures in [0, 1] in the encoder's own range."""
        return super().prepare(lr) if self.subtract is None else self.subtract(lr * _DATA_RANGE)

    def decode(self, features: Tensor, rows: Span, columns: Span) -> Tensor:
        """Return the window (B, 3, n, m) of features (B, C, h, w) at hand, without what `added` adds.

        Raises ValueError where features are not the spans', the steps differ, or the piece lacks what is read.
        """
        return self._finished(upscale(features, self.filters, rows, columns))

    def query(self, features: Tensor, coordinates: Tensor, cells: Tensor) -> Tensor:
        """Return colours (B, Q, 3) at coordinates (B, Q, 2) for pixels of size cells (B, Q, 2), both (y, x).

        The picture is [-1, 1] x [-1, 1], pixel i of n has its centre at -1 + (2 i + 1) / n and the size 2 / n: the same
        colours as of `forward` with that size. Without what `added` adds. Raises ValueError for other shapes.
        """
        if coordinates.shape != (len(features), coordinates.shape[1], 2) or cells.shape != coordinates.shape:
            raise ValueError(
                f"coordinates and cells must be ({len(features)}, Q, 2), got {tuple(coordinates.shape)} and "
                f"{tuple(cells.shape)}"
            )
        work = torch.float64 if features.dtype == torch.float64 else torch.float32
        size = torch.tensor(features.shape[-2:], device=features.device)
        small, offset, scale = _places(coordinates.to(work), cells.to(work), size)
        net = self.filters
        codes = net.codes(features, net.code_kernel(features.device), padding=1).flatten(0, 2)  # (B h w, 3, K + 1)
        picture = torch.arange(len(features), device=features.device)[:, None]
        index = (picture * size[0] + small[..., 0]) * size[1] + small[..., 1]
        picked = codes.index_select(0, index.flatten())
        hidden = net.hidden(scale, offset[..., 0], offset[..., 1]).flatten(0, 1).to(codes.dtype)
        rgb = (picked[..., :-1] @ hidden[..., None])[..., 0] + picked[..., -1]  # (B Q, 3)
        return self._finished(rgb.view(*index.shape, 3).mT).mT

    def _finished(self, rgb: Tensor) -> Tensor:
        """Return what the decoder says (B, 3, ...) as a picture in [0, 1], or as what is added to one."""
        if rgb.dtype in (torch.float16, torch.bfloat16):
            rgb = rgb.float()
        if not self.mean_shift:
            return rgb / 2 if self.added else (rgb / 2).add_(0.5)
        if self.add is not None:
            with torch.autocast(rgb.device.type, enabled=False):
                rgb = self.add(rgb[..., None] if rgb.dim() == 3 else rgb).reshape(rgb.shape)
        return rgb / _DATA_RANGE


def _places(coordinates: Tensor, cells: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return small pixels (B, Q, 2), offsets in them (B, Q, 2), and r (B, Q), of places and pixels' sizes.

    A place that misses the next small pixel by no more than rounding can do is in it, with offset 0.
    """
    step = cells * size / 2  # 1 / r of each axis
    at = ((coordinates + 1) / cells - 0.5) * step
    slack = 4 * torch.finfo(torch.float32).eps * size  # coordinates mostly come from float32
    small = torch.minimum((at + slack).floor().clamp_min(0), size - 1)
    return small.long(), (at - small).clamp(0, 1), 1 / step.amin(-1)
