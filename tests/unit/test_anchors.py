"""Anchors: how many, how large, where; what the paper writes and the code does; rectangular pictures."""

import math
from dataclasses import FrozenInstanceError, replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.anchors import DSOD300, DSSD321, MAPS, SSD300_COCO, SSD300_VOC, Level, anchors, ssd_levels
from course_lib.detection.boxes import iou, to_cxcywh, to_pixels, to_xyxy
from course_lib.plain.detection import anchors_loop

tables = import_module("course_lib.detection.anchors")  # the package has a function of that name

COUNTS = {
    "SSD300_VOC": 8732,
    "SSD300_COCO": 8732,
    "SSD512_VOC": 24564,
    "SSD512_COCO": 24564,
    "DSOD300": 8744,
    "FSSD300": 8682,
    "FSSD300_PORT": 11620,
    "DSSD321": 17080,
    "DSSD321_OFFICIAL": 17080,
    "DSSD513": 43688,
    "RSSD300": 8732,
    "RSSD300_SHARED": 11640,
}


def side_of(name: str) -> int:
    return int(name.partition("_")[0][-3:])


def made(name: str, **options: Any) -> Tensor:
    return anchors(MAPS[name], getattr(tables, name), (side_of(name),) * 2, **options)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_how_many(name: str, count: int) -> None:
    """Oracle: the papers' and scripts' counts, and the sum over maps of places times boxes."""
    levels = getattr(tables, name)
    assert sum(h * w * level.boxes for (h, w), level in zip(MAPS[name], levels, strict=True)) == count
    assert made(name).shape == (count, 4)


def test_every_table_has_its_maps() -> None:
    """Oracle: the module's own tuples of levels."""
    named = {name for name, value in vars(tables).items() if name.isupper() and isinstance(value, tuple)}
    assert {name for name in named if not name.startswith("_")} == set(MAPS) == set(COUNTS)


def test_rssd_with_four_boxes_everywhere() -> None:
    """Oracle: 1940 places times 4."""
    four = ssd_levels(300, low=20, high=90, first=10, ratios=((2.0,),) * 6)
    assert len(anchors(MAPS["RSSD300"], four, (300, 300))) == 7760


@pytest.mark.parametrize(
    ("name", "smallest", "last"),
    [
        ("SSD300_VOC", (30, 60, 111, 162, 213, 264), 315),
        ("SSD300_COCO", (21, 45, 99, 153, 207, 261), 315),
        ("SSD512_VOC", (35, 76, 153, 230, 307, 384, 460), 537),
        ("SSD512_COCO", (20, 51, 133, 215, 296, 378, 460), 542),
        ("DSSD321", (32, 64, 121, 179, 237, 295), 353),
        ("DSSD513", (20, 51, 138, 225, 312, 400, 487), 574),
    ],
)
def test_sizes_follow_the_rule(name: str, smallest: tuple[int, ...], last: int) -> None:
    """Oracle: min and max sizes of the official scripts, cut to whole pixels as their layer does."""
    levels = getattr(tables, name)
    assert tuple(level.small for level in levels) == smallest
    assert tuple(level.large for level in levels) == (*smallest[1:], last)


def test_the_undefined_square() -> None:
    """Oracle: sqrt(small large) for SSD300, to two digits; it is the second box of each place."""
    sides = [level.sizes()[1] for level in SSD300_VOC]
    assert [round(w, 2) for w, _ in sides] == [42.43, 81.61, 134.10, 185.76, 237.13, 288.37]
    assert all(w == h for w, h in sides)


def test_the_order_in_a_place() -> None:
    """Oracle: small, sqrt, 2, 1/2, 3, 1/3 by hand, from 60 pixels: 60 sqrt(2) = 84.85, 60 sqrt(3) = 103.92."""
    rows = to_pixels(made("SSD300_VOC", dtype=torch.float64)[5776 : 5776 + 6], (300, 300))
    assert [[round(v, 2) for v in row] for row in rows[:, 2:].tolist()] == [
        [60, 60],
        [81.61, 81.61],
        [84.85, 42.43],
        [42.43, 84.85],
        [103.92, 34.64],
        [34.64, 103.92],
    ]


def test_two_rules_for_centres() -> None:
    """(i + 1/2) step / 300 against (i + 1/2) / f: the last centre of the 10 x 10 map is outside by the first rule."""
    start, stop = 5776 + 2166, 5776 + 2166 + 600
    by_step, even = made("SSD300_VOC"), made("FSSD300")
    assert float(by_step[start:stop, 0].max()) == pytest.approx(9.5 * 32 / 300)
    assert float(by_step[start:stop, 0].max()) > 1.013
    assert float(even[start:stop, 0].max()) == pytest.approx(0.95)
    first = slice(0, 5776)
    assert float(by_step[first, 0].max()) == pytest.approx(37.5 * 8 / 300)
    assert float(even[first, 0].max()) == pytest.approx(37.5 / 38)


