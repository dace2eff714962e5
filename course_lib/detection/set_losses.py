"""How wrong a set of predictions is, layer by layer: DETR's loss and Deformable DETR's (chapters 19 and 20).

Each layer of a decoder is matched by itself and has the same three losses. All layers are computed together: one
cost, one transfer to the CPU, one call of each loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection import boxes as box
from course_lib.detection.assignment import (
    Costs,
    Packed,
    Pairs,
    SetTruth,
    check_sets,
    default_costs,
    layer_of,
    match_groups,
)
from course_lib.detection.checks import check_device, check_share

LOSSES = ("classes", "boxes", "giou")


@dataclass(frozen=True)
class SetWeights(Costs):
    """How much each loss counts in the sum: 1, 5, 2 (Carion et al. 2020, section A.4); see `FOCAL`.

    Raises ValueError for numbers below 0 or without end.
    """


FOCAL = SetWeights(classes=2.0)
"""2, 5, 2: of Deformable DETR and ViDT, whose class loss is the focal one."""


@dataclass(frozen=True)
class _ClassLoss:
    """How classes are judged."""

    focal: bool
    eos: float
    alpha: float
    gamma: float


def set_losses(
    outputs: Mapping[str, Tensor],
    truths: Sequence[SetTruth],
    focal: bool = False,
    costs: Costs | None = None,
    eos: float = 0.1,
    alpha: float = 0.25,
    gamma: float = 2.0,
    count: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Return the losses of a batch: "classes", "boxes", "giou", and "cardinality", "class_error" to be logged.

    outputs: "logits" (N, Q, C), "boxes" (N, Q, 4) cxcywh; with "aux_logits" (L, N, Q, C), "aux_boxes" also
    "aux_classes", "aux_boxes", "aux_giou" and "aux_cardinality", (L,), each layer with a matching of its own; with
    "proposal_logits" (N, S, C), "proposal_boxes" also "proposal_classes" and so on (two stages, where all labels are
    0). truths: one for each picture.

    classes: cross-entropy, where unmatched queries are to say the last column, "no object", which counts `eos`: a mean
    by weight. `focal`: sigmoid focal loss with `alpha` and `gamma` of all queries and classes, summed over `count`.
    boxes: the L1 distance, giou: 1 - GIoU, of matched boxes, both summed over `count`: the boxes of the batch, or what
    is given (several processes that average their gradients give the mean of theirs), at least 1. cardinality: by how
    many the queries that do not say the last column miss the number of objects (so the official code counts, also
    where that column is a class). class_error: percent of matched queries with another class on top, NaN if there are
    none. float32 under autocast. `costs`: of the matching, None as of `matching_cost`.

    Raises TypeError or ValueError that name the argument. Carion et al. 2020, equations 2 to 4; Zhu et al. 2021.
    """
    logits, boxes = layer_of(outputs)
    packed = check_sets(logits, boxes, truths)
    for name, value in (("eos", eos), ("alpha", alpha)):
        check_share(name, value)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be 0 or more and finite, got {gamma!r}")
    boxes_there = _check_count(len(packed.labels) if count is None else count, logits)
    kind = _ClassLoss(focal, eos, alpha, gamma)
    layers, group = _groups(outputs, packed)
    matched = match_groups([layers, *group], costs or default_costs(focal), focal, alpha, gamma)
    with torch.autocast(logits.device.type, enabled=False):
        all_layers = _group_losses(*layers, matched[0], kind, boxes_there)
        losses = {name: value[-1] for name, value in all_layers.items()}
        losses["class_error"] = _class_error(layers[0][-1], packed, matched[0])
        if len(layers[0]) > 1:
            losses |= {f"aux_{name}": value[:-1] for name, value in all_layers.items()}
        for proposals, pairs in zip(group, matched[1:], strict=True):
            first_stage = _group_losses(*proposals, pairs, kind, boxes_there)
            losses |= {f"proposal_{name}": value[0] for name, value in first_stage.items()}
    return losses


def total(losses: Mapping[str, Tensor], weights: Costs = SetWeights()) -> Tensor:
    """Return the sum of what `set_losses` gives, by weight: the last layer, auxiliary layers, proposals; one number.

    Carion et al. 2020, section 4; auxiliary losses: section 3.2. Raises ValueError where a loss is missing.
    """
    missing = [name for name in LOSSES if name not in losses]
    if missing:
        raise ValueError(f"losses must have {', '.join(LOSSES)}, got none for {', '.join(missing)}")
    parts = [
        getattr(weights, name) * losses[key].sum()
        for name in LOSSES
        for key in (name, f"aux_{name}", f"proposal_{name}")
        if key in losses
    ]
    return torch.stack(parts).sum()


Group = tuple[Tensor, Tensor, Packed]


