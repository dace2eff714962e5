"""What bodies of networks demand of their pictures (chapters 11 and 14)."""

from typing import Any

from torch import Tensor


def check_picture(picture: Any, name: str = "picture", least: int = 0) -> None:
    """Raise TypeError or ValueError, which name the argument, unless it is floating point (B, 3, H, W), H, W >= 1.

    least: how large B has to be.
    """
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        came = picture.dtype if isinstance(picture, Tensor) else type(picture).__name__
        raise TypeError(f"{name} must be a floating point torch.Tensor, got {came}")
    if picture.dim() != 4 or picture.shape[1] != 3 or min(picture.shape[2:]) < 1:
        raise ValueError(f"{name} must be (B, 3, H, W) with H, W >= 1, got {tuple(picture.shape)}")
    if len(picture) < least:
        raise ValueError(f"{name} must be (B, 3, H, W) with B >= {least}, got {tuple(picture.shape)}")
