"""How well a detector does on labelled pictures, and what it costs (chapters 16, 17 and 19)."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.blocks.deformable_attention import DeformableAttention
from course_lib.detection.coco_names import UNUSED
from course_lib.detection.detectors import Detector, Size, read, read_all
from course_lib.detection.finding import bare, in_pixels, outputs
from course_lib.detection.metrics import Truth, coco_map, duplicates
from course_lib.detection.prediction import Detections

BANDS = (12.0, 24.0)
"""Sides in pixels that part small, medium and large objects in the book's small pictures: roots of areas."""
SURE = 0.5
"""From which score on a box that is not the first of its object counts as a duplicate."""


class Sample(Protocol):
    """A labelled picture, see `course_lib.datasets.annotations.Labelled`."""

    @property
    def image(self) -> Tensor:
        """(3, H, W) in [0, 1]."""

    @property
    def boxes(self) -> Tensor:
        """(n, 4), xyxy in pixels."""

    @property
    def labels(self) -> Tensor:
        """(n,), int64, 0 for the first class."""


@torch.no_grad()
def detect(
    model: Detector, pictures: Tensor, size: Size | None = None, **settings: Any
) -> tuple[list[Detections], list[Detections]]:
    """Return what a detector finds in pictures, and what it is sure of before suppression, on the CPU, in their pixels.

    model: in eval mode. pictures: (N, 3, H, W) in [0, 1]. size: (height, width) they are resized to for the network;
    None: as they are. settings: as of `detectors.read`. Where nothing is suppressed, in a set, the second are all boxes
    of the set of which the detector is sure.
    """
    said, seen = outputs(model, pictures, size)
    own = (pictures.shape[-2], pictures.shape[-1])
    found, sure = read(model, said, seen, **settings), read_all(model, said, seen, SURE, **settings)
    return [in_pixels(one, own) for one in found], [in_pixels(one, own) for one in sure]


def evaluate(
    model: Detector,
    samples: Iterable[Sample],
    names: tuple[str, ...],
    size: Size | Callable[[Size], Size] | None = None,
    bands: tuple[float, float] = BANDS,
    batch: int = 25,
    **settings: Any,
) -> dict[str, Any]:
    """Return how well a detector in eval mode finds the objects of labelled pictures, by COCO's rules.

    {"AP": mean over overlaps 0.50, 0.55, ..., 0.95; "AP50"; "AP75"; "AP_small", "AP_medium", "AP_large"; "duplicates":
    boxes of score >= `SURE` per found object, besides its first, before suppression; "per_class": {name: AP50};
    "pictures", "objects": how many}. NaN for what there are no objects for. Objects that a sample calls `difficult`,
    bool (n,), do not count.

    names: of the classes, label 0 first. size: what the network sees pictures at, or what returns it for a picture's
    (height, width), such as `finding.looks_at`; None: as they are. bands: see `BANDS`, in pixels of the pictures as
    they are. batch: neighbours of one size that are seen at once. settings: as of `detectors.read`.
    """
    found, sure, truths = [], [], []
    for some in _batches(samples, batch):
        own = (some[0].image.shape[-2], some[0].image.shape[-1])
        shown = size(own) if callable(size) else size
        kept, before = detect(model, torch.stack([one.image for one in some]), shown, **settings)
        found += kept
        sure += before
        truths += [Truth(one.boxes, one.labels, getattr(one, "difficult", None)) for one in some]
    scores = dict(coco_map(found, truths, len(names), (bands[0] ** 2, bands[1] ** 2)))
    by_class: Any = scores.pop("AP50_per_class")
    return {
        **scores,
        "duplicates": duplicates(sure, truths, score=SURE),
        "per_class": {name: value for name, value in zip(names, by_class, strict=True) if name != UNUSED},
        "pictures": len(truths),
        "objects": sum(len(one.labels) - _hard(one) for one in truths),
    }


def _hard(truth: Truth) -> int:
    return 0 if truth.difficult is None else int(truth.difficult.sum())


def _batches(samples: Iterable[Sample], batch: int) -> Iterator[list[Sample]]:
    for _, alike in groupby(samples, key=lambda one: one.image.shape):
        while some := list(islice(alike, batch)):
            yield some


def multiply_adds(model: Detector, picture: Size | None = None) -> int:
    """Return the multiplications with additions of all products in a detector for one picture of a size.

    Those of convolutions and matrices, of attention both: queries with keys, weights with values. The rows that
    deformable attention gathers and weights are not counted, nor are norms, softmax and positions. picture: (height,
    width); None: the detector's own. What a picture costs in eval mode; nothing is computed, and the model is as
    before. Raises ValueError for a picture that is too small, and for None where the detector has no size of its own.
    """
    size = picture or model.picture
    if size is None:
        raise ValueError(f"picture must be (height, width) for {type(model).__name__}, which has no size of its own")
    module: Any = model
    before = module.training
    module.eval()
    try:
        return products(bare(model, size), module)
    finally:
        module.train(before)


def products(run: Callable[[], Any], module: nn.Module) -> int:
    """Return the multiplications with additions of all products while `run` calls a module, which holds all others.

    Not those that stand for what deformable attention gathers where few cells make a matrix faster: what a network
    costs would depend on that choice.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    total, counts = counter.get_total_flops(), counter.get_flop_counts()
    for name, part in module.named_modules():
        if isinstance(part, DeformableAttention):
            where = f"{type(module).__name__}.{name}"
            total -= counts.get(where, {}).get(torch.ops.aten.bmm, 0)
    return int(total) // 2
