"""Resize a picture strip by strip, in float64, so that memory does not grow with the result.

Every strip multiplies the rows of A_h that it needs with the pixels that those rows read (resize = A_h X A_w'), so no
strip border exists for the arithmetic, and the strips together are the rounded result of `resize` on the whole picture.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from course_lib.datasets import Samples
from course_lib.upsampling.taps import Axis, Method, bounded_taps, dense_band, dense_bands

_BUFFER = 32 * 2**20
"""Bytes of one float64 buffer; a handful of them are alive at a time."""


class Strips:
    """The rows of a resized picture, made on demand.

    samples: the picture. size: (height, width) of the result. scale: the exact scale, or None when size / input is
    meant. Alpha is respected: colours are weighted by it, so that what is invisible does not bleed into what is seen.
    """

    def __init__(
        self,
        samples: Samples,
        size: tuple[int, int],
        scale: Fraction | None = None,
        method: Method = "bicubic",
        antialias: bool = True,
        device: str = "cpu",
    ) -> None:
        """See the class."""
        self.values, self.top, self.method = samples.values, samples.top, method
        self.device = torch.device(device)
        self.alpha = samples.alpha
        height, width, self.channels = self.values.shape
        self.vertical = Axis(height, size[0], scale, method, antialias=antialias)
        self.horizontal = Axis(width, size[1], scale, method, antialias=antialias)
        self.shrink_first = size[0] * width <= height * size[1]  # the cheaper order, as in `resize`
        row = 8 * self.channels * max(width, size[1])
        self.chunk = max(1, _BUFFER // row)
        self.shape = (*size, self.channels)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all strips from top to bottom."""
        for first in range(0, self.shape[0], self.chunk):
            yield self.rows(first, min(first + self.chunk, self.shape[0]))

    def rows(self, first: int, end: int) -> npt.NDArray[Any]:
        """Return rows first..end-1 of the result: (end - first, width, channels), dtype of the picture."""
        if self.method == "nearest":
            rows, columns = (bounded_taps(axis)[0][:, 0].numpy() for axis in (self.vertical, self.horizontal))
            return np.ascontiguousarray(self.values[rows[first:end]][:, columns])
        low, high, band = dense_band(self.vertical, first, end, torch.float64, self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        # where one output row reads very many input rows (strong shrinking), they too come in chunks
        for start in range(low, high, self.chunk):
            stop = min(start + self.chunk, high)
            planes = self._planes(start, stop)
            if not self.shrink_first:
                planes = self._widened(planes)
            total = total + band[:, start - low : stop - low] @ planes
        return self._rounded(self._widened(total) if self.shrink_first else total)

    def _planes(self, first: int, end: int) -> Tensor:
        """Return rows first..end-1 of the input, colours multiplied by alpha: (C, rows, W) float64."""
        window = self.values[first:end]
        planes = torch.from_numpy(np.moveaxis(window, 2, 0).astype(np.float64)).to(self.device)
        if self.alpha:
            planes[:-1] *= planes[-1:] / self.top
        return planes

    def _widened(self, planes: Tensor) -> Tensor:
        """Multiply by A_w': (C, rows, W) -> (C, rows, W')."""
        block = 64 if self.horizontal.n_out >= self.horizontal.n_in else 16
        bands = dense_bands(self.horizontal, block, torch.float64, self.device)
        return torch.cat([planes[..., low:high] @ weights.T for low, high, weights in bands], dim=-1)

    def _rounded(self, planes: Tensor) -> npt.NDArray[Any]:
        if self.alpha:
            alpha = planes[-1:]
            # what rounds to invisible has no colour
            planes[:-1] = torch.where(alpha < 0.5, 0, planes[:-1] / alpha.clamp(min=0.5) * self.top)
        kept = planes.add_(0.5).clamp_(0, self.top).to(torch.uint8 if self.top == 255 else torch.int32)
        result = kept.permute(1, 2, 0).cpu().numpy().astype(self.values.dtype, copy=False)
        return np.ascontiguousarray(result)
