"""How good detections are: what is right, the curve of precision over recall, and the mean of it (chapter 16).

Boxes of detections and truths are xyxy in one unit: pixels, where areas count. Of both there is one entry for each
picture, in the same order. Detections may come in any order; they are sorted here by score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course_lib.detection import coco
from course_lib.detection.boxes import iou
from course_lib.detection.checks import check_rows, check_share
from course_lib.detection.prediction import Detections
from course_lib.upsampling.grids import check_choice, check_length

Rule = Literal["all", "eleven"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of one picture.

    boxes: (n, 4) xyxy, in pixels. labels: int64 (n,), 0 to K - 1. difficult: bool (n,), which objects nobody has to
    find and nobody is blamed for finding; None: there are none such.

    Raises TypeError or ValueError that name the field, also for boxes that are not finite or have x0 > x1 or y0 > y1.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes and kinds."""
        check_rows("boxes", self.boxes, self.labels)
        wrong = ~(self.boxes.isfinite().all(1) & (self.boxes[:, :2] <= self.boxes[:, 2:]).all(1))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            came = ", ".join(f"{value:.6g}" for value in self.boxes[row].tolist())
            raise ValueError(f"boxes must be finite with x0 <= x1 and y0 <= y1, got ({came}) in row {row}")
        if self.difficult is not None:
            if self.difficult.dtype != torch.bool:
                raise TypeError(f"difficult must be bool, got {self.difficult.dtype}")
            if self.difficult.shape != self.labels.shape:
                shapes = f"{tuple(self.labels.shape)} as labels, got {tuple(self.difficult.shape)}"
                raise ValueError(f"difficult must be {shapes}")


class VocScores(TypedDict):
    """mAP: the mean over classes with truths. per_class: AP of each class, NaN without truths."""

    mAP: float
    per_class: list[float]


class CocoScores(TypedDict):
    """Means over classes with truths (of that size); NaN where there are none. AP50_per_class: AP50 of each class."""

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AP50_per_class: list[float]


