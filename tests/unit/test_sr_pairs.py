import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.datasets import SRPairs, pairs
from course_lib.datasets.counter import random_bits
from course_lib.super_resolution.metrics import benchmark
from course_lib.upsampling import resize


@pytest.fixture
def no_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))


def small_in_benchmark(picture: Tensor, scale: int) -> Tensor:
    seen: list[Tensor] = []

    def model(low: Tensor, scale: int) -> Tensor:
        seen.append(low)
        return low.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    benchmark(picture, model, scale)
    return seen[0]


@pytest.mark.parametrize("scale", [2, 3])
def test_the_small_picture_is_the_one_of_the_benchmark(tiny_set: Path, scale: int) -> None:
    """Oracle: what `metrics.benchmark` hands to its model, bit for bit after one rounding to float32."""
    pairs = SRPairs(scale, 4, source="BSDS500")
    for name, small in zip(("train/a", "test/b"), reversed(pairs._small), strict=True):
        picture = datasets.read_picture(tiny_set / f"{name}.png")
        assert np.array_equal(small, small_in_benchmark(picture, scale).float().numpy())


def test_left_out_pictures_are_left_out(tiny_set: Path) -> None:
    """Oracle: the registry's list, and the licence that it states."""
    pairs = SRPairs(2, 4)
    assert pairs.source == "BSDS500"
    assert pairs.names == ["b", "a"]
    assert pairs.description.startswith("2 pictures of BSDS500")
    assert pairs.description.endswith("Licence: free.")


@pytest.mark.parametrize("channels", ["luminance", "rgb"])
@pytest.mark.parametrize("scale", [2, 3])
def test_patches_are_aligned_in_all_symmetries(tiny_set: Path, scale: int, channels: Any) -> None:
    """Oracle: shrinking the large patch gives the small one, away from the border; the kernel has no handedness."""
    pairs = SRPairs(scale, 7, channels=channels)
    for index in range(40):
        lr, hr = pairs.sample(index)
        assert lr.dtype == hr.dtype == torch.float32
        assert lr.shape == (3 if channels == "rgb" else 1, 7, 7)
        assert hr.shape == (lr.shape[0], 7 * scale, 7 * scale)
        again = resize(hr, scale=Fraction(1, scale))
        assert torch.allclose(again[:, 2:-2, 2:-2], lr[:, 2:-2, 2:-2], atol=1e-6)
        assert torch.equal((255 * hr).round() / 255, hr)


def test_small_pictures_are_not_rounded(tiny_set: Path) -> None:
    """Oracle: whole 255ths would be equal to their own rounding; noise also overshoots [0, 1] in RGB."""
    pairs = SRPairs(2, 12, channels="rgb")
    values = torch.stack([pairs.sample(index)[0] for index in range(20)])
    assert ((255 * values).round() / 255 - values).abs().mean() > 2e-4


def test_grey_photographs_in_colour_have_three_equal_channels(no_sets: None) -> None:
    """Oracle: by definition; the grey photographs are named in PHOTOGRAPHS."""
    pairs = SRPairs(4, 6, channels="rgb", source="photographs")
    camera = pairs._large[pairs.names.index("camera")]
    assert np.array_equal(camera, np.asarray(datasets.to_uint8(datasets.photograph("camera")))[None].repeat(3, 0))


def test_pictures_by_area_places_and_symmetries_alike(tiny_set: Path) -> None:
    """Oracle: areas 13 x 45 to 20 x 15 by hand, 5 standard deviations; each place and turn of a tiny grid occurs."""
    pairs = SRPairs(2, 13)
    wide = 0
    windows = {
        picture[0, y : y + 13, x : x + 13].tobytes(): (number, y, x)
        for number, picture in enumerate(pairs._small)
        for y in range(picture.shape[1] - 12)
        for x in range(picture.shape[2] - 12)
    }
    seen = set()
    for index in range(3000):
        patch = pairs.sample(index)[0][0].numpy()
        turns = {
            (axes, rows, columns): np.ascontiguousarray(
                (patch.T if axes else patch)[:: -1 if rows else 1, :: -1 if columns else 1]
            ).tobytes()
            for axes in (0, 1)
            for rows in (0, 1)
            for columns in (0, 1)
        }
        ((turn, place),) = [(turn, windows[key]) for turn, key in turns.items() if key in windows]
        seen.add((turn, place))
        wide += place[0] == 0
    assert len({turn for turn, _ in seen}) == 8
    assert {place for _, place in seen} == set(windows.values())
    share = 13 * 45 / (13 * 45 + 20 * 15)
    assert abs(wide - 3000 * share) < 5 * (3000 * share * (1 - share)) ** 0.5


