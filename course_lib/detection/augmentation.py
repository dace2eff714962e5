"""Pictures made other than they are, and their boxes with them: mirrored, seen from farther and nearer, in another
light (chapter 15).

What SSD is trained with (Liu et al. 2016, sections 2.2 and 3.6): windows are drawn in the picture or around it, and all
pixels are read once, through the last of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.datasets.annotations import Labelled, rescaled
from course_lib.datasets.counter import check_number, check_whole, random_bits
from course_lib.detection.boxes import clip, iou
from course_lib.detection.light import check_light, photometric, uniform

__all__ = [
    "OVERLAPS",
    "Augmentation",
    "Augmented",
    "Pictures",
    "Window",
    "crop",
    "flip",
    "patch",
    "photometric",
    "resize",
    "zoom_out",
]

OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
"""The least overlap of a patch with some box, of which SSD asks for one each time."""

Window = tuple[int, int, int, int]
"""What is looked at: left, top, right, bottom in pixels, the last two one past the last pixel; it may lie beyond."""

_TRIES, _FAR = 50, 10**9
_SEEDS, _ORDER = 4, 5  # streams of random numbers


def flip(labelled: Labelled, vertical: bool = False) -> Labelled:
    """Return the mirror image: left and right change places; vertical: top and bottom do."""
    height, width = labelled.size
    x0, y0, x1, y1 = labelled.boxes.unbind(-1)
    if vertical:
        return Labelled(labelled.image.flip(-2), torch.stack((x0, height - y1, x1, height - y0), -1), labelled.labels)
    return Labelled(labelled.image.flip(-1), torch.stack((width - x1, y0, width - x0, y1), -1), labelled.labels)


def resize(labelled: Labelled, size: tuple[int, int]) -> Labelled:
    """Return the picture resized to `size` (height, width), bilinearly with antialiasing; each axis has its scale.

    Raises TypeError or ValueError for a size that is not two whole numbers of at least 1.
    """
    _check_size(size)
    if size == labelled.size:
        return labelled
    image = F.interpolate(labelled.image[None], size, mode="bilinear", antialias=True)[0]
    return Labelled(image, rescaled(labelled.boxes, labelled.size, size), labelled.labels)


def crop(labelled: Labelled, window: Window, fill: Sequence[float] | None = None) -> Labelled:
    """Return what is seen through a window; beyond the picture there is the colour `fill`, or its mean colour for None.

    A box stays if its centre is in the window (on the left or upper edge is in, on the others out), and is cut at it.
    Raises TypeError or ValueError for a window that is not of whole numbers or has no pixels, and for another `fill`.
    """
    for edge in window:
        check_whole("window", edge, least=-_FAR, most=_FAR)
    left, top, right, bottom = window
    size = bottom - top, right - left
    if min(size) < 1:
        raise ValueError(f"window must be left < right and top < bottom, got {window!r}")
    if fill is not None:
        _check_fill(fill)
    boxes = labelled.boxes - labelled.boxes.new_tensor((left, top, left, top))
    keep = _centred(boxes, boxes.new_tensor([[0, 0, size[1], size[0]]]))[:, 0]
    return Labelled(_seen(labelled.image, window, fill), clip(boxes[keep], size), labelled.labels[keep])


def zoom_out(
    labelled: Labelled, generator: torch.Generator, most: float = 4.0, fill: Sequence[float] | None = None
) -> Labelled:
    """Return the picture somewhere on a ground 1 to `most` times as wide and high, of the colour `fill` or its mean.

    Objects keep their pixels and are smaller beside the whole. generator: on the CPU. Raises TypeError or ValueError
    for `most` below 1.
    """
    check_number("most", most, 1)
    return crop(labelled, _zoomed(labelled.size, generator, most), fill)


def patch(labelled: Labelled, generator: torch.Generator, smallest: float = 0.3) -> Labelled:
    """Return a patch of the picture as SSD samples it, or the whole.

    50 places are drawn. For each of OVERLAPS the first is kept whose IoU with some box is at least that and that holds
    the centre of some box; the result is one of these or the whole, each as likely. So a picture with boxes keeps at
    least one. The side of a patch (the root of its area) is `smallest` to 1 of the picture's, its aspect 1/2 to 2 of
    the picture's aspect. generator: on the CPU. Raises TypeError or ValueError for `smallest` out of 0.01 to 1.
    """
    check_number("smallest", smallest, 0.01, 1)
    return crop(labelled, _patch(labelled.boxes, labelled.size, generator, smallest))


@dataclass(frozen=True)
class Augmentation:
    """All of it in SSD's order: light, zoom-out, patch, resize, flip; `augmentation(labelled, generator)`.

    size: (height, width) of the result; None: the picture's own. flip, upside_down: probability of a mirror image.
    zoom_out: probability of a larger ground; most: how many times as wide at most. patch: probability that a patch is
    sampled (the whole is one of its choices); smallest: as of `patch`. brightness, contrast, saturation, hue, grey: as
    of `photometric`; all 0 for the picture's own light. fill: colour of the ground; None: the picture's mean.

    Every field is a number, or numbers; all at 0 with `size` None is the identity. Raises TypeError or ValueError that
    name the field.
    """

    size: tuple[int, int] | None = None
    flip: float = 0.5
    upside_down: float = 0.0
    zoom_out: float = 0.5
    most: float = 4.0
    patch: float = 1.0
    smallest: float = 0.3
    brightness: float = 0.125
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    grey: float = 0.0
    fill: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if self.size is not None:
            _check_size(self.size)
        for name in ("flip", "upside_down", "zoom_out", "patch"):
            check_number(name, getattr(self, name), 0, 1)
        check_number("most", self.most, 1, 16)
        check_number("smallest", self.smallest, 0.01, 1)
        check_light(*self._light)
        if self.fill is not None:
            _check_fill(self.fill)

    @property
    def _light(self) -> tuple[float, float, float, float, float]:
        return self.brightness, self.contrast, self.saturation, self.hue, self.grey

    def __call__(self, labelled: Labelled, generator: torch.Generator) -> Labelled:
        """Return a new picture; a pure function of the picture and the state of the generator, which is on the CPU."""
        flips, turns, zooms, patches = uniform(generator, 4)
        size = self.size or labelled.size
        if any(self._light):
            labelled = photometric(labelled, generator, *self._light)
        left, top, right, bottom = (0, 0, labelled.size[1], labelled.size[0])
        if zooms < self.zoom_out:
            left, top, right, bottom = _zoomed(labelled.size, generator, self.most)
        if patches < self.patch:
            shifted = labelled.boxes - labelled.boxes.new_tensor((left, top, left, top))
            x0, y0, x1, y1 = _patch(shifted, (bottom - top, right - left), generator, self.smallest)
            left, top, right, bottom = left + x0, top + y0, left + x1, top + y1
        labelled = resize(crop(labelled, (left, top, right, bottom), self.fill), size)
        if flips < self.flip:
            labelled = flip(labelled)
        return flip(labelled, vertical=True) if turns < self.upside_down else labelled


class Pictures(Protocol):
    """A finite set of labelled pictures, as `datasets.BCCD` is one."""

    @property
    def description(self) -> str:
        """What the samples are made of."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def sample(self, index: int) -> Labelled:
        """Return picture `index`, below `len`."""


