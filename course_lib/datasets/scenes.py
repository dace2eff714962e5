"""Generated pictures of shapes, with boxes, labels and masks: every difficulty of detection is a knob."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.datasets.counter import check_whole, random_bits
from course_lib.datasets.layout import Layout
from course_lib.datasets.shapes import DISTRACTORS, SHAPES, Stamp, fitted, stamp
from course_lib.datasets.textures import Planes, Pyramid, bank, window

SMALLEST = 4
"""The smallest side of an object's box, in pixels."""
MOST_OBJECTS = 1000
"""The most objects of a scene."""

_STREAM = 2
_PLACES = 48  # how many places are tried for an object
_HEAD, _PIECE = 16, 24  # random numbers for the picture; for a distractor, or an object without its places

Draw = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Scene:
    """A generated picture with its truth; n objects, those in front last. `==` asks whether two are the same object.

    image: float32 (3, H, W) in [0, 1], whole 255ths. boxes: float32 (n, 4), xyxy in pixels (a box around the pixels
    of columns 3 to 7 and row 2 is 3, 2, 8, 3), tight around the part of the object that can be seen. labels: int64
    (n,), places in `classes`. instances: int64 (H, W), 0 for background and k for the k-th object, counted from 1.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    instances: Tensor
    classes: tuple[str, ...]

    @property
    def masks(self) -> Tensor:
        """The visible part of each object, bool (n, H, W); no two overlap."""
        return self.instances == torch.arange(1, len(self.labels) + 1)[:, None, None]

    def semantic(self) -> Tensor:
        """Return the class of each pixel, int64 (H, W): 0 for background, 1 for the first class and so on."""
        return torch.cat([self.labels.new_zeros(1), self.labels + 1])[self.instances]


@dataclass(frozen=True)
class Scenes:
    """Endless scenes of shapes on textured ground; `scenes[index]` is a pure function of the knobs and the index.

    seed: whole number >= 0; scenes for testing take another one than those for training. size: (height, width).
    classes: names among SHAPES, each as likely. count: least and most objects aimed at, each number as likely.
    object_size: least and most pixels of the short side of a box, 4 or more and at most the picture's short side;
    each ratio as likely (log-uniform). Long sides are up to five times as long.
    overlap: the largest intersection over union of two boxes; 0 keeps boxes apart. hidden: the largest part of an
    object that others may cover; smaller objects are in front of larger ones. The picture's border cuts none. An object
    that finds no place in 48 tries is left out, so that crowded pictures may hold fewer than `count` says.
    clutter: distractors for each object aimed at: bent lines, corners and blobs of the sizes, colours and textures of
    objects, behind them and without labels. contrast: how far the mean colour of an object lies from the mean of what
    its box covers, root mean square over the channels, in [0, 0.5].
    textures: True for windows of free photographs, False for smooth noise.

    Raises TypeError or ValueError that name the knob. The same bytes come from every process, order and worker.
    """

    seed: int = 0
    size: tuple[int, int] = (64, 64)
    classes: tuple[str, ...] = ("disc", "square", "triangle")
    count: tuple[int, int] = (1, 4)
    object_size: tuple[float, float] = (10, 30)
    overlap: float = 0.3
    hidden: float = 0.5
    clutter: float = 0.0
    contrast: float = 0.2
    textures: bool = True

    def __post_init__(self) -> None:
        """Check every knob before anything is computed."""
        check_whole("seed", self.seed)
        for name, meaning in (
            ("size", "(height, width)"),
            ("count", "(least, most)"),
            ("object_size", "(least, most)"),
        ):
            # tuples, because scenes are kept in caches by their knobs
            object.__setattr__(self, name, _pair(name, getattr(self, name), meaning))
        for side in self.size:
            check_whole("size", side, least=SMALLEST)
        _check_classes(self.classes)
        least, most = self.count
        check_whole("count", least, most=MOST_OBJECTS)
        check_whole("count", most, most=MOST_OBJECTS)
        if least > most:
            raise ValueError(f"count must be (least, most) with least <= most, got {self.count!r}")
        smallest, largest = self.object_size
        _check_real("object_size", smallest, SMALLEST, min(self.size))
        _check_real("object_size", largest, SMALLEST, min(self.size))
        if math.ceil(smallest) > math.floor(largest):
            raise ValueError(
                f"object_size must be (least, most) with a whole number between them, got {self.object_size!r}"
            )
        _check_real("overlap", self.overlap, 0, 1)
        _check_real("hidden", self.hidden, 0, 0.95)
        _check_real("clutter", self.clutter, 0, 100)
        _check_real("contrast", self.contrast, 0, 0.5)
        if not isinstance(self.textures, bool):
            raise TypeError(f"textures must be True (photographs) or False (noise), got {self.textures!r}")

    def __getitem__(self, index: int) -> Scene:
        """Return the scene of an index; raise TypeError or ValueError unless it is a whole number >= 0."""
        return self.sample(index)

    def sample(self, index: int) -> Scene:
        """Return the scene of an index, as `scenes[index]` does."""
        blocks = self._numbers(index)
        pictures, draw = bank(self.textures), next(blocks)
        image = _ground(pictures, draw, *self.size)
        least, most = self.count
        aimed = least + int(draw() * (most - least + 1))
        pieces = int(self.clutter * aimed + draw())
        objects = [next(blocks) for _ in range(most)][:aimed]
        for _ in range(pieces):
            self._distract(image, pictures, next(blocks))
        layout, labels = Layout(self.size, self.overlap, self.hidden, math.ceil(self.object_size[0])), []
        wanted = [(self._side(draw()), int(draw() * len(self.classes)), draw) for draw in objects]
        # large ones first: they find no place later, and would hide small ones
        for side, label, draw in sorted(wanted, key=lambda one: -one[0]):
            made = self._shape(self.classes[label], side, draw)
            place = made and _place(layout, made, draw)
            if made and place:
                _paint(image, pictures, draw, made.alpha, *place, self.contrast)
                labels.append(label)
        np.rint(image, out=image)
        image /= 255
        return Scene(
            image=torch.from_numpy(image),
            boxes=torch.tensor(layout.boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.int64),
            instances=torch.from_numpy(layout.owner),
            classes=self.classes,
        )

    def _numbers(self, index: int) -> Iterator[Draw]:
        """Yield sources of uniform numbers in [0, 1): one for the picture, `count[1]` for objects, then for
        distractors.
        """
        most = self.count[1]
        lengths = [_HEAD] + [_PIECE + 2 * _PLACES] * most + [_PIECE] * math.ceil(self.clutter * most + 1)
        bits = random_bits(self.seed, index, sum(lengths), _STREAM)
        numbers, start = ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).tolist(), 0
        for length in lengths:
            yield iter(numbers[start : start + length]).__next__
            start += length

    def _side(self, number: float) -> int:
        """Return a whole number of pixels, k with a probability proportional to log((k + 1) / k)."""
        least, most = math.ceil(self.object_size[0]), math.floor(self.object_size[1])
        return min(most, int(least * ((most + 1) / least) ** number))

    def _shape(self, name: str, side: int, draw: Draw) -> Stamp | None:
        turn, detail, phase = 2 * math.pi * draw(), draw(), (draw(), draw())
        # a long shape that does not fit into the picture is turned until its box is a square
        for angle, short in ((turn, side), (math.pi / 4, side), (math.pi / 4, side - 1)):
            made = fitted(SHAPES[name], detail, angle, short, phase) if short >= self.object_size[0] else None
            if made and made.box[2] <= self.size[0] and made.box[3] <= self.size[1]:
                return made
        return None

    def _distract(self, image: Planes, pictures: tuple[Pyramid, ...], draw: Draw) -> None:
        shape = list(DISTRACTORS.values())[int(draw() * len(DISTRACTORS))]
        reach = self._side(draw()) / 2
        made = stamp(shape, draw(), 2 * math.pi * draw(), reach, (draw(), draw()))
        if made is not None:
            height, width = made.alpha.shape
            top = int(draw() * (self.size[0] + height)) - height
            left = int(draw() * (self.size[1] + width)) - width
            _paint(image, pictures, draw, made.alpha, top, left, self.contrast)


def _ground(pictures: tuple[Pyramid, ...], draw: Draw, height: int, width: int) -> Planes:
    image = window(pictures, draw, height, width)
    for plane in image:
        gain = 0.5 + 0.5 * draw()
        plane *= gain
        plane += 255 * (1 - gain) * draw()
    return image


def _place(layout: Layout, made: Stamp, draw: Draw) -> tuple[int, int] | None:
    """Return the row and column of the stamp's first pixel in the picture, or None after too many tries."""
    y, x, height, width = made.box
    rows, columns = layout.size[0] - height + 1, layout.size[1] - width + 1
    for _ in range(_PLACES):
        top, left = int(draw() * rows), int(draw() * columns)
        if layout.offer(made, left, top):
            return top - y, left - x
    return None


