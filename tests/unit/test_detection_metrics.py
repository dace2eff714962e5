"""Average precision and its parts. Oracle: cases counted by hand, and the plain loop."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.detection.metrics import (
    Truth,
    average_precision,
    coco_map,
    duplicates,
    match_detections,
    precision_recall,
    voc_map,
)
from course_lib.detection.prediction import Detections
from course_lib.plain.detection import average_precision_loop


def squares(*corners: float, side: float = 10) -> Tensor:
    """Squares in a row, with their left ends here."""
    left = torch.tensor(corners, dtype=torch.float64)[:, None]
    return torch.cat((left, left * 0, left + side, left * 0 + side), 1)


def found(boxes: Tensor, scores: list[float], labels: list[int] | None = None) -> Detections:
    return Detections(boxes, torch.tensor(scores), torch.tensor(labels or [0] * len(scores), dtype=torch.int64))


def truth(boxes: Tensor, labels: list[int] | None = None, difficult: list[bool] | None = None) -> Truth:
    hard = None if difficult is None else torch.tensor(difficult)
    return Truth(boxes, torch.tensor(labels or [0] * len(boxes), dtype=torch.int64), hard)


def scene(seed: int, count: int = 12, classes: int = 3) -> tuple[list[Detections], list[Truth]]:
    """Random pictures: objects, some difficult, and boxes near them; some have none of one or the other."""
    g = torch.Generator().manual_seed(seed)
    all_found, truths = [], []
    for _ in range(count):
        n, m = (int(torch.randint(0, most, (1,), generator=g)) for most in (6, 20))
        corner = 50 * torch.rand(n + 1, 2, generator=g, dtype=torch.float64)
        place = torch.cat((corner, corner + 5 + 20 * torch.rand(n + 1, 2, generator=g)), 1)
        near = torch.randint(n + 1, (m,), generator=g)
        boxes = place[near] + 2 * torch.randn(m, 4, generator=g)
        labels = torch.randint(classes, (n + 1,), generator=g)
        scores = (20 * torch.rand(m, generator=g)).round() / 20
        all_found.append(Detections(boxes, scores, labels[near]))
        truths.append(Truth(place[:n], labels[:n], torch.rand(n, generator=g) < 0.2))
    return all_found, truths


def test_right_wrong_and_neither() -> None:
    """By score: hit, second hit of the same object, beside all, difficult twice, another class, no class there."""
    objects = truth(squares(0, 40, 80), [0, 0, 1], [False, True, False])
    boxes = squares(1, 0, 20, 40, 41, 80, 80)
    ours = found(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [0, 0, 0, 0, 0, 0, 1])
    correct, ignored = match_detections(ours, objects)
    assert correct.tolist() == [True, False, False, False, False, False, True]
    assert ignored.tolist() == [False, False, False, True, True, False, False]
    later = found(boxes, [0.8, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3], [0, 0, 0, 0, 0, 0, 1])
    assert match_detections(later, objects)[0].tolist() == [False, True, False, False, False, False, True]
    exact = found(squares(0, 0, side=10)[:, [0, 1, 2, 3]] * torch.tensor([1, 1, 1, 0.5]), [0.1, 0.2])
    assert match_detections(exact, objects, 0.5)[0].tolist() == [False, True]  # IoU of exactly a half is enough
    assert not match_detections(exact, objects, 0.51)[0].any()


def test_a_detection_looks_at_the_truth_it_overlaps_most() -> None:
    """Even where another one is free: the second box is wrong by VOC's rule, and right by COCO's."""
    objects, ours = truth(squares(0, 2)), found(squares(0, 0.5), [0.9, 0.8])
    assert match_detections(ours, objects)[0].tolist() == [True, False]
    assert voc_map([ours], [objects], 1)["mAP"] == 0.5
    assert coco_map([ours], [objects], 1)["AP50"] == pytest.approx(1)


def test_curve_by_hand() -> None:
    """Right, wrong, right, neither, wrong, right, of four objects."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.65, 0.6, 0.5])
    correct = torch.tensor([True, False, True, False, False, True])
    ignored = torch.tensor([False, False, False, True, False, False])
    recall, precision = precision_recall(scores, correct, 4, ignored)
    assert recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75]
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    assert average_precision(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3 + 0.25 * 3 / 5)
    # recalls 0, 0.1, 0.2 see 1; 0.3, 0.4, 0.5 see 2/3; 0.6, 0.7 see 3/5; 0.8, 0.9, 1 see nothing
    assert average_precision(recall, precision, "eleven") == pytest.approx((3 + 3 * 2 / 3 + 2 * 3 / 5) / 11)
    mixed = torch.tensor([4, 2, 5, 0, 3, 1])
    again = precision_recall(scores[mixed], correct[mixed], 4, ignored[mixed])
    assert all(torch.equal(a, b) for a, b in zip(again, (recall, precision), strict=True))


