"""Between colours and luminance, which is what super-resolution is measured and mostly trained on."""

import torch
from torch import Tensor

_WEIGHTS = (65.481, 128.553, 24.966)
_BLUE_DIFFERENCE = (-37.797, -74.203, 112.0)
_RED_DIFFERENCE = (112.0, -93.786, -18.214)
_OFFSETS = (16.0, 128.0, 128.0)


def check_picture(name: str, image: Tensor) -> None:
    """Raise TypeError or ValueError, which call the argument `name`, unless it is a float tensor (..., C, H, W)."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(image).__name__}")
    if not image.is_floating_point():
        raise TypeError(f"{name} must be floating point in [0, 1], got {image.dtype}; datasets.from_uint8 converts")
    if image.dim() < 3 or min(image.shape[-3:]) < 1:
        raise ValueError(f"{name} must be (..., C, H, W) with C, H, W >= 1, got {tuple(image.shape)}")


def luminance(image: Tensor, rounded: bool = False) -> Tensor:
    """Return the luminance Y of BT.601 in its studio range: (..., 3, H, W) in [0, 1] -> (..., 1, H, W) in [16/255,
    235/255].

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255. A picture of one channel is its own luminance and comes back as
    it is. rounded: to whole 255ths, as MATLAB's rgb2ycbcr does for 8-bit pictures; published numbers use it. Raises
    ValueError for other channel counts.
    """
    check_picture("image", image)
    if image.shape[-3] == 1:
        return image
    if image.shape[-3] != 3:
        raise ValueError(f"image must have 3 channels (RGB) or 1 (already luminance), got {image.shape[-3]}")
    # 255 y needs more digits than half precision has
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    red, green, blue = (wide[..., c : c + 1, :, :] for c in range(3))
    y = (16 + _WEIGHTS[0] * red + _WEIGHTS[1] * green + _WEIGHTS[2] * blue) / 255
    return ((255 * y + 0.5).floor() / 255 if rounded else y).to(image.dtype)


def to_ycbcr(image: Tensor) -> Tensor:
    """Return luminance and the two colour differences of BT.601: (..., 3, H, W) RGB in [0, 1] -> (..., 3, H, W).

    Y is in [16/255, 235/255], Cb and Cr in [16/255, 240/255], grey being 128/255 in both; nothing is rounded. Raises
    ValueError for another number of channels.
    """
    matrix, offsets = _ycbcr(image)
    return torch.einsum("yc,...chw->...yhw", matrix, image) + offsets


def from_ycbcr(image: Tensor) -> Tensor:
    """Return the RGB picture of `to_ycbcr`'s three planes; values that no RGB picture has leave [0, 1].

    Raises ValueError for another number of channels.
    """
    matrix, offsets = _ycbcr(image)
    back = torch.linalg.inv(matrix.to(torch.float64)).to(matrix)
    return torch.einsum("cy,...yhw->...chw", back, image - offsets)


def _ycbcr(image: Tensor) -> tuple[Tensor, Tensor]:
    check_picture("image", image)
    if image.shape[-3] != 3:
        raise ValueError(f"image must have 3 channels, got {image.shape[-3]}")
    matrix = torch.tensor((_WEIGHTS, _BLUE_DIFFERENCE, _RED_DIFFERENCE), dtype=torch.float64) / 255
    offsets = torch.tensor(_OFFSETS, dtype=torch.float64).view(3, 1, 1) / 255
    return matrix.to(image), offsets.to(image)
