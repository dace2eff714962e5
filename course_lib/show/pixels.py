"""From whatever holds a picture (tensor, array, figure) to bytes that a browser shows."""

from __future__ import annotations

import io
from typing import Any, Final, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

Bytes3: TypeAlias = npt.NDArray[np.uint8]
"""A picture as bytes, (H, W, 3)."""

Picture: TypeAlias = torch.Tensor | npt.NDArray[Any] | Figure
"""What every `show` function accepts: (C, H, W) or (H, W) tensor, (H, W) or (H, W, C) array, or a figure."""

SMALL_SIDE: Final = 128
"""Pictures up to this many pixels a side are kept without loss: there each pixel counts."""


def to_bytes3(picture: Picture, name: str = "image") -> Bytes3:
    """A picture as (H, W, 3) bytes; a matplotlib figure is drawn and closed.

    picture: tensor (C, H, W) or (H, W), array (H, W), (H, W, C) or (C, H, W), C in {1, 3}; floats in [0, 1] (clipped),
    uint8 or bool; or a Figure. A leading batch axis of length 1 is dropped.
    Raises TypeError or ValueError that names what came and what was expected; NaN and infinity are refused.
    """
    if isinstance(picture, Figure):
        return _draw(picture)
    if isinstance(picture, torch.Tensor):
        tensor = picture.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise TypeError(f"{name} must be a tensor, an array or a matplotlib Figure, got {type(picture).__name__}")
    pixels = _quantise(_channels_last(array, name), name)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def _channels_last(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    came = array.shape
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[0] in (1, 3):
        # (3, 8, 3) could be read both ways: the book's pictures are channels first.
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"{name} must be (C, H, W) with C = 1 or 3, or (H, W), with H, W >= 1, got {came}")
    return array


def _quantise(array: npt.NDArray[Any], name: str) -> Bytes3:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must hold floats in [0, 1], uint8 or bool, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite values")
    # Half a step is rounded up everywhere in the book, also where float32 could not tell.
    return np.floor(np.clip(array.astype(np.float64), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _draw(figure: Figure) -> Bytes3:
    canvas = FigureCanvasAgg(figure)
    try:
        canvas.draw()  # type: ignore[no-untyped-call]
        rgba = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    finally:
        plt.close(figure)
    return np.ascontiguousarray(rgba[..., :3])


def is_small(pixels: Bytes3) -> bool:
    """Whether a picture is so small that it must be shown exactly, with hard pixel edges."""
    return bool(max(pixels.shape[:2]) <= SMALL_SIDE)


def enlarge(pixels: Bytes3, side: int) -> Bytes3:
    """Repeat the pixels of a small picture a whole number of times, until its longer side is about `side`."""
    factor = max(1, round(side / max(pixels.shape[:2]))) if is_small(pixels) else 1
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def encode(pixels: Bytes3, form: str, **options: Any) -> bytes:
    """Compress (H, W, 3) bytes with Pillow's writer `form` ("PNG", "JPEG", "WEBP")."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def fewer_colours(pixels: Bytes3, count: int) -> Bytes3:
    """The picture in at most `count` colours, without dithering: line drawings stay crisp and get small."""
    palette = Image.fromarray(pixels).quantize(count, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.asarray(palette.convert("RGB"))


def preview_png(pixels: Bytes3, limit: int = 150_000) -> bytes:
    """A PNG to be stored in a notebook: exact while it is small, else of at most 256 colours and 512 pixels a side."""
    exact = encode(pixels, "PNG", optimize=True)
    if len(exact) <= limit:
        return exact
    image = Image.fromarray(pixels)
    image.thumbnail((512, 512), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(256, method=Image.Quantize.MEDIANCUT).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