@dataclass
class Augmented:
    """Endless samples of a finite set, each another picture: `sample(index)` is a pure function of seed and index.

    Each round of len(pictures) samples shows every picture once, in an order of its own. seed: whole number >= 0.
    """

    pictures: Pictures
    augmentation: Augmentation
    seed: int = 0
    _order: tuple[int, list[int]] = field(default=(-1, []), init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the seed and that there is a picture."""
        check_whole("seed", self.seed)
        if not len(self.pictures):
            raise ValueError("pictures must hold at least one, got none")

    @property
    def description(self) -> str:
        """What the samples are made of, in words for a card."""
        return f"{self.pictures.description} {self.augmentation}"

    def sample(self, index: int) -> Labelled:
        """Return sample `index`; raise TypeError or ValueError unless it is a whole number >= 0."""
        check_whole("index", index)
        turn, place = divmod(int(index), len(self.pictures))
        if self._order[0] != turn:
            bits = random_bits(self.seed, turn, len(self.pictures), _ORDER)
            self._order = turn, np.argsort(bits, kind="stable").tolist()
        seed = int(random_bits(self.seed, index, 1, _SEEDS)[0] >> np.uint64(1))
        return self.augmentation(self.pictures.sample(self._order[1][place]), torch.Generator().manual_seed(seed))


def _zoomed(size: tuple[int, int], generator: torch.Generator, most: float) -> Window:
    """Return a window around the whole picture, 1 to `most` times as wide and high."""
    ratio, down, right = uniform(generator, 3)
    height, width = (round(side * (1 + (most - 1) * ratio)) for side in size)
    top, left = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
    return -left, -top, width - left, height - top


def _patch(boxes: Tensor, size: tuple[int, int], generator: torch.Generator, smallest: float) -> Window:
    """Return the window of `patch`."""
    windows = _candidates(size, generator, smallest)
    boxes = boxes.cpu().to(torch.float64)
    if len(boxes):
        fine = iou(boxes, windows).amax(0) >= torch.tensor(OVERLAPS, dtype=torch.float64)[:, None]
        fine &= _centred(boxes, windows).any(0)
    else:
        fine = torch.tensor(OVERLAPS)[:, None] == torch.zeros(_TRIES)
    found = [row.index(True) for row in fine.tolist() if any(row)]
    chosen = int(uniform(generator, 1)[0] * (len(found) + 1))
    if chosen == len(found):
        return 0, 0, size[1], size[0]
    x0, y0, x1, y1 = map(int, windows[found[chosen]].tolist())
    return x0, y0, x1, y1


def _candidates(size: tuple[int, int], generator: torch.Generator, smallest: float) -> Tensor:
    """Return windows in whole pixels, float64 (50, 4)."""
    draws = torch.rand(4, _TRIES, generator=generator, dtype=torch.float64)
    side = smallest + (1 - smallest) * draws[0]
    # no side may be longer than the picture's
    least, most = side.square().clamp(min=0.5), side.square().reciprocal().clamp(max=2)
    root = (least + (most - least) * draws[1]).sqrt()
    edges = []
    for part, full, draw in ((side * root, size[1], draws[2]), (side / root, size[0], draws[3])):
        length = (part * full).round().clamp(1, full)
        start = (draw * (full - length + 1)).floor()
        edges.append((start, start + length))
    (x0, x1), (y0, y1) = edges
    return torch.stack((x0, y0, x1, y1), -1)


def _centred(boxes: Tensor, windows: Tensor) -> Tensor:
    """Return which boxes (n, 4) have their centre in which windows (m, 4): bool (n, m)."""
    x, y = ((boxes[:, k, None] + boxes[:, k + 2, None]) / 2 for k in (0, 1))
    x0, y0, x1, y1 = windows.unbind(-1)
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)


def _seen(image: Tensor, window: Window, fill: Sequence[float] | None) -> Tensor:
    left, top, right, bottom = window
    height, width = image.shape[-2:]
    x0, x1, y0, y1 = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if (x0, y0, x1, y1) == window:
        return image[:, y0:y1, x0:x1]
    colour = image.mean((1, 2)) if fill is None else image.new_tensor(fill)
    ground = colour[:, None, None].repeat(1, bottom - top, right - left)
    if x0 < x1 and y0 < y1:
        ground[:, y0 - top : y1 - top, x0 - left : x1 - left] = image[:, y0:y1, x0:x1]
    return ground


def _check_fill(fill: Any) -> None:
    if not isinstance(fill, tuple | list) or len(fill) != 3:
        raise TypeError(f"fill must be three numbers, for red, green and blue, or None, got {fill!r}")
    for value in fill:
        check_number("fill", value, 0, 1)


def _check_size(size: Any) -> None:
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"size must be (height, width), got {size!r}")
    for side in size:
        check_whole("size", side, least=1)
