"""Small pictures shrunk and enlarged by matrices that are kept, fast enough to be made anew for every training step."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from course_lib.upsampling.taps import Axis, dense_band


def resampled(planes: npt.NDArray[Any], size: tuple[int, int], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Return planes (..., h, w) of levels 0..255 as (..., *size) of whole levels 0..255, computed and kept in `dtype`.

    Bicubic with a = -1/2, antialiased, symmetric border, clamped, halves rounded up: what `metrics.pair` does. For
    small pictures: the matrices are dense.
    """
    rows, columns = (_matrix(*lengths, dtype) for lengths in zip(planes.shape[-2:], size, strict=True))
    levels: npt.NDArray[Any] = np.floor((rows @ planes.astype(dtype) @ columns.T).clip(0, 255) + dtype(0.5))
    return levels


@lru_cache(maxsize=256)
def _matrix(n_in: int, n_out: int, dtype: Any) -> npt.NDArray[Any]:
    """Return what `resize` multiplies a row of n_in pixels with: (n_out, n_in)."""
    low, high, band = dense_band(Axis(n_in, n_out, border="symmetric"), 0, n_out, torch.float64, torch.device("cpu"))
    weights = np.zeros((n_out, n_in), dtype)
    weights[:, low:high] = band.numpy()
    return weights
