"""Which query is to find which object: one to one, so that the sum of all costs is as small as it can be (chapter 19).

A picture's costs are a matrix of its queries and its own objects; no query is ever compared with another picture's. All
layers of a decoder are computed together, and what they cost is brought to the CPU in one piece, where scipy solves the
matrices one by one (Kuhn 1955, the "Hungarian" method; scipy's is the one of Crouse 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course_lib.detection import boxes as box
from course_lib.detection.checks import check_device, check_rows

_TINY = 1e-8  # of the official focal cost: a logarithm of 0 would be infinite


@dataclass(frozen=True, eq=False)
class SetTruth:
    """What is in one picture: labels int64 (n,), 0 to K - 1, and boxes (n, 4) cxcywh, normalised; n may be 0.

    Raises TypeError or ValueError for other shapes or kinds. Numbers are looked at where they are used.
    """

    labels: Tensor
    boxes: Tensor

    def __post_init__(self) -> None:
        """Check shapes and kinds."""
        check_rows("boxes", self.boxes, self.labels)
        check_device("labels", self.labels, "boxes", self.boxes)

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> SetTruth:
        """Return the same on another device."""
        return SetTruth(self.labels.to(device), self.boxes.to(device))


@dataclass(frozen=True)
class Costs:
    """How much each part counts in the cost of a pair: its class, the L1 distance of its boxes, and their GIoU.

    Carion et al. 2020 (DETR), section A.4: 1, 5, 2; with a focal cost, and in ViDT, the class counts 2. Raises
    ValueError for numbers below 0 or without end.
    """

    classes: float = 1.0
    boxes: float = 5.0
    giou: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{field.name} must be 0 or more and finite, got {value!r}")


@dataclass(frozen=True, eq=False)
class Packed:
    """The objects of a batch one after another: labels (T,), boxes (T, 4), and how many each picture has."""

    labels: Tensor
    boxes: Tensor
    counts: list[int]

    @cached_property
    def picture(self) -> Tensor:
        """For each object the place of its picture in the batch: int64 (T,)."""
        owners = np.repeat(np.arange(len(self.counts)), self.counts)
        return torch.from_numpy(owners).to(self.labels.device)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Who is matched with whom in L layers of N pictures: m pairs in each layer, of the same objects' number.

    queries: int64 (L, m), places in the queries of the layer, all pictures' one after another (N * Q). objects: int64
    (L, m), rows of the packed objects.
    """

    queries: Tensor
    objects: Tensor