def _groups(outputs: Mapping[str, Tensor], packed: Packed) -> tuple[Group, list[Group]]:
    """Return the layers of the decoder, stacked with the last one at the end, and proposals, if there are any."""
    logits, boxes = (x[None] for x in layer_of(outputs))
    if {"aux_logits", "aux_boxes"} & set(outputs):
        aux_logits, aux_boxes = layer_of(outputs, "aux_")
        if aux_logits.shape[1:] != logits.shape[1:]:
            came, wanted = tuple(aux_logits.shape), ("L", *logits.shape[1:])
            raise ValueError(f"aux_logits must be {wanted} as logits, got {came}")
        check_device("aux_logits", aux_logits, "logits", logits)
        logits, boxes = torch.cat([aux_logits, logits]), torch.cat([aux_boxes, boxes])
    layers = (_wide(logits), _wide(boxes), packed)
    if not {"proposal_logits", "proposal_boxes"} & set(outputs):
        return layers, []
    some_logits, some_boxes = layer_of(outputs, "proposal_")
    if len(some_logits) != logits.shape[1]:
        raise ValueError(f"proposal_logits must be of {logits.shape[1]} pictures, got {tuple(some_logits.shape)}")
    check_device("proposal_logits", some_logits, "logits", logits)
    no_class = replace(packed, labels=torch.zeros_like(packed.labels))
    return layers, [(_wide(some_logits)[None], _wide(some_boxes)[None], no_class)]


def _group_losses(
    logits: Tensor, boxes: Tensor, packed: Packed, pairs: Pairs, kind: _ClassLoss, count: Tensor
) -> dict[str, Tensor]:
    """Return each loss of L layers, (L,): (L, N, Q, C) and (L, N, Q, 4), and who is matched."""
    layers, pictures, size, columns = logits.shape
    first = torch.arange(layers, device=logits.device)[:, None] * (pictures * size)
    places = (pairs.queries + first).flatten()
    labels = packed.labels[pairs.objects]
    if kind.focal:
        classes = _focal(logits, places * columns + labels.flatten(), kind) / count.clamp(min=1)
    else:
        # what one process with all pictures would divide by
        more = (count - len(packed.labels)) * (1 - kind.eos)
        classes = _cross_entropy(logits, places, labels, kind.eos, more)
    found = boxes.flatten(0, 2).index_select(0, places)
    wanted = packed.boxes.to(found.dtype)[pairs.objects.flatten()]
    distance = (found - wanted).abs().view(layers, -1).sum(1)
    overlap = box.giou(box.to_xyxy(found), box.to_xyxy(wanted), paired=True).view(layers, -1)
    share = 1 / count.clamp(min=1)
    with torch.no_grad():
        said = (logits.argmax(-1) != columns - 1).sum(-1)
        numbers = torch.tensor(packed.counts, device=said.device)
        cardinality = (said - numbers).abs().to(logits.dtype).mean(-1)
    return {
        "classes": classes,
        "boxes": distance * share,
        "giou": (1 - overlap).sum(1) * share,
        "cardinality": cardinality,
    }


def _cross_entropy(logits: Tensor, places: Tensor, labels: Tensor, eos: float, more: Tensor) -> Tensor:
    """Return the weighted mean of each layer; `more` is added to the sum of weights that it is divided by."""
    layers, columns = len(logits), logits.shape[-1]
    rows = logits.reshape(-1, columns)
    wanted = torch.full((len(rows),), columns - 1, device=rows.device)
    wanted[places] = labels.flatten()
    weight = rows.new_ones(columns)
    weight[-1] = eos
    loss = F.cross_entropy(rows, wanted, weight, reduction="none").view(layers, -1).sum(1)
    weights = weight[wanted].view(layers, -1).sum(1) + more
    return loss / torch.where(weights > 0, weights, 1)


def _focal(logits: Tensor, places: Tensor, kind: _ClassLoss) -> Tensor:
    """Return the sum of each layer: every class of every query is to say no, but those at `places` are to say yes.

    Lin et al. 2017, equation 5.
    """
    p = logits.sigmoid()
    no = (1 - kind.alpha) * (p**kind.gamma * F.softplus(logits)).flatten(1).sum(1)
    x, q = (table.flatten().index_select(0, places) for table in (logits, p))
    yes = kind.alpha * (1 - q) ** kind.gamma * F.softplus(-x)
    instead = yes - (1 - kind.alpha) * q**kind.gamma * F.softplus(x)
    return no + instead.view(len(logits), -1).sum(1)


@torch.no_grad()
def _class_error(logits: Tensor, packed: Packed, pairs: Pairs) -> Tensor:
    """Return the percentage of matched queries of the last layer, (N, Q, C), whose best class is not their object's."""
    best = logits.flatten(0, 1).index_select(0, pairs.queries[-1]).argmax(-1)
    return 100 * (best != packed.labels[pairs.objects[-1]]).to(logits.dtype).mean()


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 at least: sums of half precision lose digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_count(count: Tensor | float, logits: Tensor) -> Tensor:
    """Return the count as a tensor without shape, of the losses' kind; the value of a tensor stays on its device."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    if isinstance(count, Tensor):
        if count.numel() != 1:
            raise ValueError(f"count must be one number, got the shape {tuple(count.shape)}")
        return count.detach().reshape(()).to(logits.device, kind)
    if not 0 <= count < math.inf:
        raise ValueError(f"count must be 0 or more, got {count!r}")
    return torch.tensor(float(count), device=logits.device, dtype=kind)
