"""What EDSR and RDN share: the shift by the mean colour, the enlarging tail, and the shapes of pictures."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length

MEAN_COLOUR = (0.4488, 0.4371, 0.4040)
"""Mean red, green and blue of the 800 training pictures of DIV2K, in [0, 1]."""


class MeanShift(nn.Module):
    """Subtract the mean colour of DIV2K from a picture, or add it: (B, 3, h, w) -> (B, 3, h, w).

    sign: -1 subtracts, 1 adds. data_range: the distance from black to white. A 1 x 1 convolution, as the official files
    hold it: the unit matrix, and sign * data_range * MEAN_COLOUR as bias. trained: both are parameters; otherwise they
    are buffers, saved and loaded but not trained. Raises TypeError or ValueError for a sign other than -1 and 1, or a
    data_range that is not positive.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, sign: int, data_range: float = 255.0, trained: bool = False) -> None:
        """Make the unit matrix and the bias."""
        super().__init__()
        if sign not in (-1, 1):
            raise ValueError(f"sign must be -1 (subtract) or 1 (add), got {sign!r}")
        weight, bias = torch.eye(3).view(3, 3, 1, 1), sign * check_range(data_range) * torch.tensor(MEAN_COLOUR)
        if trained:
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the shifted picture in its own dtype; autocast leaves it alone, which has 8 digits for 255 levels."""
        with torch.autocast(picture.device.type, enabled=False):
            return F.conv2d(picture, self.weight.to(picture.dtype), self.bias.to(picture.dtype))


class Tail(nn.Module):
    """From features to the large picture: convolutions with shuffles, and a last one to RGB (EDSR's "Upsampler").

    channels: of the features. scale: 3 is one stage; 2, 4, 8, ... are stages of 2; 1 is the last convolution alone.
    hidden: channels between the stages. radius: how many small pixels away a result still looks. Raises TypeError or
    ValueError for another scale, and for channels that are not whole and >= 1.
    """

    def __init__(self, channels: int, scale: int, hidden: int) -> None:
        """Make the convolutions, with PyTorch's own random weights."""
        super().__init__()
        scale, hidden = check_scale(scale), check_length("hidden", hidden)
        self.steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        widths = [check_length("channels", channels), *[hidden] * len(self.steps)]
        self.stages = nn.ModuleList(
            nn.Conv2d(width, hidden * step**2, 3, padding=1) for width, step in zip(widths, self.steps, strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        # a reach of 1 at any size, and of 1 / 2 + 1 / 4 + ... < 1 small pixels for all that come behind the first
        self.radius = 2 if self.steps else 1

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, 3, scale h, scale w) of features (B, channels, h, w)."""
        for step, stage in zip(self.steps, self.stages, strict=True):
            features = F.pixel_shuffle(stage(features), step)
        result: Tensor = self.last(features)
        return result


def check_scale(scale: int) -> int:
    """Return `scale` if a tail can reach it: 3, or a power of 2. Raises TypeError or ValueError."""
    whole = check_length("scale", scale)
    if whole != 3 and whole & (whole - 1):
        raise ValueError(f"scale must be 1, 2, 3, 4, 8 or another power of 2, got {scale}")
    return whole


def check_range(data_range: float) -> float:
    """Return the distance from black to white if it is positive and finite. Raises TypeError or ValueError."""
    given: Any = data_range
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"data_range must be a number, got {data_range!r}")
    if not 0 < data_range < float("inf"):
        raise ValueError(f"data_range must be the distance from black to white (1 or 255), got {data_range!r}")
    return data_range


def as_batch(name: str, pictures: Tensor) -> Tensor:
    """Return pictures (..., 3, h, w) as one batch (B, 3, h, w).

    Raises TypeError or ValueError, which call the argument `name`, for anything but floating point of that shape.
    """
    if not isinstance(pictures, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(pictures).__name__}")
    if not pictures.is_floating_point():
        raise TypeError(f"{name} must be floating point in [0, 1], got {pictures.dtype}; datasets.from_uint8 converts")
    if pictures.dim() < 3 or pictures.shape[-3] != 3 or min(pictures.shape[-2:]) < 1:
        raise ValueError(f"{name} must be (..., 3, h, w) with h, w >= 1, got {tuple(pictures.shape)}")
    return pictures.unsqueeze(0) if pictures.dim() == 3 else pictures.flatten(0, -4)


def channels_together(x: Tensor) -> Tensor:
    """Return maps whose pixels have their channels side by side in memory on a CPU, where convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """Return what a network's output is added to: the bicubic enlargement, a = -1/2, symmetric border."""
    return resize(lr, scale=scale, method="bicubic", border="symmetric")


def eight_bit(pictures: Tensor) -> Tensor:
    """Return pictures as a file of 8 bits holds them: in [0, 1], whole 255ths, halves up; the dtype stays."""
    work = pictures.float() if pictures.dtype in (torch.float16, torch.bfloat16) else pictures
    return ((255 * work.clamp(0, 1) + 0.5).floor() / 255).to(pictures.dtype)