def matching_cost(
    logits: Tensor,
    boxes: Tensor,
    truths: Sequence[SetTruth],
    costs: Costs | None = None,
    focal: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> list[Tensor]:
    """Return for each picture what it costs to let each query find each object: N tensors (Q, n), float32 at least.

    logits: (N, Q, C); boxes: (N, Q, 4) cxcywh, normalised; truths: one for each picture. With p the probability of
    the object's class (not its logarithm, so that it is of the size of the other two):

        costs.classes * -p + costs.boxes * L1(b, b') - costs.giou * GIoU(b, b')

    p is the softmax over all columns (the last one is "no object"). `focal`: sigmoid instead, and in place of -p the
    focal loss of saying yes less that of saying no, alpha (1 - p)^gamma (-log p) - (1 - alpha) p^gamma (-log(1 - p)).
    costs: None: 1, 5, 2, and 2, 5, 2 with `focal`. No gradient. Raises TypeError or ValueError that name the argument.
    Carion et al. 2020, equation 1 and section A.2; Lin et al. 2017 for the focal loss.
    """
    packed = check_sets(logits, boxes, truths)
    table = layer_costs(logits[None], boxes[None], packed, costs or default_costs(focal), focal, alpha, gamma)[0]
    return [one.T for one in torch.split(table, packed.counts)]


def hungarian(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns, int64 (min(q, n),) both, of the pairs that cost least together; rows ascend.

    cost: (q, n), both may be 0; the result is on its device. Every row and every column is in one pair at most: with
    more columns than rows, the columns that would cost most have none. Raises TypeError or ValueError for another
    shape, and for costs that are NaN or infinite. Kuhn 1955; its time grows as q n min(q, n) at worst.
    """
    if not isinstance(cost, Tensor) or not cost.is_floating_point() or cost.dim() != 2:
        came = f"{cost.dtype} {tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
        raise TypeError(f"cost must be a floating-point torch.Tensor (q, n), got {came}")
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    table = cost.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"cost must be finite, got {table[row, column]} in row {row}, column {column}")
    rows, columns = linear_sum_assignment(table)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def match_sets(
    outputs: Mapping[str, Tensor], truths: Sequence[SetTruth], costs: Costs | None = None, focal: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Return for each picture which queries are to find which objects: (queries, objects), int64 (min(Q, n),).

    outputs: "logits" (N, Q, C) and "boxes" (N, Q, 4) cxcywh; costs, focal: as of `matching_cost`. Queries ascend. Of
    more objects than queries, those that would cost most are found by nobody. On the device of the outputs, with one
    transfer to the CPU and one back. Raises TypeError or ValueError that name the argument, also for NaN, and for
    infinite numbers.
    """
    logits, boxes = layer_of(outputs)
    packed = check_sets(logits, boxes, truths)
    group = (logits[None], boxes[None], packed)
    pairs = match_groups([group], costs or default_costs(focal), focal)[0]
    queries, objects = pairs.queries[0], pairs.objects[0]
    order = queries.argsort()
    size = logits.shape[1]
    sizes = [min(size, n) for n in packed.counts]
    firsts = np.cumsum((0, *packed.counts))[:-1].tolist()
    split = zip(torch.split(queries[order], sizes), torch.split(objects[order], sizes), firsts, strict=True)
    return [(mine - k * size, theirs - first) for k, (mine, theirs, first) in enumerate(split)]


def default_costs(focal: bool) -> Costs:
    """Return 1, 5, 2, or 2, 5, 2 with a focal cost."""
    return Costs(classes=2.0 if focal else 1.0)


@torch.no_grad()
def layer_costs(
    logits: Tensor, boxes: Tensor, packed: Packed, costs: Costs, focal: bool, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Return what `matching_cost` does of L layers at once: (L, N, Q, C), (L, N, Q, 4) -> (L, T, Q), objects first.

    Labels outside the columns are not refused here, but read as the nearest one.
    """
    with torch.autocast(logits.device.type, enabled=False):
        kind = torch.promote_types(torch.promote_types(logits.dtype, boxes.dtype), torch.float32)
        logits, boxes, wanted = logits.to(kind), boxes.to(kind), packed.boxes.to(kind)
        picture = packed.picture
        shares = logits if focal else logits.softmax(-1)
        chosen = shares.transpose(-1, -2)[:, picture, packed.labels.clamp(0, logits.shape[-1] - 1)]  # (L, T, Q)
        if focal:
            p = chosen.sigmoid()
            yes = alpha * (1 - p) ** gamma * (p + _TINY).log()
            cost = ((1 - alpha) * p**gamma * (1 - p + _TINY).log() - yes) * costs.classes
        else:
            cost = chosen * -costs.classes
        both = torch.cat([boxes, box.to_xyxy(boxes)], -1)
        found = both.movedim(-1, 0).contiguous().index_select(2, picture)  # (8, L, T, Q): each number in one piece
        far = (found[:4] - wanted.T[:, None, :, None]).abs_()
        cost.add_(far[0] + far[1] + far[2] + far[3], alpha=costs.boxes)  # a sum over the first axis takes longer
        shared = box.giou(box.to_xyxy(wanted)[:, None], found[4:].movedim(0, -1))[..., 0, :]
        return cost.sub_(shared, alpha=costs.giou)


def match_groups(
    groups: Sequence[tuple[Tensor, Tensor, Packed]], costs: Costs, focal: bool, alpha: float = 0.25, gamma: float = 2.0
) -> list[Pairs]:
    """Return the pairs of several groups of layers (logits, boxes, objects), each with queries of its own number.

    Shapes as of `layer_costs`. All costs go to the CPU together, and with them all else that is looked at there. Raises
    ValueError for costs, logits or boxes that are not finite, for labels without a column ("no object" is no label),
    and for objects whose boxes cannot be normalised cxcywh.
    """
    tables = [layer_costs(*group, costs, focal, alpha, gamma) for group in groups]
    packed = groups[0][2]
    # the least and the largest number: NaN wins both, as infinity does one of them
    extremes = [end for group in groups for tensor in group[:2] for end in tensor.detach().aminmax()]
    parts = (*tables, packed.labels, packed.boxes, torch.stack(extremes))
    host = torch.cat([part.flatten().to(tables[0].dtype) for part in parts]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts[len(tables) - 1 : -1]]) + sum(t.numel() for t in tables[:-1])
    numbers, names, sides, extreme = np.split(host, ends)
    classes = groups[0][0].shape[-1] - (not focal)  # the last column of a softmax is "no object"
    if len(names) and not (names.min() >= 0 and names.max() < classes):
        came = f"{names.min():g} to {names.max():g}"
        raise ValueError(f"truths must have labels from 0 to {classes - 1}, classes in logits, got {came}")
    if not (np.isfinite(numbers).all() and np.isfinite(extreme).all()):
        _refuse(groups)
    _check_normalised(sides.reshape(-1, 4))
    found: list[NDArray[np.int64]] = []
    start = 0
    for table in tables:
        stop = start + table.numel()
        found.append(_solve(numbers[start:stop].reshape(table.shape), groups[len(found)][2].counts))
        start = stop
    sizes = [pairs.size for pairs in found]
    there = torch.from_numpy(np.concatenate([pairs.reshape(-1) for pairs in found])).to(packed.labels.device)
    made = (part.view(pairs.shape) for part, pairs in zip(torch.split(there, sizes), found, strict=True))
    return [Pairs(queries, objects) for queries, objects in made]


def _check_normalised(boxes: NDArray[Any]) -> None:
    """Raise ValueError for boxes that are pixels, corners the wrong way round, or far outside the picture."""
    wrong = (boxes[:, 2:] < 0).any(1) | (np.abs(boxes - 0.5) > 1.0).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        came = ", ".join(f"{number:g}" for number in boxes[row])
        raise ValueError(f"truths must have boxes cxcywh in parts of the picture, width and height >= 0, got ({came})")


def _solve(table: NDArray[Any], counts: Sequence[int]) -> NDArray[np.int64]:
    """Return int64 (2, L, m), queries and objects as `Pairs` has them, of costs (L, T, Q)."""
    from scipy.optimize import linear_sum_assignment

    layers, _, size = table.shape
    ends = np.cumsum((0, *counts)).tolist()
    queries, objects = [], []
    for layer in table.astype(np.float64):
        for place, (first, end) in enumerate(pairwise(ends)):
            if first != end:
                rows, columns = linear_sum_assignment(layer[first:end])
                queries.append(columns + place * size)
                objects.append(rows + first)
    if not queries:
        return np.zeros((2, layers, 0), dtype=np.int64)
    return np.stack([np.concatenate(queries), np.concatenate(objects)]).reshape(2, layers, -1)


def _refuse(groups: Sequence[tuple[Tensor, Tensor, Packed]]) -> None:
    """Raise ValueError that says which tensor the costs are not finite by."""
    for logits, boxes, packed in groups:
        for name, tensor in (("logits", logits), ("boxes", boxes), ("truths", packed.boxes)):
            if not bool(tensor.isfinite().all()):
                word = "NaN" if bool(tensor.isnan().any()) else "infinite numbers"
                why = "" if name == "truths" else ": has the training diverged?"
                raise ValueError(f"{name} must be finite, got {word}{why}")
    raise ValueError("logits and boxes must be of a size that can be compared, got costs that are not finite")


def layer_of(outputs: Mapping[str, Tensor], prefix: str = "") -> tuple[Tensor, Tensor]:
    """Return the logits and boxes of a detector's outputs; `prefix`: of the names of other layers."""
    if not isinstance(outputs, Mapping):
        raise TypeError(f"outputs must be a mapping with logits and boxes, got {type(outputs).__name__}")
    names = (f"{prefix}logits", f"{prefix}boxes")
    if not set(names) <= set(outputs):
        raise ValueError(f"outputs must have {names[0]} and {names[1]}, got {sorted(outputs)}")
    for name in names:
        value = outputs[name]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    logits, boxes = (outputs[name] for name in names)
    lead = 4 if prefix == "aux_" else 3
    wanted = "(L, N, Q, C)" if prefix == "aux_" else "(N, Q, C)"
    if logits.dim() != lead or logits.shape[-1] < 1 or logits.shape[-2] < 1:
        raise ValueError(f"{names[0]} must be {wanted} with Q, C >= 1, got {tuple(logits.shape)}")
    if boxes.shape != (*logits.shape[:-1], 4):
        raise ValueError(f"{names[1]} must be {(*logits.shape[:-1], 4)} as {names[0]}, got {tuple(boxes.shape)}")
    check_device(names[0], logits, names[1], boxes)
    return logits, boxes


def check_sets(logits: Tensor, boxes: Tensor, truths: Sequence[SetTruth]) -> Packed:
    """Return the objects of all pictures, if there is one truth for each and all is on one device."""
    logits, boxes = layer_of({"logits": logits, "boxes": boxes})
    if not isinstance(truths, list | tuple) or not all(isinstance(truth, SetTruth) for truth in truths):
        came = type(truths).__name__ if not isinstance(truths, list | tuple) else [type(one).__name__ for one in truths]
        raise TypeError(f"truths must be a list of SetTruth, got {came}")
    if len(truths) != len(logits) or not truths:
        raise ValueError(f"truths must be one for each of {len(logits)} pictures, at least one, got {len(truths)}")
    for place, truth in enumerate(truths):
        check_device(f"truths[{place}]", truth.labels, "logits", logits)
    labels, wanted = torch.cat([t.labels for t in truths]), torch.cat([t.boxes for t in truths])
    return Packed(labels, wanted, [len(truth) for truth in truths])
