"""Non-maximum suppression: of boxes that lie on the same object, the one with the highest score stays (chapter 16).

The slow form is `plain.detection.nms_loop`: take the best box that is left, remove all that overlap it too much, and
again. Here boxes are taken in blocks, by falling score. Which of a block stay is found from the matrix of their
overlaps (`unsuppressed`); then those that stay remove, a few at a time, from the boxes behind the block, so that later
blocks are made of what is left. On a GPU the host waits some times a block, never for a box.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.detection.boxes import area, check_last
from course_lib.detection.checks import check_device, check_share
from course_lib.upsampling.grids import check_length

_BLOCK_CPU, _BLOCK_GPU = 256, 4096  # boxes whose overlaps are all compared
_WHOLE_CPU, _WHOLE_GPU = 1024, 4096  # in a larger group not every pair is compared
_PAIRS_CPU, _PAIRS_GPU = 2**17, 2**26  # overlaps made at once: on a CPU they stay in its cache


def nms(boxes: Tensor, scores: Tensor, threshold: float = 0.45, most: int | None = None) -> Tensor:
    """Return the rows that stay, int64, by falling score; of equal scores the lower row first.

    boxes (n, 4) xyxy, in any unit; scores (n,). In that order each box stays unless its IoU with one that
    stayed before it is above `threshold`, in [0, 1]. An IoU that equals the threshold does not suppress, and a box
    without area overlaps none. most: stop after so many. No gradient.

    Raises TypeError or ValueError that name the argument; NaN among the scores is one. Liu et al. 2016 (SSD),
    section 2.1: threshold 0.45.
    """
    _check(boxes, scores, threshold, most)
    with torch.no_grad():
        order = scores.argsort(descending=True, stable=True)
        return order[_greedy(_wide(boxes[order]), threshold, len(order) if most is None else most)]


def class_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float = 0.45, most: int | None = None
) -> Tensor:
    """Return what `nms` keeps when only boxes of the same label suppress one another: rows, int64, by falling score.

    labels (n,) int64; most: of all labels together. The other arguments and the errors are those of `nms`.
    """
    _check(boxes, scores, threshold, most)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {labels.dtype if isinstance(labels, Tensor) else labels}")
    if labels.shape != scores.shape:
        raise ValueError(f"labels must be {tuple(scores.shape)} as scores, got {tuple(labels.shape)}")
    check_device("labels", labels, "scores", scores)
    stays = torch.zeros_like(labels, dtype=torch.bool)
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero()[:, 0]
        stays[rows[nms(boxes[rows], scores[rows], threshold, most)]] = True
    order = scores.detach().argsort(descending=True, stable=True)
    return order[stays[order]][:most]


def unsuppressed(boxes: Tensor, threshold: float) -> Tensor:
    """Return which boxes of each group stay: boxes (g, n, 4), every group by falling score -> bool (g, n).

    Rule and threshold are those of `nms`. Of some groups at a time the (n, n) matrices of overlaps are made; large
    groups go through the blocks of `nms`, one after another. Raises TypeError or ValueError that name the argument.
    """
    check_last("boxes", boxes)
    if boxes.dim() != 3:
        raise ValueError(f"boxes must be (g, n, 4), got {tuple(boxes.shape)}")
    check_share("threshold", threshold)
    boxes = _wide(boxes)
    if boxes.shape[1] > (_WHOLE_CPU if boxes.device.type == "cpu" else _WHOLE_GPU):
        stays = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        for group, some in zip(stays, boxes, strict=True):
            group[_greedy(some, threshold, len(some))] = True
        return stays
    size = max(1, _pairs(boxes) // max(1, boxes.shape[1] ** 2))
    return torch.cat([_stay(some, threshold) for some in torch.split(boxes, size)])


def _stay(boxes: Tensor, threshold: float) -> Tensor:
    areas = area(boxes)
    above = _overlaps(boxes, areas, boxes.mT.contiguous(), areas, threshold).triu_(1).to(boxes.dtype)
    # A box stays if none that stays suppresses it. Only the truth satisfies that for all boxes, and it is reached from
    # any guess: after k rounds it is right wherever a chain of suppressions is no longer than k. The host, which has to
    # wait for the answer, asks after 1, 3, 7, 15, ... rounds.
    stays, rounds = boxes.new_ones(len(boxes), 1, boxes.shape[1]), 1
    while True:
        for _ in range(rounds):
            before, stays = stays, ((stays @ above) == 0).to(boxes.dtype)
        if torch.equal(before, stays):
            return stays[:, 0] > 0
        rounds *= 2


def _greedy(boxes: Tensor, threshold: float, most: int) -> Tensor:
    """Return the rows that stay of boxes (n, 4), which are sorted, up to `most` of them."""
    block, pairs = _BLOCK_CPU if boxes.device.type == "cpu" else _BLOCK_GPU, _pairs(boxes)
    rows, areas, left = torch.arange(len(boxes), device=boxes.device), area(boxes), boxes.T.contiguous()
    kept: list[Tensor] = [rows[:0]]
    count = 0
    while len(rows) and count < most:
        head, head_areas, head_rows = left[:, :block].T.contiguous(), areas[:block], rows[:block]
        stays = _stay(head[None], threshold)[0].nonzero()[:, 0]
        kept.append(head_rows[stays])
        count += len(stays)
        head, head_areas = head[stays], head_areas[stays]
        rows, areas, left = rows[block:], areas[block:], left[:, block:]
        start = 0
        while len(rows) and start < len(stays) and count < most:
            end = start + max(8, pairs // len(rows))
            above = _overlaps(head[start:end], head_areas[start:end], left, areas, threshold)
            free = (~above.any(0)).nonzero()[:, 0]
            rows, areas, left = rows[free], areas[free], left[:, free]
            start = end
    return torch.cat(kept)[:most]


def _overlaps(boxes: Tensor, areas: Tensor, others: Tensor, other_areas: Tensor, threshold: float) -> Tensor:
    """Return whose IoU is above the threshold: boxes (..., n, 4), others (..., 4, m) -> bool (..., n, m).

    The same operations as in `boxes.iou`, each into the memory of the one before; 0 / 0, of boxes without area, is NaN,
    which is not above anything.
    """
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)
    u0, v0, u1, v1 = others[..., None, :].unbind(-3)
    shared = torch.minimum(x1, u1).sub_(torch.maximum(x0, u0)).clamp_(min=0)
    shared *= torch.minimum(y1, v1).sub_(torch.maximum(y0, v0)).clamp_(min=0)
    union = (areas[..., None] + other_areas[..., None, :]).sub_(shared)
    return shared.div_(union) > threshold


def _pairs(boxes: Tensor) -> int:
    return _PAIRS_CPU if boxes.device.type == "cpu" else _PAIRS_GPU


def _wide(boxes: Tensor) -> Tensor:
    # half precision has too few digits for differences of coordinates
    return boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))


def _check(boxes: Tensor, scores: Tensor, threshold: float, most: int | None) -> None:
    check_last("boxes", boxes)
    if boxes.dim() != 2:
        raise ValueError(f"boxes must be (n, 4), got {tuple(boxes.shape)}")
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"scores must be a floating point tensor, got {kind}")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must be ({len(boxes)},), one for each box, got {tuple(scores.shape)}")
    check_device("scores", scores, "boxes", boxes)
    check_share("threshold", threshold)
    if most is not None:
        check_length("most", most)
    unknown = scores.isnan()
    if bool(unknown.any()):
        raise ValueError(f"scores must not be NaN, got it in row {int(unknown.nonzero()[0, 0])}")
