"""Laws of boxes, their overlap and their offsets, for boxes that Hypothesis chooses."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.detection.anchors import Level, anchors
from course_lib.detection.boxes import (
    area,
    clip,
    giou,
    iou,
    is_valid,
    to_cxcywh,
    to_normalised,
    to_pixels,
    to_xyxy,
)
from course_lib.detection.coding import decode, encode
from course_lib.plain.detection import anchors_loop, iou_loop

laws = settings(max_examples=30, deadline=None, derandomize=True)
FEW = settings(max_examples=15, deadline=None, derandomize=True)
SIDES = st.integers(1, 2000)


@st.composite
def some_boxes(draw: Any, least: int = 1, grid: int = 12) -> Tensor:
    """Valid xyxy boxes on a grid, float64: they often touch, hold or equal each other."""
    rows = []
    for _ in range(draw(st.integers(least, 6))):
        x0, y0 = draw(st.integers(0, grid - 1)), draw(st.integers(0, grid - 1))
        rows.append((x0, y0, draw(st.integers(x0 + 1, grid)), draw(st.integers(y0 + 1, grid))))
    return torch.tensor(rows, dtype=torch.float64)


BOXES = some_boxes()


@laws
@given(rows=BOXES, height=SIDES, width=SIDES)
def test_formats_and_units_come_back(rows: Tensor, height: int, width: int) -> None:
    """There and back, in both orders; the order of changing format and unit does not matter."""
    size = (height, width)
    torch.testing.assert_close(to_xyxy(to_cxcywh(rows)), rows)
    centred = to_cxcywh(rows)
    torch.testing.assert_close(to_cxcywh(to_xyxy(centred)), centred)
    torch.testing.assert_close(to_pixels(to_normalised(rows, size), size), rows)
    torch.testing.assert_close(to_cxcywh(to_pixels(rows, size)), to_pixels(centred, size))
    torch.testing.assert_close(area(rows), centred[:, 2] * centred[:, 3])


@laws
@given(a=BOXES, b=BOXES)
def test_ranges_and_symmetry(a: Tensor, b: Tensor) -> None:
    """0 <= IoU <= 1, -1 < GIoU <= IoU; symmetric bit for bit; 1 for a box with itself and for nothing else."""
    for overlap in (iou, giou):
        assert torch.equal(overlap(a, b), overlap(b, a).mT)
        assert torch.equal(overlap(a, a).diagonal(), torch.ones(len(a), dtype=torch.float64))
        same = (a[:, None] == b[None]).all(-1)
        assert torch.equal(overlap(a, b) == 1, same)
    table, general = iou(a, b), giou(a, b)
    assert bool(((table >= 0) & (table <= 1)).all())
    assert bool(((general > -1) & (general <= table)).all())


@laws
@given(a=BOXES, b=BOXES)
def test_overlap_counts_cells(a: Tensor, b: Tensor) -> None:
    """Oracle: boxes on a grid are sets of cells; the hull too. GIoU is IoU exactly where the hull is the union."""
    cells = torch.zeros(2, 6, 12, 12, dtype=torch.bool)
    for k, rows in enumerate((a, b)):
        for j, (x0, y0, x1, y1) in enumerate(rows.long().tolist()):
            cells[k, j, y0:y1, x0:x1] = True
    first, second = cells[0, : len(a), None], cells[1, None, : len(b)]
    shared, union = (first & second).sum((-1, -2)).double(), (first | second).sum((-1, -2)).double()
    torch.testing.assert_close(iou(a, b), shared / union)
    low, high = torch.minimum(a[:, None], b[None]), torch.maximum(a[:, None], b[None])
    hull = (high[..., 2] - low[..., 0]) * (high[..., 3] - low[..., 1])
    torch.testing.assert_close(giou(a, b), shared / union - (hull - union) / hull)
    assert torch.equal(giou(a, b) == iou(a, b), hull == union)


@laws
@given(a=BOXES, b=BOXES, x=st.floats(-50, 50), y=st.floats(-50, 50), wide=st.floats(0.1, 10), high=st.floats(0.1, 10))
def test_overlap_does_not_know_the_unit(a: Tensor, b: Tensor, x: float, y: float, wide: float, high: float) -> None:
    """Law: moving both boxes, stretching either axis, and mirroring change nothing."""
    factor = torch.tensor((wide, high, wide, high), dtype=torch.float64)
    shift = torch.tensor((x, y, x, y), dtype=torch.float64)
    for overlap in (iou, giou):
        expected = overlap(a, b)
        torch.testing.assert_close(overlap(a * factor + shift, b * factor + shift), expected, rtol=1e-9, atol=1e-9)
        mirrored = [torch.stack((-r[:, 2], r[:, 1], -r[:, 0], r[:, 3]), -1) for r in (a, b)]
        torch.testing.assert_close(overlap(*mirrored), expected)


@laws
@given(a=BOXES, b=BOXES, seed=st.integers(0, 99))
def test_rows_are_independent(a: Tensor, b: Tensor, seed: int) -> None:
    """Law: boxes in another order give the table in that order; paired boxes are its diagonal; one equals many."""
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))
    for overlap in (iou, giou):
        table = overlap(a, b)
        assert torch.equal(overlap(a[order], b), table[order])
        n = min(len(a), len(b))
        assert torch.equal(overlap(a[:n], b[:n], paired=True), table.diagonal()[:n])
        assert torch.equal(overlap(a[:1], b), table[:1])


@FEW
@given(a=BOXES, b=BOXES)
def test_the_loop_and_the_table(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(iou(a, b), iou_loop(a, b))


@laws
@given(box=BOXES, gap=st.integers(1, 40))
def test_giou_falls_with_distance(box: Tensor, gap: int) -> None:
    """Law: two equal boxes side by side have minus the gap over the hull's length: the farther, the nearer to -1."""
    width = box[:, 2] - box[:, 0]
    for extra in (0, gap):
        right = box.clone()
        right[:, [0, 2]] += (width + extra)[:, None]
        torch.testing.assert_close(giou(box, right, paired=True), -extra / (2 * width + extra))