@pytest.mark.parametrize("rule", ["all", "eleven"])
def test_ends_of_the_curve(rule: str) -> None:
    """Everything found: 1. Nothing detected, or nothing right: 0. A recall of exactly 0.3 counts at 0.3."""
    some, none = torch.ones(3, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    assert average_precision(torch.tensor([1 / 3, 2 / 3, 1]), some, rule) == 1  # type: ignore[arg-type]
    assert average_precision(none, none, rule) == 0  # type: ignore[arg-type]
    assert average_precision(0 * some, 0 * some, rule) == 0  # type: ignore[arg-type]
    tenths = torch.arange(1, 4, dtype=torch.float64) / 10
    expected = {"all": 0.3, "eleven": 4 / 11}[rule]
    assert average_precision(tenths, some, rule) == pytest.approx(expected)  # type: ignore[arg-type]


def test_unsorted_detections_give_the_same() -> None:
    """All measures sort by score; a curve made of unsorted ones has recalls that fall, and is refused."""
    ours, truths = scene(3)
    mixed = []
    for k, one in enumerate(ours):
        scores = torch.rand(len(one), generator=torch.Generator().manual_seed(k))  # without equal ones
        order = torch.randperm(len(one), generator=torch.Generator().manual_seed(99 + k))
        ours[k] = Detections(one.boxes, scores, one.labels)
        mixed.append(Detections(one.boxes[order], scores[order], one.labels[order]))
    for measure in (voc_map, coco_map):
        np.testing.assert_equal(measure(mixed, truths, 3), measure(ours, truths, 3))
    assert duplicates(mixed, truths) == duplicates(ours, truths)
    with pytest.raises(ValueError, match=r"recall must not fall, got 0\.5 before a smaller one"):
        average_precision(torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.5]))


@pytest.mark.parametrize("rule", ["all", "eleven"])
@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(2))
def test_is_the_loop(seed: int, overlap: float, rule: str) -> None:
    """Oracle: the plain loop, class by class, with difficult objects and equal scores."""
    ours, truths = scene(seed)
    scores = voc_map(ours, truths, 4, overlap, rule)  # type: ignore[arg-type]
    assert math.isnan(scores["per_class"][3])
    for label in range(3):
        of_class = [(one.boxes[one.labels == label], one.scores[one.labels == label]) for one in ours]
        wanted = [
            (one.boxes[one.labels == label], one.difficult[one.labels == label].tolist())
            for one in truths
            if one.difficult is not None
        ]
        expected = average_precision_loop(of_class, wanted, overlap, rule)
        assert scores["per_class"][label] == pytest.approx(expected, abs=1e-12)
    assert scores["mAP"] == pytest.approx(np.mean(scores["per_class"][:3]), abs=1e-12)
    assert 0.02 < scores["mAP"] < 0.95


def test_classes_without_truths_are_left_out() -> None:
    """A class that only difficult objects have is one; without any class the mean is not a number."""
    objects = truth(squares(0, 40), [0, 1], [False, True])
    ours = found(squares(0, 40, 80), [0.9, 0.8, 0.7], [0, 1, 2])
    scores = voc_map([ours], [objects], 3)
    np.testing.assert_equal(scores, {"mAP": 1.0, "per_class": [1.0, math.nan, math.nan]})
    coco = coco_map([ours], [objects], 3)
    np.testing.assert_equal(coco["AP50_per_class"], [1.0, math.nan, math.nan])
    assert coco["AP"] == coco["AP_small"] == 1
    assert math.isnan(coco["AP_large"])
    assert math.isnan(voc_map([], [], 2)["mAP"])
    assert math.isnan(coco_map([], [], 2)["AP"])
    nothing = found(squares(), [])
    assert voc_map([nothing], [objects], 3)["mAP"] == coco_map([nothing], [objects], 3)["AP"] == 0


def test_difficult_objects_cost_nothing_by_coco_too() -> None:
    """Found or not, they change no number; a detection takes one that counts first."""
    easy, boxes = truth(squares(0, 40)), squares(0, 41, 90)
    scores = [0.9, 0.6, 0.7]
    hard = truth(squares(0, 40, 80, 90), None, [False, False, True, True])
    expected = coco_map([found(boxes[:2], scores[:2])], [easy], 1)
    np.testing.assert_equal(coco_map([found(boxes, scores)], [hard], 1), expected)
    both = truth(squares(0, 1), None, [True, False])
    assert coco_map([found(squares(0), [0.9])], [both], 1)["AP50"] == 1


