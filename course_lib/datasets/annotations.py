"""Pictures with boxes: what a file says about one (PASCAL VOC's XML, COCO's JSON), and one ready for training (chapters
13 and 15).

A file is data: nothing in it is followed, opened or expanded, and whatever is not as expected is refused by its place.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

import torch
from torch import Tensor

from course_lib.datasets.markup import Element, Place, UnreadableAnnotation, read_json, read_xml

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_SLACK = 0.01  # pixels: COCO's numbers have two decimals, whose sums may leave the picture by as much

Written = tuple[str, float, float, float, float]
"""An object of a VOC file as it is written: class, xmin, ymin, xmax, ymax."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a file says about one picture; n objects.

    name: of the picture; of a VOC file its own name without ending, which it shares with the picture. size: (height,
    width). boxes: float32 (n, 4), xyxy in pixels: edges, so that the first pixel is the box 0, 0, 1, 1. labels: int64
    (n,), places in the list of classes. difficult: bool (n,), VOC's `difficult` or COCO's `iscrowd`: objects that are
    neither to be trained on nor to be counted.
    """

    name: str
    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    difficult: Tensor


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture with its boxes; `course_lib.detection.augmentation` makes new ones of it.

    image: floating point (3, H, W), RGB in [0, 1]. boxes: floating point (n, 4), xyxy in PIXELS. labels: int64 (n,),
    places in the list of classes. Raises TypeError or ValueError, which name the field, for other shapes or dtypes.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        for name, given in (("image", self.image), ("boxes", self.boxes)):
            if not isinstance(given, Tensor) or not given.is_floating_point():
                kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
                raise TypeError(f"{name} must be a floating point tensor, got {kind}")
        if self.image.dim() != 3 or self.image.shape[0] != 3 or not self.image.numel():
            raise ValueError(f"image must be (3, H, W), got {tuple(self.image.shape)}")
        if self.boxes.dim() != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must be (n, 4), got {tuple(self.boxes.shape)}")
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            kind = self.labels.dtype if isinstance(self.labels, Tensor) else type(self.labels).__name__
            raise TypeError(f"labels must be int64, got {kind}")
        if self.labels.shape != self.boxes.shape[:1]:
            raise ValueError(f"labels must be ({len(self.boxes)},), one for each box, got {tuple(self.labels.shape)}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.image.shape[-2], self.image.shape[-1]


def rescaled(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return boxes (n, 4), in pixels of a picture of size `old` (height, width), in those of the picture at `new`."""
    # first times, then over: an edge at the border comes to lie at the border, without a rounding beyond it
    times, over = (boxes.new_tensor((size[1], size[0], size[1], size[0])) for size in (new, old))
    return boxes * times / over


def read_voc(
    path: str | os.PathLike[str],
    classes: Sequence[str],
    one_based: bool = True,
    size: tuple[int, int] | None = None,
    repairs: Mapping[Written, str | None] | None = None,
) -> Annotation:
    """Return what an XML file of PASCAL VOC says about its picture; labels are places in `classes`.

    one_based: True for numbers as VOC defines them: pixels counted from 1, the last one inside, so that the edges are
    xmin - 1, ymin - 1, xmax, ymax. False for files that hold edges counted from 0; many tools write those (LabelImg:
    with 1 in place of 0). size: (height, width) of the picture itself, if it is known; a file that says another one is
    refused. repairs: objects as they are written, and the class each should have; None drops it.

    Raises UnreadableAnnotation for a file that cannot be read, is no such XML, declares a document type (and with it
    entities), says no size, or has an object of another class, with xmin >= xmax or ymin >= ymax, or beyond the
    picture; and for a repair of what is not there.
    """
    file, known, due = Path(path), _known(classes), dict(repairs or {})
    root = read_xml(file)
    if root.tag != "annotation":
        root.refuse("expected <annotation>, as VOC files begin")
    picture = _Picture(file.stem, _voc_size(root, size))
    for element in root.all("object"):
        name, edges = element.one("name"), element.one("bndbox")
        numbers = [edges.one(key).number() for key in _EDGES]
        written: Written = (name.text, numbers[0], numbers[1], numbers[2], numbers[3])
        label = due.pop(written) if written in due else name.text
        if label is None:
            continue
        if label not in known:
            name.refuse(f"unknown class {label[:40]!r}, expected one of {', '.join(known)}")
        picture.add(edges.refuse, numbers, known[label], element.flag("difficult"), first=int(one_based))
    if due:
        raise UnreadableAnnotation(f"{file} has no object {next(iter(due))}, which is to be repaired")
    return picture.annotation()


