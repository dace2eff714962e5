"""Photographs that come with scikit-image and that anyone may print, change and pass on."""

from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral

import numpy as np
import skimage.data
from torch import Tensor

from course_lib.datasets.tensors import from_uint8
from course_lib.upsampling import resize

PHOTOGRAPHS: dict[str, str] = {
    "astronaut": "public domain (NASA); RGB 512 x 512",
    "brick": "CC0; grey 512 x 512",
    "camera": "CC0; grey 512 x 512",
    "cell": "CC0; grey 660 x 550",
    "chelsea": "CC0; RGB 300 x 451",
    "clock": "public domain; grey 300 x 400",
    "coffee": "CC0; RGB 400 x 600",
    "grass": "CC0; grey 512 x 512",
    "gravel": "CC0; grey 512 x 512",
    "hubble_deep_field": "public domain (NASA); RGB 872 x 1000",
    "retina": "CC0; RGB 1411 x 1411",
    "rocket": "public domain (SpaceX); RGB 427 x 640",
    "text": "public domain; grey 172 x 448",
}
"""What each photograph is: its licence, its channels, and its size as height x width."""


def photograph(name: str, size: tuple[int, int] | None = None) -> Tensor:
    """Return a photograph as float32 in [0, 1]: (3, H, W), or (1, H, W) for the grey ones.

    size: (height, width); the largest centred window of that shape is cut out and resized (bicubic, antialiased,
    clamped). Raises ValueError for a name that is not in PHOTOGRAPHS or a size that is not two whole numbers >= 1.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name must be one of {', '.join(PHOTOGRAPHS)}; got {name!r}")
    image = from_uint8(np.asarray(getattr(skimage.data, name)()))
    return image if size is None else fit(image, size)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the largest centred window of the shape (height, width), resized to it and clamped to [0, 1].

    image: float (C, H, W) in [0, 1]. Raises ValueError for a size that is not two whole numbers >= 1.
    """
    if not isinstance(size, Sequence) or len(size) != 2 or not all(map(_is_length, size)):
        raise ValueError(f"size must be (height, width), two whole numbers of at least 1, got {size!r}")
    height, width = map(int, size)
    full_height, full_width = image.shape[-2:]
    aspect = Fraction(height, width)
    cut_height = max(1, min(full_height, round(full_width * aspect)))
    cut_width = max(1, min(full_width, round(full_height / aspect)))
    top, left = (full_height - cut_height) // 2, (full_width - cut_width) // 2
    window = image[..., top : top + cut_height, left : left + cut_width]
    if (cut_height, cut_width) == (height, width):
        return window.clone()
    return resize(window, size=(height, width)).clamp(0, 1)


def _is_length(n: object) -> bool:
    return not isinstance(n, bool) and isinstance(n, Integral) and int(n) >= 1
