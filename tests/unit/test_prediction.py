"""Around a detector. Oracle: the order of steps written out with the plain loop, the library's own resize, and laws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.detection import boxes as box
from course_lib.detection.coding import decode
from course_lib.detection.nms import class_nms
from course_lib.detection.prediction import CAFFE, PLAIN, Detections, Normalisation, postprocess, preprocess
from course_lib.plain.detection import nms_loop
from course_lib.upsampling import resize


def outputs(
    n: int = 2, anchors: int = 120, classes: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], Tensor]:
    """Random logits and offsets, and anchors around few places, so that boxes overlap."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.rand(8, 2, generator=g).repeat(anchors // 8 + 1, 1)[:anchors]
    around = torch.cat((centres, 0.1 + 0.4 * torch.rand(anchors, 2, generator=g)), 1)
    logits = 3 * torch.randn(n, anchors, classes + 1, generator=g, dtype=torch.float64)
    offsets = torch.randn(n, anchors, 4, generator=g, dtype=torch.float64)
    return {"logits": logits.to(dtype), "offsets": offsets.to(dtype)}, around.to(dtype)


def written_out(
    out: dict[str, Tensor], anchors: Tensor, score: float, top: int, overlap: float, most: int | None
) -> list[list[tuple[int, float, list[float]]]]:
    """(label, score, box) of each picture, class by class and box by box."""
    made = []
    for logits, offsets in zip(out["logits"], out["offsets"], strict=True):
        corners = decode(offsets, anchors)
        found = []
        for label in range(logits.shape[1] - 1):
            scores = logits.softmax(-1)[:, label + 1]
            rows = [row for row in scores.argsort(descending=True).tolist() if scores[row] > score][:top]
            for k in nms_loop(corners[rows].numpy(), scores[rows].numpy(), overlap):
                found.append((label, float(scores[rows[k]]), corners[rows[k]].clamp(0, 1).tolist()))
        made.append(sorted(found, key=lambda one: -one[1])[:most])
    return made


def same(a: Detections, b: Detections) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("most", [None, 40, 1])
@pytest.mark.parametrize(("score", "top", "overlap"), [(0.01, 400, 0.45), (0.3, 400, 0.45), (0.01, 7, 0.2), (0, 50, 1)])
def test_the_order_of_steps(score: float, top: int, overlap: float, most: int | None) -> None:
    """Oracle: the same, written out."""
    out, anchors = outputs()
    found = postprocess(out, anchors, score, top, overlap, most)
    for one, expected in zip(found, written_out(out, anchors, score, top, overlap, most), strict=True):
        assert one.labels.tolist() == [label for label, _, _ in expected]
        assert len(one) == len(expected) > 0
        np.testing.assert_allclose(one.scores, [score for _, score, _ in expected], rtol=1e-12)
        np.testing.assert_allclose(one.boxes, [place for _, _, place in expected], rtol=0, atol=1e-12)
        assert one.labels.dtype == torch.int64
        assert one.boxes.dtype == one.scores.dtype == torch.float64


def test_a_batch_is_its_pictures() -> None:
    """Oracle: one picture at a time, bit for bit."""
    out, anchors = outputs(n=3, dtype=torch.float32)
    together = postprocess(out, anchors)
    for k, one in enumerate(together):
        assert same(one, postprocess({name: x[k : k + 1] for name, x in out.items()}, anchors)[0])
    assert postprocess({name: x[:0] for name, x in out.items()}, anchors) == []


def test_the_order_of_anchors_does_not_count() -> None:
    """As long as no two scores are equal."""
    out, anchors = outputs()
    mixed = torch.randperm(len(anchors), generator=torch.Generator().manual_seed(1))
    again = postprocess({name: x[:, mixed] for name, x in out.items()}, anchors[mixed])
    assert all(same(a, b) for a, b in zip(postprocess(out, anchors), again, strict=True))


