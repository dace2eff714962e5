"""Targets with references. Oracles: slices and quarter turns of the photograph, `resize`, waves and ramps whose value
tells the place, and how often things must come by the rules of chance.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import datasets
from course_lib.datasets import ReferencePairs, references, related
from course_lib.super_resolution import metrics
from course_lib.upsampling import resize

NAMES = ("lr", "lr_up", "ref", "ref_down_up", "hr")


def rounded(picture: Tensor) -> Tensor:
    return ((255 * picture.clamp(0, 1) + 0.5).floor() / 255).float()


def enlarged(lr: Tensor) -> Tensor:
    # of whole levels, with which float64 computes exactly: halves are halves
    levels = resize((255 * lr).round(), scale=4, border="symmetric")
    return ((levels.clamp(0, 255) + 0.5).floor() / 255).float()


def near(came: Tensor, expected: Tensor) -> bool:
    """Equal but for halves that round the other way, one in a hundred at most."""
    apart = (255 * (came - expected)).abs().round()
    return bool(apart.max() <= 1 and (apart > 0).double().mean() < 0.01)


@pytest.fixture
def noise() -> Tensor:
    return torch.randint(256, (3, 34, 41), generator=torch.Generator().manual_seed(0)) / 255


# --- related --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(12, 17), (34, 41), (1, 1)])
def test_untouched_knobs_show_the_same(noise: Tensor, size: tuple[int, int]) -> None:
    """Oracle: the slice in the middle."""
    target, reference = related(noise, size)
    top, left = (34 - size[0]) // 2, (41 - size[1]) // 2
    assert torch.equal(target, noise[:, top : top + size[0], left : left + size[1]])
    assert torch.equal(reference, target)
    reference.zero_()
    assert target.any()


def test_a_shift_of_whole_pixels_is_a_slice(noise: Tensor) -> None:
    """Oracle: slices, and NumPy's mirrored borders beyond the edge."""
    target, reference = related(noise, (10, 12), at=(8, 9), shift=(3, -5))
    assert torch.equal(target, noise[:, 8:18, 9:21])
    assert torch.equal(reference, noise[:, 11:21, 4:16])
    mirrored = torch.from_numpy(np.pad(noise.numpy(), ((0, 0), (20, 20), (20, 20)), "symmetric"))
    assert torch.equal(related(noise, (10, 12), at=(0, 29), shift=(-17, 15))[1], mirrored[:, 3:13, 64:76])


def test_half_a_pixel_weighs_four(noise: Tensor) -> None:
    """Oracle: a convolution with what the kernel of Keys is at 1/2 and 3/2."""
    taps = torch.tensor([-1, 9, 9, -1], dtype=torch.float64) / 16
    between = F.conv2d(noise.double()[:, None], taps.view(1, 1, 1, 4))[:, 0]
    came = related(noise, (20, 20), at=(4, 6), shift=(0, 0.5))[1]
    assert near(came, rounded(between[:, 4:24, 5:25]))


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
@pytest.mark.parametrize("side", [10, 13])
def test_quarter_turns_are_exact(noise: Tensor, turns: int, side: int) -> None:
    """Oracle: torch.rot90, counter-clockwise."""
    target, reference = related(noise, (side, side), degrees=90 * turns)
    assert torch.equal(reference, torch.rot90(target, turns, (-2, -1)))


def test_zoom_is_an_enlargement_of_the_middle() -> None:
    """Oracle: `resize` by 2, with its own border."""
    picture = datasets.photograph("coffee", (40, 52))
    large = resize(datasets.from_uint8(datasets.to_uint8(picture)).double(), scale=2, border="symmetric")
    assert near(related(picture, (40, 52), zoom=2)[1], rounded(large[:, 20:60, 26:78]))


def test_all_moves_together_read_where_they_say() -> None:
    """Oracle: a wave known between its pixels, at places turned counter-clockwise by hand."""

    def wave(y: Tensor, x: Tensor) -> Tensor:
        return 0.5 + 0.4 * torch.sin(0.11 * y) * torch.cos(0.07 * x + 0.3)

    picture = wave(torch.arange(120.0)[:, None], torch.arange(140.0))[None]
    size, at = (31, 44), (40, 50)
    _, reference = related(picture, size, at, shift=(4.3, -7.8), degrees=11, zoom=1.15)
    down, right = torch.meshgrid(torch.arange(31.0) - 15, torch.arange(44.0) - 21.5, indexing="ij")
    turned = torch.complex(right, -down) * complex(math.cos(math.radians(-11)), math.sin(math.radians(-11))) / 1.15
    expected = wave(40 + 15 + 4.3 - turned.imag, 50 + 21.5 - 7.8 + turned.real)
    assert (reference - expected).abs().max() < 1.5 / 255
    assert torch.equal(reference[0], reference[2])