def read_coco(
    path: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> tuple[list[Annotation], tuple[str, ...]]:
    """Return what a JSON file of COCO says about each of its pictures, in the file's order, and the classes.

    classes: names among the file's categories, in the order of the labels; None: all, by their ids. Ids need not be
    0, 1, 2, ...: COCO's 80 end at 90. A box [x, y, width, height], edges counted from 0, becomes xyxy, and `iscrowd`
    becomes `difficult`. Sums that leave the picture by 0.01 pixels are rounding and are clipped.

    Raises UnreadableAnnotation for a file that cannot be read or is no such JSON, for pictures without a size or with
    an id used twice, and for boxes of no picture, of another class, without width or height, or beyond their picture.
    """
    whole = Place(Path(path), "", read_json(Path(path)))
    pictures: dict[int, _Picture] = {}
    for image in whole.items("images"):
        number = image.whole("id")
        if number in pictures:
            image.refuse(f"the id {number} is used twice, expected one for each picture")
        pictures[number] = _Picture(_safe_name(image), (image.whole("height", 1), image.whole("width", 1)))
    names = _categories(whole)
    wanted = tuple(names[number] for number in sorted(names)) if classes is None else tuple(classes)
    known = _known(wanted)
    missing = [name for name in wanted if name not in names.values()]
    if missing:
        whole.get("categories").refuse(f"expected all of {', '.join(wanted)}, but {missing[0]!r} is not there")
    for place in whole.items("annotations"):
        number, category = place.whole("image_id"), place.whole("category_id")
        if number not in pictures:
            place.refuse(f"expected as image_id the id of one of the {len(pictures)} images, got {number}")
        label = known.get(names.get(category, ""))
        if label is None:
            place.refuse(f"unknown class, category_id {category}, expected one of {', '.join(known)}")
        x, y, width, height = place.numbers("bbox", 4)
        crowd = place.whole("iscrowd", 0, 1, default=0)
        pictures[number].add(place.refuse, [x, y, x + width, y + height], label, bool(crowd), slack=_SLACK)
    return [picture.annotation() for picture in pictures.values()], wanted


@dataclass
class _Picture:
    """A picture whose objects are being read."""

    name: str
    size: tuple[int, int]
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    def add(
        self,
        refuse: Callable[[str], NoReturn],
        numbers: list[float],
        label: int,
        difficult: bool,
        first: int = 0,
        slack: float = 0.0,
    ) -> None:
        """Take an object; refuse a box that is none, or leaves the picture by more than `slack`.

        first: number of the first pixel: 0 for edges, 1 for VOC's pixels.
        """
        for low, high, axis in ((numbers[0], numbers[2], "x"), (numbers[1], numbers[3], "y")):
            if not low < high:
                refuse(f"expected {axis}min < {axis}max, got {low:g} and {high:g}")
        (x0, y0, x1, y1), (height, width) = numbers, self.size
        if min(x0, y0) < first - slack or x1 > width + slack or y1 > height + slack:
            came = ", ".join(f"{number:g}" for number in numbers)
            refuse(
                f"the box {came} leaves its picture, expected x from {first} to {width} and y from {first} to {height}"
                + (" (edges that count from 0 are read with one_based=False)" if first else "")
            )
        box = [max(x0 - first, 0), max(y0 - first, 0), min(x1, width), min(y1, height)]
        if min(box[2] - box[0], box[3] - box[1]) < _SLACK:
            refuse(f"expected a box of at least {_SLACK:g} pixels, got {x1 - x0:g} x {y1 - y0:g}")
        self.boxes.append(box)
        self.labels.append(label)
        self.difficult.append(difficult)

    def annotation(self) -> Annotation:
        """Return what has been read."""
        return Annotation(
            name=self.name,
            size=self.size,
            boxes=torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(self.labels, dtype=torch.int64),
            difficult=torch.tensor(self.difficult, dtype=torch.bool),
        )


def _categories(whole: Place) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in whole.items("categories"):
        number, name = category.whole("id"), category.text("name")
        if number in names or name in names.values():
            category.refuse(f"expected an id and a name of its own, got {number} and {name[:40]!r} again")
        names[number] = name
    if not names:
        whole.get("categories").refuse("expected at least one")
    return names


def _known(classes: Sequence[str]) -> dict[str, int]:
    if isinstance(classes, str) or not classes or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be names, at least one, got {classes!r}")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes must be different names, got {classes!r}")
    return {name: place for place, name in enumerate(classes)}


def _voc_size(root: Element, size: tuple[int, int] | None) -> tuple[int, int]:
    sides = []
    said = root.one("size")
    for key in ("height", "width"):
        number = said.one(key).number()
        if number != int(number) or number < 1:
            said.one(key).refuse(f"expected a whole number of pixels, got {number:g}")
        sides.append(int(number))
    if size is not None and tuple(sides) != tuple(size):
        said.refuse(f"expected the size of the picture, {size[0]} x {size[1]}, got {sides[0]} x {sides[1]}")
    return sides[0], sides[1]


def _safe_name(image: Place) -> str:
    name = image.text("file_name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        image.get("file_name").refuse(f"expected a file below the folder of pictures, got {name!r:.60}")
    return name