def test_dsod_has_centres_outside() -> None:
    """Oracle: by hand, centres at 150 and 450 pixels of 300 for the 2 x 2 map."""
    last = to_pixels(made("DSOD300"), (300, 300))[-16:]
    assert set(last[:, 0].tolist()) == set(last[:, 1].tolist()) == {150.0, 450.0}
    assert DSOD300 == SSD300_VOC


def test_sizes_are_cut_to_whole_pixels() -> None:
    """Oracle: 10 % of 321 is 32.1, of which Caffe keeps 32."""
    assert DSSD321[0].small == 32
    assert float(made("DSSD321", dtype=torch.float64)[0, 2]) == 32 / 321


LEVELS = (
    Level(30, 60, (2.0, 3.0), step=8),
    Level(44.5, None, (1.6,), step=(16, 20.0), offset=0.3),
    Level(90, 100, ()),
    Level(12, None, ()),
)
SIZES = ((5, 7), (3, 4), (2, 3), (1, 1))


@pytest.mark.parametrize("picture", [(60, 60), (60, 90), (200, 31)])
def test_equals_the_plain_loop(picture: tuple[int, int]) -> None:
    """Oracle: the loop over levels, rows, columns and boxes."""
    fast = anchors(SIZES, LEVELS, picture, dtype=torch.float64)
    torch.testing.assert_close(fast, anchors_loop(SIZES, LEVELS, picture), rtol=1e-14, atol=1e-15)
    assert [level.boxes for level in LEVELS] == [6, 3, 2, 1]


def test_a_square_stays_one_on_a_rectangular_picture() -> None:
    """The trap: widths are fractions of the WIDTH. In pixels, boxes of 300 x 600 are those of 300 x 300."""
    maps, wide = MAPS["FSSD300"], (300, 600)
    levels = tables.FSSD300
    rows = to_pixels(anchors(maps, levels, wide, dtype=torch.float64), wide)
    square = to_pixels(made("FSSD300", dtype=torch.float64), (300, 300))
    torch.testing.assert_close(rows[:, 1:], square[:, 1:])  # cy, w, h
    torch.testing.assert_close(rows[:, 0], 2 * square[:, 0])


def test_a_turned_picture_has_turned_anchors() -> None:
    """Law: with h and w exchanged, places go through their transpose, and each box lies the other way."""
    level, size, picture = Level(20, 30, (2.0, 3.0)), (3, 5), (48, 100)
    rows = anchors([size], [level], picture).view(3, 5, 6, 4)
    turned = anchors([size[::-1]], [level], (100, 48)).view(5, 3, 6, 4)
    expected = turned.transpose(0, 1)[:, :, [0, 1, 3, 2, 5, 4]][..., [1, 0, 3, 2]]
    torch.testing.assert_close(rows, expected)


def test_a_larger_picture_has_more_places_of_the_same_size() -> None:
    """Law: with a step in pixels, anchors of a smaller picture are, in pixels, among those of a larger one."""
    level = Level(20, None, (2.0,), step=16)
    small = to_pixels(anchors([(4, 4)], [level], (64, 64)), (64, 64)).view(4, 4, 3, 4)
    large = to_pixels(anchors([(6, 8)], [level], (96, 128)), (96, 128)).view(6, 8, 3, 4)
    torch.testing.assert_close(large[:4, :4], small)


def test_two_ways_to_clip() -> None:
    """centre_size changes 134 anchors of SSD300 and leaves most boxes beyond the border; True cuts every box there."""
    plain, clamped, cut = (made("SSD300_VOC", clip=clip) for clip in (False, "centre_size", True))
    assert int((plain != clamped).any(-1).sum()) == 134
    assert torch.equal(clamped, plain.clamp(0, 1))
    corners = to_xyxy(cut)
    assert float(corners.min()) > -1e-6
    assert float(corners.max()) < 1 + 1e-6
    beyond = ((to_xyxy(plain) < 0) | (to_xyxy(plain) > 1)).any(-1)
    still = ((to_xyxy(clamped) < 0) | (to_xyxy(clamped) > 1)).any(-1)
    assert int(still.sum()) > 0.9 * int(beyond.sum())
    torch.testing.assert_close(cut[~beyond], plain[~beyond])


