"""A detector on photographs: at which size it looks, what it finds, and the memory that takes (chapter 16)."""

import weakref
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.prediction import Detections, postprocess, preprocess
from course_lib.upsampling import output_size

Size = tuple[int, int]

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of PASCAL VOC in the order of the public codes, which is the alphabet's."""


def names(model: SSD) -> tuple[str, ...]:
    """Return what a detector's classes are called, label 0 first.

    Its own `names`; without them those of `VOC` where there are 20 classes, else "class 1", "class 2" and so on.
    """
    own = getattr(model, "names", None)
    if own is not None:
        return tuple(own)
    return VOC if model.classes == 1 + len(VOC) else tuple(f"class {k}" for k in range(1, model.classes))


def looks_at(model: SSD, picture: Size, scale: Fraction | float | None = None, size: Size | None = None) -> Size:
    """Return (height, width) at which a detector is shown a picture of a size: `size`, or the picture's times `scale`;
    without both the size that the detector was trained at, whatever that does to the picture's shape.

    Raises ValueError for both at once and for what is too small for the detector's last map.
    """
    if scale is not None and size is not None:
        raise ValueError(f"scale or size must be None, got {scale} and {size}")
    if scale is not None:
        size = output_size(picture[0], scale), output_size(picture[1], scale)
    chosen = model.picture if size is None else size
    model.map_sizes(chosen)
    return chosen


def outputs(model: SSD, pictures: Tensor, size: Size | None = None) -> tuple[Mapping[str, Tensor], Tensor]:
    """Return what a detector says of pictures (N, 3, H, W) in [0, 1], seen at a size, and its anchors there (P, 4).

    size: (height, width); None: as they are. All on the detector's device. Raises ValueError for a detector in
    training mode, whose norms would learn from the pictures.
    """
    if model.training:
        raise ValueError("model must be in eval mode, got one in training mode: call model.eval()")
    weight = next(model.parameters())
    images = preprocess(pictures.to(weight), size, model.normalisation)
    said: Mapping[str, Tensor] = model(images)
    return said, model.anchors((images.shape[-2], images.shape[-1]), device=weight.device)


@torch.no_grad()
def find(model: SSD, pictures: Tensor, size: Size | None = None, **settings: Any) -> list[Detections]:
    """Return what a detector finds in pictures, in their pixels, on the CPU.

    model: in eval mode. pictures: (N, 3, H, W) in [0, 1]. size: (height, width) at which it is shown them, as
    `looks_at` returns it; None: as they are. settings: of `postprocess`.
    """
    found = postprocess(*outputs(model, pictures, size), **settings)
    return [in_pixels(one, (pictures.shape[-2], pictures.shape[-1])) for one in found]


def in_pixels(found: Detections, size: Size) -> Detections:
    """Return normalised detections in pixels of a picture (height, width), on the CPU."""
    anchors = None if found.anchors is None else found.anchors.cpu()
    return Detections(found.pixels(size).cpu(), found.scores.cpu(), found.labels.cpu(), anchors)


@torch.no_grad()
def memory(model: SSD, size: Size) -> int:
    """Return how many bytes a detector's intermediate results for one picture (height, width) take at most, in float32.

    Counted without computing: the layers run without numbers. What the convolutions' kernels need besides is not in it.
    """
    model.map_sizes(size)
    numbers = (*model.named_parameters(), *model.named_buffers())
    bare = {name: torch.empty_like(tensor, device="meta") for name, tensor in numbers}
    meter = _Meter()
    with meter:
        functional_call(model, bare, (torch.empty(1, 3, *size, device="meta"),))
    return meter.most


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that live at the same time; views share their bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self.users: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._enter(tensor)
        return made

    def _enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self.users[key]:
            self.now += size
            self.most = max(self.most, self.now)
        self.users[key] += 1
        weakref.finalize(tensor, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            self.now -= size
