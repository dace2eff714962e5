"""Suppression and prediction as torchvision and ssd.pytorch computed them (goldens), and where those two differ."""

from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib.detection.anchors import MAPS, SSD300_VOC, anchors
from course_lib.detection.boxes import area
from course_lib.detection.nms import nms
from course_lib.detection.prediction import Detections, postprocess
from course_lib.plain.detection import nms_loop
from tests.parity import fill


@cache
def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "ssd300_nms.safetensors", "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def case(name: str, threshold: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes, scores, and what torchvision and ssd.pytorch keep."""
    parts = ("boxes", "scores", f"keep_torchvision.{threshold}", f"keep_ssd_pytorch.{threshold}")
    boxes, scores, torchvision, ssd_pytorch = (golden()[f"nms.{name}.{part}"] for part in parts)
    return boxes, scores, torchvision, ssd_pytorch


@pytest.mark.parametrize("threshold", [0.45, 0.5])
@pytest.mark.parametrize("name", ["random200", "identical32", "twopoints200", "degenerate200"])
def test_keeps_what_torchvision_keeps(name: str, threshold: float) -> None:
    """The same rows in the same order, with boxes without area too; so does the plain loop."""
    boxes, scores, torchvision, ssd_pytorch = case(name, threshold)
    kept = nms(boxes, scores, threshold)
    assert torch.equal(kept, torchvision)
    assert nms_loop(boxes.numpy(), scores.numpy(), threshold).tolist() == torchvision.tolist()
    assert torch.equal(kept, ssd_pytorch) == (name in ("random200", "identical32"))


@pytest.mark.parametrize("threshold", [0.45, 0.5])
@pytest.mark.parametrize("name", ["twopoints200", "degenerate200"])
def test_where_ssd_pytorch_differs(name: str, threshold: float) -> None:
    """There the IoU of two boxes without area is 0 / 0, and what is not at most the threshold goes: all but one go."""
    boxes, scores, _, ssd_pytorch = case(name, threshold)
    kept = nms(boxes, scores, threshold)
    points = area(boxes) == 0
    assert int(points[kept].sum()) == int(points.sum()) == {"twopoints200": 2, "degenerate200": 44}[name]
    assert int(points[ssd_pytorch].sum()) == 1
    assert [row for row in ssd_pytorch.tolist() if not points[row]] == [row for row in kept.tolist() if not points[row]]


def detected(most: int | None) -> Detections:
    g = torch.Generator().manual_seed(7)
    offsets = 0.5 * torch.randn(1, 8732, 4, generator=g)
    logits = 4 * torch.randn(1, 8732, 21, generator=g)
    logits[:, 400:] = torch.eye(21)[0] * 200
    priors = anchors(MAPS["SSD300_VOC"], SSD300_VOC, (300, 300), clip="centre_size")
    outputs = {"logits": logits, "offsets": offsets}
    (found,) = postprocess(outputs, priors, score=0.01, top=200, overlap=0.45, most=most, clip=False)
    return found


def test_prediction_is_the_official_one() -> None:
    """Every class has as many boxes, and the first 20 of the first class are the same to within rounding."""
    found = detected(None)
    counts = torch.bincount(found.labels + 1, minlength=21)
    assert torch.equal(counts, golden()["detect.out_counts"])
    first = found.labels == 0
    rows = torch.cat((found.scores[first, None], found.boxes[first]), 1)[:20]
    torch.testing.assert_close(rows, golden()["detect.cls1"], rtol=0, atol=5e-7)


def test_where_the_official_code_keeps_too_many() -> None:
    """Its last step, the 200 best of a picture, does nothing: 946 come out. Here 200 do, the best of all classes."""
    every, best = detected(None), detected(200)
    assert len(every) == int(golden()["detect.out_counts"].sum()) == 946
    assert len(best) == 200
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(best, name), getattr(every, name)[:200])
    assert best.scores.min() >= every.scores[200:].max()