def test_a_sample_is_a_function_of_seed_and_index(tiny_set: Path) -> None:
    """Oracle: the same bits in another order and from another object; other seeds and indices give others."""
    pairs, again = SRPairs(2, 5, seed=3), SRPairs(2, 5, seed=3)
    forwards = [pairs.sample(index) for index in range(12)]
    for index in reversed(range(12)):
        assert all(map(torch.equal, forwards[index], again.sample(index)))
    hashes = {pair[0].numpy().tobytes() for pair in forwards}
    assert len(hashes) == 12
    assert not torch.equal(SRPairs(2, 5, seed=4).sample(0)[0], forwards[0][0])
    forwards[0][0].zero_()
    forwards[0][1].zero_()
    assert pairs.sample(0)[0].any()  # a sample is the caller's own
    assert pairs.sample(0)[1].any()


def test_random_bits_are_the_same_everywhere() -> None:
    """Oracle: recorded numbers, and independence of index, seed and stream."""
    assert [hex(x) for x in random_bits(5, 7, 2, 1)] == ["0x69a2b554fe1f1a13", "0x2bf3e154254a3a12"]
    cases = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1), (2**63 - 1, 0, 0), (0, 2**63 - 1, 0)]
    assert len({int(x) for s, i, t in cases for x in random_bits(s, i, 64, t)}) == 64 * len(cases)


@pytest.mark.usefixtures("no_sets")
def test_without_the_set_free_photographs_are_used() -> None:
    """Oracle: `find` has nothing; what is named is CC0 or public domain, and asking for BSDS500 says how to get it."""
    pairs = SRPairs(2, 8)
    assert pairs.source == "photographs"
    assert set(pairs.names) < set(datasets.PHOTOGRAPHS)
    assert "astronaut, brick, camera" in pairs.description
    assert "CC0 or public domain" in pairs.description
    with pytest.raises(datasets.DataMissing, match="course data get BSDS500"):
        SRPairs(2, 8, source="BSDS500")


def test_pictures_smaller_than_a_patch_are_left_out(tiny_set: Path) -> None:
    """Oracle: shapes by hand: at scale 2 a patch of 14 needs 28 x 28 pixels, and b has 26 rows."""
    assert SRPairs(2, 13).names == ["b", "a"]
    assert SRPairs(2, 14).names == ["a"]
    with pytest.raises(ValueError, match=r"patch must be at most 15 at scale 2, .*BSDS500.*; got 16"):
        SRPairs(2, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 1}, "scale must be a whole number of at least 2, got 1"),
        ({"scale": 2.5}, "scale must be a whole number, got 2.5"),
        ({"scale": True}, "scale must be a whole number, got True"),
        ({"patch": 0}, "patch must be a whole number of at least 1, got 0"),
        ({"patch": "8"}, "patch must be a whole number, got '8'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"channels": "y"}, "channels must be one of 'luminance', 'rgb', got 'y'"),
        ({"source": "DIV2K"}, "source must be one of 'auto', 'BSDS500', 'photographs', got 'DIV2K'"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    """Oracle: argument, what was expected, what came; before any picture is read."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        SRPairs(**{"scale": 2, "patch": 8, **arguments})


def test_shrink_knows_two_kinds_of_channels() -> None:
    """Oracle: the words."""
    with pytest.raises(ValueError, match="channels must be one of 'luminance', 'rgb', got 'luma'"):
        pairs.shrink(torch.zeros(3, 8, 8), 2, "luma")  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 1.0, None])
def test_an_index_is_a_whole_number(tiny_set: Path, index: Any) -> None:
    """Oracle: the docstring."""
    with pytest.raises((TypeError, ValueError), match="index must be a whole number"):
        SRPairs(2, 4).sample(index)


@pytest.mark.needs_data("BSDS500")
def test_bsds500_holds_no_picture_of_a_benchmark() -> None:
    """Oracle: the published split: 200 + 200 pictures without 302003 (Set5's woman); 3096 and 253027 are in B100."""
    pairs = SRPairs(3, 17)
    assert pairs.source == "BSDS500"
    assert len(pairs.names) == len(set(pairs.names)) == 399
    assert "100075" in pairs.names
    assert not {"302003", "3096", "253027", "101085"} & set(pairs.names)
    assert "non-commercial" in pairs.description
    assert {picture.shape[1:] for picture in pairs._small} == {(107, 160), (160, 107)}
