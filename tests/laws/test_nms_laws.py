"""What suppression promises of any boxes (Hypothesis draws them, on a grid, so that equal overlaps happen often)."""

from importlib import import_module

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from course_lib.detection.boxes import iou
from course_lib.detection.nms import class_nms, nms
from course_lib.plain.detection import nms_loop

module = import_module("course_lib.detection.nms")  # the package has a function of that name

laws = settings(max_examples=40, deadline=None, derandomize=True)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.45, 0.5, 0.7, 1.0])
BLOCKS = st.sampled_from([(256, 2**17), (1, 1), (3, 8), (4096, 2**26)])


@st.composite
def scenes(draw: st.DrawFn, ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (some without area), scores (all different but for `ties`) and labels."""
    n = draw(st.integers(0, 40))
    seed, grid = draw(st.integers(0, 9999)), draw(st.sampled_from([4, 8, 1024]))
    g = torch.Generator().manual_seed(seed)
    corners = torch.randint(grid, (n, 2), generator=g)
    boxes = torch.cat((corners, corners + torch.randint(grid // 2 + 1, (n, 2), generator=g)), 1).double() / grid
    places = torch.randint(max(1, n // 3), (n,), generator=g) if ties else torch.randperm(n, generator=g)
    return boxes, (places.double() + 1) / (n + 1), torch.randint(3, (n,), generator=g)


@laws
@given(scene=scenes(ties=True), threshold=THRESHOLDS, blocks=BLOCKS, single=st.booleans())
def test_is_the_loop(
    scene: tuple[Tensor, Tensor, Tensor], threshold: float, blocks: tuple[int, int], single: bool
) -> None:
    """Oracle: the plain loop, also with equal scores."""
    boxes, scores, _ = scene
    boxes = boxes.float() if single else boxes
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_BLOCK_CPU", blocks[0])
        patched.setattr(module, "_PAIRS_CPU", blocks[1])
        kept = nms(boxes, scores, threshold)
        most = nms(boxes, scores, threshold, most=3)
    assert kept.tolist() == nms_loop(boxes.numpy(), scores.numpy(), threshold).tolist()
    assert torch.equal(most, kept[:3])


@laws
@given(scene=scenes(ties=True), threshold=THRESHOLDS)
def test_who_stays_and_why(scene: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    """Kept boxes do not overlap; every other overlaps a kept one of a higher score, or an equal one in a lower row."""
    boxes, scores, _ = scene
    kept = nms(boxes, scores, threshold)
    likes = iou(boxes, boxes[kept])
    above = likes > threshold
    assert not above[kept].triu(1).any()
    rows = torch.arange(len(boxes))
    earlier = scores[:, None] < scores[kept]
    earlier |= (scores[:, None] == scores[kept]) & (rows[:, None] > kept)
    gone = torch.ones(len(boxes), dtype=torch.bool)
    gone[kept] = False
    assert (above & earlier).any(1)[gone].all()
    assert not (above & earlier).any(1)[kept].any()
    order = scores[kept]
    assert (order[1:] <= order[:-1]).all()


@laws
@given(scene=scenes(ties=True), threshold=THRESHOLDS)
def test_a_second_time_changes_nothing(scene: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    boxes, scores, labels = scene
    kept = nms(boxes, scores, threshold)
    assert nms(boxes[kept], scores[kept], threshold).tolist() == list(range(len(kept)))
    kept = class_nms(boxes, scores, labels, threshold)
    assert class_nms(boxes[kept], scores[kept], labels[kept], threshold).tolist() == list(range(len(kept)))


@laws
@given(scene=scenes(), threshold=THRESHOLDS, seed=st.integers(0, 99))
def test_order_does_not_count(scene: tuple[Tensor, Tensor, Tensor], threshold: float, seed: int) -> None:
    """Of boxes with different scores, in any order, the same stay; only the order of scores counts, not their size."""
    boxes, scores, labels = scene
    mixed = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    kept, by_class = nms(boxes, scores, threshold), class_nms(boxes, scores, labels, threshold)
    assert torch.equal(mixed[nms(boxes[mixed], scores[mixed], threshold)], kept)
    assert torch.equal(mixed[class_nms(boxes[mixed], scores[mixed], labels[mixed], threshold)], by_class)
    assert torch.equal(nms(boxes, scores**3 - 2, threshold), kept)


@laws
@given(scene=scenes(ties=True), threshold=THRESHOLDS)
def test_mirrored_turned_and_enlarged(scene: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    """The same rows stay when the picture is mirrored, turned, or stretched along one axis (by powers of two)."""
    boxes, scores, _ = scene
    kept = nms(boxes, scores, threshold)
    x0, y0, x1, y1 = boxes.unbind(1)
    for seen in ((1 - x1, y0, 1 - x0, y1), (y0, x0, y1, x1), (8 * x0, y0 / 2, 8 * x1, y1 / 2)):
        assert torch.equal(nms(torch.stack(seen, 1), scores, threshold), kept)


@laws
@given(scene=scenes(ties=True), threshold=THRESHOLDS)
def test_classes_each_for_itself(scene: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    """Oracle: `nms` of the boxes of each label, sorted together."""
    boxes, scores, labels = scene
    apart = []
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0]
        apart += rows[nms(boxes[rows], scores[rows], threshold)].tolist()
    apart.sort(key=lambda row: (-float(scores[row]), row))
    assert class_nms(boxes, scores, labels, threshold).tolist() == apart
    assert class_nms(boxes, scores, labels, threshold, most=4).tolist() == apart[:4]
    assert torch.equal(class_nms(boxes, scores, labels * 0 + 7, threshold), nms(boxes, scores, threshold))