def test_light(noise: Tensor) -> None:
    """Oracle: the formula."""
    knobs: dict[str, Any] = {"gain": 1.3, "offset": -0.1, "gamma": 0.8, "cast": (1, 0.9, 1.2)}
    target, reference = related(noise, (20, 20), **knobs)
    expected = 1.3 * torch.tensor([1, 0.9, 1.2]).view(3, 1, 1) * target.double() ** 0.8 - 0.1
    assert near(reference, rounded(expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (35, 41)}, "size must be from 1 x 1 to 34 x 41, got 35 x 41"),
        ({"size": (0, 4)}, "size must be from 1 x 1"),
        ({"size": 4}, "size must be two numbers"),
        ({"size": (4, 4.5)}, "size must be a whole number, got 4.5"),
        ({"at": (0, 32)}, "at must be (top, left) of at most (24, 31), got (0, 32)"),
        ({"at": (-1, 0)}, "at must be a whole number of at least 0, got -1"),
        ({"shift": (0, math.inf)}, "shift must be a finite number, got inf"),
        ({"shift": 3}, "shift must be two numbers"),
        ({"degrees": "10"}, "degrees must be a number, got '10'"),
        ({"zoom": 5}, "zoom must be a finite number from 0.25 to 4, got 5"),
        ({"gain": -1}, "gain must be a finite number of at least 0, got -1"),
        ({"gamma": 0}, "gamma must be a finite number of at least 0.001, got 0"),
        ({"offset": True}, "offset must be a number, got True"),
        ({"cast": (1, 1)}, "cast must be three numbers"),
        ({"cast": (1, 1, -1)}, "cast must be a finite number of at least 0, got -1"),
        ({"picture": torch.zeros(2, 34, 41)}, "picture must be (3, H, W) or (1, H, W), got (2, 34, 41)"),
        ({"picture": np.zeros(3)}, "picture must be a torch.Tensor, got ndarray"),
    ],
)
def test_knobs_out_of_range_are_named(noise: Tensor, arguments: dict[str, Any], message: str) -> None:
    """Oracle: argument, what was expected, what came."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        related(**{"picture": noise, "size": (10, 10), **arguments})


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_inputs_are_those_of_the_benchmark(noise: Tensor) -> None:
    """Oracle: `metrics.pair`, and `resize` rounded to 8 bits; target and reference may differ in size."""
    target, reference = noise[:, :32, :40], noise[:, :24, 5:41]
    made = references.inputs(target, reference)
    assert tuple(made) == NAMES
    lr, hr = metrics.pair(target, 4)
    assert torch.equal(made["lr"], lr.float())
    assert torch.equal(made["hr"], hr.float())
    assert torch.equal(made["lr_up"], enlarged(lr))
    assert torch.equal(made["ref"], reference)
    down = metrics.pair(reference, 4)[0]
    assert torch.equal(made["ref_down_up"], enlarged(down))


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 8, 8), (3, 0, 8), (2, 3, 8, 8)])
def test_inputs_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Oracle: the name of the argument."""
    right = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="target must be"):
        references.inputs(torch.zeros(shape), right)
    with pytest.raises(ValueError, match="reference must be"):
        references.inputs(right, torch.zeros(shape))


# --- ReferencePairs -------------------------------------------------------------------------------------------------


