"""Boxes: two ways of writing one, areas, and how much two of them share (chapter 13).

A box is four numbers, by its corners `xyxy` = (x0, y0, x1, y1) or by its centre `cxcywh` = (cx, cy, w, h). Its numbers
are fractions of the picture's width (x, w) and height (y, h), so that a box means the same when a picture is resized;
or they are pixels, where a name or a docstring says so. Sizes of pictures are (height, width).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Size = tuple[float, float]


def to_xyxy(boxes: Tensor) -> Tensor:
    """Return the corners of boxes given by centre and size: (..., 4) -> (..., 4), in the same unit.

    (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2). Raises TypeError or ValueError for another shape.
    """
    check_last("boxes", boxes)
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """Return centre and size of boxes given by their corners: (..., 4) -> (..., 4), in the same unit.

    ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0). Raises TypeError or ValueError for another shape.
    """
    check_last("boxes", boxes)
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), -1)


def to_pixels(boxes: Tensor, size: Size) -> Tensor:
    """Return normalised boxes, of either format, in pixels of a picture of `size` (height, width).

    x and w are multiplied by the width, y and h by the height. Raises TypeError or ValueError for another shape, or
    for a size that is not positive.
    """
    return boxes * _extent(boxes, size)


def to_normalised(boxes: Tensor, size: Size) -> Tensor:
    """Return boxes in pixels, of either format, as fractions of a picture of `size` (height, width).

    The inverse of `to_pixels`, with the same errors.
    """
    return boxes / _extent(boxes, size)


def _extent(boxes: Tensor, size: Size) -> Tensor:
    check_last("boxes", boxes)
    height, width = check_size("size", size)
    return boxes.new_tensor((width, height, width, height))


def area(boxes: Tensor) -> Tensor:
    """Return the areas of xyxy boxes, (..., 4) -> (...), in the square of their unit.

    A box whose second corner is left of or above its first has area 0. Raises TypeError or ValueError for another
    shape.
    """
    check_last("boxes", boxes)
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def iou(a: Tensor, b: Tensor, *, paired: bool = False) -> Tensor:
    """Return intersection over union, in [0, 1], of every box of `a` with every box of `b`.

    (..., n, 4), (..., m, 4) -> (..., n, m); `paired`: (..., 4), (..., 4) -> (...), each box with the one beside it.
    Both xyxy in one unit. Symmetric; it does not change when both axes are stretched. 0 where the union has no area,
    with gradients that are finite. Half precision is computed in float32, and so is the result. Boxes that are not
    finite give NaN. Raises TypeError or ValueError for other shapes.
    """
    first, second = _beside(a, b, paired)
    shared, union = _shared_and_union(first, second)
    return _ratio(shared, union)


def giou(a: Tensor, b: Tensor, *, paired: bool = False) -> Tensor:
    """Return the generalised IoU of boxes: shapes, units and errors as of `iou` (Rezatofighi et al. 2019, algorithm 1).

    IoU - (hull - union) / hull, where the hull is the smallest box around both. In (-1, 1] for boxes with an area, and
    never above IoU; equal to it where the hull is the union. Unlike IoU it says of boxes that do not meet how far
    apart they are, and has a gradient there. Two boxes without area have -1, and 0 where their hull has none either.
    """
    first, second = _beside(a, b, paired)
    shared, union = _shared_and_union(first, second)
    corners = zip((torch.minimum, torch.minimum, torch.maximum, torch.maximum), first, second, strict=True)
    x0, y0, x1, y1 = (outer(mine, other) for outer, mine, other in corners)
    hull = (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
    return _ratio(shared, union) - _ratio(hull - union, hull)


def _beside(a: Tensor, b: Tensor, paired: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the four coordinates of both, shaped so that they can be compared place by place."""
    check_last("a", a)
    check_last("b", b)
    if a.device != b.device:
        raise ValueError(f"a and b must be on one device, got {a.device} and {b.device}")
    if paired and a.shape != b.shape:
        raise ValueError(f"paired boxes must have one shape, got a {tuple(a.shape)} and b {tuple(b.shape)}")
    if not paired and min(a.dim(), b.dim()) < 2:
        raise ValueError(f"a and b must be (..., n, 4) and (..., m, 4), got {tuple(a.shape)} and {tuple(b.shape)}")
    first, second = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (a, b))
    if paired:
        return first.unbind(-1), second.unbind(-1)
    return first[..., :, None, :].unbind(-1), second[..., None, :, :].unbind(-1)


def _shared_and_union(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the areas of intersection and union."""
    ax0, ay0, ax1, ay1 = first
    bx0, by0, bx1, by1 = second
    w = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    h = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    shared = w * h
    ours = (ax1 - ax0).clamp(min=0) * (ay1 - ay0).clamp(min=0)
    theirs = (bx1 - bx0).clamp(min=0) * (by1 - by0).clamp(min=0)
    return shared, ours + theirs - shared


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where the whole is 0; the division is kept from 0 so that no gradient is NaN."""
    empty = whole == 0
    return torch.where(empty, 0, part / torch.where(empty, 1, whole))


def clip(boxes: Tensor, size: Size = (1, 1)) -> Tensor:
    """Return xyxy boxes cut at the border of a picture of `size` (height, width): (..., 4) -> (..., 4).

    A box wholly outside becomes one without area. Raises TypeError or ValueError as `to_pixels`.
    """
    return torch.minimum(boxes.clamp(min=0), _extent(boxes, size))


def is_valid(boxes: Tensor) -> Tensor:
    """Return which xyxy boxes are finite with x0 < x1 and y0 < y1: (..., 4) -> bool (...).

    Raises TypeError or ValueError for another shape.
    """
    check_last("boxes", boxes)
    finite = boxes.isfinite().all(-1)
    return finite & (boxes[..., 0] < boxes[..., 2]) & (boxes[..., 1] < boxes[..., 3])


def check_boxes(name: str, boxes: Tensor) -> None:
    """Raise TypeError or ValueError unless `boxes` are (n, 4) xyxy boxes that are all valid; n may be 0.

    The message has the argument's `name`, the first bad row and its numbers.
    """
    check_last(name, boxes)
    if boxes.dim() != 2:
        raise ValueError(f"{name} must be (n, 4), got {tuple(boxes.shape)}")
    bad = ~is_valid(boxes)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        came = ", ".join(f"{value:.6g}" for value in boxes[row].tolist())
        raise ValueError(f"{name} must be finite with x0 < x1 and y0 < y1, got ({came}) in row {row}")


def check_last(name: str, boxes: Tensor) -> None:
    """Raise TypeError or ValueError for anything but a floating-point tensor (..., 4)."""
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
        kind = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
        raise TypeError(f"{name} must be a floating-point torch.Tensor, got {kind}")
    if boxes.dim() < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must be (..., 4), got {tuple(boxes.shape)}")


def check_size(name: str, size: Size) -> Size:
    """Return (height, width) if both are above 0 and finite, otherwise raise ValueError naming what came."""
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(0 < n < math.inf for n in size):
        raise ValueError(f"{name} must be (height, width), both above 0 and finite, got {size!r}")
    return size[0], size[1]
