"""Augmentation: light, windows, and endless samples. Oracles: formulas, counts over many random numbers, CPU = CUDA."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.datasets import Labelled, Scenes
from course_lib.detection import augmentation, light
from course_lib.detection.augmentation import (
    Augmentation,
    Augmented,
    crop,
    flip,
    patch,
    photometric,
    resize,
    zoom_out,
)
from course_lib.detection.boxes import iou

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
STILL: dict[str, Any] = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def picture(seed: int = 0, size: tuple[int, int] = (12, 16), least: float = 0.4, most: float = 0.6) -> Labelled:
    """A picture in the middle of the range, where no change of light is clamped; two boxes."""
    random = torch.Generator().manual_seed(seed)
    image = least + (most - least) * torch.rand(3, *size, generator=random, dtype=torch.float64)
    boxes = torch.tensor([[1.0, 2, 7, 9], [8, 1, 15, 6]], dtype=torch.float64)
    return Labelled(image, boxes, torch.tensor([4, 2]))


def lit(seed: int, **knobs: float) -> tuple[Tensor, Tensor]:
    """A picture before and after, as columns of colours (3, P)."""
    before = picture()
    after = photometric(before, torch.Generator().manual_seed(seed), **{**STILL, **knobs})
    assert after.boxes is before.boxes
    assert after.labels is before.labels
    return before.image.flatten(1), after.image.flatten(1)


# --- light ----------------------------------------------------------------------------------------------------------


def test_no_light_knobs_change_nothing() -> None:
    """Oracle: the picture itself."""
    before, after = lit(0)
    assert torch.allclose(before, after, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "most"), [("brightness", 0.125), ("contrast", 0.5), ("saturation", 0.5), ("hue", 18.0)]
)
def test_each_knob_changes_half_of_the_pictures_up_to_its_bound(name: str, most: float) -> None:
    """Oracle: the amount, computed back from the pixels by the knob's own formula, over 200 seeds: about 100 times 0,
    else within the bound, both ways, near it at times.
    """
    amounts = [AMOUNT[name](*lit(seed, **{name: most})) for seed in range(200)]
    changed = [amount for amount in amounts if abs(amount) > 1e-9]
    assert 70 < len(changed) < 130
    assert max(map(abs, changed)) <= most * (1 + 1e-9)
    assert min(changed) < -0.8 * most
    assert max(changed) > 0.8 * most


def added(before: Tensor, after: Tensor) -> float:
    difference = after - before
    assert torch.allclose(difference, difference[0, 0], atol=1e-12)
    return float(difference[0, 0])


def stretched(before: Tensor, after: Tensor) -> float:
    mean = (LUMA @ before).mean()
    ratio = (after - mean) / (before - mean)
    assert torch.allclose(ratio, ratio[0, 0], atol=1e-8)
    return float(ratio[0, 0]) - 1


def coloured(before: Tensor, after: Tensor) -> float:
    assert torch.allclose(LUMA @ before, LUMA @ after, atol=1e-12), "luma stays"
    ratio = (after - LUMA @ before) / (before - LUMA @ before)
    assert torch.allclose(ratio, ratio[0, 0], atol=1e-6)
    return float(ratio[0, 0]) - 1


def turned(before: Tensor, after: Tensor) -> float:
    assert torch.allclose(before.mean(0), after.mean(0), atol=1e-12), "along the axis of greys nothing moves"
    across = torch.tensor([[1.0, -1, 0], [1, 1, -2]], dtype=torch.float64)
    across /= across.norm(dim=1, keepdim=True)
    old, new = (torch.complex(*(across @ colours)) for colours in (before, after))
    angle = torch.angle(new / old)
    assert torch.allclose(angle, angle[0], atol=1e-9)
    assert torch.allclose(old.abs(), new.abs(), atol=1e-12)
    return math.degrees(float(angle[0]))


AMOUNT: dict[str, Callable[[Tensor, Tensor], float]] = {
    "brightness": added,
    "contrast": stretched,
    "saturation": coloured,
    "hue": turned,
}


def test_a_hue_of_120_degrees_exchanges_the_colours() -> None:
    """Oracle: a third of a turn about the axis of greys makes red green, green blue and blue red."""
    assert torch.allclose(light._turn(120), torch.eye(3, dtype=torch.float64).roll(1, 0), atol=1e-15)


def test_grey_pictures_as_often_as_asked() -> None:
    """Oracle: three equal channels, the luma of the picture, in about 60 of 200 at 0.3."""
    count = 0
    for seed in range(200):
        before, after = lit(seed, grey=0.3)
        if torch.allclose(after[0], after[2], atol=1e-12):
            assert torch.allclose(after[1], LUMA @ before, atol=1e-12)
            count += 1
    assert 40 < count < 80


def test_light_stays_in_the_range() -> None:
    """Oracle: 0 and 1, with the strongest knobs on a picture of the whole range."""
    for seed in range(20):
        one = picture(seed, least=0, most=1)
        made = photometric(one, torch.Generator().manual_seed(seed), 1, 1, 1, 180, 0.1)
        assert 0 <= made.image.min() <= made.image.max() <= 1


# --- windows --------------------------------------------------------------------------------------------------------


def test_flips_by_hand() -> None:
    """Oracle: by hand in a picture of 12 x 16."""
    one = picture()
    assert flip(one).boxes.tolist() == [[9, 2, 15, 9], [1, 1, 8, 6]]
    assert flip(one, vertical=True).boxes.tolist() == [[1, 3, 7, 10], [8, 6, 15, 11]]
    assert torch.equal(flip(one).image[:, 3, 0], one.image[:, 3, 15])
    assert torch.equal(flip(one, vertical=True).image[:, 0, 5], one.image[:, 11, 5])


def test_resize_by_hand() -> None:
    """Oracle: by hand; each axis has its own scale, and the same size is the same picture."""
    one = picture()
    made = resize(one, (24, 8))
    assert made.image.shape == (3, 24, 8)
    assert made.boxes.tolist() == [[0.5, 4, 3.5, 18], [4, 2, 7.5, 12]]
    assert resize(one, (12, 16)) is one


def test_crop_cuts_boxes_and_fills_what_lies_beyond() -> None:
    """Oracle: by hand; the window overhangs above and to the left, and misses the second box's centre."""
    one = picture()
    made = crop(one, (-2, -1, 6, 8), fill=(0.1, 0.2, 0.3))
    assert made.image.shape == (3, 9, 8)
    assert torch.equal(made.image[:, 1:, 2:], one.image[:, :8, :6])
    assert made.image[:, 0, 0].tolist() == [0.1, 0.2, 0.3]
    assert made.image[:, 8, 1].tolist() == [0.1, 0.2, 0.3]
    assert made.boxes.tolist() == [[3, 3, 8, 9]]
    assert made.labels.tolist() == [4]
    away = crop(one, (40, 40, 44, 42))
    assert torch.allclose(away.image, one.image.mean((1, 2))[:, None, None].expand(3, 2, 4))
    with pytest.raises(TypeError, match=r"window must be a whole number, got 3\.5"):
        crop(one, (0, 0, 3.5, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fill must be three numbers.* got \(1\.0, 0\.5\)"):
        crop(one, (-1, 0, 3, 4), fill=(1.0, 0.5))
    with pytest.raises(ValueError, match=r"window must be left < right and top < bottom, got \(3, 0, 3, 4\)"):
        crop(one, (3, 0, 3, 4))


def test_a_centre_on_the_border_of_two_windows_belongs_to_the_right_and_the_lower() -> None:
    """Oracle: by hand; windows that part a picture must have each object once."""
    image = torch.zeros(3, 8, 8, dtype=torch.float64)
    one = Labelled(image, torch.tensor([[2.0, 2, 6, 6]], dtype=torch.float64), torch.tensor([0]))
    quarters = [(x, y, x + 4, y + 4) for y in (0, 4) for x in (0, 4)]
    assert [len(crop(one, quarter).labels) for quarter in quarters] == [0, 0, 0, 1]


def test_zoom_out_keeps_the_pixels_on_a_ground_of_the_mean_colour() -> None:
    """Oracle: the picture is found again where its boxes say; all else is the mean; sizes reach from 1 to `most`."""
    one, ratios = picture(), []
    for seed in range(60):
        made = zoom_out(one, torch.Generator().manual_seed(seed), most=3)
        left, top, *_ = (made.boxes[0] - one.boxes[0]).int().tolist()
        assert torch.equal(made.image[:, top : top + 12, left : left + 16], one.image)
        assert torch.equal(made.boxes - one.boxes, made.boxes.new_tensor([left, top, left, top]).expand(2, 4))
        ground = made.image.sum((1, 2)) - one.image.sum((1, 2))
        pixels = made.size[0] * made.size[1] - 12 * 16
        assert torch.allclose(ground, pixels * one.image.mean((1, 2)), atol=1e-9)
        ratios.append(made.size[1] / 16)
    assert 1 <= min(ratios) < 1.2
    assert 2.8 < max(ratios) <= 3


def test_every_choice_of_the_patch_is_taken() -> None:
    """Oracle: a box that fills the picture has as IoU with a patch the patch's area. The six overlaps and the whole are
    as likely: at 1 - 1/7 of 700 a patch is not the whole, and the areas spread over the picture's.
    """
    size = (100, 100)
    full = Labelled(torch.zeros(3, *size), torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([0]))
    random = torch.Generator().manual_seed(0)
    areas = []
    for _ in range(700):
        height, width = patch(full, random).size
        areas.append(height * width / 10_000)
    whole = sum(area == 1 for area in areas)
    assert 60 < whole < 160
    assert min(areas) < 0.12
    # a seventh asks for 0.9 or more, a seventh is the whole
    assert 0.2 < sum(area >= 0.9 for area in areas) / 700 < 0.45
    assert Counter(round(4 * area) for area in areas).keys() == {0, 1, 2, 3, 4}


def test_a_patch_overlaps_some_box_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: where only an overlap of 0.5 may be chosen, every patch that is not the whole has it with some box."""
    monkeypatch.setattr(augmentation, "OVERLAPS", (0.5,))
    one, random, seen = picture(size=(24, 32)), torch.Generator().manual_seed(0), 0
    one = Labelled(one.image, 2 * one.boxes, one.labels)
    for _ in range(100):
        x0, y0, x1, y1 = found = augmentation._patch(one.boxes, one.size, random, 0.3)
        if found != (0, 0, 32, 24):
            assert 0 <= x0 < x1 <= 32
            assert 0 <= y0 < y1 <= 24
            assert iou(one.boxes, torch.tensor([found], dtype=torch.float64)).max() >= 0.5
            seen += 1
    assert 30 < seen < 70


def test_pictures_without_boxes_pass_through_all_of_it() -> None:
    """Oracle: shapes; patches are drawn for them too."""
    empty = Labelled(torch.rand(3, 20, 30), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    every, random, sizes = Augmentation(), torch.Generator().manual_seed(0), set()
    for _ in range(20):
        made = every(empty, random)
        assert (made.image.shape, made.boxes.shape, made.labels.shape) == ((3, 20, 30), (0, 4), (0,))
        sizes.add(patch(empty, random).size)
    assert len(sizes) > 5
    for other in (flip(empty), resize(empty, (5, 5)), zoom_out(empty, random), crop(empty, (-50, 0, -40, 5))):
        assert other.boxes.shape == (0, 4)


def test_all_knobs_at_zero_are_nothing() -> None:
    """Oracle: the picture itself."""
    one = picture()
    made = Augmentation(**STILL, flip=0, zoom_out=0, patch=0)(one, torch.Generator().manual_seed(0))
    assert torch.equal(made.image, one.image)
    assert torch.equal(made.boxes, one.boxes)


def test_probabilities_are_kept() -> None:
    """Oracle: counts over 300 pictures; a marked pixel tells where left and top went."""
    image = torch.zeros(3, 8, 8)
    image[:, 0, 0] = 1
    one, random = (
        Labelled(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        torch.Generator().manual_seed(3),
    )
    some = Augmentation(**STILL, flip=0.25, upside_down=0.75, zoom_out=0, patch=0)
    places = [divmod(int(some(one, random).image[0].argmax()), 8) for _ in range(300)]
    assert 50 < sum(x == 7 for _, x in places) < 100
    assert 200 < sum(y == 7 for y, _ in places) < 250


# --- endless samples ------------------------------------------------------------------------------------------------


class Five:
    """Five scenes, whose number is the label of their first object."""

    description = "five scenes."

    def __len__(self) -> int:
        return 5

    def sample(self, index: int) -> Labelled:
        scene = Scenes(seed=1, size=(32, 32), count=(1, 1))[index]
        return Labelled(scene.image, scene.boxes, torch.full((len(scene.labels),), index))


class One(Five):
    """The first of them."""

    def __len__(self) -> int:
        return 1


def test_samples_depend_on_seed_and_index_alone() -> None:
    """Oracle: asked for in another order, by another object; another seed gives others."""
    first, second = (Augmented(Five(), Augmentation(), seed=7) for _ in range(2))
    other = Augmented(Five(), Augmentation(), seed=8)
    wanted = [23, 4, 0, 11, 12]
    late = {index: second.sample(index) for index in reversed(wanted)}
    for index in wanted:
        mine = first.sample(index)
        assert all(map(torch.equal, vars(mine).values(), vars(late[index]).values()))
    assert any(not torch.equal(first.sample(k).image, other.sample(k).image) for k in range(3))


def test_each_round_shows_every_picture_once_in_its_own_order_and_made_anew() -> None:
    """Oracle: the labels number the pictures."""
    data = Augmented(Five(), Augmentation(patch=0), seed=0)
    rounds = [[int(data.sample(5 * turn + k).labels[0]) for k in range(5)] for turn in range(4)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len(set(map(tuple, rounds))) > 1
    alone = Augmented(One(), Augmentation(), seed=0)
    assert not torch.equal(alone.sample(0).image, alone.sample(1).image)
    assert data.description.startswith("five scenes. Augmentation(size=None, flip=0.5")


# --- refusals and devices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "kind", "expected"),
    [
        ({"flip": 1.5}, ValueError, "flip must be a finite number from 0 to 1, got 1.5"),
        ({"patch": "yes"}, TypeError, "patch must be a number, got 'yes'"),
        ({"zoom_out": True}, TypeError, "zoom_out must be a number, got True"),
        ({"most": 0.5}, ValueError, "most must be a finite number from 1 to 16"),
        ({"smallest": 0}, ValueError, "smallest must be a finite number from 0.01 to 1"),
        ({"hue": 200}, ValueError, "hue must be a finite number from 0 to 180"),
        ({"grey": -0.1}, ValueError, "grey must be a finite number from 0 to 1"),
        ({"contrast": float("nan")}, ValueError, "contrast must be a finite number"),
        ({"size": 96}, TypeError, r"size must be \(height, width\), got 96"),
        ({"size": (96, 0)}, ValueError, "size must be a whole number of at least 1, got 0"),
        ({"fill": 0.5}, TypeError, "fill must be three numbers"),
        ({"fill": (0.5, 2, 0)}, ValueError, "fill must be a finite number from 0 to 1, got 2"),
    ],
)
def test_knobs_out_of_range_are_named(knobs: dict[str, Any], kind: type[Exception], expected: str) -> None:
    """Oracle: the message names the field, what came and what was expected."""
    with pytest.raises(kind, match=expected):
        Augmentation(**knobs)


def test_functions_check_their_arguments_too() -> None:
    """Oracle: as above."""
    one, random = picture(), torch.Generator()
    with pytest.raises(ValueError, match="most must be a finite number of at least 1"):
        zoom_out(one, random, most=0.9)
    with pytest.raises(ValueError, match="smallest must be"):
        patch(one, random, smallest=2)
    with pytest.raises(ValueError, match="saturation must be"):
        photometric(one, random, saturation=-1)
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        Augmented(Five(), Augmentation(), seed=-1)
    with pytest.raises(ValueError, match="index must be a whole number of at least 0"):
        Augmented(Five(), Augmentation()).sample(-1)


@pytest.mark.gpu
def test_cpu_and_cuda_agree() -> None:
    """Oracle: the CPU, in double precision; random numbers come from the CPU on both."""
    every = Augmentation(size=(20, 24), upside_down=0.5, grey=0.2)
    one = picture()
    there = Labelled(one.image.cuda(), one.boxes.cuda(), one.labels.cuda())
    for seed in range(10):
        mine, others = (every(x, torch.Generator().manual_seed(seed)) for x in (one, there))
        assert others.image.is_cuda
        assert others.boxes.is_cuda
        assert torch.allclose(mine.image, others.image.cpu(), atol=1e-12)
        assert torch.allclose(mine.boxes, others.boxes.cpu(), atol=1e-12)
        assert torch.equal(mine.labels, others.labels.cpu())
