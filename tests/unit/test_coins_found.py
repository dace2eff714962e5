"""The shipped ssd-tiny, trained on generated shapes alone, on a photograph of 24 coins.

Oracle: boxes that were computed by thresholding (`datasets.coins`), not by the detector.
"""

import torch

from course_lib import checkpoints
from course_lib.datasets.coins import coins
from course_lib.detection.boxes import iou
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.finding import find, looks_at


def test_coins_are_found_at_half_size() -> None:
    """At least 20 of 24 coins at IoU 0.5, each by a box of its own, and at most 4 boxes that are no coin; all discs."""
    model, photograph = checkpoints.load("ssd-tiny"), coins()
    assert isinstance(model, TinyDetector)
    size = looks_at(model, (303, 384), scale=0.5)
    assert size == (152, 192)
    found = find(model, photograph.image[None], size, score=0.5)[0]
    overlaps = iou(photograph.boxes, found.boxes) >= 0.5
    hit = overlaps.any(1)
    extra = len(found) - int(hit.sum())
    assert int(hit.sum()) >= 20
    assert int(overlaps.sum(1).max()) == 1
    assert extra <= 4
    discs = [model.names[label] for label in found.labels[overlaps.any(0)].tolist()]
    assert discs.count("disc") >= 20
    assert found.scores.equal(found.scores.sort(descending=True).values)
    assert torch.isfinite(found.boxes).all()
