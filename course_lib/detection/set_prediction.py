"""What a set of predictions says: every query is one detection at most, and nothing is suppressed (chapters 19, 20)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from course_lib.detection import boxes as box
from course_lib.detection.assignment import layer_of
from course_lib.detection.checks import check_share
from course_lib.detection.prediction import Detections
from course_lib.upsampling.grids import check_length


@torch.no_grad()
def select(
    outputs: Mapping[str, Tensor], background: bool, most: int = 100, score: float = 0.0, clip: bool = True
) -> list[Detections]:
    """Return what a detector of the DETR line says of each picture, by falling score; equal scores: lower query first.

    outputs: "logits" (N, Q, C), "boxes" (N, Q, 4) cxcywh, normalised. `background`: softmax, and of each query the best
    class but the last column, "no object" (Carion et al. 2020). Otherwise sigmoid, and of all queries and classes
    together the best, so that a query may be there with several classes (Zhu et al. 2021). Of them those above `score`,
    at most `most`. Boxes are cut at the picture's border, if `clip`. In the field `anchors` are the queries' places.
    No gradient; float32 under autocast.

    Raises TypeError or ValueError that name the argument; NaN is refused, and not taken for an empty picture.
    """
    logits, boxes = layer_of(outputs)
    check_length("most", most)
    check_share("score", score)
    if background and logits.shape[-1] < 2:
        raise ValueError(f"logits must have a column of a class before the background, got {tuple(logits.shape)}")
    fine = torch.stack(((logits < torch.inf).all(), boxes.isfinite().all())).tolist()  # NaN is below nothing
    if not all(fine):
        name = "boxes" if fine[0] else "logits"
        raise ValueError(f"{name} must not be NaN or infinite, got such numbers: has the training diverged?")
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits, corners = logits.to(wide), box.to_xyxy(boxes.to(wide))
    corners = box.clip(corners) if clip else corners
    if background:
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        pictures = zip(scores, labels, corners, strict=True)
        found = [(one, names, torch.arange(len(one), device=one.device), where) for one, names, where in pictures]
    else:
        places = torch.arange(logits[0].numel(), device=logits.device)
        names, queries = places % logits.shape[-1], places // logits.shape[-1]
        found = [(one, names, queries, where) for one, where in zip(logits.sigmoid().flatten(1), corners, strict=True)]
    return [_best(*one, most, score) for one in found]


def _best(scores: Tensor, labels: Tensor, queries: Tensor, boxes: Tensor, most: int, score: float) -> Detections:
    """Return the best of one picture: scores, labels and queries (n,), boxes of all queries (Q, 4)."""
    least = scores.topk(min(most, len(scores))).values[-1]  # in no order that is said for equal scores
    rows = ((scores >= least) & (scores > score)).nonzero()[:, 0]
    rows = rows[scores[rows].argsort(descending=True, stable=True)][:most]
    return Detections(boxes[queries[rows]], scores[rows], labels[rows], queries[rows])
