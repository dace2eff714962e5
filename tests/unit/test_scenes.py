import hashlib
import math
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.measure
import torch

from course_lib import datasets
from course_lib.bench import scenes as bench
from course_lib.datasets import SHAPES, Scenes, textures
from course_lib.datasets.layout import Layout
from course_lib.datasets.shapes import DISTRACTORS, Stamp, fitted, stamp

ALL = tuple(SHAPES)

# --- shapes ---------------------------------------------------------------------------------------------------------

STAR = [(r * math.cos(k * math.pi / 5), r * math.sin(k * math.pi / 5)) for k in range(10) for r in [(1, 0.46)[k % 2]]]
BITE = 2 * math.acos((0.85**2 + 0.55**2 - 1) / (2 * 0.85 * 0.55)), 2 * math.acos((1 + 0.55**2 - 0.85**2) / (2 * 0.55))
LENS = 0.85**2 / 2 * (BITE[0] - math.sin(BITE[0])) + (BITE[1] - math.sin(BITE[1])) / 2
AREAS = {
    "disc": math.pi,
    "square": 4,
    "triangle": 3 * math.sqrt(3) / 4,
    "ring": math.pi * (1 - (1 - 2 * 0.23) ** 2),
    "cross": 8 * 0.3 - 4 * 0.3**2,
    "star": 5 * 0.46 * math.sin(math.pi / 5),
    "ellipse": math.pi * 0.55,
    "bar": 4 * 0.27,
    "crescent": math.pi - LENS,
    "hexagon": 3 * math.sqrt(3) / 2,
    "frame": 4 - 4 * (1 - 2 * 0.24) ** 2,
    "half_disc": math.pi / 2,
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_their_areas(name: str) -> None:
    """Oracle: the area of each figure by school geometry (crescent: a circle less a lens), at detail 1/2, turned."""
    made = stamp(SHAPES[name], 0.5, 0.7, 90.0, (0.3, 0.6))
    assert made is not None
    assert made.inside.sum() / 90**2 == pytest.approx(AREAS[name], rel=0.01)
    assert made.alpha.sum() / 90**2 == pytest.approx(AREAS[name], rel=0.01)
    assert np.array_equal(made.alpha > 0.5, made.inside)


@pytest.mark.parametrize(
    ("name", "corners"),
    [
        ("square", [(1, 1), (1, -1), (-1, -1), (-1, 1)]),
        ("triangle", [(math.cos(a), math.sin(a)) for a in (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)]),
        ("hexagon", [(math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)) for k in range(6)]),
        ("star", STAR),
    ],
)
def test_polygons_hold_the_points_of_their_corners(name: str, corners: list[tuple[float, float]]) -> None:
    """Oracle: scikit-image's point-in-polygon on the turned and scaled corners, at every pixel's centre."""
    turn, reach, (down, right) = 0.4, 23.0, (0.37, 0.81)
    made = stamp(SHAPES[name], 0.5, turn, reach, (down, right))
    assert made is not None
    c, s = math.cos(turn), math.sin(turn)
    polygon = [(reach * (s * u + c * v) + down, reach * (c * u - s * v) + right) for u, v in corners]
    height, width = made.inside.shape
    top, left = (math.floor(min(p[axis] for p in polygon)) - 1 for axis in (0, 1))
    places = np.stack(np.mgrid[top : top + height, left : left + width], axis=-1).reshape(-1, 2)
    expected = skimage.measure.points_in_poly(places, polygon)  # type: ignore[no-untyped-call]
    assert np.array_equal(made.inside.ravel(), expected)


