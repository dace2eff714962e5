"""SSD's loss: what each anchor is to say, which negatives count, and how wrong it was (chapter 15).

Nearly all anchors are negatives, and few of them count. Which ones is found without gradients, from one number for each
anchor; the cross-entropy itself is computed of those rows alone. Its gradient is the same: all others have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection.boxes import check_boxes, check_last, iou, to_xyxy
from course_lib.detection.checks import check_device
from course_lib.detection.coding import VARIANCES, encode
from course_lib.detection.matching import Rule, assign, check_anchors, check_rule, common_kind


@dataclass(frozen=True, eq=False)
class Targets:
    """What the anchors of a batch are to say.

    labels: int64 (N, P): 0 = background, k + 1 = class k. offsets: (N, P, 4), from each anchor to its box, 0 where it
    has none. Raises TypeError or ValueError for other shapes or kinds.
    """

    labels: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        """Check what came."""
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be an int64 torch.Tensor, got {_kind(self.labels)}")
        check_last("offsets", self.offsets)
        if self.labels.dim() != 2 or self.offsets.shape != (*self.labels.shape, 4):
            shapes = f"{tuple(self.labels.shape)} and {tuple(self.offsets.shape)}"
            raise ValueError(f"labels must be (N, P) and offsets (N, P, 4), got {shapes}")


@torch.no_grad()
def targets(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    anchors: Tensor,
    rule: Rule = "greedy",
    threshold: float = 0.5,
    variances: tuple[float, ...] = VARIANCES,
) -> Targets:
    """Return what each of P anchors is to say of each of N pictures (Liu et al. 2016, section 2.2, equation 2).

    boxes: for each picture xyxy (n, 4), n may be 0; labels: for each int64 (n,), 0..K-1; anchors: cxcywh (P, 4), in
    the unit of the boxes. rule, threshold: as of `match`; variances: as of `encode`. Offsets are float32 at least.
    Raises TypeError or ValueError for lists of other lengths, shapes or kinds, negative labels, and boxes or anchors
    that are not finite or have no width or height, all before any is matched.
    """
    check_rule(rule, threshold)
    check_anchors("anchors", anchors)
    _check_pictures(boxes, labels, anchors)
    every_box, every_label = torch.cat(list(boxes)), torch.cat(list(labels))
    kind = common_kind(every_box, anchors)
    every_box, anchors = every_box.to(kind), anchors.to(kind)
    counts = [len(those) for those in boxes]
    overlaps = torch.split(iou(every_box, to_xyxy(anchors)), counts)
    rows = torch.stack([assign(those, rule, threshold) for those in overlaps])
    picture, place = (rows >= 0).nonzero(as_tuple=True)
    first = torch.tensor([0, *counts[:-1]], device=anchors.device).cumsum(0)
    row = rows[picture, place] + first[picture]
    to_find = torch.zeros_like(rows)
    offsets = torch.zeros(*rows.shape, 4, dtype=kind, device=anchors.device)
    to_find[picture, place] = every_label[row] + 1
    offsets[picture, place] = encode(every_box[row], anchors[place], variances)
    return Targets(to_find, offsets)


def background_loss(logits: Tensor) -> Tensor:
    """Return how wrong it would be to call each anchor background, -log of its softmax: (..., C) -> (...), 0 or more.

    Of logits with column 0 = background. It is what hard negatives are found by. Half precision is computed in float32,
    and so is the result. Raises TypeError or ValueError for anything but floating point with C >= 2.
    """
    _check_logits(logits)
    with torch.autocast(logits.device.type, enabled=False):
        wide = _wide(logits)
        inverse = (wide - wide[..., :1]).exp_() @ wide.new_ones(wide.shape[-1])  # 1 / p; a product sums fastest
        return inverse.log() if bool(inverse.isfinite().all()) else wide.logsumexp(dim=-1) - wide[..., 0]


@torch.no_grad()
def hard_negatives(loss: Tensor, positive: Tensor, ratio: float = 3.0) -> Tensor:
    """Return which negatives count: of each picture those with the largest loss, `ratio` times as many as positives.

    loss: (N, P); positive: bool (N, P); -> bool (N, P) (Liu et al. 2016, section 2.2). Rounded down; all negatives
    where there are fewer, or where ratio is `math.inf`. Equal losses: the lower anchor first. NaN counts as the
    largest, so that it is seen. A picture without positives has none. Raises TypeError or ValueError for other shapes
    or kinds, and for a ratio below 0.
    """
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise TypeError(f"loss must be a floating-point torch.Tensor, got {_kind(loss)}")
    if not isinstance(positive, Tensor) or positive.dtype != torch.bool:
        raise TypeError(f"positive must be a bool torch.Tensor, got {_kind(positive)}")
    if loss.dim() != 2 or positive.shape != loss.shape:
        raise ValueError(f"loss and positive must be (N, P), got {tuple(loss.shape)} and {tuple(positive.shape)}")
    _check_ratio(ratio)
    if math.isinf(ratio):
        return ~positive
    found = positive.sum(dim=1)
    wanted = torch.minimum((found * ratio).floor().long(), loss.shape[1] - found)
    most = int(wanted.max()) if len(wanted) else 0
    if not most:
        return torch.zeros_like(positive)
    ranked = loss.nan_to_num(math.inf, math.inf, -math.inf).masked_fill(positive, -math.inf)
    largest = ranked.topk(most, dim=1).values
    last = largest.gather(1, (wanted - 1).clamp(min=0)[:, None])  # of those that count, the smallest loss
    hard = (ranked >= last) & ~positive
    spare = hard.sum(dim=1) - wanted
    if bool(spare.any()):  # equal losses at the end, or a picture that wants none
        equal = hard & (ranked == last)
        hard &= ~equal | (equal.cumsum(dim=1) <= (equal.sum(dim=1) - spare)[:, None])
    return hard


def smooth_l1(x: Tensor) -> Tensor:
    """Return x^2 / 2 where |x| < 1 and |x| - 1/2 elsewhere, in the shape of x (Girshick 2015, equation 3)."""
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none")


def multibox_loss(
    logits: Tensor, offsets: Tensor, targets: Targets, ratio: float = 3.0, count: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Return the losses of classes and of offsets of a batch, two numbers (Liu et al. 2016, equations 1 to 3).

    logits: (N, P, C), column 0 = background; offsets: (N, P, 4). The first is the cross-entropy of positives and of
    `hard_negatives`, the second the `smooth_l1` of the positives' offsets, both summed and divided by `count`: None:
    the positives of the batch. Several processes that average their gradients give the mean of theirs. Where count is
    0 both losses are 0, with gradients of 0 (the ports divide by it). Half precision is computed in float32, also under
    autocast, and so is the result. Raises TypeError or ValueError for other shapes or kinds, labels of classes without
    a column, and a ratio or count below 0.
    """
    _check_outputs(logits, offsets, targets)
    _check_ratio(ratio)
    positive = targets.labels > 0
    total = _check_count(positive.sum() if count is None else count, logits)
    with torch.autocast(logits.device.type, enabled=False):
        rows, labels = logits.flatten(0, 1), targets.labels.flatten()
        with torch.no_grad():
            hard = hard_negatives(background_loss(logits), positive, ratio)
            counted = (positive | hard).flatten().nonzero().squeeze(1)
        confidence = F.cross_entropy(_wide(rows.index_select(0, counted)), labels[counted], reduction="sum")
        places = positive.flatten().nonzero().squeeze(1)
        found, right = (x.flatten(0, 1).index_select(0, places) for x in (offsets, targets.offsets))
        localisation = smooth_l1(_wide(found) - right).sum()
        share = torch.where(total > 0, 1 / total.to(confidence.dtype), 0)
        return confidence * share, localisation * share


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 at least: sums of half precision lose digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _kind(given: Any) -> str:
    return str(given.dtype) if isinstance(given, Tensor) else type(given).__name__