def test_equal_scores_come_by_class_then_anchor() -> None:
    """Nothing learned: every class of every anchor is as likely."""
    anchors = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], [0.2, 0.2, 0.1, 0.1]])
    out = {"logits": torch.zeros(1, 3, 3), "offsets": torch.zeros(1, 3, 4)}
    (one,) = postprocess(out, anchors)
    assert one.labels.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(one.boxes, box.to_xyxy(anchors[[0, 1, 0, 1]]))
    torch.testing.assert_close(one.scores, torch.full((4,), 1 / 3))
    assert postprocess(out, anchors, score=0.34)[0].labels.tolist() == []


def test_without_suppression_all_candidates_stay() -> None:
    """Oracle: the count of probabilities above the threshold. An anchor speaks for several classes."""
    out, anchors = outputs()
    candidates = (out["logits"].softmax(-1)[..., 1:] > 0.1).sum((1, 2)).tolist()
    found = postprocess(out, anchors, score=0.1, most=None, nms=False)
    assert [len(one) for one in found] == candidates
    assert max(candidates) > len(anchors)
    for one, less in zip(found, postprocess(out, anchors, score=0.1, most=None), strict=True):
        rows = {tuple(row) for row in torch.cat((one.boxes, one.labels[:, None]), 1).tolist()}
        assert {tuple(row) for row in torch.cat((less.boxes, less.labels[:, None]), 1).tolist()} < rows
        assert (one.scores.diff() <= 0).all()


def test_boxes_are_cut_last() -> None:
    """Suppression sees boxes as the network gave them; one outside the picture is left without area."""
    out, anchors = outputs()
    for whole, cut in zip(postprocess(out, anchors, clip=False), postprocess(out, anchors), strict=True):
        assert torch.equal(cut.boxes, whole.boxes.clamp(0, 1))
        assert torch.equal(cut.scores, whole.scores)
        assert whole.boxes.min() < 0
    far = torch.tensor([[1.5, 0.5, 0.2, 0.2]])
    (one,) = postprocess({"logits": torch.tensor([[[0.0, 5.0]]]), "offsets": torch.zeros(1, 1, 4)}, far)
    torch.testing.assert_close(one.boxes, torch.tensor([[1.0, 0.4, 1.0, 0.6]]))


@pytest.mark.parametrize("suppressed", [True, False])
def test_each_detection_knows_its_anchor(suppressed: bool) -> None:
    """Oracle: the box decoded of that anchor's row, and the probability of its class there."""
    out, anchors = outputs()
    for k, one in enumerate(postprocess(out, anchors, score=0.1, clip=False, nms=suppressed)):
        assert one.anchors is not None
        assert len(one) > 10
        torch.testing.assert_close(one.boxes, decode(out["offsets"][k], anchors)[one.anchors], rtol=0, atol=1e-15)
        expected = out["logits"][k].softmax(-1)[one.anchors, one.labels + 1]
        torch.testing.assert_close(one.scores, expected, rtol=0, atol=1e-15)


def test_all_anchors_may_be_suppressed_at_once() -> None:
    """Law: with `top` and `most` out of the way the result is `class_nms` of all; groups this large go by blocks."""
    out, anchors = outputs(n=1, anchors=1500, classes=2)
    (one,) = postprocess(out, anchors, score=0, top=1500, most=None, clip=False)
    boxes = decode(out["offsets"][0], anchors).repeat(2, 1)
    scores = out["logits"][0].softmax(-1)[:, 1:].T.flatten()
    labels = torch.arange(2).repeat_interleave(1500)
    kept = class_nms(boxes, scores, labels)
    assert torch.equal(one.boxes, boxes[kept])
    assert torch.equal(one.labels, labels[kept])


def test_variances_are_those_given() -> None:
    out, anchors = outputs()
    (one, _) = postprocess(out, anchors, variances=(1, 1, 1, 1), clip=False, nms=False, top=1, most=1)
    row = int(out["logits"][0].softmax(-1)[:, 1:].amax(1).argmax())
    torch.testing.assert_close(one.boxes, decode(out["offsets"][0], anchors, (1, 1, 1, 1))[row : row + 1])