def _paint(
    image: Planes, pictures: tuple[Pyramid, ...], draw: Draw, alpha: Planes, top: int, left: int, contrast: float
) -> None:
    """Lay a texture over the picture through `alpha`, whose first pixel is at (top, left), perhaps outside."""
    y0, x0, y1, x1 = max(top, 0), max(left, 0), top + alpha.shape[0], left + alpha.shape[1]
    under = image[:, y0:y1, x0:x1]
    height, width = under.shape[1:]
    if not under.size:
        return
    texture = window(pictures, draw, height, width)
    gain = 0.3 + 0.7 * draw()
    means = [(part.sum((1, 2), dtype=np.float64) / (height * width)).tolist() for part in (under, texture)]
    weights = [0.4 + 0.6 * draw() for _ in range(3)]
    unit = 255 * contrast / math.sqrt(sum(w * w for w in weights) / 3)
    signs = int(8 * draw())
    for plane, mean, texture_mean, weight in zip(texture, *means, weights, strict=True):
        step, signs = weight * unit * (1 if signs % 2 else -1), signs // 2
        target = mean + step if 0 <= mean + step <= 255 else mean - step
        plane *= gain
        plane += target - gain * texture_mean
    np.maximum(texture, 0, out=texture)
    np.minimum(texture, 255, out=texture)
    texture -= under
    texture *= alpha[y0 - top : y0 - top + height, x0 - left : x0 - left + width]
    under += texture


def _pair(name: str, value: Any, meaning: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be {meaning}, two numbers, got {value!r}")
    return value[0], value[1]


def _check_classes(classes: Any) -> None:
    if isinstance(classes, str) or not isinstance(classes, tuple) or not classes:
        raise TypeError(f"classes must be a tuple of names, at least one, got {classes!r}")
    unknown = [name for name in classes if name not in SHAPES]
    if unknown or len(set(classes)) < len(classes):
        raise ValueError(f"classes must be different names among {', '.join(SHAPES)}; got {classes!r}")


def _check_real(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not least <= float(value) <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}, got {value}")
