"""Boxes with their labels over a photograph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Array = npt.NDArray[Any]

READABLE = 800
"""Pixels of a drawing's longer side, at least: a smaller picture is drawn 2, 3, ... times larger, for its labels."""

# Okabe and Ito's palette, which stays apart for colour-blind eyes; every label has its name as well
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_PALE = 140  # brightness from which text on a colour is black


def enlarged(size: tuple[int, int]) -> int:
    """Return how many times larger a picture (height, width) is drawn, see `READABLE`."""
    return -(-READABLE // max(size)) if max(size) < READABLE else 1


def draw(
    picture: npt.NDArray[np.uint8], boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Return a picture (H, W, 3) with boxes over it, `enlarged` times larger.

    boxes: xyxy in pixels, the most important first. labels: what chooses each box's colour. texts: beside each box,
    where there is room outside other texts.
    """
    times = enlarged(picture.shape[:2])
    image = Image.fromarray(picture)
    if times > 1:
        image = image.resize((times * image.width, times * image.height), Image.Resampling.BICUBIC)
    longest = max(image.size)
    pen, line = ImageDraw.Draw(image), max(2, longest // 400)
    font = ImageFont.load_default(max(12, longest // 60))
    places = [tuple(times * x for x in box) for box in boxes]
    for box, label in reversed(list(zip(places, labels, strict=True))):
        _frame(pen, box, _COLOURS[label % len(_COLOURS)], line)
    taken = np.empty((len(texts), 4))
    for k, (box, label, text) in enumerate(zip(places, labels, texts, strict=True)):
        taken[k] = _place(box, _room(font, text), image.size, taken[:k])
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle(tuple(taken[k]), fill=colour)
        pen.text((taken[k, 0] + 2, taken[k, 1] + 1), text, fill=_ink(colour), font=font, anchor="la")
    return np.asarray(image)


def _frame(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: str, line: int) -> None:
    """Draw a box whose lines lie on its border, between thin white ones that part them from any ground."""
    x0, y0, x1, y1 = box
    half = line / 2
    for grow, width, ink in ((half + 1, line + 2, "white"), (half, line, colour)):
        outer = (x0 - grow, y0 - grow, max(x1 + grow, x0 - grow), max(y1 + grow, y0 - grow))
        pen.rectangle(outer, outline=ink, width=width)


def _room(font: Any, text: str) -> tuple[float, float]:
    """Return width and height of a text with a margin; all texts of a font have one height."""
    up, down = font.getmetrics()
    return font.getlength(text) + 4, up + down + 2


def _place(box: Sequence[float], room: tuple[float, float], size: tuple[int, int], taken: Array) -> Array:
    """Return where a label goes, xyxy, inside the picture: over the box, in it or below, where it hides no other."""
    x0, y0, x1, y1 = box
    width, height = room
    starts = [(x0, y0 - height), (x1 - width, y0 - height), (x0, y0), (x0, y1), (x1 - width, y1), (x1 - width, y0)]
    starts += [(x0, y0 - 2 * height), (x0, y1 + height)]
    tried = np.array([(x, y, x + width, y + height) for x, y in starts])
    inside = (tried[:, :2] >= 0).all(1) & (tried[:, 2:] <= size).all(1)
    meets = (tried[:, None, :2] < taken[:, 2:]) & (taken[:, :2] < tried[:, None, 2:])
    free = ~np.any(np.all(meets, axis=2), axis=1)
    if (good := inside & free).any():
        return np.asarray(tried[good][0])
    left, top = np.clip(tried[0, :2], 0, np.maximum(np.array(size) - (width, height), 0))
    return np.array((left, top, left + width, top + height))


def _ink(colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > _PALE else "white"
