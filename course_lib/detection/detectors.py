"""What every detector of the book is to those who ask it: one that suppresses (SSD's line, chapters 14 to 18), or one
that answers with a set (DETR's line, chapters 19 to 24).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn

from course_lib.detection.coco_names import BY_ID, NAMES
from course_lib.detection.prediction import Detections, Normalisation, postprocess
from course_lib.detection.set_prediction import select

Size = tuple[int, int]

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of PASCAL VOC in the order of the public codes, which is the alphabet's."""

OF_SETS = ("score", "most")
"""The settings that `read` takes for a detector that answers with a set: nothing is suppressed there."""


class Detector(Protocol):
    """A module from pictures to outputs that `read` turns into detections.

    classes: columns of the logits, with the one for no object where there is one. picture: (height, width) it was made
    for; None: any, shown so that the shorter side is `shorter` pixels but the longer at most `longer`. normalisation:
    what turns pictures in [0, 1] into its input. Of SSD's line are those that have `anchors`; the others say by
    `background` whether their last column means no object (softmax), or each class is asked for by itself (sigmoid).
    """

    @property
    def classes(self) -> int:
        """Columns of the logits."""

    @property
    def picture(self) -> Size | None:
        """(height, width), or None."""

    @property
    def normalisation(self) -> Normalisation:
        """From pictures in [0, 1] to the input."""

    @property
    def training(self) -> bool:
        """Whether it is in training mode."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return its parameters, as every module does."""

    def __call__(self, images: Tensor, mask: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return the outputs for images (N, 3, H, W); mask: bool (N, H, W), True where there is no picture."""


def is_detector(network: nn.Module) -> bool:
    """Return whether a network finds objects."""
    both = hasattr(network, "normalisation") and hasattr(network, "classes")
    return both and hasattr(network, "picture") and (hasattr(network, "anchors") or hasattr(network, "background"))


def answers_with_set(model: Detector) -> bool:
    """Return whether a detector is of DETR's line: each query says one box, and no box is suppressed."""
    return not hasattr(model, "anchors")


def names(model: Detector) -> tuple[str, ...]:
    """Return what a detector's classes are called, label 0 first.

    Its own `names`; without them those of `VOC` where there are 20 classes, of COCO where there are 80 or, by its
    numbers, 91; else "class 1", "class 2" and so on.
    """
    own = getattr(model, "names", None)
    if own is not None:
        return tuple(own)
    background = not answers_with_set(model) or bool(cast(Any, model).background)
    count = model.classes - background
    known = {len(some): some for some in (VOC, NAMES, BY_ID)}
    return known.get(count) or tuple(f"class {k}" for k in range(1, count + 1))


def read(model: Detector, said: Mapping[str, Tensor], seen: Size, **settings: Any) -> list[Detections]:
    """Return what a detector's outputs say of each picture, normalised: `postprocess` or `select`.

    seen: (height, width) of the input. settings: of the one that reads, see `OF_SETS`. Raises TypeError or ValueError
    as they do, and ValueError for a setting of suppression where nothing is suppressed.
    """
    line: Any = model
    if not answers_with_set(model):
        return postprocess(said, line.anchors(seen, device=said["logits"].device), **settings)
    if others := [name for name in settings if name not in OF_SETS]:
        raise ValueError(
            f"settings must be {' and '.join(OF_SETS)} for {type(model).__name__}, which answers with a set; got "
            f"{', '.join(others)}"
        )
    return select(said, line.background, **settings)


def read_all(
    model: Detector, said: Mapping[str, Tensor], seen: Size, above: float, /, **settings: Any
) -> list[Detections]:
    """Return every box of a score `above` before suppression; where nothing is suppressed, all such boxes of the set.

    Other arguments as of `read`; a `score`, `top` or `most` among the settings is passed over.
    """
    queries, columns = said["logits"].shape[1:]
    if answers_with_set(model):
        return read(model, said, seen, score=above, most=queries * columns)
    return read(model, said, seen, **(settings | {"nms": False, "score": above, "top": queries, "most": None}))