def match_detections(detections: Detections, truth: Truth, overlap: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return which detections of a picture are correct, and which do not count: two bool (n,), by PASCAL VOC's rule.

    Each detection looks at the truth of its class that it overlaps most. It is correct if their IoU is at least
    `overlap`, in (0, 1], and no detection with a higher score (or an equal one, before it) has found that truth; it
    does not count if that truth is difficult. All others are wrong, a second one of the same object too.

    Raises TypeError or ValueError that name the argument. Everingham et al. 2010, section 4.2; without the pixel that
    their code adds to widths and heights.
    """
    check_share("overlap", overlap, zero=False)
    found, _ = _found(detections, truth, overlap)
    hard = _difficult(truth)
    hit = found >= 0
    ignored = hit & np.append(hard, False)[found]
    order = np.argsort(-_numbers(detections.scores), kind="stable")
    order = order[(hit & ~ignored)[order]]
    correct = np.zeros(len(found), dtype=bool)
    correct[order[np.unique(found[order], return_index=True)[1]]] = True
    return torch.from_numpy(correct), torch.from_numpy(ignored)


def precision_recall(
    scores: Tensor, correct: Tensor, truths: int, ignored: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return recall and precision, float64 (m,), when the 1, 2, ..., m detections with the highest scores are kept.

    scores (n,), correct bool (n,) in any order; truths: how many objects could be found, at least 1; ignored bool
    (n,): what is left out, so that m may be less than n. Equal scores stay in the order given.

    Raises TypeError or ValueError that name the argument.
    """
    check_length("truths", truths)
    for name, given in (("correct", correct), ("ignored", ignored)):
        if given is not None and (given.dtype != torch.bool or given.shape != scores.shape or scores.dim() != 1):
            came = f"{given.dtype} {tuple(given.shape)}"
            raise ValueError(f"{name} must be bool, one for each score, got {came} for {tuple(scores.shape)}")
    counted = torch.ones_like(correct) if ignored is None else ~ignored
    order = scores.argsort(descending=True, stable=True)
    right = correct[order][counted[order]].double().cumsum(0)
    return right / truths, right / torch.arange(1, len(right) + 1, dtype=torch.float64, device=right.device)


def average_precision(recall: Tensor, precision: Tensor, rule: Rule = "all") -> float:
    """Return the mean over recalls from 0 to 1 of the best precision at that recall or a higher one, in [0, 1].

    recall, precision (n,), of `precision_recall`. rule: "all" takes the area under that falling staircase (VOC from
    2010 on), "eleven" its mean at the recalls 0, 0.1, ..., 1 (VOC 2007). Recalls that nothing reaches count 0.

    Raises ValueError for another rule, other shapes, and for recalls that fall: the detections were not sorted by
    score.
    """
    check_choice("rule", rule, Rule)
    if recall.dim() != 1 or recall.shape != precision.shape:
        raise ValueError(f"recall and precision must be (n,), got {tuple(recall.shape)} and {tuple(precision.shape)}")
    r, p = _numbers(recall), _numbers(precision)
    if (np.diff(r) < 0).any():
        raise ValueError(f"recall must not fall, got {r[:-1][np.diff(r) < 0][0]:.6g} before a smaller one")
    best = np.append(np.maximum.accumulate(p[::-1])[::-1], 0.0)  # at the place of a recall or behind it
    if rule == "eleven":
        return float(best[np.searchsorted(r, [i / 10 for i in range(11)])].mean())
    return float((np.diff(r, prepend=0.0) * best[:-1]).sum())


def voc_map(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    classes: int,
    overlap: float = 0.5,
    rule: Rule = "all",
) -> VocScores:
    """Return average precision as PASCAL VOC defines it, of each class and in the mean over those that have truths.

    classes: K; labels are below it. overlap and the rule of what is correct: as of `match_detections`; rule: as of
    `average_precision`. Raises TypeError or ValueError that name the argument.
    """
    _check_lists(detections, truths, classes)
    check_choice("rule", rule, Rule)
    check_share("overlap", overlap, zero=False)
    scores = torch.cat([one.scores.cpu() for one in detections] or [torch.empty(0)])
    labels = torch.cat([one.labels.cpu() for one in detections] or [torch.empty(0, dtype=torch.int64)])
    matched = [match_detections(one, truth, overlap) for one, truth in zip(detections, truths, strict=True)]
    correct, ignored = (torch.cat(part) for part in zip(*matched, strict=True)) if matched else (labels > 0, labels > 0)
    wanted = np.zeros(classes, dtype=np.int64)
    for truth in truths:
        wanted += np.bincount(truth.labels.cpu().numpy()[~_difficult(truth)], minlength=classes)
    per_class = [math.nan] * classes
    for k in wanted.nonzero()[0].tolist():
        of = labels == k
        curve = precision_recall(scores[of], correct[of], int(wanted[k]), ignored[of])
        per_class[k] = average_precision(*curve, rule)
    return {"mAP": _mean(per_class), "per_class": per_class}


def coco_map(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    classes: int,
    areas: tuple[float, float] = (32.0**2, 96.0**2),
) -> CocoScores:
    """Return average precision as COCO defines it: means over ten overlaps from 0.5 to 0.95, and by area of objects.

    Per picture and class the 100 detections with the highest scores count. By falling score each takes, of the truths
    that are left, the one that it overlaps most (VOC: of all truths). AP is the mean precision at 101 recalls. areas:
    square pixels, where small ends and large begins; the limits belong to both sides. For AP_small objects of another
    size are as if difficult, and detections of another size that found nothing do not count. Areas are those of boxes;
    COCO's own sets have those of masks.

    Raises TypeError or ValueError that name the argument. Lin et al. 2014; equal to pycocotools.
    """
    _check_lists(detections, truths, classes)
    if len(areas) != 2 or not 0 < areas[0] <= areas[1]:
        raise ValueError(f"areas must be two limits, 0 < small <= large, got {areas!r}")
    scores = np.concatenate([_numbers(one.scores) for one in detections] or [np.empty(0)])
    difficult = np.concatenate([_difficult(truth) for truth in truths] or [np.empty(0, dtype=bool)])
    ranges = ((0.0, math.inf), (0.0, areas[0]), (areas[0], areas[1]), (areas[1], math.inf))
    precision = coco.precision(_flat(detections, classes), scores, _flat(truths, classes), difficult, classes, ranges)
    mean = precision.mean(-1)  # (areas, overlaps, classes)
    return {
        "AP": _mean(mean[0]),
        "AP50": _mean(mean[0, 0]),
        "AP75": _mean(mean[0, 5]),
        "AP_small": _mean(mean[1]),
        "AP_medium": _mean(mean[2]),
        "AP_large": _mean(mean[3]),
        "AP50_per_class": mean[0, 0].tolist(),
    }


def duplicates(
    detections: Sequence[Detections], truths: Sequence[Truth], overlap: float = 0.5, score: float = 0.5
) -> float:
    """Return how many boxes an object that is found has besides the first, in the mean; NaN if none is found.

    A box with at least this score belongs to the truth of its class that it overlaps most, if their IoU is at least
    `overlap`. Difficult truths do not count. Raises TypeError or ValueError that name the argument.
    """
    _check_lists(detections, truths, None)
    check_share("overlap", overlap, zero=False)
    boxes = objects = 0
    for one, truth in zip(detections, truths, strict=True):
        found, scores = _found(one, truth, overlap)
        found = found[(found >= 0) & (scores >= score)]
        found = found[~_difficult(truth)[found]]
        boxes += len(found)
        objects += len(np.unique(found))
    return (boxes - objects) / objects if objects else math.nan


def _found(detections: Detections, truth: Truth, overlap: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for each detection the row of its truth, -1 where none overlaps it enough, and its score."""
    scores = _numbers(detections.scores)
    if not len(truth.labels):
        return np.full(len(scores), -1), scores
    same = detections.labels.cpu()[:, None] == truth.labels.cpu()
    likes = torch.where(same, iou(detections.boxes.cpu().double(), truth.boxes.cpu().double()), -1).numpy()
    best = likes.argmax(1)
    return np.where(likes[np.arange(len(best)), best] >= overlap, best, -1), scores


def _flat(pictures: Sequence[Detections | Truth], classes: int) -> coco.Flat:
    """Return the boxes of all pictures, and for each the number of its group: the boxes of one class in one picture."""
    boxes = [_numbers(one.boxes) for one in pictures]
    groups = [one.labels.cpu().numpy() + k * classes for k, one in enumerate(pictures)]
    return coco.Flat(np.concatenate([np.empty((0, 4)), *boxes]), np.concatenate([np.empty(0, np.int64), *groups]))


def _numbers(values: Tensor) -> NDArray[np.float64]:
    made: NDArray[np.float64] = values.detach().to("cpu", torch.float64).numpy()
    return made


def _difficult(truth: Truth) -> NDArray[np.bool_]:
    if truth.difficult is None:
        return np.zeros(len(truth.labels), dtype=bool)
    made: NDArray[np.bool_] = truth.difficult.cpu().numpy()
    return made


def _mean(values: NDArray[np.float64] | list[float]) -> float:
    """Return the mean of those that are not NaN; NaN if all are."""
    numbers = np.asarray(values)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if numbers.size else math.nan


def _check_lists(detections: Sequence[Detections], truths: Sequence[Truth], classes: int | None) -> None:
    if len(detections) != len(truths):
        raise ValueError(
            f"detections and truths must be of the same pictures, got {len(detections)} and {len(truths)} of them"
        )
    if classes is not None:
        check_length("classes", classes)
    _check_pictures("detections", detections, Detections, classes)
    _check_pictures("truths", truths, Truth, classes)


def _check_pictures(name: str, pictures: Sequence[Detections | Truth], kind: type, classes: int | None) -> None:
    for k, one in enumerate(pictures):
        if not isinstance(one, kind):
            raise TypeError(f"{name} must be {kind.__name__}, got {type(one).__name__} for picture {k}")
        if isinstance(one, Detections) and bool(one.scores.isnan().any()):
            raise ValueError(f"{name} must have scores, got NaN in picture {k}")
        outside = one.labels[(one.labels < 0) | (one.labels >= (classes or math.inf))]
        if len(outside):
            raise ValueError(f"{name} must have labels from 0 to classes - 1, got {int(outside[0])} in picture {k}")
