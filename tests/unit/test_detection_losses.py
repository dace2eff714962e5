"""SSD's targets, mining and loss. Oracles: by hand, the loop form, gradcheck. Official numbers are in tests/parity."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection.boxes import to_cxcywh, to_xyxy
from course_lib.detection.coding import decode
from course_lib.detection.losses import (
    Targets,
    background_loss,
    hard_negatives,
    multibox_loss,
    smooth_l1,
    targets,
)
from course_lib.detection.matching import match
from course_lib.plain.detection import multibox_loop

DOUBLE = torch.float64
NAN, INF = float("nan"), float("inf")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def drawn_targets(*shape: int, classes: int = 4, share: float = 0.1, seed: int = 1) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, classes, shape, generator=generator)
    labels = labels * (torch.rand(shape, generator=generator) < share)
    return Targets(labels, 2 * noise(*shape, 4, seed=seed) * (labels > 0)[..., None])


def drawn_outputs(*shape: int) -> tuple[Tensor, Tensor]:
    """Logits of 4 classes and offsets; equal losses do not happen."""
    return (3 * noise(*shape, 4, seed=2)).requires_grad_(), (2 * noise(*shape, 4, seed=3)).requires_grad_()


def crowd(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(n, 2, generator=generator, dtype=DOUBLE)
    size = 0.05 + 0.4 * torch.rand(n, 2, generator=generator, dtype=DOUBLE)
    return to_xyxy(torch.cat([centre, size], dim=1))


def test_smooth_l1() -> None:
    """Oracle: by hand: half the square up to 1, a line with the same value and slope from there."""
    x = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0], dtype=DOUBLE, requires_grad=True)
    value = smooth_l1(x)
    assert value.tolist() == [0, 0.125, 0.125, 0.5, 0.5, 2.5, 2.5]
    assert torch.autograd.grad(value.sum(), x)[0].tolist() == [0, 0.5, -0.5, 1, -1, 1, -1]
    assert torch.autograd.gradcheck(smooth_l1, 2 * noise(3, 4).requires_grad_())


def test_offsets_by_hand() -> None:
    """Oracle: the anchor (.5, .5, .2, .4) and the box (.55, .45, .4, .2) have the offsets .25, -.125, ln 2, -ln 2.
    Their smooth L1 to 0 is .03125 + .0078125 + ln(2)^2; the official code divides them by its variances first."""
    anchor = torch.tensor([[0.5, 0.5, 0.2, 0.4]], dtype=DOUBLE)
    box = to_xyxy(torch.tensor([[0.55, 0.45, 0.4, 0.2]], dtype=DOUBLE))
    made = targets([box], [torch.tensor([6])], anchor, variances=(1, 1, 1, 1))
    assert made.labels.tolist() == [[7]]
    assert made.offsets[0, 0].tolist() == pytest.approx([0.25, -0.125, math.log(2), -math.log(2)])
    losses = multibox_loss(torch.zeros(1, 1, 8, dtype=DOUBLE), torch.zeros(1, 1, 4, dtype=DOUBLE), made)
    assert [float(x) for x in losses] == pytest.approx([math.log(8), 0.5195155], abs=1e-7)
    official = targets([box], [torch.tensor([6])], anchor).offsets[0, 0].tolist()
    assert official == pytest.approx([2.5, -1.25, 3.465736, -3.465736], abs=1e-6)


def test_classes_by_hand() -> None:
    """Oracle: one positive of class 1 with the logits (0, 2, 0) and three negatives: .2395 + .2395 + 1.5514 + 1.0986;
    a fourth negative that is right has no part in it, and with a ratio of 2 neither has the easiest of the three."""
    logits = torch.tensor([[[0, 2, 0], [2, 0, 0], [9, 0, 0], [0, 1, 0], [1, 1, 1]]], dtype=DOUBLE)
    given = Targets(torch.tensor([[1, 0, 0, 0, 0]]), torch.zeros(1, 5, 4, dtype=DOUBLE))
    confidence, localisation = multibox_loss(logits, torch.zeros(1, 5, 4, dtype=DOUBLE), given)
    assert float(confidence) == pytest.approx(3.1291, abs=5e-5)
    assert float(localisation) == 0
    hard = hard_negatives(background_loss(logits), given.labels > 0)
    assert hard.tolist() == [[False, True, False, True, True]]
    fewer = multibox_loss(logits, torch.zeros(1, 5, 4, dtype=DOUBLE), given, ratio=2)[0]
    assert float(fewer) == pytest.approx(3.1291 - 0.2395, abs=1e-4)


def test_mining_by_hand() -> None:
    """Oracle: of ten negatives and one positive, whose loss is largest, 3.1, 2.3 and 1.7 stay."""
    loss = torch.tensor([[9.0, 0.05, 2.3, 0.9, 0.01, 1.7, 0.4, 3.1, 0.2, 1.1, 0.6]])
    positive = torch.zeros(1, 11, dtype=torch.bool)
    positive[0, 0] = True
    assert hard_negatives(loss, positive).nonzero()[:, 1].tolist() == [2, 5, 7]
    assert hard_negatives(loss, positive, 1.9).nonzero()[:, 1].tolist() == [7]  # rounded down
    assert not hard_negatives(loss, positive, 0).any()
    assert torch.equal(hard_negatives(loss, positive, 99), ~positive)  # more wanted than there are
    assert torch.equal(hard_negatives(loss, positive, INF), ~positive)
    assert not hard_negatives(loss, ~positive, 0.09).any()
    assert hard_negatives(loss, ~positive).tolist() == positive.tolist()


def test_mining_of_equal_losses() -> None:
    """Oracle: the lower anchor first, in each picture by itself; one without positives has none, at any loss."""
    loss = torch.tensor([[1.0, 2, 1, 1, 1, 2, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5, INF, NAN]])
    positive = torch.zeros(3, 8, dtype=torch.bool)
    positive[0, 2] = positive[1, 0] = positive[1, 3] = True
    hard = hard_negatives(loss, positive, 2.5)
    assert [row.nonzero().squeeze(1).tolist() for row in hard] == [[1, 5], [1, 2, 4, 5, 6], []]
    hard = hard_negatives(loss, positive, 4)
    assert [row.nonzero().squeeze(1).tolist() for row in hard] == [[0, 1, 3, 5], [1, 2, 4, 5, 6, 7], []]


def test_mining_sees_what_is_not_a_number() -> None:
    """Oracle: NaN counts as the largest loss: it is chosen, and the loss shows it. -inf is the smallest."""
    loss = torch.tensor([[3.0, 9, NAN, 8, -INF, 1]])
    positive = torch.tensor([[True, False, False, False, False, False]])
    assert hard_negatives(loss, positive, 1).nonzero()[:, 1].tolist() == [2]
    assert hard_negatives(loss, positive, 4).nonzero()[:, 1].tolist() == [1, 2, 3, 5]
    assert hard_negatives(loss, positive, 5).nonzero()[:, 1].tolist() == [1, 2, 3, 4, 5]
    given, logits = Targets(positive.long(), torch.zeros(1, 6, 4)), torch.zeros(1, 6, 3)
    logits[0, 4, 1] = NAN
    assert multibox_loss(logits, torch.zeros(1, 6, 4), given, ratio=1)[0].isnan()


def test_background_loss() -> None:
    """Oracle: torch's cross-entropy with class 0, value and gradient; large logits neither overflow nor lose digits."""
    for scale in (1.0, 30.0, 3000.0):
        logits = (scale * noise(3, 50, 7)).requires_grad_()
        loss = background_loss(logits)
        expected = F.cross_entropy(logits.flatten(0, 1), torch.zeros(150, dtype=torch.int64), reduction="none")
        torch.testing.assert_close(loss, expected.view(3, 50), rtol=1e-10, atol=1e-10)
        for mine, theirs in zip(*(torch.autograd.grad(x.sum(), logits) for x in (loss, expected)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)
        assert bool((loss >= 0).all())


@pytest.mark.parametrize("ratio", [0, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_equals_the_loop(ratio: float, share: float) -> None:
    """Oracle: the form that ssd.pytorch has, in double precision: both losses and both gradients."""
    given = drawn_targets(3, 120, share=share)
    assert bool((given.labels > 0).any()) == (share > 0)
    inputs = drawn_outputs(3, 120)
    mine, theirs = (function(*inputs, given, ratio) for function in (multibox_loss, multibox_loop))
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.7)):
        ours, loops = (weights[0] * c + weights[1] * loc for c, loc in (mine, theirs))
        torch.testing.assert_close(ours, loops, rtol=1e-12, atol=1e-14)
        gradients = [torch.autograd.grad(x, inputs, retain_graph=True) for x in (ours, loops)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_gradients() -> None:
    """Oracle: gradcheck. No two losses are so near that the choice of negatives changes with the step."""
    given = drawn_targets(2, 10, share=0.2)
    assert bool((given.labels > 0).any())
    assert torch.autograd.gradcheck(lambda logits, offsets: multibox_loss(logits, offsets, given), drawn_outputs(2, 10))


def test_no_positives() -> None:
    """Oracle: both losses are 0 and all gradients are 0, where the ports divide by 0; another count changes nothing."""
    given = drawn_targets(2, 9, share=0.0)
    for count in (None, 0, 5.0, torch.tensor(0.0), torch.tensor(3)):
        inputs = drawn_outputs(2, 9)
        losses = multibox_loss(*inputs, given, count=count)
        assert [float(x.detach()) for x in losses] == [0, 0]
        for gradient in torch.autograd.grad(losses[0] + losses[1], inputs):
            assert not gradient.any()
    full = drawn_targets(2, 9, share=1.0)  # positives, and a count of 0
    assert [float(x) for x in multibox_loss(noise(2, 9, 4), noise(2, 9, 4), full, count=0)] == [0, 0]


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_several_processes(kind: Any) -> None:
    """Oracle: one process with the whole batch. Each of two has half of it, one of them without a positive, and divides
    by the mean of both counts; then gradients are averaged."""
    whole = drawn_targets(4, 40, share=0.2)
    whole.labels[:2] = 0
    inputs = drawn_outputs(4, 40)
    confidence, localisation = multibox_loss(*inputs, whole)
    expected = torch.autograd.grad(confidence + localisation, inputs)
    mean = kind(float((whole.labels > 0).sum()) / 2)
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        logits, offsets = (x.detach()[part].requires_grad_() for x in inputs)
        given = Targets(whole.labels[part], whole.offsets[part])
        confidence, localisation = multibox_loss(logits, offsets, given, count=mean)
        halves.append(torch.autograd.grad(confidence + localisation, (logits, offsets)))
    for place, of_whole in enumerate(expected):
        torch.testing.assert_close(torch.cat([half[place] for half in halves]) / 2, of_whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Oracle: float32 of the same rounded numbers, also under autocast; gradients come back in half precision."""
    given = drawn_targets(2, 60)
    given = Targets(given.labels, given.offsets.float())
    logits, offsets = (x.detach().to(dtype).requires_grad_() for x in drawn_outputs(2, 60))
    wide = logits.detach().float().requires_grad_(), offsets.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = multibox_loss(logits, offsets, given)
        of_wide = multibox_loss(*wide, given)
        background = background_loss(logits)
    assert background.dtype == torch.float32
    assert torch.equal(background, background_loss(wide[0]))
    expected = multibox_loss(*wide, given)
    for loss, under, right in zip(losses, of_wide, expected, strict=True):
        assert loss.dtype == torch.float32
        assert float(loss.detach()) == float(under.detach()) == float(right.detach())
    gradients = torch.autograd.grad(losses[0] + losses[1], (logits, offsets))
    for mine, theirs in zip(gradients, torch.autograd.grad(expected[0] + expected[1], wide), strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs.to(dtype), rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("rule", ["greedy", "independent"])
def test_targets_of_a_batch(rule: Any) -> None:
    """Oracle: `match` of each picture alone, labels by hand, and `decode`, which must give the boxes back. The second
    picture has no boxes, as has the last."""
    anchors = to_cxcywh(crowd(60, seed=9))
    boxes = [crowd(3), crowd(0), crowd(5, seed=1), crowd(0)]
    labels = [torch.tensor(names, dtype=torch.int64) for names in ([2, 0, 1], [], [0, 4, 4, 1, 3], [])]
    made = targets(boxes, labels, anchors, rule, 0.4)
    assert made.labels.shape == (4, 60)
    assert made.offsets.dtype == DOUBLE
    for k in range(4):
        rows = match(boxes[k], anchors, rule, 0.4)
        expected = [0 if row < 0 else int(labels[k][row]) + 1 for row in rows.tolist()]
        assert made.labels[k].tolist() == expected
        has = rows >= 0
        assert not made.offsets[k][~has].any()
        torch.testing.assert_close(decode(made.offsets[k], anchors)[has], boxes[k][rows[has]], rtol=0, atol=1e-12)
    assert not made.labels[1].any()


def test_targets_of_other_numbers() -> None:
    """Oracle: float32 boxes and anchors give float32, float64 anchors of float32 boxes float64; half is widened."""
    boxes, anchors, labels = crowd(2), to_cxcywh(crowd(9, seed=4)), torch.tensor([0, 1])
    for kinds, expected in (((1, 1), torch.float32), ((1, 2), DOUBLE), ((2, 1), DOUBLE), ((0, 0), torch.float32)):
        box_kind, anchor_kind = ([torch.bfloat16, torch.float32, DOUBLE][kind] for kind in kinds)
        made = targets([boxes.to(box_kind)], [labels], anchors.to(anchor_kind))
        assert made.offsets.dtype == expected
        assert not made.offsets.requires_grad
    empty = targets([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], anchors.float())
    assert not empty.labels.any()
    assert not empty.offsets.any()


LABELS = [torch.tensor([0, 1]), torch.tensor([3])]
BATCH: dict[str, Any] = {"boxes": [crowd(2), crowd(1)], "labels": LABELS, "anchors": to_cxcywh(crowd(3, seed=2))}
TURNED = torch.tensor([[0.5, 0.1, 0.4, 0.2]], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": [crowd(2), TURNED]}, ValueError, r"boxes\[1\] must be finite.*\(0.5, 0.1, 0.4, 0.2\) in row 0"),
        ({"boxes": [NAN * crowd(2), crowd(1)]}, ValueError, r"boxes\[0\] must be finite.*nan"),
        ({"boxes": torch.zeros(2, 1, 4)}, TypeError, "boxes must be a list with a tensor for each picture"),
        ({"boxes": []}, TypeError, "boxes must be a list"),
        ({"labels": None}, TypeError, "labels must be a list with a tensor for each picture, got NoneType"),
        ({"labels": LABELS[:1]}, ValueError, "boxes and labels must be of as many pictures, got 2 and 1"),
        ({"labels": [LABELS[0].float(), LABELS[1]]}, TypeError, r"labels\[0\] must be an int64.*got torch.float32"),
        ({"labels": [LABELS[0], LABELS[0]]}, ValueError, r"labels\[1\] must be \(1,\), one for each box, got \(2,\)"),
        ({"labels": [LABELS[0], LABELS[1] - 4]}, ValueError, r"labels\[1\] must be 0 or more, got -1"),
        ({"anchors": torch.zeros(3, 4)}, ValueError, "anchors must be finite cxcywh with w and h above 0"),
        ({"rule": "best"}, ValueError, "rule must be one of"),
        ({"threshold": 1.5}, ValueError, r"threshold must be in \(0, 1\], got 1.5"),
    ],
)
def test_refusals_of_targets(
    change: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the message names the argument, the picture and what came, before anything is computed."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("course_lib.detection.losses.iou", never)
    with pytest.raises(error, match=message):
        targets(**{**BATCH, **change})


OUTPUTS: dict[str, Any] = {
    "logits": noise(2, 5, 3),
    "offsets": noise(2, 5, 4),
    "targets": drawn_targets(2, 5, classes=3),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": noise(2, 5, 3).long()}, TypeError, "logits must be a floating-point torch.Tensor, got torch.int64"),
        ({"logits": noise(2, 5, 1)}, ValueError, "logits must be .* background and at least one class"),
        ({"logits": noise(2, 6, 3)}, ValueError, r"logits must be \(2, 5, 'C'\) as the targets, got \(2, 6, 3\)"),
        ({"offsets": noise(2, 6, 4)}, ValueError, r"offsets must be \(2, 5, 4\) as the targets, got \(2, 6, 4\)"),
        ({"offsets": noise(2, 5, 3)}, ValueError, "offsets must be"),
        ({"targets": LABELS}, TypeError, "targets must be Targets, as `targets` makes them, got list"),
        ({"targets": Targets(torch.full((2, 5), 3), noise(2, 5, 4))}, ValueError, "labels must be 0 to 2.*got 3 to 3"),
        ({"targets": Targets(torch.full((2, 5), -1), noise(2, 5, 4))}, ValueError, "labels must be 0 to 2.*got -1"),
        ({"ratio": -1}, ValueError, "ratio must be 0 or more, got -1"),
        ({"ratio": NAN}, ValueError, "ratio must be 0 or more, got nan"),
        ({"count": -1}, ValueError, "count must be 0 or more, got -1"),
        ({"count": NAN}, ValueError, "count must be 0 or more, got nan"),
        ({"count": torch.ones(2)}, ValueError, r"count must be one number, got the shape \(2,\)"),
    ],
)
def test_refusals_of_the_loss(change: dict[str, Any], error: type[Exception], message: str) -> None:
    """Oracle: the message names the argument and what came."""
    multibox_loss(**OUTPUTS)
    with pytest.raises(error, match=message):
        multibox_loss(**{**OUTPUTS, **change})


def test_other_refusals() -> None:
    """Oracle: as above."""
    with pytest.raises(TypeError, match=r"labels must be an int64 torch.Tensor, got torch.int32"):
        Targets(torch.zeros(1, 2, dtype=torch.int32), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"labels must be \(N, P\) and offsets \(N, P, 4\)"):
        Targets(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 3, 4))
    with pytest.raises(TypeError, match=r"loss must be a floating-point torch.Tensor, got list"):
        hard_negatives([1.0], torch.ones(1, 1, dtype=torch.bool))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"positive must be a bool torch.Tensor, got torch.int64"):
        hard_negatives(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"loss and positive must be \(N, P\), got \(1, 2\) and \(1, 3\)"):
        hard_negatives(torch.ones(1, 2), torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.gpu
def test_cuda() -> None:
    """Oracle: the same on a CPU, in double precision: targets, both losses and both gradients."""
    batch = {**BATCH, "rule": "greedy"}
    there = {**batch, "anchors": batch["anchors"].cuda()} | {
        name: [x.cuda() for x in batch[name]] for name in ("boxes", "labels")
    }
    mine, theirs = targets(**there), targets(**batch)
    assert torch.equal(mine.labels.cpu(), theirs.labels)
    torch.testing.assert_close(mine.offsets.cpu(), theirs.offsets)
    given = drawn_targets(2, 300)
    results = []
    for device in ("cpu", "cuda"):
        logits, offsets = (x.detach().to(device).requires_grad_() for x in drawn_outputs(2, 300))
        losses = multibox_loss(logits, offsets, Targets(given.labels.to(device), given.offsets.to(device)))
        gradients = torch.autograd.grad(losses[0] + losses[1], (logits, offsets))
        results.append([x.cpu() for x in (*losses, *gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