def nearest(size: tuple[float, float], levels: tuple[Level, ...] = SSD300_VOC) -> tuple[float, float]:
    """The largest IoU of an object of (w, h) pixels: where it is best placed for an anchor, and in 400 random places.

    No place is better than the middle of an anchor, where the two share most.
    """
    rows = anchors(MAPS["SSD300_VOC"], levels, (300, 300), dtype=torch.float64)
    wh = torch.tensor(size, dtype=torch.float64) / 300
    placed = to_xyxy(torch.cat((rows[:, :2], wh.expand(len(rows), 2)), -1))
    middle = torch.rand(400, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    anywhere = to_xyxy(torch.cat((wh / 2 + middle * (1 - wh), wh.expand(400, 2)), -1))
    return float(iou(placed, to_xyxy(rows), paired=True).max()), float(iou(anywhere, to_xyxy(rows)).max())


def test_a_small_object_reaches_no_half() -> None:
    """Oracle: 16 x 16 within 30 x 30 is 256 / 900 = .284; 16 x 32 within 21.2 x 42.4 is 512 / 900 = .57."""
    best, anywhere = nearest((16, 16))
    assert best == pytest.approx(256 / 900)
    assert anywhere <= best + 1e-12 < 0.5
    best, anywhere = nearest((16, 32))
    assert best == pytest.approx(512 / 900)
    assert 0.5 < anywhere <= best + 1e-12
    assert nearest((16, 16), SSD300_COCO)[0] == pytest.approx(256 / 441)  # COCO's smallest box is 21 pixels


def test_precision_and_device() -> None:
    """Oracle: float64, rounded once."""
    exact = made("SSD300_VOC", dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        rows = made("SSD300_VOC", dtype=dtype, device="cpu")
        assert rows.dtype == dtype
        assert torch.equal(rows, exact.to(dtype))
    assert made("SSD300_VOC").device.type == "cpu"


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the table of the CPU, bit for bit."""
    rows = made("SSD300_VOC", device="cuda")
    assert rows.device.type == "cuda"
    assert torch.equal(rows.cpu(), made("SSD300_VOC"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"small": 0}, "small must be above 0 and finite, got 0"),
        ({"large": -1.0}, r"large must be above 0 and finite, got -1\.0"),
        ({"small": math.nan}, "small must be above 0 and finite, got nan"),
        ({"ratios": (2.0, 0.0)}, r"ratios must be above 0 and finite, got \(2\.0, 0\.0\)"),
        ({"step": 0}, "step must be above 0 and finite, got 0"),
        ({"step": (8, -8.0)}, r"step must be above 0 and finite, got \(8, -8\.0\)"),
    ],
)
def test_a_wrong_level_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LEVELS[0], **change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"maps": ((5, 7),)}, ValueError, "maps and levels must be as many, at least one; got 1 and 4"),
        ({"maps": (), "levels": ()}, ValueError, "maps and levels must be as many, at least one; got 0 and 0"),
        ({"maps": ((5, 7), (3, 4, 1), (2, 2), (1, 1))}, ValueError, r"must be \(rows, columns\), got \(3, 4, 1\)"),
        ({"dtype": torch.int64}, TypeError, "dtype must be a floating-point one, got torch.int64"),
        ({"maps": ((5, 7), (3, 4), (2, 0), (1, 1))}, ValueError, "each size of maps must be at least 1, got 0"),
        ({"maps": ((5, 7), (3, 4.0), (2, 2), (1, 1))}, TypeError, "each size of maps must be a whole number"),
        (
            {"picture": (300, 0)},
            ValueError,
            r"picture must be \(height, width\), .* and finite, got \(300, 0\)",
        ),
        ({"picture": 300}, ValueError, r"picture must be \(height, width\), both above 0 and finite, got 300"),
        ({"clip": "corners"}, ValueError, "clip must be False, True or 'centre_size', got 'corners'"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        anchors(**({"maps": SIZES, "levels": LEVELS, "picture": (60, 60)} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratios": ((2.0,),) * 2}, "ratios must have 3 entries or more"),
        ({"steps": (8, 16)}, "steps and offsets as many; got 4"),
        ({"offsets": (0.5,) * 5}, "steps and offsets as many; got 4"),
        ({"low": 95}, "must be rising and above 0, got 10, 95 and 90"),
        ({"first": 0}, "must be rising and above 0, got 0, 20 and 90"),
        ({"first": 30}, "must be rising and above 0, got 30, 20 and 90"),
    ],
)
def test_a_wrong_rule_is_named(change: dict[str, Any], message: str) -> None:
    rule: dict[str, Any] = {"picture": 300, "low": 20, "high": 90, "first": 10, "ratios": ((2.0,),) * 4}
    with pytest.raises(ValueError, match=message):
        ssd_levels(**(rule | change))


def test_levels_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        LEVELS[0].small = 1  # type: ignore[misc]


def test_formats_agree() -> None:
    """Oracle: corners and back, on the whole table."""
    rows = made("DSSD321_OFFICIAL", dtype=torch.float64)
    torch.testing.assert_close(to_cxcywh(to_xyxy(rows)), rows, rtol=1e-12, atol=1e-12)
