"""Detection in plain loops: what the fast forms of `course_lib.detection` must equal (chapters 13 to 16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection.anchors import Level
from course_lib.detection.boxes import to_xyxy
from course_lib.detection.losses import Targets


def iou_loop(a: Tensor, b: Tensor) -> Tensor:
    """Boxes xyxy (n, 4) and (m, 4) become (n, m): what two boxes share over what they cover, pair after pair."""
    table = a.new_zeros(len(a), len(b))
    for i, (ax0, ay0, ax1, ay1) in enumerate(a):
        for j, (bx0, by0, bx1, by1) in enumerate(b):
            w = min(ax1, bx1) - max(ax0, bx0)
            h = min(ay1, by1) - max(ay0, by0)
            if w > 0 and h > 0:
                both = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0)
                table[i, j] = w * h / (both - w * h)  # the shared part was counted twice
    return table


def anchors_loop(maps: Sequence[tuple[int, int]], levels: Sequence[Level], picture: tuple[int, int]) -> Tensor:
    """Maps, their levels and the picture (H, W) become anchors cxcywh (P, 4), normalised, float64: box after box."""
    height, width = picture
    table = []
    for (rows, columns), level in zip(maps, levels, strict=True):
        even = (height / rows, width / columns)
        step = even if level.step is None else level.step
        down, right = step if isinstance(step, tuple) else (step, step)
        for i in range(rows):
            for j in range(columns):
                cx, cy = (j + level.offset) * right / width, (i + level.offset) * down / height
                table.append((cx, cy, level.small / width, level.small / height))
                if level.large is not None:
                    side = math.sqrt(level.small * level.large)
                    table.append((cx, cy, side / width, side / height))
                for ratio in level.ratios:
                    longer, shorter = level.small * math.sqrt(ratio), level.small / math.sqrt(ratio)
                    table.append((cx, cy, longer / width, shorter / height))
                    table.append((cx, cy, shorter / width, longer / height))
    return torch.tensor(table, dtype=torch.float64)


def match_loop(boxes: Tensor, anchors: Tensor, rule: str = "greedy", threshold: float = 0.5) -> Tensor:
    """Boxes xyxy (n, 4) and anchors cxcywh (P, 4) become the row of the box that each anchor finds, (P,), or -1."""
    overlaps = iou_loop(boxes, to_xyxy(anchors)).tolist()
    rows, places = range(len(boxes)), range(len(anchors))
    found = [-1] * len(anchors)
    for place in places:
        best = max(rows, key=lambda row: overlaps[row][place], default=None)
        if best is not None and overlaps[best][place] >= threshold:
            found[place] = best
    if rule == "independent":
        for row in rows:
            found[max(places, key=lambda place: overlaps[row][place])] = row  # whoever was there before
        return torch.tensor(found)
    pairs = sorted((-overlaps[row][place], place, row) for row in rows for place in places)
    done, taken = set(), set()
    for value, place, row in pairs:
        if -value > 1e-6 and row not in done and place not in taken:
            found[place] = row
            done.add(row)
            taken.add(place)
    return torch.tensor(found)


def multibox_loop(logits: Tensor, offsets: Tensor, targets: Targets, ratio: float = 3.0) -> tuple[Tensor, Tensor]:
    """What a network says, (N, P, C) and (N, P, 4), and what is right, become SSD's two losses.

    Step by step as ssd.pytorch does it: background's loss is computed for all anchors, a sort of the sort's places
    gives ranks, and the cross-entropy of those that count is computed once more. Without positives it divides by 1.
    """
    labels, positive = targets.labels, targets.labels > 0
    count = positive.sum().clamp(min=1)
    error = offsets[positive] - targets.offsets[positive]
    localisation = torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5).sum()

    largest = logits.detach().max()  # one for all: without it exp() overflows
    of_label = logits.gather(2, labels[..., None]).squeeze(2)
    loss = (logits - largest).exp().sum(dim=2).log() + largest - of_label
    loss = loss.masked_fill(positive, -math.inf)
    order = loss.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)  # 0 for the largest loss of the picture
    wanted = (ratio * positive.sum(dim=1, keepdim=True)).floor()
    counted = positive | (rank < wanted)
    confidence = F.cross_entropy(logits[counted], labels[counted], reduction="sum")
    return confidence / count, localisation / count


def nms_loop(boxes: NDArray[np.floating], scores: NDArray[np.floating], threshold: float = 0.45) -> NDArray[np.int64]:
    """Boxes xyxy (n, 4) and their scores become the rows that stay: the best one left stays, those like it go."""
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        w = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
        h = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
        shared = np.maximum(w, 0) * np.maximum(h, 0)
        with np.errstate(invalid="ignore"):  # 0 / 0, of boxes without area, is NaN, which is not above anything
            left = left[~(shared / (areas[best] + areas[left] - shared) > threshold)]
    return np.array(kept, dtype=np.int64)


def average_precision_loop(
    pictures: Sequence[tuple[Tensor, Tensor]],
    truths: Sequence[tuple[Tensor, Sequence[bool]]],
    overlap: float = 0.5,
    rule: str = "all",
) -> float:
    """Detections of one class, (boxes, scores) for each picture, and truths, (boxes, is difficult), become its AP."""
    found = [[False] * len(boxes) for boxes, _ in truths]
    wanted = sum(not hard for _, difficult in truths for hard in difficult)
    ranked = sorted(
        ((float(score), k, row) for k, (_, scores) in enumerate(pictures) for row, score in enumerate(scores)),
        key=lambda one: -one[0],
    )
    right = wrong = 0
    curve = []
    for _, k, row in ranked:
        boxes, difficult = truths[k]
        likes = iou_loop(pictures[k][0][row : row + 1], boxes)[0].tolist()
        best = max(range(len(likes)), key=lambda j: likes[j], default=-1)
        if best < 0 or likes[best] < overlap:
            wrong += 1
        elif difficult[best]:
            continue
        elif found[k][best]:  # a second detection of the same object
            wrong += 1
        else:
            found[k][best] = True
            right += 1
        curve.append((right / wanted, right / (right + wrong)))

    def best_from(recall: float) -> float:
        return max((p for r, p in curve if r >= recall), default=0.0)

    if rule == "eleven":
        return sum(best_from(i / 10) for i in range(11)) / 11
    steps = [0.0, *sorted({r for r, _ in curve})]
    return sum((b - a) * best_from(b) for a, b in pairwise(steps))
