"""Sets matched and judged in plain loops: what the fast forms of `course_lib.detection` must equal (chapter 19)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection import boxes as box
from course_lib.detection.assignment import Costs, SetTruth

Pairs = list[tuple[int, int]]


def giou_pair(a: Tensor, b: Tensor) -> Tensor:
    """Two boxes cxcywh (4,) become their GIoU, one number: IoU less what neither fills of the hull of both."""
    ax0, ay0, ax1, ay1 = box.to_xyxy(a)
    bx0, by0, bx1, by1 = box.to_xyxy(b)
    w, h = torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0), torch.minimum(ay1, by1) - torch.maximum(ay0, by0)
    shared = w.clamp(min=0) * h.clamp(min=0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    value: Tensor = shared / union - (hull - union) / hull
    return value


def matching_cost_loop(logits: Tensor, boxes: Tensor, truth: SetTruth, focal: bool = False) -> Tensor:
    """One picture's logits (Q, C) and boxes (Q, 4) become the cost of every query with every object, (Q, n)."""
    costs = Costs(classes=2 if focal else 1, boxes=5, giou=2)
    table = boxes.new_zeros(len(boxes), len(truth))
    for i, (row, mine) in enumerate(zip(logits, boxes, strict=True)):
        p = row.sigmoid() if focal else row.softmax(0)
        for j, (label, wanted) in enumerate(zip(truth.labels.tolist(), truth.boxes, strict=True)):
            if focal:
                yes = 0.25 * (1 - p[label]) ** 2 * -(p[label] + 1e-8).log()
                classes = yes - 0.75 * p[label] ** 2 * -(1 - p[label] + 1e-8).log()
            else:
                classes = -p[label]
            distance = (mine - wanted).abs().sum()
            table[i, j] = costs.classes * classes + costs.boxes * distance - costs.giou * giou_pair(mine, wanted)
    return table


def match_brute_force(cost: Tensor) -> Pairs:
    """A cost (q, n) becomes the pairs (row, column) that cost least together: all ways are tried, so keep it small."""
    rows, columns = cost.shape
    table = cost.tolist()
    if rows < columns:
        return sorted((row, column) for column, row in match_brute_force(cost.T))
    ways = itertools.permutations(range(rows), columns)  # who finds object 0, object 1, ...
    best = min(ways, key=lambda way: sum(table[row][column] for column, row in enumerate(way)))
    return sorted((row, column) for column, row in enumerate(best))


def match_greedy(cost: Tensor) -> Pairs:
    """A cost (q, n) becomes pairs (row, column): the cheapest pair of those still free comes first, and so on."""
    table = cost.tolist()
    left = sorted((table[row][column], row, column) for row in range(cost.shape[0]) for column in range(cost.shape[1]))
    pairs: Pairs = []
    while left:
        _, row, column = left[0]
        pairs.append((row, column))
        left = [one for one in left if one[1] != row and one[2] != column]
    return sorted(pairs)


@torch.no_grad()
def match_one_matrix(
    logits: Tensor, boxes: Tensor, truths: Sequence[SetTruth], costs: Costs | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Logits (N, Q, C) and boxes (N, Q, 4) become each picture's (queries, objects), as DETR's code does it.

    The costs are one matrix of all pictures' queries and all pictures' objects, (N Q, T). What a picture needs of it is
    1 / N, and the rest has been computed for nothing.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    weights = costs or Costs()
    pictures, size = logits.shape[:2]
    labels, wanted = torch.cat([truth.labels for truth in truths]), torch.cat([truth.boxes for truth in truths])
    p, flat = logits.flatten(0, 1).softmax(-1), boxes.flatten(0, 1)
    cost = weights.boxes * torch.cdist(flat, wanted, p=1) - weights.classes * p[:, labels]
    cost = cost - weights.giou * box.giou(box.to_xyxy(flat), box.to_xyxy(wanted))
    table = torch.split(cost.view(pictures, size, -1).cpu(), [len(truth) for truth in truths], dim=-1)
    pairs = (linear_sum_assignment(those[place]) for place, those in enumerate(table))
    return [(torch.from_numpy(queries), torch.from_numpy(objects)) for queries, objects in pairs]


def set_losses_loop(
    outputs: Mapping[str, Tensor], truths: Sequence[SetTruth], focal: bool = False, eos: float = 0.1
) -> dict[str, Tensor]:
    """A detector's outputs become "classes", "boxes" and "giou" of the last layer, "aux_..." and "proposal_...".

    Layer after layer, picture after picture, query after query, each layer matched by trying all ways.
    """
    losses = _layer_loop(outputs["logits"], outputs["boxes"], truths, focal, eos)
    if "aux_logits" in outputs:
        layers = zip(outputs["aux_logits"], outputs["aux_boxes"], strict=True)
        made = [_layer_loop(logits, boxes, truths, focal, eos) for logits, boxes in layers]
        losses |= {f"aux_{name}": torch.stack([one[name] for one in made]) for name in made[0]}
    if "proposal_logits" in outputs:
        objects = [SetTruth(torch.zeros_like(truth.labels), truth.boxes) for truth in truths]
        made = [_layer_loop(outputs["proposal_logits"], outputs["proposal_boxes"], objects, focal, eos)]
        losses |= {f"proposal_{name}": value for name, value in made[0].items()}
    return losses


def _layer_loop(
    logits: Tensor, boxes: Tensor, truths: Sequence[SetTruth], focal: bool, eos: float
) -> dict[str, Tensor]:
    """One layer's logits (N, Q, C) and boxes (N, Q, 4) become its three losses."""
    nothing = logits.shape[-1] - 1
    count = max(1, sum(len(truth) for truth in truths))
    classes, weights, distance, overlap = boxes.sum() * 0, 0.0, boxes.sum() * 0, boxes.sum() * 0
    for rows, mine, truth in zip(logits, boxes, truths, strict=True):
        found = dict(match_brute_force(matching_cost_loop(rows.detach(), mine.detach(), truth, focal)))
        for query, row in enumerate(rows):
            label = int(truth.labels[found[query]]) if query in found else nothing
            if focal:
                for k, x in enumerate(row):
                    classes = classes + focal_loss(x, query in found and k == label) / count
            else:
                weight = 1.0 if query in found else eos
                classes, weights = classes - weight * F.log_softmax(row, 0)[label], weights + weight
            if query in found:
                wanted = truth.boxes[found[query]]
                distance = distance + (mine[query] - wanted).abs().sum() / count
                overlap = overlap + (1 - giou_pair(mine[query], wanted)) / count
    return {"classes": classes if focal else classes / weights, "boxes": distance, "giou": overlap}


def focal_loss(x: Tensor, yes: bool, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """One logit becomes its focal loss: its cross-entropy, less where the answer is nearly right already."""
    p = x.sigmoid() if yes else (-x).sigmoid()  # of the right answer
    return (alpha if yes else 1 - alpha) * (1 - p) ** gamma * -p.log()