def _check_pictures(boxes: Sequence[Tensor], labels: Sequence[Tensor], anchors: Tensor) -> None:
    for name, given in (("boxes", boxes), ("labels", labels)):
        if not isinstance(given, list | tuple) or not given:
            raise TypeError(f"{name} must be a list with a tensor for each picture, got {_kind(given)} {given!r:.40}")
    if len(boxes) != len(labels):
        raise ValueError(f"boxes and labels must be of as many pictures, got {len(boxes)} and {len(labels)}")
    for picture, (those, names) in enumerate(zip(boxes, labels, strict=True)):
        check_boxes(f"boxes[{picture}]", those)
        check_device(f"boxes[{picture}]", those, "anchors", anchors)
        if not isinstance(names, Tensor) or names.dtype != torch.int64:
            raise TypeError(f"labels[{picture}] must be an int64 torch.Tensor, got {_kind(names)}")
        if names.shape != those.shape[:1]:
            raise ValueError(f"labels[{picture}] must be ({len(those)},), one for each box, got {tuple(names.shape)}")
        check_device(f"labels[{picture}]", names, "anchors", anchors)
        if len(names) and int(names.min()) < 0:
            raise ValueError(f"labels[{picture}] must be 0 or more, got {int(names.min())}")


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits must be a floating-point torch.Tensor, got {_kind(logits)}")
    if logits.dim() < 1 or logits.shape[-1] < 2:
        raise ValueError(f"logits must be (..., C), background and at least one class, got {tuple(logits.shape)}")


def _check_outputs(logits: Tensor, offsets: Tensor, targets: Targets) -> None:
    _check_logits(logits)
    check_last("offsets", offsets)
    if not isinstance(targets, Targets):
        raise TypeError(f"targets must be Targets, as `targets` makes them, got {_kind(targets)}")
    expected = tuple(targets.labels.shape)
    if logits.dim() != 3 or logits.shape[:2] != expected:
        raise ValueError(f"logits must be {(*expected, 'C')} as the targets, got {tuple(logits.shape)}")
    if offsets.shape != (*expected, 4):
        raise ValueError(f"offsets must be {(*expected, 4)} as the targets, got {tuple(offsets.shape)}")
    check_device("logits", logits, "targets", targets.labels)
    if targets.labels.numel():
        low, high = (int(end) for end in targets.labels.aminmax())
        if low < 0 or high >= logits.shape[2]:
            raise ValueError(
                f"targets.labels must be 0 to {logits.shape[2] - 1}, columns of logits, got {low} to {high}"
            )


def _check_ratio(ratio: float) -> None:
    if not ratio >= 0:
        raise ValueError(f"ratio must be 0 or more, got {ratio!r}")


def _check_count(count: Tensor | float, logits: Tensor) -> Tensor:
    """Return the count as a tensor without shape; the value of a tensor is left on its device."""
    if isinstance(count, Tensor):
        if count.numel() != 1:
            raise ValueError(f"count must be one number, got the shape {tuple(count.shape)}")
        return count.detach().reshape(()).to(logits.device)
    if not 0 <= count < math.inf:
        raise ValueError(f"count must be 0 or more, got {count!r}")
    return torch.tensor(float(count), device=logits.device)
