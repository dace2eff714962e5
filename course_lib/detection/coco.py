"""COCO's rule of what a detection has found, for all pictures, areas and overlaps at once (chapter 16).

`metrics.coco_map` is how to call it. pycocotools goes through areas, pictures, overlaps, detections and truths, one
after another. A detection has only to wait for those of its class and picture that have a higher score; so here the
best detection of every picture and class looks for its truth, then every second one, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_MOST = 100  # detections of a class in a picture
_GROUPS = 512  # matched at once

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


class Flat(NamedTuple):
    """Boxes (n, 4) xyxy of all pictures, and of each box the group: picture K + class."""

    boxes: Floats
    groups: Rows

    def areas(self) -> Floats:
        """Return the areas (n,)."""
        sides: Floats = self.boxes[:, 2:] - self.boxes[:, :2]
        return sides[:, 0] * sides[:, 1]

    def sorted(self, order: Rows) -> Flat:
        """Return them in another order, or some of them."""
        return Flat(self.boxes[order], self.groups[order])


def precision(
    found: Flat,
    scores: Floats,
    wanted: Flat,
    difficult: Bools,
    classes: int,
    ranges: Sequence[tuple[float, float]],
) -> Floats:
    """Return the precision (ranges, overlaps, classes, recalls); NaN for classes without truths of that area.

    scores: of `found`; difficult: of `wanted`; ranges: least and largest area, both included.
    """
    order = np.lexsort((-scores, found.groups))
    first = np.searchsorted(found.groups[order], found.groups[order])
    order = order[np.arange(len(order)) - first < _MOST]
    found, scores = found.sorted(order), scores[order]
    order = np.argsort(wanted.groups, kind="stable")[::-1]  # of equal overlaps the last truth counts
    wanted, difficult = wanted.sorted(order), difficult[order]
    ignored = np.stack([difficult | _outside(wanted.areas(), limits) for limits in ranges])
    right, skipped = _match(found, wanted, ignored)
    skipped |= np.stack([_outside(found.areas(), limits) for limits in ranges])[:, None] & ~right
    right &= ~skipped
    made = np.full((len(ranges), len(OVERLAPS), classes, len(RECALLS)), np.nan)
    for k in range(classes):
        (rows,) = (found.groups % classes == k).nonzero()
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        truths = (~ignored[:, wanted.groups % classes == k]).sum(1)
        for a in truths.nonzero()[0]:
            made[a, :, k] = _curves(right[a][:, rows], skipped[a][:, rows], int(truths[a]))
    return made


def _outside(areas: Floats, limits: tuple[float, float]) -> Bools:
    outside: Bools = (areas < limits[0]) | (areas > limits[1])
    return outside


def _curves(right: Bools, skipped: Bools, truths: int) -> Floats:
    """Return the best precision at each recall or a higher one, (overlaps, recalls), of sorted detections."""
    good = right.cumsum(1, dtype=np.float64)
    bad = (~right & ~skipped).cumsum(1, dtype=np.float64)
    curve = good / np.maximum(good + bad, 1)  # where only skipped ones came so far: 0
    best = np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
    best = np.pad(best, ((0, 0), (0, 1)))
    places = [np.searchsorted(line, RECALLS) for line in good / truths]
    return np.stack([line[place] for line, place in zip(best, places, strict=True)])


def _match(found: Flat, wanted: Flat, ignored: Bools) -> tuple[Bools, Bools]:
    """Return which detections found a truth, and one to be ignored, both (ranges, overlaps, detections).

    found is sorted by group and falling score, wanted by falling group.
    """
    ranges = len(ignored)
    right, skipped = (np.zeros((ranges, len(OVERLAPS), len(found.groups)), dtype=bool) for _ in range(2))
    groups, first, many = np.unique(found.groups, return_index=True, return_counts=True)
    start, end = (len(wanted.groups) - np.searchsorted(wanted.groups[::-1], groups, side) for side in ("right", "left"))
    truths = end - start
    by_size = np.argsort(truths, kind="stable")
    by_size = by_size[truths[by_size] > 0]
    for chunk in np.split(by_size, range(_GROUPS, len(by_size), _GROUPS)):
        if not len(chunk):
            continue
        rows, is_row = _table(first[chunk], many[chunk])
        columns, is_column = _table(start[chunk], truths[chunk])
        likes = _iou(found.boxes[rows][:, :, None], wanted.boxes[columns][:, None])
        likes[~(is_row[:, :, None] & is_column[:, None])] = -1.0
        free = np.broadcast_to(is_column, (ranges, len(OVERLAPS), *columns.shape)).copy()
        for rank in range(rows.shape[1]):
            (some,) = (likes[:, rank].max(1) >= OVERLAPS[0]).nonzero()
            if len(some):
                hit, best = _choose(likes[some, rank], free[:, :, some], ignored[:, columns[some]])
                a, t, i = hit.nonzero()
                taken, row = best[a, t, i], rows[some[i], rank]
                free[a, t, some[i], taken] = False
                right[a, t, row] = True
                skipped[a, t, row] = ignored[a, columns[some[i], taken]]
    return right, skipped


def _choose(likes: Floats, free: Bools, ignored: Bools) -> tuple[Bools, Rows]:
    """Return whether each detection finds a truth, and which: the most alike of those free, ignored ones only at last.

    likes (g, m); free (ranges, overlaps, g, m); ignored (ranges, g, m) -> two (ranges, overlaps, g).
    """
    fits = free & (likes >= OVERLAPS[:, None, None])
    better = fits & ~ignored[:, None]
    fits = np.where(better.any(-1, keepdims=True), better, fits)
    hit: Bools = np.any(fits, axis=-1)
    return hit, np.where(fits, likes, -1.0).argmax(-1)


def _table(start: Rows, count: Rows) -> tuple[Rows, Bools]:
    """Return rows start, start + 1, ... of each group in a line (groups, most), and which of them belong to it."""
    place = np.arange(count.max())
    inside = place < count[:, None]
    return np.where(inside, start[:, None] + place, 0), inside


def _iou(a: Floats, b: Floats) -> Floats:
    """Return IoU over the last axis; 0 where the union has no area."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    made: Floats = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return made