def test_duplicates_by_hand() -> None:
    """Three boxes on the first object, one on the second, none on the third, one on a difficult: 2 / 2 too many."""
    objects = truth(squares(0, 40, 80, 120), None, [False, False, False, True])
    ours = found(squares(0, 1, -1, 40, 120, 60, 0), [0.9, 0.8, 0.7, 0.6, 0.9, 0.9, 0.4])
    assert duplicates([ours], [objects]) == 1
    assert duplicates([ours], [objects], score=0.3) == 1.5
    assert duplicates([ours], [objects], overlap=0.9) == 0
    assert duplicates([ours, ours], [objects, objects]) == 1
    assert math.isnan(duplicates([ours], [objects], score=0.95))
    other = found(ours.boxes, ours.scores.tolist(), [1] * 7)
    assert math.isnan(duplicates([other], [objects]))


def test_units_do_not_count() -> None:
    """Pixels or fractions: VOC's measure is the same; COCO's counts areas, but for these the same."""
    ours, truths = scene(1)
    small = [Detections(one.boxes / 64, one.scores, one.labels) for one in ours]
    wanted = [Truth(one.boxes / 64, one.labels, one.difficult) for one in truths]
    np.testing.assert_equal(voc_map(small, wanted, 3), voc_map(ours, truths, 3))
    np.testing.assert_equal(
        coco_map(small, wanted, 3, (200 / 64**2, 400 / 64**2)), coco_map(ours, truths, 3, (200, 400))
    )


ONE, NO_NUMBER, ITS = found(squares(0), [0.5]), found(squares(0), [torch.nan]), truth(squares(0))


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        (TypeError, lambda: Truth(squares(0), torch.zeros(1)), "labels must be an int64 tensor, got torch.float32"),
        (ValueError, lambda: truth(squares(0, 1), [0]), r"boxes must be \(n, 4\) and labels \(n,\), got \(2, 4\)"),
        (TypeError, lambda: Truth(ITS.boxes, ITS.labels, ITS.labels), "difficult must be bool, got torch.int64"),
        (ValueError, lambda: truth(squares(0, 1).flip(1)), r"x0 <= x1 and y0 <= y1, got .* in row 0"),
        (ValueError, lambda: truth(squares(0) * torch.nan), "boxes must be finite .* in row 0"),
        (ValueError, lambda: voc_map([NO_NUMBER], [ITS], 1), "detections must have scores, got NaN in picture 0"),
        (ValueError, lambda: duplicates([NO_NUMBER], [ITS]), "detections must have scores, got NaN in picture 0"),
        (ValueError, lambda: truth(squares(0), None, [True, False]), r"difficult must be \(1,\) as labels, got \(2,\)"),
        (ValueError, lambda: match_detections(ONE, ITS, 0.0), r"overlap must be in \(0, 1\], got 0.0"),
        (ValueError, lambda: voc_map([ONE], [ITS, ITS], 1), "the same pictures, got 1 and 2 of them"),
        (ValueError, lambda: voc_map([ONE], [ITS], 0), "classes must be at least 1, got 0"),
        (ValueError, lambda: voc_map([ONE], [ITS], 1, rule="ten"), "rule must be one of 'all', 'eleven', got 'ten'"),  # type: ignore[arg-type]
        (TypeError, lambda: voc_map([ITS], [ITS], 1), "detections must be Detections, got Truth for picture 0"),  # type: ignore[list-item]
        (ValueError, lambda: voc_map([ONE], [truth(squares(0), [3])], 3), "truths must have .* got 3 in picture 0"),
        (ValueError, lambda: coco_map([found(squares(0), [0.5], [-1])], [ITS], 3), "detections must .* got -1 in"),
        (ValueError, lambda: coco_map([ONE], [ITS], 1, (9.0, 4.0)), r"areas must be two limits.*got \(9.0, 4.0\)"),
        (ValueError, lambda: duplicates([ONE], [], 0.5), "the same pictures, got 1 and 0 of them"),
        (ValueError, lambda: precision_recall(torch.ones(2), torch.ones(2) > 0, 0), "truths must be at least 1, got 0"),
        (ValueError, lambda: precision_recall(torch.ones(2), torch.ones(3) > 0, 1), r"correct must be .* \(3,\) for"),
        (ValueError, lambda: average_precision(torch.ones(2), torch.ones(3)), r"got \(2,\) and \(3,\)"),
    ],
)
def test_refusals(kind: type[Exception], call: Callable[[], object], words: str) -> None:
    """Oracle: the message names the argument, what came and what fits."""
    with pytest.raises(kind, match=words):
        call()
