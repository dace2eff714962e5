"""Suppression by blocks. Oracle: the plain loop, cases counted by hand, and what the operations ask of a GPU's host."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.detection.nms import class_nms, nms, unsuppressed
from course_lib.plain.detection import nms_loop

module = import_module("course_lib.detection.nms")  # the package has a function of that name


def clustered(n: int, centres: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """n boxes around some places, as a detector gives them, and scores."""
    g = torch.Generator().manual_seed(seed)
    places = torch.rand(centres, 4, generator=g, dtype=torch.float64)[torch.randint(centres, (n,), generator=g)]
    centre = places[:, :2] + 0.02 * torch.randn(n, 2, generator=g)
    sides = (0.05 + 0.2 * places[:, 2:]) * (0.3 * torch.randn(n, 2, generator=g)).exp()
    boxes = torch.cat((centre - sides / 2, centre + sides / 2), 1)
    return boxes.to(dtype), torch.rand(n, generator=g, dtype=torch.float64).to(dtype)


def chain(n: int) -> tuple[Tensor, Tensor]:
    """Boxes in a line: each overlaps the one before and the one behind by a third, and no other."""
    left = torch.arange(n, dtype=torch.float32)[:, None]
    return torch.cat((left, left * 0, left + 2, left * 0 + 1), 1), torch.arange(n, 0, -1, dtype=torch.float32)


def test_by_hand() -> None:
    """IoU with the first box: 81 / 119 of the second, exactly a half of the third, 0 of the last."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 5], [20, 0, 30, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(boxes, scores, 0.45).tolist() == [3, 0]
    assert nms(boxes, scores, 0.5).tolist() == [3, 0, 2]  # an IoU equal to the threshold does not suppress
    assert nms(boxes, scores, 0.69).tolist() == [3, 0, 1, 2]
    assert nms(boxes, scores).dtype == torch.int64
    assert nms(boxes, scores, 0.5, most=2).tolist() == [3, 0]


@pytest.mark.parametrize("n", [0, 1])
def test_few(n: int) -> None:
    boxes, scores = clustered(n, 1)
    assert nms(boxes, scores).tolist() == list(range(n))
    assert class_nms(boxes, scores, torch.zeros(n, dtype=torch.int64)).tolist() == list(range(n))
    assert unsuppressed(boxes.expand(3, n, 4), 0.5).shape == (3, n)


def test_of_equal_scores_the_lower_row_is_first() -> None:
    """The rule of torchvision and Caffe. ssd.pytorch begins with the last row, and other boxes stay."""
    boxes, _ = chain(4)
    scores = torch.full((4,), 0.5)
    assert nms(boxes, scores, 0.3).tolist() == [0, 2]
    assert (3 - nms(boxes.flip(0), scores, 0.3)).tolist() == [3, 1]
    assert class_nms(boxes, scores, torch.tensor([1, 0, 1, 0]), 0.3).tolist() == [0, 1, 2, 3]


def test_boxes_without_area_overlap_nothing() -> None:
    """Twice the same point, a line on a box, and corners that are swapped."""
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 4, 4], [0, 0, 0, 4], [0, 0, 0, 4], [4, 4, 0, 0]])
    assert nms(boxes, torch.arange(6, 0, -1) / 6, 0.0).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("block", "pairs"), [(1, 1), (7, 64), (64, 2**12), (256, 2**17), (4096, 2**26)])
@pytest.mark.parametrize("centres", [3, 60])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, block: int, pairs: int, centres: int) -> None:
    """Oracle: the plain loop, box by box."""
    monkeypatch.setattr(module, "_BLOCK_CPU", block)
    monkeypatch.setattr(module, "_PAIRS_CPU", pairs)
    for dtype in (torch.float32, torch.float64):
        boxes, scores = clustered(700, centres, dtype=dtype)
        expected = nms_loop(boxes.numpy(), scores.numpy(), 0.45)
        assert 3 <= len(expected) < 400
        for most in (None, 1, 20, 1000):
            np.testing.assert_array_equal(nms(boxes, scores, 0.45, most).numpy(), expected[:most])


def test_as_many_boxes_as_ssd_has() -> None:
    """Oracle: the plain loop."""
    boxes, scores = clustered(8732, 150)
    expected = nms_loop(boxes.numpy(), scores.numpy())
    assert 800 < len(expected) < 1500
    np.testing.assert_array_equal(nms(boxes, scores).numpy(), expected)


def test_a_long_chain() -> None:
    """Whether the last box stays hangs on all before it."""
    boxes, scores = chain(1001)
    assert nms(boxes, scores, 0.3).tolist() == list(range(0, 1001, 2))
    assert nms(boxes, scores, 0.34).tolist() == list(range(1001))


def test_groups_are_suppressed_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: `nms` of each group."""
    many = [clustered(90, centres, seed=centres) for centres in (1, 5, 30)]
    ranked = torch.stack([boxes[scores.argsort(descending=True)] for boxes, scores in many])
    for pairs in (1, 90 * 90, 2**17):
        monkeypatch.setattr(module, "_PAIRS_CPU", pairs)
        stays = unsuppressed(ranked, 0.4)
        for group, boxes in zip(stays, ranked, strict=True):
            assert torch.equal(group.nonzero()[:, 0], nms(boxes, torch.arange(90, 0, -1.0), 0.4))


def test_classes_do_not_meet() -> None:
    """Oracle: boxes of each class laid so far apart that none meets another class's, in double precision."""
    boxes, scores = clustered(500, 4, dtype=torch.float64)
    labels = torch.arange(500) * 7 % 5
    apart = nms(boxes + 1000.0 * labels[:, None], scores, 0.45)
    assert torch.equal(class_nms(boxes, scores, labels, 0.45), apart)
    assert torch.equal(class_nms(boxes, scores, labels, 0.45, most=9), apart[:9])
    assert len(apart) > len(nms(boxes, scores, 0.45))


