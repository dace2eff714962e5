"""Which anchor is to find which box: the two rules of SSD's implementations (chapter 15).

Both give a box an anchor of its own, however little they share, and then every other anchor the box it shares most
with, if their IoU is `threshold` or more (Liu et al. 2016, section 2.2, writes "higher than 0.5"; the codes have >=):

- "greedy", as the authors' Caffe: of all pairs of a box and an anchor that are still free, the one with the largest IoU
  comes first, and so on. No two boxes get one anchor. A box that shares nothing with any free anchor gets none.
- "independent", as the well-known ports to PyTorch: each box takes the anchor it shares most with, whoever has it; of
  two boxes that want one anchor the later wins, and the other may be left without any. A box that shares nothing
  with any anchor takes the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from course_lib.detection.boxes import check_boxes, check_last, iou, to_xyxy
from course_lib.detection.checks import check_device, check_share
from course_lib.upsampling.grids import check_choice

Rule = Literal["greedy", "independent"]

_LEAST = 1e-6  # Caffe's: what shares no more is no pair


@torch.no_grad()
def match(boxes: Tensor, anchors: Tensor, rule: Rule = "greedy", threshold: float = 0.5) -> Tensor:
    """Return for each anchor the row of the box that it is to find, or -1: int64 (P,) (Liu et al. 2016, section 2.2).

    boxes: xyxy (n, 4), n may be 0; anchors: cxcywh (P, 4), in the same unit. threshold: IoU in (0, 1] from which an
    anchor finds a box that another is there for, too. Equal overlaps: the lower anchor, then the lower box first.
    Raises TypeError or ValueError for other shapes, devices, rules and thresholds, and for boxes or anchors that are
    not finite or have no width or height.
    """
    check_rule(rule, threshold)
    check_boxes("boxes", boxes)
    check_anchors("anchors", anchors)
    check_device("boxes", boxes, "anchors", anchors)
    kind = common_kind(boxes, anchors)
    return assign(iou(boxes.to(kind), to_xyxy(anchors.to(kind))), rule, threshold)


@torch.no_grad()
def assign(overlaps: Tensor, rule: Rule = "greedy", threshold: float = 0.5) -> Tensor:
    """Return what `match` does of the IoU of every box with every anchor: (n, P), in [0, 1] -> int64 (P,).

    Raises TypeError or ValueError for another shape, rule or threshold.
    """
    check_rule(rule, threshold)
    if not isinstance(overlaps, Tensor) or not overlaps.is_floating_point() or overlaps.dim() != 2:
        came = f"{overlaps.dtype} {tuple(overlaps.shape)}" if isinstance(overlaps, Tensor) else type(overlaps).__name__
        raise TypeError(f"overlaps must be a floating-point torch.Tensor (n, P), got {came}")
    boxes, anchors = overlaps.shape
    rows = torch.full((anchors,), -1, device=overlaps.device)
    if not boxes or not anchors:
        return rows
    enough = (overlaps.amax(dim=0) >= threshold).nonzero().squeeze(1)  # few: their best boxes are looked for alone
    rows[enough] = overlaps[:, enough].argmax(dim=0)
    own = _greedy(overlaps) if rule == "greedy" else _independent(overlaps)
    return torch.where(own >= 0, own, rows)


def _greedy(overlaps: Tensor) -> Tensor:
    """Return for each anchor the row of the box that it alone is there for, or -1: pairs by falling overlap.

    Boxes wait in a heap by their best anchor. One whose anchor was taken waits again, by its next: of its n best, one
    is still free, and only then are they put in order.
    """
    most, best = overlaps.amax(dim=1), overlaps.argmax(dim=1)
    waiting = list(zip((-most).tolist(), best.tolist(), range(len(overlaps)), strict=True))
    heapq.heapify(waiting)
    taken: dict[int, int] = {}
    next_best: dict[int, Iterator[tuple[float, int]]] = {}
    while waiting and -waiting[0][0] > _LEAST:
        _, place, row = waiting[0]
        if place not in taken:
            taken[place] = row
            heapq.heappop(waiting)
            continue
        if row not in next_best:
            values, places = overlaps[row].sort(descending=True, stable=True)
            next_best[row] = zip(values[: len(overlaps)].tolist(), places[: len(overlaps)].tolist(), strict=True)
        value, place = next(next_best[row], (0.0, 0))
        heapq.heapreplace(waiting, (-value, place, row))
    own = torch.full_like(overlaps[0], -1, dtype=torch.int64)
    own[list(taken)] = own.new_tensor(list(taken.values()))
    return own


def _independent(overlaps: Tensor) -> Tensor:
    """Return for each anchor the last row of the boxes that share most with it, or -1."""
    boxes, anchors = overlaps.shape
    own = torch.full((anchors,), -1, device=overlaps.device)
    return own.scatter_reduce(0, overlaps.argmax(dim=1), torch.arange(boxes, device=overlaps.device), "amax")


def common_kind(a: Tensor, b: Tensor) -> torch.dtype:
    """Return the kind of numbers that both have room in, float32 at least."""
    return torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)


def check_rule(rule: Rule, threshold: float) -> None:
    """Raise TypeError or ValueError unless the rule is one of the two and the threshold in (0, 1]."""
    check_choice("rule", rule, Rule)
    check_share("threshold", threshold, zero=False)


def check_anchors(name: str, anchors: Tensor) -> None:
    """Raise TypeError or ValueError unless `anchors` are cxcywh (P, 4), finite, with width and height above 0."""
    check_last(name, anchors)
    if anchors.dim() != 2:
        raise ValueError(f"{name} must be (P, 4), got {tuple(anchors.shape)}")
    bad = ~(anchors.isfinite().all(-1) & (anchors[:, 2:] > 0).all(-1))
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        came = ", ".join(f"{value:.6g}" for value in anchors[row].tolist())
        raise ValueError(f"{name} must be finite cxcywh with w and h above 0, got ({came}) in row {row}")
