"""Boxes written as offsets from anchors, which a network predicts, and back (chapter 14)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.detection.boxes import check_last, to_cxcywh, to_xyxy

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def encode(boxes: Tensor, anchors: Tensor, variances: tuple[float, ...] = VARIANCES) -> Tensor:
    """Return where boxes lie as seen from their anchors (Liu et al. 2016, equation 2; variances: the official code).

    ((bx - ax) / aw / v0, (by - ay) / ah / v1, log(bw / aw) / v2, log(bh / ah) / v3). boxes: xyxy (..., P, 4); anchors:
    cxcywh (P, 4) in the same unit; both may have any unit, offsets have none. The variances are divisors that bring
    all four offsets to about the same spread; (1, 1, 1, 1) is the paper's equation. Raises TypeError or ValueError for
    other shapes, and for a box or an anchor without width or height, which has no logarithm.
    """
    _check_pair("boxes", boxes, anchors)
    spread = _check_variances(variances, anchors)
    centred = to_cxcywh(boxes)
    _check_sides("boxes", centred)
    _check_sides("anchors", anchors)
    place = (centred[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    shape = torch.log(centred[..., 2:] / anchors[..., 2:])
    return torch.cat((place, shape), -1) / spread


def decode(offsets: Tensor, anchors: Tensor, variances: tuple[float, ...] = VARIANCES) -> Tensor:
    """Return the xyxy boxes that offsets from anchors mean, the inverse of `encode`: (..., P, 4) -> (..., P, 4).

    Centre (ax + aw v0 o0, ay + ah v1 o1), sides (aw exp(v2 o2), ah exp(v3 o3)). anchors: cxcywh (P, 4); boxes have
    their unit. Half-precision offsets of float32 anchors are decoded in float32. Raises TypeError or ValueError for
    other shapes.
    """
    _check_pair("offsets", offsets, anchors)
    scaled = offsets * _check_variances(variances, anchors)
    place = anchors[..., :2] + scaled[..., :2] * anchors[..., 2:]
    return to_xyxy(torch.cat((place, anchors[..., 2:] * scaled[..., 2:].exp()), -1))


def _check_pair(name: str, given: Tensor, anchors: Tensor) -> None:
    check_last(name, given)
    check_last("anchors", anchors)
    if given.dim() < 2 or anchors.dim() != 2 or given.shape[-2] != len(anchors):
        shapes = f"{tuple(given.shape)} and {tuple(anchors.shape)}"
        raise ValueError(f"{name} must be (..., P, 4) and anchors (P, 4), got {shapes}")


def _check_variances(variances: tuple[float, ...], anchors: Tensor) -> Tensor:
    if not isinstance(variances, tuple | list) or len(variances) != 4 or not all(0 < v < math.inf for v in variances):
        raise ValueError(f"variances must be 4 finite numbers above 0, got {variances!r}")
    return anchors.new_tensor(variances)


def _check_sides(name: str, centred: Tensor) -> None:
    bad = ~(centred[..., 2:] > 0).all(-1)
    if bool(bad.any()):
        row = tuple(bad.nonzero()[0].tolist())
        w, h = centred[row][2:].tolist()
        where = row[0] if len(row) == 1 else row
        raise ValueError(f"{name} must have width and height above 0, got {w:.6g} x {h:.6g} in row {where}")
