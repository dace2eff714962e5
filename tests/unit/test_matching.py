"""Matching. Oracles: by hand, and the plain loops. The official matches are in tests/parity, laws in tests/laws."""

from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.anchors import MAPS, SSD300_VOC, anchors
from course_lib.detection.boxes import iou, to_cxcywh, to_xyxy
from course_lib.detection.matching import Rule, assign, match
from course_lib.plain.detection import match_loop

RULES: tuple[Rule, Rule] = ("greedy", "independent")


def box(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 4)


def test_a_box_has_an_anchor_however_little_they_share() -> None:
    """Oracle: by hand: (0, 0, 4, 4) and (0, 0, 2, 2) have IoU 4 / 16, less than a half; the other anchor has 0."""
    places = to_cxcywh(box(6, 6, 8, 8, 0, 0, 2, 2))
    for rule in RULES:
        assert match(box(0, 0, 4, 4), places, rule).tolist() == [-1, 0]
        assert match(box(0, 0, 4, 4), places, rule, threshold=1).tolist() == [-1, 0]
    assert match(box(0, 0, 4, 4), places, threshold=0.25).tolist() == [-1, 0]


@pytest.mark.parametrize("rule", RULES)
def test_the_second_step(rule: Rule) -> None:
    """Oracle: by hand. The last anchor reaches the threshold with both boxes and takes what it shares most with; the
    one before is exactly at the threshold, which is enough; the first is below."""
    overlaps = torch.tensor([[0.1, 0.8, 0.2, 0.5, 0.6], [0.4, 0.2, 0.9, 0.3, 0.7]])
    assert assign(overlaps, rule).tolist() == [-1, 0, 1, 0, 1]
    assert assign(overlaps, rule, threshold=0.4).tolist() == [1, 0, 1, 0, 1]
    assert assign(overlaps, rule, threshold=0.75).tolist() == [-1, 0, 1, -1, -1]


def test_two_boxes_that_want_one_anchor() -> None:
    """Oracle: by hand. Greedy: the pair that shares more; the other takes its next. Independent: the later one, and the
    other has none, or what the second step gives it."""
    overlaps = torch.tensor([[0.9, 0.3, 0.0], [0.8, 0.1, 0.2]])
    assert assign(overlaps, "greedy").tolist() == [0, -1, 1]
    assert assign(overlaps, "independent").tolist() == [1, -1, -1]
    assert assign(overlaps.flip(0), "greedy").tolist() == [1, -1, 0]
    assert assign(overlaps.flip(0), "independent").tolist() == [1, -1, -1]
    assert assign(overlaps, "independent", threshold=0.3).tolist() == [1, 0, -1]


def test_a_chain_of_boxes_pushed_on() -> None:
    """Oracle: by hand: each loses its best to the one before, and the last is left with what shares least. Were each
    box asked in turn, or only once more, another table would come."""
    overlaps = torch.tensor([[0.60, 0.59, 0.58, 0.0], [0.70, 0.65, 0.0, 0.0], [0.80, 0.0, 0.0, 0.0]])
    assert assign(overlaps, "greedy", threshold=1).tolist() == [2, 1, 0, -1]
    overlaps = torch.tensor([[0.9, 0.5, 0.0], [0.8, 0.4, 0.0], [0.7, 0.45, 0.1]])
    assert assign(overlaps, "greedy", threshold=1).tolist() == [0, 2, -1]


def test_boxes_without_a_free_anchor() -> None:
    """Oracle: Caffe's rule: what shares no more than 1e-6 is no pair; the ports give such a box the first anchor."""
    assert assign(torch.tensor([[0.0, 1e-6, 0.0]]), "greedy").tolist() == [-1, -1, -1]
    assert assign(torch.tensor([[0.0, 2e-6, 0.0]]), "greedy").tolist() == [-1, 0, -1]
    assert assign(torch.zeros(1, 3), "independent").tolist() == [0, -1, -1]
    assert assign(torch.tensor([[0.9], [0.8], [0.7]]), "greedy").tolist() == [0]  # more boxes than anchors
    assert assign(torch.tensor([[0.9], [0.8], [0.7]]), "independent").tolist() == [2]


def test_equal_overlaps() -> None:
    """Oracle: Caffe looks at anchors in order and at boxes in order, and takes what is larger than before."""
    overlaps = torch.tensor([[0.4, 0.7, 0.7], [0.7, 0.4, 0.7]])
    assert assign(overlaps, "greedy", threshold=1).tolist() == [1, 0, -1]
    assert assign(torch.full((2, 3), 0.7), "greedy").tolist() == [0, 1, 0]
    assert assign(torch.full((2, 3), 0.7), "independent").tolist() == [1, 0, 0]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_to_match(rule: Rule) -> None:
    """Oracle: a picture without boxes has only background; a network without anchors has nothing to say."""
    empty = match(torch.zeros(0, 4), torch.full((3, 4), 0.5), rule)
    assert empty.dtype == torch.int64
    assert empty.tolist() == [-1, -1, -1]
    assert match(box(0, 0, 1, 1), torch.zeros(0, 4, dtype=torch.float64), rule).shape == (0,)