@pytest.fixture
def ramps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures whose red tells the row, green the column and blue which one it is; no other light."""
    y, x = torch.meshgrid(torch.arange(140), torch.arange(200), indexing="ij")
    first = torch.stack([y, x, torch.zeros_like(x)]) / 255
    second = torch.stack([y, x, torch.full_like(x, 200)])[:, :100, :140] / 255
    for name in ("_GAIN", "_OFFSET", "_GAMMA", "_CAST"):
        monkeypatch.setattr(references, name, 0.0)
    monkeypatch.setattr(references, "pictures_of", lambda source: iter([("first", first), ("second", second)]))


def places(picture: Tensor) -> Tensor:
    """Return the (row, column) of the ramp that each pixel shows, (2, h, w)."""
    return 255 * picture[:2].double()


def moves(hr: Tensor, ref: Tensor) -> tuple[float, float, Tensor]:
    """Return by how many degrees and how much larger a view of the ramp is than another, and how far their middles are
    apart.
    """
    here, there = (
        torch.stack([(p[:, 1:] - p[:, :-1]).mean((1, 2)), (p[:, :, 1:] - p[:, :, :-1]).mean((1, 2))])
        for p in (places(hr), places(ref))
    )
    assert torch.allclose(here.abs().sum(0), torch.ones(2).double())
    turn = torch.linalg.solve(here, there)
    zoom = float(torch.linalg.det(turn).abs().rsqrt())
    return math.degrees(math.asin(float(turn[0, 1] - turn[1, 0]) / 2 * zoom)), zoom, middle(ref) - middle(hr)


def middle(picture: Tensor) -> Tensor:
    return places(picture).mean((1, 2))


@pytest.mark.usefixtures("ramps")
def test_related_references_are_views_of_the_same_place() -> None:
    """Oracle: the places that the colours tell: moved by at most half a target, turned by at most 12 degrees, zoomed by
    at most 1.15; shares within 5 standard deviations.
    """
    pairs, draws, side = ReferencePairs(8, source="photographs", related=1), 300, 32
    angles, zooms, moved = [], [], []
    second, still, turned, zoomed = 0, 0, 0, 0
    for sample in map(pairs.sample, range(draws)):
        hr, ref = sample["hr"], sample["ref"]
        assert float(sample["related"]) == 1
        assert (hr[2] - ref[2]).abs().max() < 1e-3
        angle, zoom, away = moves(hr, ref)
        second += bool(hr[2].mean() > 0.5)
        still += torch.equal(hr, ref)
        turned += abs(angle) > 0.3
        zoomed += abs(zoom - 1) > 0.006
        angles.append(angle)
        zooms.append(zoom)
        moved.append(away)
    shifts = torch.stack(moved).abs().amax(0)
    assert (shifts > 0.9 * side / 2).all()
    assert (shifts < side / 2 + 0.6).all()
    assert -12.5 < min(angles) < -10.5
    assert 10.5 < max(angles) < 12.5
    assert 0.86 < min(zooms) < 0.89
    assert 1.13 < max(zooms) < 1.16
    area = 100 * 140 / (100 * 140 + 140 * 200)
    for count, share in ((second, area), (still, 0.1), (turned, 0.9 * 0.7 * 0.97), (zoomed, 0.9 * 0.7 * 0.96)):
        assert abs(count - share * draws) < 5 * (draws * share * (1 - share)) ** 0.5


@pytest.mark.usefixtures("ramps")
def test_unrelated_references_see_nothing_of_the_target() -> None:
    """Oracle: the places that the colours tell, and which picture it is; shares within 5 standard deviations."""
    pairs, draws = ReferencePairs(8, source="photographs", related=0.4), 400
    related, same = 0, 0
    for sample in map(pairs.sample, range(draws)):
        hr, ref = sample["hr"], sample["ref"]
        related += bool(sample["related"])
        if sample["related"] or (hr[2] - ref[2]).abs().max() > 0.5:
            continue
        same += 1
        seen = [(p.amin((1, 2)), p.amax((1, 2))) for p in (places(hr), places(ref))]
        assert ((seen[0][1] < seen[1][0]) | (seen[1][1] < seen[0][0])).any()
    assert abs(related - 0.4 * draws) < 5 * (draws * 0.4 * 0.6) ** 0.5
    assert abs(same - 0.3 * draws) < 5 * (draws * 0.3 * 0.7) ** 0.5


def test_unrelated_references_look_alike_from_afar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a grey target, a grey, a red and a green picture of the same size: of four draws with a third each, none
    is grey in (2/3)^4 of the cases; where there is no room beside the target, nothing of the same picture comes.
    """
    colours = [(120, 120, 120), (128, 128, 128), (250, 0, 0), (0, 250, 0)]
    flat = [torch.tensor(colour).view(3, 1, 1).expand(3, 40, 40) / 255 for colour in colours]
    monkeypatch.setattr(references, "pictures_of", lambda source: ((str(k), p) for k, p in enumerate(flat)))
    monkeypatch.setattr(references, "_OFFSET", 0.0)
    pairs, draws, grey = ReferencePairs(9, source="photographs", related=0), 0, 0
    for sample in map(pairs.sample, range(500)):
        levels = 255 * sample["ref"].mean((1, 2))
        if sample["hr"][0, 0, 0] < 0.48:
            draws += 1
            grey += bool(levels.max() - levels.min() < 30)
        if sample["hr"][0, 0, 0] > 0.9:
            assert levels[0] < 170
    share = 1 - (2 / 3) ** 4
    assert abs(grey - share * draws) < 5 * (draws * share * (1 - share)) ** 0.5


@pytest.mark.usefixtures("ramps")
def test_views_look_over_no_edge() -> None:
    """Oracle: ramps rise by the same step everywhere; mirrored at an edge they would turn back."""
    pairs = ReferencePairs(12, source="photographs")
    for index in range(60):
        ref = 255 * pairs.sample(index)["ref"][:2].double()
        for axis in (1, 2):
            steps = ref.diff(dim=axis)
            assert (steps - steps.mean((1, 2), keepdim=True)).abs().max() < 1.5


