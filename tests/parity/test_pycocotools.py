"""Average precision of COCO. Oracle: pycocotools, which its authors publish, on random pictures without crowds."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from course_lib.detection import coco
from course_lib.detection.metrics import CocoScores, Truth, coco_map
from course_lib.detection.prediction import Detections

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
Pictures = tuple[list[Detections], list[Truth]]


def pictures(
    count: int, classes: int, seed: int, most: int = 40, objects: int = 6, grid: bool = False
) -> tuple[list[Detections], list[Truth]]:
    """Objects of many sizes, and detections near them, of mostly the right class. `grid`: whole pixels, equal scores.

    Some pictures have no object, some no detection, and the last class has no object anywhere.
    """
    g = torch.Generator().manual_seed(seed)
    found, truths = [], []
    for _ in range(count):
        n, m = (int(torch.randint(0, high + 1, (1,), generator=g)) for high in (objects, most))
        corner, side = 300 * torch.rand(n + 1, 2, generator=g), (2.5 + 3 * torch.rand(n + 1, 2, generator=g)).exp()
        place, sides = torch.cat((corner, corner + side), 1).double(), torch.cat((side, side), 1).double()
        labels = torch.randint(classes - 1, (n + 1,), generator=g)
        near = torch.randint(n + 1, (m,), generator=g)  # the last one is no object
        boxes = place[near] + 0.15 * sides[near] * torch.randn(m, 4, generator=g) * torch.rand(m, 1, generator=g)
        boxes = torch.cat((boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])), 1)
        right = torch.rand(m, generator=g) < 0.85
        guess = torch.where(right, labels[near], torch.randint(classes, (m,), generator=g))
        scores = torch.rand(m, generator=g)
        if grid:
            place, boxes, scores = place.round(), boxes.round(), (20 * scores).round() / 20
        found.append(Detections(boxes, scores, guess))
        truths.append(Truth(place[:n], labels[:n]))
    return found, truths


def official(found: list[Detections], truths: list[Truth], classes: int, areas: tuple[float, float]) -> COCOeval:
    def row(k: int, box: Tensor, label: Tensor) -> dict[str, Any]:
        x0, y0, x1, y1 = box.tolist()
        sides = [x0, y0, x1 - x0, y1 - y0]
        return {"image_id": k, "category_id": int(label), "bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0}

    wanted = [row(k, *one) for k, truth in enumerate(truths) for one in zip(truth.boxes, truth.labels, strict=True)]
    results = [
        row(k, box, label) | {"score": float(score)}
        for k, one in enumerate(found)
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sets = COCO()
        sets.dataset = {
            "info": {},
            "images": [{"id": k} for k in range(len(truths))],
            "annotations": [one | {"id": number + 1} for number, one in enumerate(wanted)],
            "categories": [{"id": k} for k in range(classes)],
        }
        sets.createIndex()
        judge = COCOeval(sets, sets.loadRes(results), "bbox")
        judge.params.areaRng = [[0, 1e10], [0, areas[0]], [areas[0], areas[1]], [areas[1], 1e10]]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def assert_official(scores: CocoScores, judge: COCOeval) -> None:
    came = [scores[name] for name in NAMES]  # type: ignore[literal-required]
    expected = np.where(judge.stats[:6] == -1, np.nan, judge.stats[:6])
    np.testing.assert_allclose(came, expected, rtol=0, atol=1e-12)
    by_class = judge.eval["precision"][0, :, :, 0, 2].mean(0)
    expected = np.where(by_class == -1, np.nan, by_class)
    np.testing.assert_allclose(scores["AP50_per_class"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [False, True], ids=["random", "with ties"])
@pytest.mark.parametrize("seed", range(3))
def test_is_the_official_measure(seed: int, grid: bool) -> None:
    """Four classes, of which one has no objects; equal scores and equal overlaps too."""
    found, truths = pictures(30, 4, seed, grid=grid)
    scores = coco_map(found, truths, 4)
    assert_official(scores, official(found, truths, 4, (32.0**2, 96.0**2)))
    assert 0.05 < scores["AP"] < scores["AP50"] < 0.9
    assert np.isnan(scores["AP50_per_class"][3])


def test_crowded_pictures_and_many_detections() -> None:
    """More than a hundred of a class in a picture, of which the best hundred count, and other limits of areas."""
    found, truths = pictures(8, 2, 5, most=400, objects=25, grid=True)
    assert max(int((one.labels == 0).sum()) for one in found) > 150
    for areas in ((32.0**2, 96.0**2), (400.0, 2500.0)):
        assert_official(coco_map(found, truths, 2, areas), official(found, truths, 2, areas))


def test_limits_of_areas_belong_to_both_sides() -> None:
    """An object of exactly 32 x 32 pixels is small and medium; one of 96 x 96 medium and large."""
    boxes = torch.tensor([[0.0, 0, 32, 32], [100, 0, 196, 96]])
    labels = torch.zeros(2, dtype=torch.int64)
    found, truths = [Detections(boxes, torch.tensor([0.5, 0.9]), labels)], [Truth(boxes, labels)]
    scores = coco_map(found, truths, 1)
    assert_official(scores, official(found, truths, 1, (32.0**2, 96.0**2)))
    assert scores["AP_small"] == scores["AP_medium"] == scores["AP_large"] == 1
    scores = coco_map(found, truths, 1, (1024.5, 9215.5))  # now none is medium
    assert scores["AP_small"] == scores["AP_large"] == 1
    assert np.isnan(scores["AP_medium"])


def test_pictures_matched_together_are_pictures_matched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many groups are matched at once does not show."""
    found, truths = pictures(30, 4, 7)
    scores = coco_map(found, truths, 4)
    monkeypatch.setattr(coco, "_GROUPS", 1)
    np.testing.assert_equal(coco_map(found, truths, 4), scores)
