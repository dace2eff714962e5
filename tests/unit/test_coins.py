"""The photograph of coins and its computed boxes."""

import torch

from course_lib.datasets.coins import coins
from course_lib.detection.boxes import area, check_boxes, iou


def test_there_are_24_coins_in_four_rows_of_six() -> None:
    """Oracle: the photograph as anyone sees it."""
    found = coins()
    boxes = found.boxes
    assert found.image.shape == (3, 303, 384)
    assert boxes.shape == (24, 4)
    assert found.labels.tolist() == [0] * 24
    rows = boxes.view(4, 6, 4)
    assert bool((rows[:-1, :, 3].amax(1) < rows[1:, :, 1].amin(1)).all()), "rows lie below each other"
    assert bool((rows[:, :-1, 2] < rows[:, 1:, 0]).all()), "coins of a row lie beside each other"


def test_boxes_are_apart_within_the_picture_and_as_round_as_coins() -> None:
    """Oracle: coins are discs of 30 to 70 pixels that do not touch."""
    boxes = coins().boxes
    check_boxes("boxes", boxes)
    assert bool((iou(boxes, boxes).fill_diagonal_(0) == 0).all())
    assert bool((boxes >= 0).all())
    assert bool((boxes[:, 2:] <= torch.tensor([384.0, 303.0])).all())
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    assert min(width.min(), height.min()) >= 33
    assert max(width.max(), height.max()) <= 66
    assert bool(((width / height).log().abs() < 0.2).all())


def test_every_box_holds_a_coin_and_touches_it() -> None:
    """Oracle: a coin is brighter than the ground that surrounds its box, and none is in the ground between them."""
    found = coins()
    grey = found.image[0]
    ground = torch.ones_like(grey, dtype=torch.bool)
    for x0, y0, x1, y1 in found.boxes.int().tolist():
        ground[y0:y1, x0:x1] = False
        ring = torch.ones(y1 - y0 + 8, x1 - x0 + 8, dtype=torch.bool)
        ring[4:-4, 4:-4] = False
        around = grey[max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4]
        inner = grey[y0 + (y1 - y0) // 4 : y1 - (y1 - y0) // 4, x0 + (x1 - x0) // 4 : x1 - (x1 - x0) // 4]
        assert inner.mean() > around[ring[: around.shape[0], : around.shape[1]]].mean() + 0.1
    assert float(area(found.boxes).sum()) < 0.5 * grey.numel()
    assert grey[ground].mean() < grey[~ground].mean() - 0.15


def test_every_call_gives_the_same_boxes_in_tensors_of_its_own() -> None:
    """Oracle: a second call, after the first result was spoiled."""
    first = coins()
    kept = first.boxes.clone()
    first.boxes.zero_()
    first.image.zero_()
    second = coins()
    assert torch.equal(second.boxes, kept)
    assert second.image.max() > 0.9
    assert torch.equal(second.image[0], second.image[2])
