"""What holds for every picture and every random number.

Oracle: a rectangle is painted where its box is, transformed with it, and measured again.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.datasets import Labelled
from course_lib.detection.augmentation import Augmentation, crop, flip, patch, resize, zoom_out
from course_lib.detection.boxes import is_valid

Transform = Callable[[Labelled, torch.Generator], Labelled]
GEOMETRY: dict[str, Any] = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
BLACK = (0.0, 0.0, 0.0)

KEEPING: dict[str, Transform] = {
    "flip": lambda one, _: flip(one),
    "upside down": lambda one, _: flip(one, vertical=True),
    "resize": lambda one, random: resize(one, tuple(torch.randint(10, 60, (2,), generator=random).tolist())),
    "zoom out": lambda one, random: zoom_out(one, random, fill=BLACK),
}
ALL: dict[str, Transform] = {
    **KEEPING,
    "patch": patch,
    "crop": lambda one, random: crop(one, window(one, random), fill=BLACK),
    "augmentation": Augmentation(**GEOMETRY, upside_down=0.5, fill=BLACK),
    "augmentation to a size": Augmentation(**GEOMETRY, size=(40, 30), zoom_out=1, most=3, fill=BLACK),
}


def window(one: Labelled, random: torch.Generator) -> tuple[int, int, int, int]:
    """A window of 1 to 60 pixels a side that may overhang, or miss the picture."""
    width, height = torch.randint(1, 60, (2,), generator=random).tolist()
    left = int(torch.randint(-width, one.size[1] + 1, (), generator=random))
    top = int(torch.randint(-height, one.size[0] + 1, (), generator=random))
    return left, top, left + width, top + height


@st.composite
def boxed(draw: st.DrawFn, least: int = 0) -> Labelled:
    """A black picture with boxes in whole pixels, of 1 pixel to all of it; the labels number them."""
    height, width = draw(st.integers(4, 48)), draw(st.integers(4, 48))
    boxes = []
    for _ in range(draw(st.integers(least, 5))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))))
    return Labelled(
        torch.zeros(3, height, width), torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.arange(len(boxes))
    )


def painted(one: Labelled, number: int) -> Labelled:
    image = one.image.clone()
    x0, y0, x1, y1 = one.boxes[number].int().tolist()
    image[:, y0:y1, x0:x1] = 1
    return Labelled(image, one.boxes, one.labels)


def measured(image: torch.Tensor) -> list[float]:
    """The box of what is brighter than half of the brightest."""
    bright = image[0] > image.max() / 2
    rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    return [float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]


seeds = st.integers(0, 2**32)
law = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", ALL)
@law
@given(one=boxed(), seed=seeds)
def test_boxes_and_pixels_go_together_and_labels_with_them(name: str, one: Labelled, seed: int) -> None:
    random = torch.Generator()
    made = ALL[name](one, random.manual_seed(seed))
    height, width = made.size
    assert bool(is_valid(made.boxes).all())
    assert bool((made.boxes >= 0).all())
    assert bool((made.boxes <= torch.tensor([width, height, width, height])).all())
    assert sorted(set(made.labels.tolist())) == made.labels.tolist(), "each at most once, in their order"
    for box, number in zip(made.boxes.tolist(), made.labels.tolist(), strict=True):
        same = ALL[name](painted(one, number), random.manual_seed(seed))
        assert torch.equal(same.boxes, made.boxes)
        if min(box[2] - box[0], box[3] - box[1]) < 1.5:
            assert same.image.sum() > 0
        else:
            assert measured(same.image) == pytest.approx(box, abs=1), f"{number} of {one.boxes.tolist()}"


@pytest.mark.parametrize("name", KEEPING)
@law
@given(one=boxed(), seed=seeds)
def test_no_box_is_lost(name: str, one: Labelled, seed: int) -> None:
    made = KEEPING[name](one, torch.Generator().manual_seed(seed))
    assert torch.equal(made.labels, one.labels)


@law
@given(one=boxed(), vertical=st.booleans())
def test_flipping_twice_is_nothing(one: Labelled, vertical: bool) -> None:
    image = torch.rand(one.image.shape, generator=torch.Generator().manual_seed(0))
    again = flip(flip(Labelled(image, one.boxes, one.labels), vertical), vertical)
    assert torch.equal(again.image, image)
    assert torch.equal(again.boxes, one.boxes)


@law
@given(one=boxed(), seed=seeds)
def test_a_box_is_seen_in_the_window_that_holds_its_centre(one: Labelled, seed: int) -> None:
    """Oracle: counted here one by one; of windows side by side, exactly one has each box."""
    random = torch.Generator().manual_seed(seed)
    left, top, right, bottom = window(one, random)
    expected = [
        number
        for number, (x0, y0, x1, y1) in enumerate(one.boxes.tolist())
        if left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom
    ]
    assert crop(one, (left, top, right, bottom)).labels.tolist() == expected
    cut = int(torch.randint(1, one.size[1], (), generator=random))
    halves = [crop(one, (0, 0, cut, one.size[0])), crop(one, (cut, 0, one.size[1], one.size[0]))]
    assert sorted(label for half in halves for label in half.labels.tolist()) == one.labels.tolist()


@law
@given(one=boxed(least=1), seed=seeds, smallest=st.floats(0.1, 1))
def test_a_patch_has_an_object_and_a_side_and_an_aspect_within_bounds(
    one: Labelled, seed: int, smallest: float
) -> None:
    made = patch(one, torch.Generator().manual_seed(seed), smallest)
    assert len(made.labels) >= 1
    down, right = (new / old for new, old in zip(made.size, one.size, strict=True))
    # a side is rounded to whole pixels, half a pixel at most, and has at least one
    slack = [max(0.5, 1 - smallest / math.sqrt(2) * old) / old for old in one.size]
    assert (down + slack[0]) * (right + slack[1]) >= smallest**2
    assert (right + slack[1]) / (down - slack[0]) >= 0.5 or down <= slack[0]
    assert (right - slack[1]) / (down + slack[0]) <= 2


@law
@given(one=boxed(), seed=seeds)
def test_all_at_once_is_one_after_the_other(one: Labelled, seed: int) -> None:
    """Oracle: the functions themselves, each on the picture that the one before returned."""
    image = torch.rand(one.image.shape, generator=torch.Generator().manual_seed(1))
    one = Labelled(image, one.boxes, one.labels)
    every = Augmentation(**GEOMETRY, size=(20, 30), flip=1, upside_down=1, zoom_out=1, patch=1, fill=(0.2, 0.5, 0.7))
    made = every(one, torch.Generator().manual_seed(seed))
    random = torch.Generator().manual_seed(seed)
    torch.rand(4, generator=random, dtype=torch.float64)  # whether to flip, turn, zoom, sample
    steps = patch(zoom_out(one, random, fill=(0.2, 0.5, 0.7)), random)
    steps = flip(flip(resize(steps, (20, 30))), vertical=True)
    assert torch.equal(made.image, steps.image)
    assert torch.equal(made.boxes, steps.boxes)
    assert torch.equal(made.labels, steps.labels)


@law
@given(one=boxed(), seed=seeds)
def test_the_same_random_numbers_give_the_same_picture(one: Labelled, seed: int) -> None:
    every, random = Augmentation(grey=0.3), torch.Generator()
    first, second = (every(one, random.manual_seed(seed)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.labels, second.labels)
    assert 0 <= first.image.min() <= first.image.max() <= 1