def crowd(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(n, 2, generator=generator), 0.03 + 0.4 * torch.rand(n, 2, generator=generator)
    return to_xyxy(torch.cat([centre, size], dim=1)).clamp(0, 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("boxes", [crowd(50), crowd(1).expand(12, 4)], ids=["crowd", "the same"])
def test_ssd300(rule: Rule, boxes: Tensor) -> None:
    """Oracle: the rule over all pairs, sorted, on the table of overlaps that both have; the 12 same boxes share."""
    places = anchors(MAPS["SSD300_VOC"], SSD300_VOC, (300, 300))
    overlaps = iou(boxes, to_xyxy(places))
    found = match(boxes, places, rule).tolist()
    expected = [int(row) if most >= 0.5 else -1 for most, row in zip(*overlaps.max(dim=0), strict=True)]
    if rule == "independent":
        for row, place in enumerate(overlaps.argmax(dim=1).tolist()):
            expected[place] = row
    else:
        rows, places_of = (overlaps > 0.01).nonzero(as_tuple=True)  # every box has twelve such at least
        values = overlaps[rows, places_of].tolist()
        pairs = sorted(zip([-v for v in values], places_of.tolist(), rows.tolist(), strict=True))
        own: dict[int, int] = {}
        for _, place, row in pairs:
            if place not in own and row not in own.values():
                own[place] = row
        assert len(own) == len(boxes)
        for place, row in own.items():
            expected[place] = row
    assert found == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kinds_of_numbers(dtype: torch.dtype) -> None:
    """Oracle: the loop, in double precision, of the same rounded boxes."""
    boxes, places = crowd(3).to(dtype), to_cxcywh(crowd(20, seed=1)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = match(boxes, places)
    assert torch.equal(rows, match_loop(boxes.double(), places.double()))


def test_no_gradient_is_kept() -> None:
    """Oracle: a choice has no derivative, and the caller's tensors stay as they were."""
    boxes, places = crowd(3).requires_grad_(), to_cxcywh(crowd(20, seed=1))
    before = boxes.detach().clone(), places.clone()
    assert not match(boxes, places).requires_grad
    overlaps = iou(boxes.detach(), to_xyxy(places))
    kept = overlaps.clone()
    assign(overlaps)
    assert torch.equal(overlaps, kept)
    assert torch.equal(boxes.detach(), before[0])
    assert torch.equal(places, before[1])


GOOD: dict[str, Any] = {"boxes": crowd(2), "anchors": torch.full((3, 4), 0.5), "rule": "greedy", "threshold": 0.5}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rule": "both"}, ValueError, "rule must be one of 'greedy', 'independent', got 'both'"),
        ({"threshold": 0}, ValueError, r"threshold must be in \(0, 1\], got 0"),
        ({"threshold": "half"}, TypeError, "threshold must be a number, got 'half'"),
        ({"threshold": NAN}, ValueError, r"threshold must be in \(0, 1\], got nan"),
        ({"boxes": [[0, 0, 1, 1]]}, TypeError, "boxes must be a floating-point torch.Tensor, got list"),
        ({"boxes": torch.zeros(2, 5)}, ValueError, "boxes must be"),
        ({"boxes": torch.zeros(1, 2, 4)}, ValueError, "boxes must be"),
        ({"boxes": torch.tensor([[0, 0, 1, 1], [0, 0.5, 1, NAN]])}, ValueError, "boxes must be finite.*in row 1"),
        ({"boxes": torch.tensor([[0, 0, INF, 1]])}, ValueError, "boxes must be finite.*in row 0"),
        ({"boxes": torch.tensor([[0.5, 0, 0.2, 1]])}, ValueError, "x0 < x1.*got \\(0.5, 0, 0.2, 1\\) in row 0"),
        ({"anchors": torch.zeros(3, 4)}, ValueError, "anchors must be finite cxcywh with w and h above 0.*row 0"),
        ({"anchors": torch.tensor([[0.5] * 4, [0.5, NAN, 1, 1]])}, ValueError, "anchors must be finite.*row 1"),
        ({"anchors": torch.full((4,), 0.5)}, ValueError, "anchors must be \\(P, 4\\), got \\(4,\\)"),
        ({"anchors": None}, TypeError, "anchors must be a floating-point torch.Tensor, got NoneType"),
        ({"anchors": torch.zeros(3, 4, device="meta")}, ValueError, "on one device, got cpu and meta"),
    ],
)
def test_refusals(
    change: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the message names the argument and what came, before anything is computed."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("course_lib.detection.matching.iou", never)
    if "meta" in message:  # whose values cannot be looked at
        monkeypatch.setattr("course_lib.detection.matching.check_anchors", lambda *_: None)
    with pytest.raises(error, match=message):
        match(**{**GOOD, **change})


def test_refusals_of_assign() -> None:
    """Oracle: as above."""
    with pytest.raises(TypeError, match=r"overlaps must be a floating-point .* \(n, P\), got torch.int64 \(2, 3\)"):
        assign(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got torch.float32 \(3,\)"):
        assign(torch.zeros(3))
    with pytest.raises(TypeError, match="got NoneType"):
        assign(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule must be one of"):
        assign(torch.zeros(2, 3), "each")  # type: ignore[arg-type]
