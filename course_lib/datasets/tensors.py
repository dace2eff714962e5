"""Between the arrays that files hold and the tensors that the library computes with."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def from_uint8(array: npt.NDArray[Any]) -> Tensor:
    """Return a uint8 picture (H, W) or (H, W, C) as a float32 tensor (C, H, W) in [0, 1].

    Raises TypeError for another dtype (a float picture needs no division by 255) and ValueError for another rank.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise TypeError(f"array must be uint8 with values 0..255, got {array.dtype}; is it already in [0, 1]?")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"array must be (H, W) or (H, W, C) with at least one pixel, got {array.shape}")
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    # .copy() because a tensor must own writable memory and file arrays often do not
    return torch.from_numpy(planes.copy()).to(torch.float32) / 255


def to_uint8(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return a float picture (C, H, W) in [0, 1] as uint8 (H, W, C), or (H, W) when C = 1; values outside are clamped.

    Halves round up: floor(255 x + 1/2). Raises TypeError for a non-floating tensor, ValueError for another rank or NaN.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        came = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image must be a floating point tensor in [0, 1], got {came}")
    if image.dim() != 3 or image.numel() == 0:
        raise ValueError(f"image must be (C, H, W) with at least one pixel, got {tuple(image.shape)}")
    if bool(torch.isnan(image).any()):
        raise ValueError("image must not contain NaN: a pixel that is no number has no 8-bit value")
    wide = image.detach().cpu().to(torch.float64)
    array: npt.NDArray[np.uint8] = (wide.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array)
