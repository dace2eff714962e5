"""Patches and queries for networks of any scale. Oracles: the large patch put together again from its queries, the
file's own pictures, and how often things must come by the rules of chance.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.datasets.pairs import SRPairs
from course_lib.datasets.queries import AnyScalePairs
from course_lib.upsampling import resize

Sample = tuple[Tensor, Tensor, Tensor, Tensor]


def side_of(sample: Sample) -> int:
    """Return how many pixels the crop has on each side, as its cells tell."""
    cells = sample[2]
    assert torch.equal(cells, cells[:1, :1].expand_as(cells))
    return round(2 / float(cells[0, 0]))


def pixels_of(sample: Sample) -> Tensor:
    """Return which pixels (Q, 2) of the crop are asked for; every coordinate must be the centre of one."""
    n = side_of(sample)
    exact = ((sample[1].double() + 1) * n - 1) / 2
    pixels = exact.round()
    assert (exact - pixels).abs().max() < 1e-4
    assert 0 <= pixels.min() <= pixels.max() < n
    return pixels.long()


def crop_of(sample: Sample) -> Tensor:
    """Return the crop (3, n, n), put together from all of its pixels."""
    n, pixels = side_of(sample), pixels_of(sample)
    assert len(pixels) == n * n
    crop = torch.full((3, n, n), torch.nan)
    crop[:, pixels[:, 0], pixels[:, 1]] = sample[3].T
    assert not crop.isnan().any()
    return crop


@pytest.mark.parametrize("scale", [1.0, 1.7, 2.0, 3.4])
def test_the_small_patch_is_the_crop_shrunk(tiny_set: Path, scale: float) -> None:
    """Oracle: `resize` in float64, rounded to 8 bits, of the crop that all of its queries make, in all symmetries."""
    n = round(7 * scale)
    pairs = AnyScalePairs(7, n * n, (scale, scale))
    for index in range(24):
        sample = pairs.sample(index)
        lr, coordinates, cells, colours = sample
        assert all(part.dtype == torch.float32 for part in sample)
        assert (lr.shape, colours.shape) == ((3, 7, 7), (n * n, 3))
        assert coordinates.shape == cells.shape == (n * n, 2)
        small = resize(crop_of(sample).double(), size=7, border="symmetric").clamp(0, 1)
        assert torch.equal(lr, ((255 * small + 0.5).floor() / 255).float())


def test_crops_are_of_the_pictures_in_all_symmetries(tiny_set: Path) -> None:
    """Oracle: every window of both pictures, turned in 8 ways; a picture comes as often as its area says (5 sigma)."""
    pairs = AnyScalePairs(13, 26 * 26, (2, 2))
    windows = {}
    for name in ("test/b", "train/a"):
        picture = datasets.read_picture(tiny_set / f"{name}.png")
        for y in range(picture.shape[1] - 25):
            for x in range(picture.shape[2] - 25):
                windows[picture[0, y : y + 26, x : x + 26].numpy().tobytes()] = (name, y, x)
    seen, wide, draws = set(), 0, 1200
    for index in range(draws):
        crop = crop_of(pairs.sample(index))[0].numpy()
        turns = {
            (swap, rows, columns): np.ascontiguousarray(
                (crop.T if swap else crop)[:: -1 if rows else 1, :: -1 if columns else 1]
            ).tobytes()
            for swap in (0, 1)
            for rows in (0, 1)
            for columns in (0, 1)
        }
        ((turn, place),) = [(turn, windows[key]) for turn, key in turns.items() if key in windows]
        seen.add((turn, place))
        wide += place[0] == "test/b"
    assert len({turn for turn, _ in seen}) == 8
    assert {place for _, place in seen} == set(windows.values())
    share = 26 * 90 / (26 * 90 + 40 * 31)
    assert abs(wide - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("queries", [40, 67, 100])
def test_no_pixel_comes_twice_and_all_alike(tiny_set: Path, queries: int) -> None:
    """Oracle: a set of pairs has as many members as there are queries; each of 10 x 10 pixels comes in Q of 100 samples
    (5.5 standard deviations of 800 draws).
    """
    pairs = AnyScalePairs(10, queries, (1, 1))
    counts, draws = torch.zeros(10, 10), 800
    for index in range(draws):
        pixels = pixels_of(pairs.sample(index))
        assert len({(int(y), int(x)) for y, x in pixels}) == queries
        counts.index_put_((pixels[:, 0], pixels[:, 1]), torch.tensor(1.0), accumulate=True)
    share = queries / 100
    assert (counts - draws * share).abs().max() <= 5.5 * (draws * share * (1 - share)) ** 0.5


def test_scales_are_drawn_evenly(tiny_set: Path) -> None:
    """Oracle: sides from 8 to 24 pixels; a factor even in [1, 3] gives the outermost sides half as often as others."""
    pairs = AnyScalePairs(8, 10, (1, 3))
    draws = 2000
    sides = torch.tensor([side_of(pairs.sample(index)) for index in range(draws)]).bincount(minlength=25)
    assert sides[:8].sum() == 0
    expected = torch.tensor([1 / 32, *[1 / 16] * 15, 1 / 32]) * draws
    assert ((sides[8:] - expected).abs() < 5 * expected.sqrt()).all()


def test_a_sample_is_a_function_of_seed_and_index(tiny_set: Path) -> None:
    """Oracle: the same bits in another order and from another object; others for other seeds and indices; not those of
    the pairs for one scale.
    """
    pairs, again = AnyScalePairs(5, 9, seed=3), AnyScalePairs(5, 9, seed=3)
    forwards = [pairs.sample(index) for index in range(12)]
    for index in reversed(range(12)):
        assert all(map(torch.equal, forwards[index], again.sample(index)))
    assert len({sample[0].numpy().tobytes() for sample in forwards}) == 12
    assert not torch.equal(AnyScalePairs(5, 9, seed=4).sample(0)[0], forwards[0][0])
    for part in forwards[0]:
        part.zero_()
    assert all(part.any() for part in pairs.sample(0))  # a sample is the caller's own


def test_recorded_bits(tiny_set: Path) -> None:
    """Oracle: a sample recorded when this was written: other machines must make the same."""
    lr, coordinates, cells, colours = AnyScalePairs(4, 3, seed=1).sample(5)
    assert (255 * lr[0, 0]).round().int().tolist() == [121, 138, 132, 139]
    assert pixels_of((lr, coordinates, cells, colours)).tolist() == [[0, 5], [2, 7], [5, 1]]
    assert side_of((lr, coordinates, cells, colours)) == 10
    assert (255 * colours).round().int().tolist() == [[61, 76, 50], [84, 185, 127], [178, 15, 244]]


def test_pictures_and_description(tiny_set: Path) -> None:
    """Oracle: shapes by hand: a patch of 8 at scale 4 needs 32 x 32 pixels, which no picture has, one of 7 needs 28."""
    pairs = AnyScalePairs(6, 5)
    assert (pairs.source, pairs.names) == ("BSDS500", ["b", "a"])
    assert pairs.description.startswith("2 pictures of BSDS500")
    assert "shrunk by 1 to 4, bicubic, antialiased, symmetric border, rounded to 8 bits" in pairs.description
    assert pairs.description.endswith("Licence: free.")
    assert AnyScalePairs(7, 5).names == ["a"]
    with pytest.raises(ValueError, match=r"patch must be at most 7 at scales up to 4, .*BSDS500.*; got 8"):
        AnyScalePairs(8, 5)


def test_grey_pictures_have_three_equal_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by definition; without the set free photographs are used, and the licence says so."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    pairs = AnyScalePairs(9, 20)
    assert pairs.source == "photographs"
    assert "CC0 or public domain" in pairs.description
    grey = pairs._pictures[pairs.names.index("camera")]
    assert np.array_equal(grey, np.asarray(datasets.to_uint8(datasets.photograph("camera")))[None].repeat(3, 0))


def test_pairs_for_one_scale_can_be_rounded(tiny_set: Path) -> None:
    """Oracle: the same pairs, not rounded, clamped and rounded to 8 bits by hand; the card says so."""
    plain, rounded = (SRPairs(2, 6, channels="rgb", rounded=flag) for flag in (False, True))
    for index in range(10):
        (low, high), (low8, high8) = plain.sample(index), rounded.sample(index)
        assert torch.equal(high, high8)
        assert torch.equal(low8, ((255 * low8).round() / 255))
        assert (low8 - low.clamp(0, 1)).abs().max() < 0.5 / 255 + 1e-6
    assert "not rounded" in plain.description
    assert "rounded to 8 bits" in rounded.description


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 0}, "patch must be a whole number of at least 1, got 0"),
        ({"patch": "8"}, "patch must be a whole number, got '8'"),
        ({"queries": 0}, "queries must be a whole number of at least 1, got 0"),
        ({"queries": 65}, "queries must be at most the 8 x 8 pixels of a patch, got 65"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"scales": 3}, "scales must be (least, most), got 3"),
        ({"scales": (1, 2, 3)}, "scales must be (least, most), got (1, 2, 3)"),
        ({"scales": (0.5, 2)}, "scales must be (least, most) with 1 <= least <= most <= 16, got (0.5, 2)"),
        ({"scales": (3, 2)}, "scales must be (least, most) with 1 <= least <= most <= 16, got (3, 2)"),
        ({"scales": (1, float("nan"))}, "scales must be (least, most) with 1 <= least"),
        ({"scales": (1, "x")}, "scales must be two numbers, got (1, 'x')"),
        ({"source": "DIV2K"}, "source must be one of 'auto', 'BSDS500', 'photographs', got 'DIV2K'"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    """Oracle: argument, what was expected, what came; before any picture is read."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        AnyScalePairs(**{"patch": 8, "queries": 4, **arguments})


@pytest.mark.parametrize("index", [-1, 1.0, None])
def test_an_index_is_a_whole_number(tiny_set: Path, index: Any) -> None:
    """Oracle: the docstring."""
    with pytest.raises((TypeError, ValueError), match="index must be a whole number"):
        AnyScalePairs(4, 4).sample(index)
