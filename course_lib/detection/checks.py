"""What several parts of detection demand of their arguments (chapters 13 to 23)."""

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.detection.boxes import check_last
from course_lib.upsampling.grids import check_length


def check_share(name: str, value: Any, zero: bool = True) -> float:
    """Return a number in [0, 1], or in (0, 1] without `zero`; others raise TypeError or ValueError, which name it."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= float(value) <= 1 or (value == 0 and not zero):
        raise ValueError(f"{name} must be in {'[' if zero else '('}0, 1], got {value!r}")
    return float(value)


def check_rows(name: str, boxes: Tensor, labels: Tensor) -> None:
    """Raise TypeError or ValueError unless boxes are (n, 4), floating point, and labels int64 (n,)."""
    check_last(name, boxes)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {labels.dtype if isinstance(labels, Tensor) else labels}")
    if boxes.dim() != 2 or labels.shape != boxes.shape[:1]:
        shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"{name} must be (n, 4) and labels (n,), got {shapes}")


def check_device(name: str, value: Tensor, other: str, expected: Tensor) -> None:
    """Raise ValueError unless both tensors are on one device."""
    if value.device != expected.device:
        raise ValueError(f"{name} and {other} must be on one device, got {value.device} and {expected.device}")


def check_shown(picture: Any, shorter: int, longer: int) -> tuple[tuple[int, int] | None, int, int]:
    """Return at which size a detector wants pictures: (height, width) or None, and then sides `shorter` to `longer`.

    Raises TypeError or ValueError for what is no size, and for a `longer` below `shorter`.
    """
    if picture is not None:
        pair = isinstance(picture, list | tuple) and len(picture) == 2
        if not pair or not all(type(side) is int and side >= 1 for side in picture):
            raise ValueError(f"picture must be (height, width), whole numbers of at least 1, or None, got {picture!r}")
        picture = picture[0], picture[1]
    if check_length("longer", longer) < check_length("shorter", shorter):
        raise ValueError(f"longer must be at least shorter, {shorter}, got {longer}")
    return picture, shorter, longer