def test_half_precision_is_compared_in_single() -> None:
    """Oracle: the same numbers as float32. Under autocast the answer is the same, and gradients are not asked for."""
    boxes, scores = clustered(300, 10)
    for dtype in (torch.bfloat16, torch.float16):
        kept = nms(boxes.to(dtype), scores)
        assert torch.equal(kept, nms(boxes.to(dtype).float(), scores))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nms(boxes.requires_grad_(), scores.requires_grad_()), nms(boxes.detach(), scores.detach()))


class Waits(TorchDispatchMode):
    """Counts the operations for which a GPU's host has to wait, and lists all that ran."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "item", "is_nonzero", "unique", "_unique2", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices)
        self.count += name in self.NAMES or by_mask
        self.ran.append(name)
        return func(*args, **(kwargs or {}))


def waits(call: Callable[[], object]) -> Waits:
    with Waits() as counter:
        call()
    return counter


def test_the_watch_sees_waiting() -> None:
    """One by one: item, bool, a mask as index, nonzero, equal."""
    x = torch.arange(4.0)
    for call in (x[0].item, lambda: bool(x[0] > 0), lambda: x[x > 1], (x > 1).nonzero, lambda: torch.equal(x, x)):
        assert waits(call).count == 1
    assert waits(lambda: x[torch.tensor([1, 2])] + 1).count == 0


def test_a_host_does_not_wait_for_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU's blocks: waits grow with blocks and with the logarithm of the longest chain, not with boxes."""
    monkeypatch.setattr(module, "_BLOCK_CPU", module._BLOCK_GPU)
    monkeypatch.setattr(module, "_PAIRS_CPU", module._PAIRS_GPU)
    counts, ran = {}, {}
    for n in (64, 512, 4096):  # one block; as many boxes on each place, so that chains are as long
        boxes, scores = clustered(n, n // 8)
        seen = waits(lambda boxes=boxes, scores=scores: nms(boxes, scores))
        counts[n], ran[n] = seen.count, len(seen.ran)
    assert counts[4096] <= counts[64] + 2 < 10
    assert ran[4096] < 2 * ran[64] + 20
    boxes, scores = clustered(8732, 150)
    assert waits(lambda: nms(boxes, scores)).count < 3 * 12  # three blocks
    boxes, scores = chain(1024)
    assert waits(lambda: nms(boxes, scores, 0.3)).count < 4 + 10
    assert waits(lambda: unsuppressed(torch.rand(5, 200, 4), 0.45)).count < 10


BOXES, SCORES, LABELS = torch.rand(3, 4), torch.rand(3), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        (TypeError, lambda: nms(LABELS, SCORES), "boxes must be a floating-point"),
        (ValueError, lambda: nms(BOXES[:, :3], SCORES), r"boxes must be \(..., 4\), got \(3, 3\)"),
        (ValueError, lambda: nms(BOXES[None], SCORES), r"boxes must be \(n, 4\), got \(1, 3, 4\)"),
        (TypeError, lambda: nms(BOXES, LABELS), "scores must be .* got torch.int64"),
        (TypeError, lambda: nms(BOXES, [0.1, 0.2, 0.3]), "scores must be .* got list"),
        (ValueError, lambda: nms(BOXES, SCORES[:2]), r"scores must be \(3,\).* got \(2,\)"),
        (ValueError, lambda: nms(BOXES, SCORES, 1.1), r"threshold must be in \[0, 1\], got 1.1"),
        (ValueError, lambda: nms(BOXES, SCORES, float("nan")), r"threshold must be in \[0, 1\], got nan"),
        (TypeError, lambda: nms(BOXES, SCORES, "0.5"), "threshold must be a number, got '0.5'"),  # type: ignore[arg-type]
        (ValueError, lambda: nms(BOXES, torch.tensor([1.0, torch.nan, 2])), "scores must not be NaN, got it in row 1"),
        (ValueError, lambda: nms(BOXES, SCORES.to("meta")), "scores and boxes must be on one device, got meta and cpu"),
        (ValueError, lambda: class_nms(BOXES, SCORES, LABELS.to("meta")), "labels and scores must be on one device"),
        (ValueError, lambda: nms(BOXES, SCORES, most=0), "most must be at least 1, got 0"),
        (ValueError, lambda: unsuppressed(BOXES, 0.5), r"boxes must be \(g, n, 4\), got \(3, 4\)"),
        (ValueError, lambda: unsuppressed(BOXES[None], -0.5), r"threshold must be in \[0, 1\], got -0.5"),
        (TypeError, lambda: class_nms(BOXES, SCORES, SCORES), "labels must be an int64 tensor, got torch.float32"),
        (ValueError, lambda: class_nms(BOXES, SCORES, LABELS[:2]), r"labels must be \(3,\) as scores, got \(2,\)"),
    ],
)
def test_refusals(kind: type[Exception], call: Callable[[], object], words: str) -> None:
    """Oracle: the message names the argument, what came and what fits."""
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU; and the driver, which counts what the host waits for."""
    for n, centres in ((0, 1), (300, 10), (8732, 150), (20000, 300)):
        boxes, scores = clustered(n, centres)
        kept = nms(boxes.cuda(), scores.cuda())
        assert kept.is_cuda
        assert torch.equal(kept.cpu(), nms(boxes, scores))
        labels = torch.arange(n) % 20
        kept = class_nms(boxes.cuda(), scores.cuda(), labels.cuda())
        assert torch.equal(kept.cpu(), class_nms(boxes, scores, labels))
    boxes, scores = (part.cuda() for part in clustered(4000, 150))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as seen:
            nms(boxes, scores)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(seen) < 20