def test_nothing_found() -> None:
    """Shapes and kinds stay."""
    out, anchors = outputs(dtype=torch.float32)
    for one in postprocess({**out, "logits": torch.tensor([20.0, 0, 0, 0, 0]).expand(2, 120, 5)}, anchors):
        assert one.boxes.shape == (0, 4)
        assert one.scores.shape == one.labels.shape == (0,)
        assert one.labels.dtype == torch.int64
    (none,) = postprocess({"logits": torch.zeros(1, 0, 3), "offsets": torch.zeros(1, 0, 4)}, torch.zeros(0, 4))
    assert len(none) == 0


def test_half_precision_and_gradients() -> None:
    """Oracle: the same output as float32; what is found has no gradient."""
    out, anchors = outputs(dtype=torch.float32)
    half = {name: x.bfloat16().requires_grad_() for name, x in out.items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = postprocess(half, anchors)
    for one, expected in zip(
        found, postprocess({name: x.detach().float() for name, x in half.items()}, anchors), strict=True
    ):
        assert one.scores.dtype == torch.float32
        assert not one.scores.requires_grad
        assert not one.boxes.requires_grad
        assert same(one, expected)


def test_pixels() -> None:
    found = Detections(torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert found.pixels((100, 200)).tolist() == [[50.0, 50.0, 100.0, 100.0]]


def test_normalisations() -> None:
    """Oracle: one pixel by hand. Caffe's networks read blue first, and its means are of 0 to 255."""
    pixel = torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    torch.testing.assert_close(CAFFE(pixel).flatten(), torch.tensor([51 - 104.0, 127.5 - 117, 255 - 123]))
    torch.testing.assert_close(PLAIN(pixel).flatten(), torch.tensor([2.0, 0.0, -1.2]))
    own = Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 4.0), bgr=True)
    torch.testing.assert_close(own(pixel.double()).flatten(), torch.tensor([0.1, 0.15, 0.175], dtype=torch.float64))
    assert Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 4.0), bgr=True) == own