@pytest.mark.usefixtures("ramps")
def test_all_symmetries_come() -> None:
    """Oracle: the places that the colours tell."""
    pairs, seen = ReferencePairs(3, source="photographs"), set()
    for index in range(120):
        hr = (255 * pairs.sample(index)["hr"]).round().int()
        seen.add(tuple((hr[:2, [1, 0], [0, 1]] - hr[:2, :1, 0]).flatten().tolist()))
    assert len(seen) == 8


def test_a_sample_is_a_function_of_seed_and_index(tiny_set: Path) -> None:
    """Oracle: the same bits in another order and from another object; others for other seeds and indices."""
    pairs, again = ReferencePairs(5, seed=3), ReferencePairs(5, seed=3)
    forwards = [pairs.sample(index) for index in range(12)]
    for index in reversed(range(12)):
        other = again.sample(index)
        assert all(torch.equal(forwards[index][name], other[name]) for name in (*NAMES, "related"))
    assert len({sample["hr"].numpy().tobytes() for sample in forwards}) == 12
    assert len({sample["ref"].numpy().tobytes() for sample in forwards}) == 12
    assert not torch.equal(ReferencePairs(5, seed=4).sample(0)["hr"], forwards[0]["hr"])
    for name in NAMES:
        forwards[0][name].zero_()
        assert pairs.sample(0)[name].any()  # a sample is the caller's own


def test_samples_are_whole_levels_that_belong_together(tiny_set: Path) -> None:
    """Oracle: `inputs` of the target and the reference, whose kernels have no handedness."""
    pairs = ReferencePairs(5)
    for index in range(30):
        sample = pairs.sample(index)
        made = references.inputs(sample["hr"], sample["ref"])
        for name in NAMES:
            side = 5 if name == "lr" else 20
            assert sample[name].shape == (3, side, side)
            assert sample[name].dtype == torch.float32
            assert 0 <= sample[name].min() <= sample[name].max() <= 1
            assert torch.equal(sample[name], (255 * sample[name]).round() / 255)
            assert near(sample[name], made[name])


def test_shares_of_all_and_none(tiny_set: Path) -> None:
    """Oracle: the flag."""
    assert all(ReferencePairs(5, related=1).sample(index)["related"] == 1 for index in range(20))
    assert all(ReferencePairs(5, related=0).sample(index)["related"] == 0 for index in range(20))


def test_light_differs_and_stays_near(tiny_set: Path) -> None:
    """Oracle: means of noise: about 0.15 x 0.5 + 0.06 brighter or darker at most, and many of them."""
    pairs = ReferencePairs(5, related=1)
    lights = [float(s["ref"].mean() - s["hr"].mean()) for s in map(pairs.sample, range(200))]
    assert -0.18 < min(lights) < -0.06
    assert 0.06 < max(lights) < 0.18


def test_sets_and_descriptions(tiny_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the registry's licence; without the set the free photographs; too large patches are refused."""
    pairs = ReferencePairs(6, related=0.8)
    assert (pairs.source, pairs.names) == ("BSDS500", ["b", "a"])
    assert pairs.description.startswith("2 pictures of BSDS500")
    assert "for 0.8 of the targets" in pairs.description
    assert pairs.description.endswith("Licence: free.")
    assert ReferencePairs(7, related=1).names == ["a"]
    with pytest.raises(ValueError, match=r"related must be 1 where there is one picture only \(a\), got 0.65"):
        ReferencePairs(7)
    with pytest.raises(ValueError, match=r"patch must be at most 7, for the largest picture of BSDS500 .*; got 8"):
        ReferencePairs(8)
    monkeypatch.delenv("COURSE_DATA")
    monkeypatch.setenv("COURSE_CACHE", str(tiny_set))
    assert ReferencePairs(24).source == "photographs"
    with pytest.raises(datasets.DataMissing, match="course data get BSDS500"):
        ReferencePairs(24, source="BSDS500")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 0}, "patch must be a whole number of at least 1, got 0"),
        ({"patch": 2.5}, "patch must be a whole number, got 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"source": "CUFED5"}, "source must be one of 'auto', 'BSDS500', 'photographs', got 'CUFED5'"),
        ({"related": 1.1}, "related must be a finite number from 0 to 1, got 1.1"),
        ({"related": "all"}, "related must be a number, got 'all'"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    """Oracle: argument, what was expected, what came; before any picture is read."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        ReferencePairs(**arguments)


@pytest.mark.parametrize("index", [-1, 1.0, None])
def test_an_index_is_a_whole_number(tiny_set: Path, index: Any) -> None:
    """Oracle: the docstring."""
    with pytest.raises((TypeError, ValueError), match="index must be a whole number"):
        ReferencePairs(4).sample(index)
