"""Matching, mining and the loss of SSD300. Oracle: what ssd.pytorch's and Caffe's rules gave for four pictures.

Boxes, logits and offsets are drawn as they were for the goldens. The third picture's are not in them, but their
matches, and its share of the losses, are: it has one box twice, and one of 4.5 pixels.
"""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from course_lib.detection.anchors import MAPS, SSD300_VOC, anchors
from course_lib.detection.boxes import iou, to_xyxy
from course_lib.detection.losses import Targets, background_loss, hard_negatives, multibox_loss, targets
from course_lib.detection.matching import match
from course_lib.plain.detection import multibox_loop
from tests.parity import fill

POSITIVES = (30, 1, 46, 46)
STORED = (0, 1, 3)


@cache
def golden(name: str = "ssd300_matching") -> dict[str, Tensor]:
    return load_file(fill.HERE / "golden" / f"{name}.safetensors")


@cache
def priors(clip: bool = True) -> Tensor:
    return anchors(MAPS["SSD300_VOC"], SSD300_VOC, (300, 300), clip="centre_size" if clip else False)


@cache
def pictures() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    drawn = []
    for n in (3, 1, 8, 5):
        centre, size = torch.rand(n, 2, generator=generator), 0.02 + 0.58 * torch.rand(n, 2, generator=generator)
        labels = torch.randint(0, 20, (n,), generator=generator)
        drawn.append((torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, 1), labels))
    drawn[2][0][1] = torch.tensor([0.3, 0.3, 0.315, 0.315])
    drawn[2][0][2] = drawn[2][0][0]
    return drawn


@cache
def outputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    offsets = torch.randn(4, 8732, 4, generator=generator)
    return torch.randn(4, 8732, 21, generator=generator), offsets


@cache
def right() -> Targets:
    boxes, labels = zip(*pictures(), strict=True)
    return targets(boxes, labels, priors(), rule="independent")


def test_the_pictures_are_those_of_the_goldens() -> None:
    for k in STORED:
        boxes, labels = pictures()[k]
        assert torch.equal(torch.cat([boxes, labels[:, None].float()], 1), golden()[f"match.{k}.targets_xyxy_label"])
        most, place = iou(boxes, to_xyxy(priors())).max(dim=1)
        assert torch.equal(place, golden()[f"match.{k}.best_prior_per_gt"])
        torch.testing.assert_close(most, golden()[f"match.{k}.best_iou_per_gt"], rtol=1e-6, atol=0)


def test_the_rule_of_the_ports() -> None:
    """Places, classes and offsets of the positives, and their number in the picture that is not stored."""
    assert tuple((right().labels > 0).sum(dim=1).tolist()) == POSITIVES
    for k in STORED:
        place = golden()[f"match.{k}.pos_index"]
        rows = match(pictures()[k][0], priors(), "independent")
        assert torch.equal((rows >= 0).nonzero().squeeze(1), place)
        assert torch.equal(pictures()[k][1][rows[place]] + 1, golden()[f"match.{k}.pos_conf_t"])
        assert torch.equal(right().labels[k, place], golden()[f"match.{k}.pos_conf_t"])
        torch.testing.assert_close(right().offsets[k, place], golden()[f"match.{k}.pos_loc_t"], rtol=0, atol=1e-6)
        assert int(right().labels[k].count_nonzero()) == len(place)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("k", range(4))
def test_the_rule_of_caffe(k: int, clip: bool) -> None:
    """Places and rows. In the third picture two boxes are the same: each has an anchor, the first has all others."""
    rows = match(pictures()[k][0], priors(clip), "greedy")
    found = golden("ssd300_caffe_matching")
    assert torch.equal((rows >= 0).nonzero().squeeze(1), found[f"caffe_match.{k}.index"])
    assert torch.equal(rows[rows >= 0], found[f"caffe_match.{k}.gt"])
    assert int((rows >= 0).sum()) == POSITIVES[k]
    assert set(rows.tolist()) == {-1, *range(len(pictures()[k][0]))}


def test_the_rules_differ_where_a_box_is_there_twice() -> None:
    """The ports leave the first of two equal boxes the anchors of the second step alone, and the last its best one."""
    greedy, independent = (match(pictures()[2][0], priors(), rule) for rule in ("greedy", "independent"))
    differs = (greedy != independent).nonzero().squeeze(1)
    best = int(iou(pictures()[2][0][:1], to_xyxy(priors())).argmax())
    second = int((greedy == 2).nonzero())
    assert differs.tolist() == sorted({best, second})
    assert (int(greedy[best]), int(independent[best]), int(independent[second])) == (0, 2, 0)


def test_mined_negatives() -> None:
    logits, _ = outputs()
    hard = hard_negatives(background_loss(logits), right().labels > 0)
    assert tuple(hard.sum(dim=1).tolist()) == tuple(3 * n for n in POSITIVES)
    for k in STORED:
        assert torch.equal(hard[k].nonzero().squeeze(1), golden()[f"loss.{k}.mined_neg_index"])


def test_the_loss_of_each_anchor() -> None:
    """The first 64 anchors are all negatives: theirs is the background's."""
    expected = golden()["loss.per_prior_ce_first64"]
    assert not right().labels[:, :64].any()
    torch.testing.assert_close(background_loss(outputs()[0])[:, :64], expected, rtol=0, atol=2e-6)


def test_the_losses() -> None:
    """The official form in plain steps gives them, too."""
    for losses in (multibox_loss(*outputs(), right()), multibox_loop(*outputs(), right())):
        assert [float(x) for x in losses] == pytest.approx([21.687141, 4.108759], abs=1e-5)
        assert float(losses[0]) == pytest.approx(float(golden()["loss.loss_c"]), rel=1e-6)
        assert float(losses[1]) == pytest.approx(float(golden()["loss.loss_l"]), rel=1e-6)
