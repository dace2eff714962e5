"""What a set of predictions says. Oracles: by hand, a loop over queries and classes. Official boxes: tests/parity."""

from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.boxes import to_xyxy
from course_lib.detection.set_prediction import select

NAN, INF = float("nan"), float("inf")


def drawn(*shape: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(*shape[:2], 4, generator=generator) * 0.4 + 0.3
    return {"logits": 2 * torch.randn(*shape, generator=generator), "boxes": boxes}


def test_softmax_by_hand() -> None:
    """Oracle: probabilities that are given. The last column is never said, however probable; the best comes first."""
    p = torch.tensor([[[0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.9, 0.5, 0.4, 0.2], [0.5, 0.5, 1, 1]]])
    (found,) = select({"logits": p.log(), "boxes": boxes}, background=True)
    assert found.labels.tolist() == [1, 0, 0]
    assert found.anchors is not None
    assert found.anchors.tolist() == [1, 2, 0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.5, 0.2])
    assert found.boxes.flatten().tolist() == pytest.approx([0.7, 0.4, 1, 0.6, 0, 0, 1, 1, 0.4, 0.3, 0.6, 0.7])
    (whole,) = select({"logits": p.log(), "boxes": boxes}, background=True, clip=False)
    assert whole.boxes[0].tolist() == pytest.approx([0.7, 0.4, 1.1, 0.6])
    (some,) = select({"logits": p.log(), "boxes": boxes}, background=True, score=0.3)
    assert some.scores.tolist() == pytest.approx([0.8, 0.5])
    (one,) = select({"logits": p.log(), "boxes": boxes}, background=True, most=1)
    assert one.labels.tolist() == [1]


def test_sigmoid_by_hand() -> None:
    """Oracle: probabilities that are given: one query is there with two classes, and the last column is a class."""
    p = torch.tensor([[[0.9, 0.1, 0.8], [0.05, 0.3, 0.2]]])
    (found,) = select({"logits": p.logit(), "boxes": torch.full((1, 2, 4), 0.5)}, background=False, most=4)
    assert found.anchors is not None
    assert list(zip(found.anchors.tolist(), found.labels.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 1), (1, 2)]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3, 0.2])


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("most", "score"), [(100, 0.0), (7, 0.0), (100, 0.4), (3, 0.6), (1, 0.999)])
def test_equals_a_loop(background: bool, most: int, score: float) -> None:
    """Oracle: every query and class, put in order by score and place, and cut."""
    outputs = drawn(3, 10, 5)
    found = select(outputs, background, most, score)
    for k, mine in enumerate(found):
        rows = []
        for query, logits in enumerate(outputs["logits"][k]):
            p = logits.softmax(0)[:-1] if background else logits.sigmoid()
            names = [int(p.argmax())] if background else range(len(p))
            rows += [(-float(p[name]), query, name) for name in names if p[name] > score]
        rows = sorted(rows)[:most]
        assert mine.anchors is not None
        assert list(zip(mine.anchors.tolist(), mine.labels.tolist(), strict=True)) == [row[1:] for row in rows]
        assert mine.scores.tolist() == pytest.approx([-row[0] for row in rows])
        torch.testing.assert_close(mine.boxes, to_xyxy(outputs["boxes"][k])[mine.anchors].clamp(0, 1))


@pytest.mark.parametrize("background", [True, False])
def test_equal_scores(background: bool) -> None:
    """Oracle: the lower query first, then the lower class, also where the number of boxes ends among them."""
    outputs = {"logits": torch.zeros(1, 6, 3), "boxes": torch.full((1, 6, 4), 0.5)}
    outputs["logits"][0, 4, 1] = 5.0
    (found,) = select(outputs, background, most=4)
    assert found.anchors is not None
    queries, labels = ([4, 0, 1, 2], [1, 0, 0, 0]) if background else ([4, 0, 0, 0], [1, 0, 1, 2])
    assert (found.anchors.tolist(), found.labels.tolist()) == (queries, labels)


@pytest.mark.parametrize("background", [True, False])
def test_half_precision(background: bool) -> None:
    """Oracle: the same numbers in float32, also under autocast; no gradient."""
    outputs = {name: value.bfloat16().requires_grad_() for name, value in drawn(2, 10, 5).items()}
    wide = {name: value.float() for name, value in outputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        made = select(outputs, background)
    for mine, theirs in zip(made, select(wide, background), strict=True):
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
        assert mine.scores.dtype == mine.boxes.dtype == torch.float32
        assert not mine.scores.requires_grad


GOOD = drawn(1, 4, 3)


def changed(name: str, value: float) -> dict[str, Tensor]:
    table = GOOD[name].clone()
    table[0, 1, 2] = value
    return {**GOOD, name: table}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"outputs": changed("logits", NAN)}, ValueError, "logits must not be NaN or infinite"),
        ({"outputs": changed("logits", INF)}, ValueError, "logits must not be NaN or infinite"),
        ({"outputs": changed("boxes", NAN)}, ValueError, "boxes must not be NaN or infinite"),
        ({"outputs": changed("boxes", -INF)}, ValueError, "boxes must not be NaN or infinite"),
        ({"outputs": {"logits": GOOD["logits"]}}, ValueError, "outputs must have logits and boxes"),
        ({"outputs": {**GOOD, "logits": torch.zeros(1, 4, 1)}}, ValueError, "logits must have a column of a class"),
        ({"most": 0}, ValueError, "most"),
        ({"most": 2.5}, TypeError, "most"),
        ({"score": 1.5}, ValueError, r"score must be in \[0, 1\], got 1.5"),
        ({"score": NAN}, ValueError, r"score must be in \[0, 1\], got nan"),
    ],
)
def test_refusals(change: dict[str, Any], error: type[Exception], message: str) -> None:
    """Oracle: the message names the argument and what came. A class may be impossible: minus infinity is allowed."""
    assert len(select(changed("logits", -INF), background=True)[0]) == 4
    with pytest.raises(error, match=message):
        select(**{"outputs": GOOD, "background": True, **change})


@pytest.mark.gpu
@pytest.mark.parametrize("background", [True, False])
def test_cuda(background: bool) -> None:
    """Oracle: the same on a CPU."""
    outputs = drawn(2, 50, 9)
    made = select({name: value.cuda() for name, value in outputs.items()}, background)
    for mine, theirs in zip(made, select(outputs, background), strict=True):
        assert mine.boxes.is_cuda
        assert torch.equal(mine.labels.cpu(), theirs.labels)
        torch.testing.assert_close(mine.scores.cpu(), theirs.scores)
        torch.testing.assert_close(mine.boxes.cpu(), theirs.boxes)
