"""Laws of matching, of mining and of SSD's loss, for boxes and numbers that Hypothesis chooses."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.detection.boxes import iou, to_cxcywh, to_xyxy
from course_lib.detection.losses import Targets, hard_negatives, multibox_loss, targets
from course_lib.detection.matching import Rule, assign, match
from course_lib.plain.detection import match_loop, multibox_loop

FEW = settings(max_examples=25, deadline=None)
DOUBLE = torch.float64
SIZES = {"n": st.integers(0, 5), "places": st.integers(1, 14), "seed": st.integers(0, 999)}
RULES = pytest.mark.parametrize("rule", ["greedy", "independent"])


def crowd(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(n, 2, generator=generator, dtype=DOUBLE)
    size = 0.1 + 0.7 * torch.rand(n, 2, generator=generator, dtype=DOUBLE)
    return to_xyxy(torch.cat([centre, size], dim=1))


def drawn(n: int, places: int, seed: int) -> tuple[Tensor, Tensor]:
    return crowd(n, seed), to_cxcywh(crowd(places, seed + 1000))


def order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def repeats(numbers: Tensor) -> bool:
    """Whether a number is there twice."""
    return len(set(numbers.tolist())) < numbers.numel()


@RULES
@FEW
@given(**SIZES, threshold=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_match_equals_the_loop(rule: Rule, n: int, places: int, seed: int, threshold: float) -> None:
    """Law: equal to the rule written as loops over all pairs."""
    boxes, anchors = drawn(n, places, seed)
    assert torch.equal(match(boxes, anchors, rule, threshold), match_loop(boxes, anchors, rule, threshold))


@RULES
@FEW
@given(n=st.integers(1, 4), places=st.integers(1, 7), seed=st.integers(0, 999))
def test_equal_overlaps_as_in_the_loop(rule: Rule, n: int, places: int, seed: int) -> None:
    """Law: as above for boxes on a coarse grid, of which many share the same with one anchor, or are the same."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 3, (n + places, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(1, 3, (n + places, 2), generator=generator)], dim=1).double()
    mine, anchors = boxes[:n], to_cxcywh(boxes[n:])
    assert torch.equal(match(mine, anchors, rule, 0.4), match_loop(mine, anchors, rule, 0.4))


@RULES
@FEW
@given(**SIZES)
def test_anchors_in_another_order(rule: Rule, n: int, places: int, seed: int) -> None:
    """Law: where no overlap is there twice, the order of anchors moves the result alone; so does that of boxes for the
    greedy rule, and for the other where no two want one anchor."""
    boxes, anchors = drawn(n, places, seed)
    rows, shuffled = match(boxes, anchors, rule), order(places, seed)
    overlaps = iou(boxes, to_xyxy(anchors))
    if repeats(overlaps[overlaps > 0]) or bool((overlaps.sum(1) == 0).any()):
        return
    assert torch.equal(match(boxes, anchors[shuffled], rule), rows[shuffled])
    turned = order(n, seed + 1)
    if rule == "greedy" or not repeats(overlaps.argmax(dim=1)):
        again = match(boxes[turned], anchors, rule)
        assert torch.equal(torch.where(again >= 0, turned[again.clamp(min=0)] if n else again, -1), rows)


