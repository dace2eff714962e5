"""A detector on photographs: at which size it looks, what it finds, and the memory that takes (chapters 16 and 19)."""

import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.detection.detectors import Detector, Size, answers_with_set, read
from course_lib.detection.prediction import Detections, pad, preprocess
from course_lib.upsampling import output_size
from course_lib.upsampling.grids import check_length


def looks_at(model: Detector, picture: Size, scale: Fraction | float | None = None, size: Size | None = None) -> Size:
    """Return (height, width) at which a detector is shown a picture of a size: `size`, or the picture's times `scale`;
    without both the size that the detector was trained at, whatever that does to the picture's shape, or, where that is
    none, what `fitted` returns for its sides.

    Raises ValueError for both at once and for what is too small for the last map of a detector that can tell.
    """
    if scale is not None and size is not None:
        raise ValueError(f"scale or size must be None, got {scale} and {size}")
    if scale is not None:
        size = output_size(picture[0], scale), output_size(picture[1], scale)
    line: Any = model
    chosen = size or model.picture or fitted(picture, line.shorter, line.longer)
    check_size(model, chosen)
    return chosen


def check_size(model: Detector, size: Size) -> None:
    """Raise ValueError for a picture (height, width) that a detector with `map_sizes` says is too small for it.

    Others say so when they are run, `bare` too.
    """
    if hasattr(model, "map_sizes"):
        model.map_sizes(size)


def fitted(picture: Size, shorter: int, longer: int) -> Size:
    """Return the size (height, width) of a picture whose shorter side becomes `shorter` pixels, or less where the other
    would be longer than `longer`; its shape stays, to whole pixels.

    Raises TypeError or ValueError for sides that are not whole numbers of at least 1. As DETR is evaluated, with 800
    and 1333; Carion et al. 2020, section 4.
    """
    small, large = sorted((check_length("picture", picture[0]), check_length("picture", picture[1])))
    least = check_length("shorter", shorter)
    if large * least > check_length("longer", longer) * small:
        least = max(1, round(longer * small / large))
    # the official code keeps a picture whose shorter side is right already
    return (least, least * large // small) if picture[0] <= picture[1] else (least * large // small, least)


def outputs(model: Detector, pictures: Tensor, size: Size | None = None) -> tuple[Mapping[str, Tensor], Size]:
    """Return what a detector says of pictures (N, 3, H, W) in [0, 1], and the (height, width) at which it saw them.

    size: (height, width); None: as they are. All on the detector's device. Raises ValueError for a detector in
    training mode, whose norms would learn from the pictures.
    """
    images = _prepared(model, pictures, size)
    return model(images), (images.shape[-2], images.shape[-1])


def _prepared(model: Detector, pictures: Tensor, size: Size | None) -> Tensor:
    if model.training:
        raise ValueError("model must be in eval mode, got one in training mode: call model.eval()")
    return preprocess(pictures.to(next(model.parameters())), size, model.normalisation)


@torch.no_grad()
def find(model: Detector, pictures: Tensor, size: Size | None = None, **settings: Any) -> list[Detections]:
    """Return what a detector finds in pictures, in their pixels, on the CPU.

    model: in eval mode. pictures: (N, 3, H, W) in [0, 1]. size: (height, width) at which it is shown them, as
    `looks_at` returns it; None: as they are. settings: of `postprocess`, or of `select` for a detector that answers
    with a set.
    """
    found = read(model, *outputs(model, pictures, size), **settings)
    return [in_pixels(one, (pictures.shape[-2], pictures.shape[-1])) for one in found]


@torch.no_grad()
def find_together(
    model: Detector, pictures: Sequence[Tensor], scale: Fraction | float | None = None, **settings: Any
) -> list[Detections]:
    """Return what a detector finds in pictures (3, H, W) of any sizes, shown as one batch, in the pixels of each.

    Each is resized as `looks_at` says; smaller ones are padded below and on the right, and the mask tells. A padded
    picture may be seen a little otherwise than alone: the convolutions of DETR's body see the border, and YOLOS has no
    use for the mask. Other arguments as of `find`. Raises ValueError where a detector of SSD's line, which reads places
    of the whole input, would be given pictures of several sizes.
    """
    own = [(one.shape[-2], one.shape[-1]) for one in pictures]
    shown = [_prepared(model, one, looks_at(model, size, scale)) for one, size in zip(pictures, own, strict=True)]
    if not answers_with_set(model) and len({one.shape for one in shown}) > 1:
        sizes = ", ".join(f"{one.shape[-2]} x {one.shape[-1]}" for one in shown)
        raise ValueError(f"pictures must be seen at one size by {type(model).__name__}, got {sizes}")
    images, mask = pad([one[0] for one in shown])
    found = read(model, model(images, mask), (images.shape[-2], images.shape[-1]), **settings)
    return [in_pixels(one, size) for one, size in zip(found, own, strict=True)]


def in_pixels(found: Detections, size: Size) -> Detections:
    """Return normalised detections in pixels of a picture (height, width), on the CPU."""
    anchors = None if found.anchors is None else found.anchors.cpu()
    return Detections(found.pixels(size).cpu(), found.scores.cpu(), found.labels.cpu(), anchors)


def memory(model: Detector, size: Size) -> int:
    """Return how many bytes a detector's intermediate results for one picture (height, width) take at most, in float32.

    Counted without computing: the layers run without numbers. What the convolutions' kernels need besides is not in
    it, nor a matrix of attention that torch's fused kernel never holds. Raises ValueError for a picture that is too
    small.
    """
    run, meter = bare(model, size), _Meter()
    with _Fused(), meter:
        run()
    return meter.most


def bare(model: Detector, size: Size) -> Callable[[], Mapping[str, Tensor]]:
    """Return what returns a detector's outputs for one picture (height, width) without any numbers in them: nothing is
    computed, and the model is as before.

    Its parameters and buffers stand on the meta device meanwhile. Raises ValueError for a picture that is too small,
    some detectors only when they are run.
    """
    check_size(model, size)
    module = cast(nn.Module, model)
    numbers = (*module.named_parameters(), *module.named_buffers())
    without = {name: torch.empty_like(tensor, device="meta") for name, tensor in numbers}

    @torch.no_grad()
    def run() -> Mapping[str, Tensor]:
        said: Mapping[str, Tensor] = functional_call(module, without, (torch.empty(1, 3, *size, device="meta"),))
        return said

    return run


class _Fused(TorchFunctionMode):
    """Lets attention without numbers make its result alone, as fused kernels do; by itself it takes the slow form."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, value = given["query"], given["value"]
        return query.new_empty((*query.shape[:-1], value.shape[-1]))


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