@pytest.mark.parametrize("size", [(20, 33), (64, 90), (41, 60)])
def test_pictures_are_resized_with_antialiasing(size: tuple[int, int]) -> None:
    """Oracle: the library's own bilinear resize, in float64."""
    picture = torch.rand(2, 3, 41, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = preprocess(picture, size, PLAIN)
    expected = resize(picture, size=size, method="bilinear", border="renormalise")
    torch.testing.assert_close(made, PLAIN(expected), rtol=0, atol=1e-12)
    assert torch.equal(preprocess(picture[0], size, PLAIN), made[:1])
    assert torch.equal(preprocess(picture, None, CAFFE), CAFFE(picture))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pictures_are_resized_in_float32(dtype: torch.dtype) -> None:
    """Oracle: the same numbers in float32, rounded once."""
    picture = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    same_colours = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    expected = preprocess(picture.float(), (5, 20), same_colours).to(dtype)
    assert torch.equal(preprocess(picture, (5, 20), same_colours), expected)


OUT, ANCHORS = outputs(dtype=torch.float32)
BOXES, LABELS = torch.rand(2, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        (ValueError, lambda: postprocess({"logits": OUT["logits"]}, ANCHORS), "logits and offsets, got .'logits'."),
        (ValueError, lambda: postprocess(OUT, ANCHORS[:-1]), r"logits must be \(N, 119, K \+ 1\).* got \(2, 120, 5\)"),
        (ValueError, lambda: postprocess(OUT, ANCHORS[None]), r"anchors must be \(P, 4\), got \(1, 120, 4\)"),
        (ValueError, lambda: postprocess({**OUT, "logits": OUT["logits"][..., :1]}, ANCHORS), r"got \(2, 120, 1\)"),
        (TypeError, lambda: postprocess({**OUT, "logits": OUT["logits"].long()}, ANCHORS), "logits .* got torch.int64"),
        (ValueError, lambda: postprocess({**OUT, "offsets": OUT["offsets"][:1]}, ANCHORS), r"offsets .*\(1, 120, 4\)"),
        (TypeError, lambda: postprocess([OUT], ANCHORS), "outputs must be a mapping .* got list"),  # type: ignore[arg-type]
        (
            ValueError,
            lambda: postprocess(OUT, ANCHORS.to("meta")),
            "anchors and logits .* got meta and cpu",
        ),
        (
            ValueError,
            lambda: postprocess({**OUT, "logits": OUT["logits"] * torch.nan}, ANCHORS),
            "logits must not be",
        ),
        (ValueError, lambda: postprocess({**OUT, "logits": OUT["logits"] + torch.inf}, ANCHORS), "plus infinity"),
        (
            ValueError,
            lambda: postprocess({**OUT, "offsets": OUT["offsets"] * torch.nan}, ANCHORS),
            "offsets must not be",
        ),
        (ValueError, lambda: postprocess(OUT, ANCHORS, score=1.5), r"score must be in \[0, 1\], got 1.5"),
        (ValueError, lambda: postprocess(OUT, ANCHORS, overlap=-1), r"overlap must be in \[0, 1\], got -1"),
        (ValueError, lambda: postprocess(OUT, ANCHORS, top=0), "top must be at least 1, got 0"),
        (TypeError, lambda: postprocess(OUT, ANCHORS, most=1.5), "most must be a whole number, got 1.5"),
        (ValueError, lambda: PLAIN(torch.rand(1, 4, 4)), r"pictures must be \(..., 3, H, W\), got \(1, 4, 4\)"),
        (TypeError, lambda: preprocess(torch.ones(3, 4, 4, dtype=torch.uint8), None, PLAIN), "pictures .* torch.uint8"),
        (ValueError, lambda: preprocess(torch.rand(1, 1, 3, 4, 4), None, PLAIN), r"got \(1, 1, 3, 4, 4\)"),
        (ValueError, lambda: preprocess(torch.rand(3, 4, 4), (5, 0), PLAIN), "size must be at least 1, got 0"),
        (ValueError, lambda: preprocess(torch.rand(3, 4, 4), (5, 5, 5), PLAIN), r"size must be \(height, width\)"),
        (ValueError, lambda: preprocess(torch.rand(3, 4, 4), 5, PLAIN), r"size must be \(height, width\), got 5"),  # type: ignore[arg-type]
        (ValueError, lambda: Detections(BOXES, torch.rand(3), LABELS), r"scores must be \(2,\) .* got \(3,\)"),
        (ValueError, lambda: Detections(BOXES[:1], torch.rand(2), LABELS), r"got \(1, 4\) and \(2,\)"),
        (TypeError, lambda: Detections(BOXES, LABELS, LABELS), "scores must be .* got torch.int64"),
        (TypeError, lambda: Detections(BOXES, torch.rand(2), torch.rand(2)), "labels must be an int64"),
        (ValueError, lambda: Detections(BOXES, torch.rand(2), LABELS, LABELS[:1]), r"anchors must be \(2,\)"),
    ],
)
def test_refusals(kind: type[Exception], call: Callable[[], object], words: str) -> None:
    """Oracle: the message names the argument, what came and what fits."""
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, in float64."""
    out, anchors = outputs(n=3, anchors=900, classes=6)
    found = postprocess({name: x.cuda() for name, x in out.items()}, anchors.cuda())
    for one, expected in zip(found, postprocess(out, anchors), strict=True):
        assert one.boxes.is_cuda
        assert torch.equal(one.labels.cpu(), expected.labels)
        torch.testing.assert_close(one.boxes.cpu(), expected.boxes)
        torch.testing.assert_close(one.scores.cpu(), expected.scores)