@FEW
@given(**{**SIZES, "n": st.integers(1, 5)}, threshold=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_greedy_gives_every_box_its_own(n: int, places: int, seed: int, threshold: float) -> None:
    """Law: every box that shares something with anchors enough is there; below the threshold a box has one anchor at
    most; an anchor without a box shares less than the threshold with all of them."""
    boxes, anchors = drawn(n, places, seed)
    overlaps = iou(boxes, to_xyxy(anchors))
    rows = assign(overlaps, "greedy", threshold)
    has = rows >= 0
    shared = overlaps[rows[has], has.nonzero().squeeze(1)]
    assert bool((shared > 1e-6).all())
    assert bool((overlaps.amax(dim=0)[~has] < threshold).all())
    forced = rows[has][shared < threshold]
    assert not repeats(forced)
    if int((overlaps > 1e-6).sum(dim=1).min()) >= n:  # enough anchors for everyone
        assert set(rows[has].tolist()) == set(range(n))


@RULES
@FEW
@given(**SIZES, by=st.floats(0.1, 900), across=st.floats(0.1, 900))
def test_another_unit(rule: Rule, n: int, places: int, seed: int, by: float, across: float) -> None:
    """Law: nothing changes where both axes are stretched: normalised boxes and pixels have the same matches."""
    boxes, anchors = drawn(n, places, seed)
    scale = torch.tensor([across, by, across, by], dtype=DOUBLE)
    overlaps = iou(boxes, to_xyxy(anchors))
    if repeats(overlaps[overlaps > 0]):
        return
    assert torch.equal(match(boxes * scale, anchors * scale, rule), match(boxes, anchors, rule))


@RULES
@FEW
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_a_batch_is_its_pictures(rule: Rule, counts: list[int], seed: int) -> None:
    """Law: targets of a batch are those of each picture alone; the losses' sums are the sums over pictures."""
    anchors = to_cxcywh(crowd(12, seed + 50))
    boxes = [crowd(n, seed + k) for k, n in enumerate(counts)]
    labels = [torch.arange(n) for n in counts]
    made = targets(boxes, labels, anchors, rule)
    alone = [targets([one], [names], anchors, rule) for one, names in zip(boxes, labels, strict=True)]
    assert torch.equal(made.labels, torch.cat([one.labels for one in alone]))
    assert torch.equal(made.offsets, torch.cat([one.offsets for one in alone]))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(counts), 12, 5, generator=generator, dtype=DOUBLE)
    offsets = torch.randn(len(counts), 12, 4, generator=generator, dtype=DOUBLE)
    whole = multibox_loss(logits, offsets, made, count=1)
    parts = [multibox_loss(logits[k : k + 1], offsets[k : k + 1], one, count=1.0) for k, one in enumerate(alone)]
    for mine, theirs in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs).sum(), rtol=1e-12, atol=1e-12)
    positives = int((made.labels > 0).sum())
    for mine, total in zip(multibox_loss(logits, offsets, made), whole, strict=True):
        torch.testing.assert_close(mine * positives, total, rtol=1e-12, atol=1e-12)


@FEW
@given(
    pictures=st.integers(1, 3),
    places=st.integers(1, 20),
    ratio=st.sampled_from([0, 0.4, 1, 3, 2.5, 50]),
    seed=st.integers(0, 999),
    levels=st.sampled_from([2, 5, 10**6]),
)
def test_mining(pictures: int, places: int, ratio: float, seed: int, levels: int) -> None:
    """Law: as many as wanted, or all; none is positive; none that stays out has a larger loss, and of equal losses the
    lower anchors are in. It is what a stable sort gives."""
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randint(0, levels, (pictures, places), generator=generator).double()
    positive = torch.rand(pictures, places, generator=generator) < 0.3
    hard = hard_negatives(loss, positive, ratio)
    assert not (hard & positive).any()
    for k in range(pictures):
        negatives = sorted((-value, place) for place, value in enumerate(loss[k].tolist()) if not positive[k, place])
        wanted = int(ratio * int(positive[k].sum()))
        assert hard[k].nonzero().squeeze(1).tolist() == sorted(place for _, place in negatives[:wanted])


@FEW
@given(share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 999), ratio=st.sampled_from([0.0, 1.0, 3.0]))
def test_the_loss_and_the_order_of_anchors(share: float, seed: int, ratio: float) -> None:
    """Law: equal to the loop form; anchors of each picture in another order change nothing but the gradients' order; a
    number added to all logits of an anchor changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    numbers: Any = {"generator": generator, "dtype": DOUBLE}
    logits, offsets, right = (torch.randn(2, 15, size, **numbers) for size in (4, 4, 4))
    labels = torch.randint(1, 4, (2, 15), generator=generator) * (torch.rand(2, 15, generator=generator) < share)
    losses = multibox_loss(logits, offsets, Targets(labels, right), ratio)
    loop = multibox_loop(logits, offsets, Targets(labels, right), ratio)
    shuffled = order(15, seed)
    moved = Targets(labels[:, shuffled], right[:, shuffled])
    shifted = logits[:, shuffled] + 9 * torch.randn(2, 15, 1, **numbers)
    again = multibox_loss(shifted, offsets[:, shuffled], moved, ratio)
    for one, other, third in zip(losses, loop, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one, third, rtol=1e-10, atol=1e-10)