@laws
@given(rows=BOXES, x=st.integers(-14, 14), y=st.integers(-14, 14), height=SIDES, width=SIDES)
def test_clip_is_the_part_inside(rows: Tensor, x: int, y: int, height: int, width: int) -> None:
    """Law: the area left is that shared with the picture; clipping again changes nothing, nor what lies inside."""
    size = (height % 12 + 1, width % 12 + 1)
    moved = rows + torch.tensor((x, y, x, y))
    cut = clip(moved, size)
    picture = torch.tensor([[0, 0, size[1], size[0]]], dtype=torch.float64)
    shared = iou(moved, picture)[:, 0]
    union = area(moved) + area(picture) - area(cut)
    torch.testing.assert_close(area(cut), shared * union)
    assert torch.equal(clip(cut, size), cut)
    assert torch.equal(is_valid(cut), area(cut) > 0)
    inside = (area(cut) == area(moved))[:, None]
    assert torch.equal(torch.where(inside, cut, 0), torch.where(inside, moved, 0))
    scaled = clip(to_normalised(moved, size))
    torch.testing.assert_close(to_pixels(scaled, size), cut)


@st.composite
def coded(draw: Any) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """As many boxes as anchors, and variances."""
    rows = draw(some_boxes(least=6))
    held = draw(some_boxes(least=6))
    variances = tuple(draw(st.floats(0.05, 2)) for _ in range(4))
    return rows, to_cxcywh(held), variances


@laws
@given(case=coded())
def test_coding_comes_back(case: Any) -> None:
    """decode(encode(box)) = box and encode(decode(offset)) = offset, whatever the variances."""
    rows, held, variances = case
    offsets = encode(rows, held, variances)
    torch.testing.assert_close(decode(offsets, held, variances), rows, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(encode(decode(0.3 * offsets, held, variances), held, variances), 0.3 * offsets)


@laws
@given(case=coded(), x=st.floats(-9, 9), y=st.floats(-9, 9), wide=st.floats(0.2, 5), high=st.floats(0.2, 5))
def test_offsets_do_not_know_the_unit(case: Any, x: float, y: float, wide: float, high: float) -> None:
    """Law: box and anchor moved and stretched together keep their offsets; decoded boxes move and stretch along."""
    rows, held, variances = case
    factor = torch.tensor((wide, high, wide, high), dtype=torch.float64)
    shift = torch.tensor((x, y, x, y), dtype=torch.float64)
    elsewhere = to_cxcywh(to_xyxy(held) * factor + shift)
    offsets = encode(rows, held, variances)
    torch.testing.assert_close(encode(rows * factor + shift, elsewhere, variances), offsets, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(decode(offsets, elsewhere, variances), rows * factor + shift, rtol=1e-8, atol=1e-8)


@laws
@given(case=coded())
def test_offsets_scale_with_their_variances(case: Any) -> None:
    """Law: variances are divisors and nothing else; twice and half as large a box have offsets of opposite sign."""
    rows, held, variances = case
    torch.testing.assert_close(
        encode(rows, held, variances) * torch.tensor(variances, dtype=torch.float64),
        encode(rows, held, (1.0, 1.0, 1.0, 1.0)),
    )
    twice, half = (to_xyxy(torch.cat((held[:, :2], f * held[:, 2:]), -1)) for f in (2.0, 0.5))
    torch.testing.assert_close(encode(twice, held, variances), -encode(half, held, variances), rtol=1e-9, atol=1e-9)


LEVELS = st.builds(
    Level,
    small=st.floats(1, 100),
    large=st.none() | st.floats(1, 200),
    ratios=st.lists(st.floats(1.1, 4), max_size=3).map(tuple),
    step=st.none() | st.floats(1, 40) | st.tuples(st.floats(1, 40), st.floats(1, 40)),
    offset=st.floats(0, 1),
)


@FEW
@given(levels=st.lists(LEVELS, min_size=1, max_size=3), rows=st.integers(1, 4), columns=st.integers(1, 4), seed=SIDES)
def test_anchors_are_those_of_the_loop(levels: list[Level], rows: int, columns: int, seed: int) -> None:
    """Any level, map and picture; a level's anchors do not depend on the others."""
    picture = (40 + seed % 61, 40 + seed % 97)
    maps = [(rows, columns), (columns, rows), (1, columns)][: len(levels)]
    table = anchors(maps, levels, picture, dtype=torch.float64)
    torch.testing.assert_close(table, anchors_loop(maps, levels, picture), rtol=1e-12, atol=1e-12)
    parts = [anchors([size], [level], picture, dtype=torch.float64) for size, level in zip(maps, levels, strict=True)]
    assert torch.equal(table, torch.cat(parts))


def test_concentric_boxes_share_most() -> None:
    """Law: moved off the centre, an object's overlap with an anchor does not grow; so sizes alone bound it."""
    held = to_xyxy(torch.tensor([[0.0, 0.0, 30.0, 30.0]], dtype=torch.float64))
    steps = torch.arange(-20, 21, dtype=torch.float64)
    places = torch.cartesian_prod(steps, steps)
    rows = to_xyxy(torch.cat((places, torch.tensor((16.0, 24.0), dtype=torch.float64).expand(len(places), 2)), -1))
    table = iou(rows, held).view(41, 41)
    assert float(table.max()) == float(table[20, 20]) == pytest.approx(16 * 24 / 900)