def test_edges_are_smooth_by_the_part_that_is_covered() -> None:
    """Oracle: an upright square from -1.7 to 2.3: its edge pixels are covered by 0.8 (and 0.2, whose centres are
    outside).
    """
    made = stamp(SHAPES["square"], 0.5, 0, 2.0, (0.3, 0.3))
    assert made is not None
    middle = made.alpha[made.alpha.shape[0] // 2]
    assert middle[middle > 0].tolist() == pytest.approx([0.2, 1, 1, 1, 0.8], abs=1e-6)
    assert made.box[2:] == (4, 4)


@pytest.mark.parametrize("name", SHAPES)
def test_short_sides_are_exact(name: str) -> None:
    """Oracle: from the first to the last row and column of the mask; turned by 45 degrees, boxes are about square."""
    generator, missed = np.random.default_rng(0), 0
    for side in [4, 5, 6, 7, 8, 9, 11, 13, 16, 21, 33] * 6:
        detail, turn, *phase = generator.random(4).tolist()
        made = fitted(SHAPES[name], detail, 7 * turn, side, (phase[0], phase[1]))
        missed += made is None
        if made:
            extents = [1 + int(np.ptp(np.flatnonzero(made.inside.any(axis)))) for axis in (1, 0)]
            assert min(extents) == side
            assert list(made.box[2:]) == extents
        square = fitted(SHAPES[name], detail, math.pi / 4, side, (phase[0], phase[1]))
        assert square is None or abs(square.box[2] - square.box[3]) <= 2
    assert missed <= 1


@pytest.mark.parametrize("name", [*SHAPES, *DISTRACTORS])
def test_hulls_reach_as_far_as_shapes(name: str) -> None:
    """Oracle: nothing touches the border of the stamp, and the hull is not much too large (distractors: may be)."""
    shape = {**SHAPES, **DISTRACTORS}[name]
    for detail in (0, 0.5, 1):
        for turn in (0, 0.5, 1.9, 4):
            made = stamp(shape, detail, turn, 40.0, (0.5, 0.5))
            assert made is not None
            height, width = made.alpha.shape
            ring = np.ones((height, width), dtype=bool)
            ring[1:-1, 1:-1] = False
            assert not made.inside[ring].any()
            if name in SHAPES:
                assert height - made.box[2] <= 6
                assert width - made.box[3] <= 6


# --- layout ---------------------------------------------------------------------------------------------------------


def block(height: int, width: int) -> Stamp:
    inside = np.pad(np.ones((height, width), dtype=bool), 1)
    return Stamp(inside.astype(np.float32), inside, (1, 1, height, width))


def test_boxes_may_not_share_more_than_they_may() -> None:
    """Oracle: by hand: two 4 x 6 boxes shifted by 3 columns share 12 of 36 pixels, a third."""
    for overlap, fits in ((0.33, False), (0.34, True)):
        layout = Layout((10, 20), overlap, hidden=0.95, least=1)
        assert layout.offer(block(4, 6), 2, 1)
        assert layout.offer(block(4, 6), 5, 1) == fits
        assert not layout.offer(block(4, 6), 2, 1)


def test_boxes_shrink_to_what_shows() -> None:
    """Oracle: by hand: a block of 4 x 8 whose three right columns are covered shows 4 x 5, 20 of 32 pixels."""
    for hidden, fits in ((0.37, False), (0.38, True)):
        layout = Layout((10, 20), 1, hidden, least=4)
        assert layout.offer(block(4, 8), 2, 1)
        assert layout.offer(block(6, 6), 7, 0) == fits
        assert layout.boxes == ([(2, 1, 7, 5), (7, 0, 13, 6)] if fits else [(2, 1, 10, 5)])
        assert (layout.owner == 1).sum() == (20 if fits else 32)
    # half of it is not more than half; and what was covered before counts too: 16 + 4 of 32 pixels
    layout = Layout((10, 20), 1, 0.5, least=1)
    assert layout.offer(block(4, 8), 2, 1)
    assert layout.offer(block(6, 4), 6, 0)
    assert not layout.offer(block(4, 1), 2, 1)
    # a corner that is covered leaves the box as it is
    layout = Layout((10, 20), 1, 0.5, least=4)
    assert layout.offer(block(5, 5), 0, 0)
    assert layout.offer(block(2, 2), 3, 3)
    assert layout.boxes == [(0, 0, 5, 5), (3, 3, 5, 5)]


def test_what_shows_must_not_be_too_small_or_too_close() -> None:
    """Oracle: by hand: 2 of 6 columns would show; and boxes that shrink may come to share more than they may."""
    layout = Layout((10, 20), 1, 0.9, least=3)
    assert layout.offer(block(4, 6), 2, 1)
    assert not layout.offer(block(4, 4), 4, 1)
    # a wide flat block (12 x 2) over a tall one (4 x 10) shares 8 of 56 pixels; cut to 6 x 2 it is 8 of 44;
    # what cuts it shares 12 of 72 with it
    for overlap, fits in ((0.17, False), (0.19, True)):
        layout = Layout((12, 20), overlap, 0.9, least=2)
        assert layout.offer(block(10, 4), 0, 0)
        assert layout.offer(block(2, 12), 0, 4)
        assert layout.offer(block(10, 6), 6, 0) == fits


# --- textures -------------------------------------------------------------------------------------------------------


def test_textures_are_free_photographs() -> None:
    """Oracle: the photographs themselves, rounded means of 2 x 2 pixels, and their notes."""
    assert len(textures.bank(True)) == len(textures.TEXTURES)
    for name, levels in zip(textures.TEXTURES, textures.bank(True), strict=True):
        assert datasets.PHOTOGRAPHS[name].startswith(("CC0", "public domain"))
        full = (255 * datasets.photograph(name)).round().expand(3, -1, -1)
        assert np.array_equal(levels[0], full.numpy())
        half = torch.nn.functional.avg_pool2d(full, 2)
        assert np.array_equal(levels[1], (half + 0.5).floor().numpy())
        assert len(levels) == 3


def test_noise_is_smooth_and_fills_the_range() -> None:
    """Oracle: neighbours differ by a few grey values while the whole spreads over many."""
    for levels in textures.bank(False):
        values = levels[0].astype(np.float64)
        assert values.std() > 25
        assert np.abs(np.diff(values)).mean() < 8


def test_windows_are_cut_out_of_pictures() -> None:
    """Oracle: places by hand; too small a picture goes on as its mirror image."""
    picture = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
    draws = iter([0.0, 0.0, 0.5, 0.99, 0.5])  # picture, level, order (1, 2, 0), bottom, middle
    came = textures.window(([picture, picture[:, ::2, ::2]],), draws.__next__, 2, 3)
    assert came.dtype == np.float32
    assert np.array_equal(came, picture[[1, 2, 0], 2:4, 2:5])
    draws = iter([0.0, 0.99, 0.0, 0.0, 0.0])
    came = textures.window(([picture, picture[:, ::2, ::2]],), draws.__next__, 2, 3)
    assert np.array_equal(came, picture[:, ::2, ::2])
    draws = iter([0.0, 0.99, 0.0, 0.0, 0.0])
    came = textures.window(([picture, picture[:, ::2, ::2]],), draws.__next__, 9, 6)
    both = np.concatenate([picture, picture[:, ::-1], picture[:, :1]], axis=1)
    assert np.array_equal(came, both)


# --- scenes ---------------------------------------------------------------------------------------------------------


def digest(scenes: Scenes, indices: range) -> str:
    total = hashlib.sha256()
    for index in indices:
        scene = scenes[index]
        for part in (scene.image, scene.boxes, scene.labels, scene.instances):
            total.update(part.numpy().tobytes())
    return total.hexdigest()[:16]


HARD: dict[str, Any] = {"size": (48, 80), "classes": ALL, "count": (3, 9), "object_size": (5, 24), "clutter": 1.5}


def test_scenes_are_the_same_everywhere() -> None:
    """Oracle: recorded digests of bytes, here and in a new process that asks for one scene only; noise needs no
    photograph.
    """
    assert digest(Scenes(), range(20)) == "1295849f7df6c2f4"
    assert digest(Scenes(**HARD, seed=7, textures=False), range(20)) == "d84323fa48f682d2"
    code = (
        f"from course_lib.datasets import Scenes; import hashlib\n"
        f"image = Scenes(**{HARD!r})[123456789].image\nprint(hashlib.sha256(image.numpy().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    image = Scenes(**HARD)[123456789].image
    assert done.stdout.split() == [hashlib.sha256(image.numpy().tobytes()).hexdigest()]


def test_workers_and_threads_get_the_same() -> None:
    """Oracle: one after the other; a worker gets the knobs alone, in less than 1 kB, and shared textures stay whole."""
    scenes = Scenes(**HARD)
    before = hashlib.sha256(b"".join(level.tobytes() for p in textures.bank(True) for level in p)).digest()
    expected = [scenes[index].image for index in range(40)]
    with ThreadPoolExecutor(4) as pool:
        came = list(pool.map(lambda index: scenes[index].image, range(40)))
    assert all(map(torch.equal, came, expected))
    packed = pickle.dumps(scenes)
    assert len(packed) < 1000
    assert torch.equal(pickle.loads(packed)[3].image, expected[3])
    assert before == hashlib.sha256(b"".join(level.tobytes() for p in textures.bank(True) for level in p)).digest()


def test_sizes_classes_and_counts_are_spread_as_promised() -> None:
    """Oracle: log-uniform sizes, p(k) = log((k + 1) / k) / log(17 / 5); equal shares; 5 standard deviations; objects
    reach every border.
    """
    scenes = Scenes(size=(20, 24), classes=ALL, count=(1, 2), object_size=(5, 16), overlap=1, textures=False)
    sides: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    edges = set()
    for index in range(1000):
        scene = scenes[index]
        small = [box for box in scene.boxes.tolist() if box[2] - box[0] < 12 and box[3] - box[1] < 12]
        edges |= {(corner, value) for box in small for corner, value in enumerate(box)}
        counts[len(scene.labels)] += 1
        if len(scene.labels) == 1:  # a second object may find no place, but large and small alike are drawn
            x0, y0, x1, y1 = scene.boxes[0].tolist()
            sides[int(min(x1 - x0, y1 - y0))] += 1
            classes[int(scene.labels[0])] += 1
    n = sum(sides.values())
    assert {(0, 0), (1, 0), (2, 24), (3, 20)} <= edges
    assert set(counts) == {1, 2}
    assert counts[2] > 400
    expected = {k: math.log((k + 1) / k) / math.log(17 / 5) for k in range(5, 17)}
    for spread, shares in ((sides, expected), (classes, dict.fromkeys(range(12), 1 / 12))):
        assert set(spread) == set(shares)
        for key, share in shares.items():
            assert abs(spread[key] - n * share) < 5 * (n * share * (1 - share)) ** 0.5, key


def test_crowds_hold_what_they_should() -> None:
    """Oracle: the knob: where there is room every object finds a place; where there is none, fewer are there; the large
    ones come first."""
    crowd = Scenes(size=(64, 64), count=(12, 12), object_size=(4, 10), overlap=0)
    for index in range(20):
        boxes = crowd[index].boxes
        assert len(boxes) == 12
        short = (boxes[:, 2:] - boxes[:, :2]).min(1).values
        assert torch.equal(short, short.sort(descending=True).values)
    packed = Scenes(size=(16, 16), count=(9, 9), object_size=(12, 16), overlap=0)
    assert {len(packed[index].labels) for index in range(10)} == {1}
    none = Scenes(count=(0, 0))[5]
    assert none.boxes.shape == (0, 4)
    assert none.masks.shape == (0, 64, 64)
    assert none.labels.shape == (0,)
    assert none.semantic().max() == 0


def test_objects_as_large_as_the_picture() -> None:
    """Oracle: sides by hand: long shapes are turned until they fit."""
    scenes = Scenes(size=(20, 40), classes=("bar", "ellipse"), count=(1, 1), object_size=(18, 20))
    sides = [scenes[index].boxes.tolist() for index in range(40)]
    assert sum(len(boxes) for boxes in sides) >= 38
    assert all(box[2] <= 40 and box[3] <= 20 for boxes in sides for box in boxes)


def test_contrast_is_the_distance_between_means() -> None:
    """Oracle: the same scene without contrast: inside, all pixels differ by one colour of that root mean square."""
    flat, strong = (Scenes(count=(1, 1), contrast=c, textures=False) for c in (0.0, 0.2))
    seen = 0
    for index in range(40):
        plain, bold = flat[index], strong[index]
        whole = plain.masks[0] & (bold.image > 0).all(0) & (bold.image < 1).all(0)
        whole &= (plain.image > 0).all(0) & (plain.image < 1).all(0)
        # the smooth edge is no part of it
        outside = torch.nn.functional.pad(~whole[None], (1, 1, 1, 1), value=True).float()
        inner = torch.nn.functional.max_pool2d(outside, 3, 1)[0] == 0
        steps = (bold.image - plain.image)[:, inner]
        if inner.sum() > 20:
            seen += 1
            assert (steps.max(1).values - steps.min(1).values).max() < 2.1 / 255
            assert steps.mean(1).square().mean().sqrt().item() == pytest.approx(0.2, abs=0.01)
    assert seen > 20


def test_clutter_lies_behind_and_has_no_label() -> None:
    """Oracle: the same scene without it: the picture changes, and most of the change is outside the objects."""
    plain, busy = Scenes(), Scenes(clutter=4.0)
    changed = 0.0
    for index in range(30):
        a, b = plain[index], busy[index]
        assert torch.equal(a.instances, b.instances)
        where = ((a.image - b.image).abs() > 0.1).any(0)
        changed += where.float().mean().item()
        assert where[a.instances > 0].float().mean() <= 1
    assert changed / 30 > 0.03
    knobs: dict[str, Any] = {"count": (2, 2), "clutter": 3.0}
    assert torch.equal(Scenes(**knobs)[0].image, Scenes(**knobs)[0].image)


def test_colour_does_not_give_objects_away() -> None:
    """Oracle: over many scenes objects and ground have the same mean colour to a tenth, and both spread widely."""
    scenes = Scenes(classes=ALL, clutter=1.0)
    inside: list[npt.NDArray[Any]] = []
    outside: list[npt.NDArray[Any]] = []
    for index in range(150):
        scene = scenes[index]
        on = scene.instances > 0
        inside.append(scene.image[:, on].numpy())
        outside.append(scene.image[:, ~on].numpy())
    first, second = np.concatenate(inside, axis=1), np.concatenate(outside, axis=1)
    assert np.abs(first.mean(1) - second.mean(1)).max() < 0.1
    assert first.std(1).min() > 0.15
    assert second.std(1).min() > 0.12


def test_the_meaning_of_each_tensor_by_one_scene() -> None:
    """Oracle: two objects: boxes count pixel edges, classes count from 1 in the semantic map, front objects last."""
    scenes = Scenes(classes=("ring", "star"), count=(2, 2), object_size=(12, 20))
    scene = next(s for s in map(scenes.sample, range(50)) if s.labels.tolist() == [1, 0])
    assert scene.classes == ("ring", "star")
    assert scene.semantic()[scene.masks[0]].unique().tolist() == [2]
    assert scene.semantic()[scene.masks[1]].unique().tolist() == [1]
    x0, y0, x1, y1 = map(int, scene.boxes[1].tolist())
    assert scene.masks[1][y0:y1, x0:x1].sum() == scene.masks[1].sum()
    assert torch.equal(scenes[3].image, scenes.sample(3).image)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"size": 64}, "size must be (height, width), two numbers, got 64"),
        ({"size": (64, 3)}, "size must be a whole number of at least 4, got 3"),
        ({"size": (64, 64.0)}, "size must be a whole number, got 64.0"),
        ({"classes": "disc"}, "classes must be a tuple of names, at least one, got 'disc'"),
        ({"classes": ()}, "classes must be a tuple of names, at least one, got ()"),
        ({"classes": ("disc", "cat")}, "classes must be different names among disc, square"),
        ({"classes": ("disc", "disc")}, "got ('disc', 'disc')"),
        ({"count": (3, 2)}, "count must be (least, most) with least <= most, got (3, 2)"),
        ({"count": (-1, 2)}, "count must be a whole number from 0 to 1000, got -1"),
        ({"count": (1, 1001)}, "count must be a whole number from 0 to 1000, got 1001"),
        ({"count": 3}, "count must be (least, most), two numbers, got 3"),
        ({"count": {1, 4}}, "count must be (least, most), two numbers, got {1, 4}"),
        ({"count": {1: 2, 3: 4}}, "count must be (least, most), two numbers, got {1: 2, 3: 4}"),
        ({"size": "64"}, "size must be (height, width), two numbers, got '64'"),
        ({"object_size": (3, 20)}, "object_size must be from 4 to 64, got 3"),
        ({"object_size": (10, 65)}, "object_size must be from 4 to 64, got 65"),
        ({"size": (64, 20)}, "object_size must be from 4 to 20, got 30"),
        ({"object_size": (20, 10)}, "object_size must be (least, most) with a whole number between them"),
        ({"object_size": (10.2, 10.8)}, "object_size must be (least, most) with a whole number between them"),
        ({"object_size": ("a", 10)}, "object_size must be a number, got 'a'"),
        ({"overlap": 1.5}, "overlap must be from 0 to 1, got 1.5"),
        ({"overlap": math.nan}, "overlap must be from 0 to 1, got nan"),
        ({"hidden": 1}, "hidden must be from 0 to 0.95, got 1"),
        ({"clutter": -1}, "clutter must be from 0 to 100, got -1"),
        ({"contrast": 0.6}, "contrast must be from 0 to 0.5, got 0.6"),
        ({"contrast": None}, "contrast must be a number, got None"),
        ({"textures": 1}, "textures must be True (photographs) or False (noise), got 1"),
    ],
)
def test_errors_name_the_knob(knobs: dict[str, Any], message: str) -> None:
    """Oracle: knob, what was expected, what came."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Scenes(**knobs)


def test_scenes_are_told_apart() -> None:
    """Oracle: knobs for the source, which caches rely on; identity for a scene, whose tensors have no one answer."""
    one, two = Scenes(size=(32, 48), object_size=(8, 16)), Scenes(size=[32, 48], object_size=[8, 16], count=[1, 4])  # type: ignore[arg-type]
    assert one == two
    assert hash(one) == hash(two)
    assert repr(one) == repr(two)
    scene = one[0]
    assert scene == scene
    assert scene != one[0]


@pytest.mark.parametrize("index", [-1, 0.5, "a", True])
def test_an_index_is_a_whole_number(index: Any) -> None:
    """Oracle: the docstring; numpy's whole numbers are whole."""
    with pytest.raises((TypeError, ValueError), match="index must be a whole number"):
        Scenes()[index]
    assert torch.equal(Scenes()[np.int64(2)].image, Scenes()[2].image)  # type: ignore[index]


# --- bench ----------------------------------------------------------------------------------------------------------


def test_bench_counts_examples_by_processor_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: a clock that only the samples move: 1, 2, 3, 4 seconds each; the first block is not counted."""
    clock, calls = [0.0], []

    def sample(index: int) -> None:
        calls.append(index)
        clock[0] += 1 + index // 50

    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    assert bench._rate(sample, 3) == pytest.approx(1 / 3)
    assert calls == list(range(200))
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        bench.run(0)


def test_bench_tells_what_was_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: the cases, and a table with a line for each."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(bench, "BLOCK", 2)
    monkeypatch.setattr(bench, "SCENES", {"two": Scenes(count=(2, 2), textures=False)})
    monkeypatch.setattr(bench, "_PAIRS", [(8, 4, "luminance")])
    values = bench.run(1)
    assert values["source"] == "photographs"
    assert [row["setting"] for row in values["scenes"]] == ["two"]
    assert values["scenes"][0]["objects"] == 2
    assert values["scenes"][0]["per_second"] > 0
    assert "4 x 4 -> 32 x 32, luminance" in bench.table(values)
    assert bench.table(values).count("\n") == 4
