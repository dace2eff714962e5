"""Boxes: formats, areas, IoU and GIoU with their gradients, borders, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.boxes import (
    area,
    check_boxes,
    clip,
    giou,
    iou,
    is_valid,
    to_cxcywh,
    to_normalised,
    to_pixels,
    to_xyxy,
)
from course_lib.plain.detection import iou_loop

BOTH = pytest.mark.parametrize("overlap", [iou, giou])


def boxes(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype)


def drawn(n: int, seed: int) -> Tensor:
    """Boxes inside the unit square, float64, no two numbers alike."""
    corners = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return corners.sort(dim=1).values.flatten(1)


def test_formats_by_hand() -> None:
    corners, centred = boxes((0.1, 0.2, 0.5, 0.8)), boxes((0.3, 0.5, 0.4, 0.6))
    torch.testing.assert_close(to_cxcywh(corners), centred)
    torch.testing.assert_close(to_xyxy(centred), corners)


def test_pixels_by_hand() -> None:
    """x and w count columns, y and h rows: a picture of 100 x 200 (height, width)."""
    torch.testing.assert_close(to_pixels(boxes((0.1, 0.2, 0.5, 0.8)), (100, 200)), boxes((20, 20, 100, 80)))
    torch.testing.assert_close(to_normalised(boxes((20, 20, 100, 80)), (100, 200)), boxes((0.1, 0.2, 0.5, 0.8)))


def test_area_by_hand() -> None:
    """Oracle: 4 x 3; a point; a line; corners the wrong way round, once and twice."""
    rows = boxes((1, 2, 5, 5), (1, 1, 1, 1), (0, 0, 4, 0), (5, 2, 1, 5), (5, 5, 1, 2))
    assert area(rows).tolist() == [12, 0, 0, 0, 0]
    assert area(rows[0]).shape == ()


@pytest.mark.parametrize(
    ("a", "b", "shared", "general"),
    [
        ((0, 0, 4, 4), (2, 2, 6, 6), 4 / 28, 4 / 28 - 8 / 36),
        ((0, 0, 2, 2), (0, 0, 4, 4), 0.25, 0.25),  # inside: the hull is the union
        ((0, 0, 2, 2), (2, 0, 4, 2), 0, 0),  # side by side: the hull is the union
        ((0, 0, 1, 1), (3, 0, 4, 1), 0, -0.5),  # half of the hull is empty
        ((0, 0, 10, 10), (0, 0, 10, 5), 0.5, 0.5),
        ((1, 2, 3, 5), (1, 2, 3, 5), 1, 1),
        ((1, 1, 1, 1), (0, 0, 2, 2), 0, 0),  # a point inside
        ((1, 1, 1, 1), (1, 1, 1, 1), 0, 0),
        ((0, 0, 0, 0), (1, 1, 1, 1), 0, -1),
        ((3, 3, 1, 1), (0, 0, 4, 4), 0, 0),  # corners the wrong way round: no area
    ],
)
def test_overlap_by_hand(a: Any, b: Any, shared: float, general: float) -> None:
    for first, second in ((a, b), (b, a)):
        assert float(iou(boxes(first), boxes(second))) == pytest.approx(shared, abs=1e-15)
        assert float(giou(boxes(first), boxes(second))) == pytest.approx(general, abs=1e-15)


def test_iou_equals_the_plain_loop() -> None:
    """Oracle: one pair after the other, gradients too."""
    a, b = drawn(7, 1).requires_grad_(), drawn(9, 2).requires_grad_()
    weights = torch.rand(7, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    results = []
    for form in (iou, iou_loop):
        table = form(a, b)
        results.append([table.detach(), *torch.autograd.grad((table * weights).sum(), [a, b])])
    assert float(results[0][0].max()) > 0.2
    assert float(results[0][0].min()) == 0
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


@BOTH
def test_gradients_of_overlaps(overlap: Callable[..., Tensor]) -> None:
    """Oracle: differences, in float64, for every pair and for paired boxes."""
    a, b = drawn(4, 1).requires_grad_(), drawn(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(overlap, (a, b))
    assert torch.autograd.gradcheck(lambda x, y: overlap(x, y, paired=True), (a, b[:4]))


def test_giou_has_a_gradient_where_boxes_do_not_meet() -> None:
    """IoU has none there. Oracle: by hand, -(gap / hull) of two unit squares 2 apart: -2 / 4, slope -2 / 16."""
    moved = boxes((3, 0, 4, 1)).requires_grad_()
    (none,) = torch.autograd.grad(iou(boxes((0, 0, 1, 1)), moved).sum(), moved)
    assert not none.any()
    (some,) = torch.autograd.grad(giou(boxes((0, 0, 1, 1)), moved).sum(), moved)
    assert float(some[0, [0, 2]].sum()) == pytest.approx(-2 / 16)


@BOTH
def test_gradients_stay_finite(overlap: Callable[..., Tensor]) -> None:
    """Points, lines, boxes the wrong way round and boxes that are one: all pairs, no NaN, in both precisions."""
    odd = ((0, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 1), (0, 0, 1, 1), (1, 1, 0, 0), (1, 1, 1, 1), (1, 0, 2, 1))
    for dtype in (torch.float32, torch.float64):
        a, b = boxes(*odd, dtype=dtype).requires_grad_(), boxes(*odd, dtype=dtype).requires_grad_()
        table = overlap(a, b)
        assert table.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(table.sum(), [a, b]))


@BOTH
def test_what_is_not_finite_is_not_hidden(overlap: Callable[..., Tensor]) -> None:
    """Oracle: NaN in its row and nowhere else."""
    a = boxes((0, 0, 1, 1), (math.nan, 0, 1, 1))
    table = overlap(a, boxes((0, 0, 1, 1), (0, 0, 2, 2)))
    assert table.isnan().tolist() == [[False, False], [True, True]]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(overlap: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """Oracle: the same boxes in float32; areas of 1000 x 1000 pixels do not fit in float16."""
    a = boxes((0, 0, 1000, 1000), (24, 8, 512, 256)).to(dtype)
    found = overlap(a, a)
    assert found.dtype == torch.float32
    assert torch.equal(found, overlap(a.float(), a.float()))


@BOTH
def test_shapes(overlap: Callable[..., Tensor]) -> None:
    """Batches go along, no box is no row, and paired boxes may have any shape."""
    a, b = drawn(6, 1).view(2, 3, 4), drawn(8, 2).view(2, 4, 4)
    assert overlap(a, b).shape == (2, 3, 4)
    assert torch.equal(overlap(a, b)[1], overlap(a[1], b[1]))
    assert overlap(a[0], b[0, :0]).shape == (3, 0)
    assert overlap(a[0, :0], b[0]).shape == (0, 4)
    assert torch.equal(overlap(a, a.flip(0), paired=True)[1, 2], overlap(a[1, 2:], a[0, 2:])[0, 0])


def test_clip_by_hand() -> None:
    rows = boxes((-1, 0.5, 0.25, 3), (0.2, 0.3, 0.4, 0.5), (2, -3, 3, -2))
    assert clip(rows).tolist() == [[0, 0.5, 0.25, 1], [0.2, 0.3, 0.4, 0.5], [1, 0, 1, 0]]
    assert clip(boxes((-5, -5, 500, 500)), (100, 200)).tolist() == [[0, 0, 200, 100]]


def test_gradients_of_clip_and_formats() -> None:
    """Oracle: differences, in float64, for boxes inside and outside."""
    rows = (3 * drawn(6, 4) - 1).requires_grad_()
    for form in (clip, to_xyxy, to_cxcywh, area, lambda x: to_pixels(x, (20, 30))):
        assert torch.autograd.gradcheck(form, (rows,))


def test_valid_boxes() -> None:
    rows = boxes((0, 0, 1, 1), (0, 0, 0, 1), (0, 1, 1, 0), (0, 0, math.inf, 1), (math.nan, 0, 1, 1), (-2, -3, -1, 9))
    assert is_valid(rows).tolist() == [True, False, False, False, False, True]


def test_check_boxes_lets_good_ones_pass() -> None:
    check_boxes("boxes", drawn(5, 1))
    check_boxes("boxes", torch.empty(0, 4))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([[0, 0, 1, 1]], TypeError, "truth must be a floating-point torch.Tensor, got list"),
        (
            torch.zeros(1, 4, dtype=torch.int64),
            TypeError,
            "truth must be a floating-point torch.Tensor, got torch.int64",
        ),
        (torch.zeros(4, 5), ValueError, r"truth must be \(\.\.\., 4\), got \(4, 5\)"),
        (torch.zeros(()), ValueError, r"truth must be \(\.\.\., 4\), got \(\)"),
        (torch.rand(4), ValueError, r"truth must be \(n, 4\), got \(4,\)"),
        (
            boxes((0, 0, 1, 1), (5, 1, 5, 2.5)),
            ValueError,
            r"truth must be finite with x0 < x1 and y0 < y1, got \(5, 1, 5, 2\.5\) in row 1",
        ),
        (boxes((0, 0, math.nan, 1)), ValueError, r"got \(0, 0, nan, 1\) in row 0"),
    ],
)
def test_check_boxes_names_what_came(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_boxes("truth", given)


@pytest.mark.parametrize("form", [to_xyxy, to_cxcywh, area, clip, is_valid, lambda x: to_pixels(x, (2, 2))])
def test_a_wrong_tensor_is_named(form: Callable[[Any], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"boxes must be \(\.\.\., 4\), got \(2, 3\)"):
        form(torch.rand(2, 3))
    with pytest.raises(TypeError, match=r"boxes must be a floating-point torch\.Tensor, got torch\.int64"):
        form(torch.zeros(2, 4, dtype=torch.int64))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), 5, (1, math.nan), (math.inf, 1)])
@pytest.mark.parametrize("form", [to_pixels, to_normalised, clip])
def test_a_wrong_size_is_named(form: Callable[..., Tensor], size: Any) -> None:
    with pytest.raises(ValueError, match=r"size must be \(height, width\), both above 0 and finite, got"):
        form(torch.rand(2, 4), size)


@BOTH
def test_wrong_pairs_are_named(overlap: Callable[..., Tensor]) -> None:
    a = torch.rand(3, 4)
    with pytest.raises(ValueError, match=r"b must be \(\.\.\., 4\), got \(3, 5\)"):
        overlap(a, torch.rand(3, 5))
    with pytest.raises(TypeError, match=r"a must be a floating-point torch\.Tensor, got list"):
        overlap([[0, 0, 1, 1]], a)
    with pytest.raises(ValueError, match=r"paired boxes must have one shape, got a \(3, 4\) and b \(2, 4\)"):
        overlap(a, a[:2], paired=True)
    with pytest.raises(ValueError, match=r"a and b must be .* and \(\.\.\., m, 4\), got \(3, 4\) and \(4,\)"):
        overlap(a, a[0])


@BOTH
def test_boxes_of_two_devices_are_named(overlap: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="a and b must be on one device, got cpu and meta"):
        overlap(torch.rand(2, 4), torch.rand(3, 4, device="meta"))


@pytest.mark.gpu
@BOTH
def test_on_a_gpu(overlap: Callable[..., Tensor]) -> None:
    """Oracle: the CPU, gradients too, in float64."""
    results = []
    for device in ("cpu", "cuda"):
        a, b = (x.to(device).requires_grad_() for x in (drawn(40, 1), drawn(50, 2)))
        table = overlap(clip(to_xyxy(to_cxcywh(a)), (0.9, 0.8)), b)
        results.append([x.detach() for x in (table, *torch.autograd.grad(table.square().sum(), [a, b]))])
    for cpu, cuda in zip(*results, strict=True):
        assert cuda.device.type == "cuda"
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-10, atol=1e-12)
