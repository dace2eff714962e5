"""Grids: oracles are the hand-made tables of chapter 01, Python's Fraction and PyTorch's nearest modes."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.plain import source_coordinate
from course_lib.upsampling import (
    as_fraction,
    border_indices,
    nearest_indices,
    output_size,
    source_coordinates,
    split_coordinates,
)

GRIDS = ("half_pixel", "align_corners", "origin")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (3.4, "17/5"),
        (2.3, "23/10"),
        (0.07, "7/100"),
        (5 / 3, "5/3"),
        (1 / 3, "1/3"),
        (2.0, "2"),
        (7, "7"),
        (1e-9, "1/1000000000"),
    ],
)
def test_a_float_means_the_simplest_fraction_that_rounds_to_it(written, meant):
    """Oracle: the fraction a person would write."""
    assert as_fraction(written) == Fraction(meant)


@pytest.mark.parametrize("value", [math.pi, math.e, 1.2345678901234567, 2**0.5 * 1e-3, np.float64(2.7), np.int64(3)])
def test_the_fraction_rounds_back_to_the_same_float(value):
    """Oracle: float(Fraction)."""
    assert float(as_fraction(value)) == float(value)


@pytest.mark.parametrize(
    ("n", "scale", "size"),
    [
        (50, 3.4, 170),
        (100, 0.07, 7),
        (3, 5 / 3, 5),
        (10, 0.5, 5),
        (11, 0.5, 6),
        (50, 2.3, 115),
        (45, 1.4, 63),
        (1, 1e-9, 1),
    ],
)
def test_output_size_is_the_exact_ceiling(n, scale, size):
    """Oracle: the product by hand; double precision gets 0.07 * 100 = 7.000000000000001 wrong."""
    assert output_size(n, scale) == size


def test_numpy_numbers_mean_what_they_say():
    """Oracle: plain Python numbers; small integers must not overflow, single precision must not add a pixel."""
    assert output_size(5, np.int8(100)) == 500
    assert output_size(5, np.float32(3.4)) == output_size(5, 3.4) == 17
    assert as_fraction(np.float64(2.7)) == Fraction(27, 10)


def test_three_to_four_by_hand():
    """Oracle: the index table of the source notes' example, 3 -> 4, worked out with fractions."""
    table = {
        "half_pixel": [-0.125, 0.625, 1.375, 2.125],
        "align_corners": [0, 2 / 3, 4 / 3, 2],
        "origin": [0, 0.75, 1.5, 2.25],
    }
    for grid, expected in table.items():
        torch.testing.assert_close(source_coordinates(3, 4, grid=grid), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("n_in", "scale"), [(7, Fraction(23, 10)), (90, Fraction(27, 10)), (13, Fraction(3, 7)), (5, 1), (1, 3)]
)
def test_split_coordinates_equal_exact_fractions(grid, n_in, scale):
    """Oracle: the plain one-line formulas on Fractions."""
    n_out = output_size(n_in, scale)
    floor, fraction = split_coordinates(n_in, n_out, scale, grid)
    for i in range(n_out):
        exact = source_coordinate(i, n_in, n_out, Fraction(scale), grid)
        assert int(floor[i]) == math.floor(exact)
        assert float(fraction[i]) == float(exact - math.floor(exact))


def test_coordinates_stay_exact_when_integers_outgrow_64_bits():
    """Oracle: Fractions again, for a scale whose numerator and denominator have nine digits."""
    scale = as_fraction(math.pi)
    big = Fraction(scale.numerator * 10**12 + 1, scale.denominator * 10**12)
    floor, fraction = split_coordinates(1000, 3142, big)
    exact = (Fraction(2 * 3141 + 1, 2)) / big - Fraction(1, 2)
    assert int(floor[3141]) == math.floor(exact)
    assert float(fraction[3141]) == pytest.approx(float(exact - math.floor(exact)), abs=1e-15)


def test_nearest_tables_by_hand():
    """Oracle: the three index rows of chapter 02 for 3 -> 4 and 4 -> 6."""
    assert nearest_indices(3, 4, "round").tolist() == [0, 1, 2, 2]
    assert nearest_indices(3, 4, "floor").tolist() == [0, 0, 1, 2]
    assert nearest_indices(3, 4, "exact").tolist() == [0, 1, 1, 2]
    assert nearest_indices(4, 6, "round").tolist() == [0, 1, 1, 2, 3, 3]
    assert nearest_indices(4, 6, "floor").tolist() == [0, 0, 1, 2, 2, 3]
    assert nearest_indices(4, 6, "exact").tolist() == [0, 1, 1, 2, 3, 3]


def test_rounding_runs_off_the_image_and_clamping_hides_it():
    """Oracle: round(i / 4) for i = 0..7 by hand."""
    assert nearest_indices(2, 8, "round", clamp=False).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert nearest_indices(2, 8, "round").max() == 1


@pytest.mark.parametrize(("rule", "mode"), [("floor", "nearest"), ("exact", "nearest-exact")])
def test_nearest_is_torch_where_torch_does_not_round_its_step(rule, mode):
    """Oracle: F.interpolate. It multiplies by in/out in float32; where the results differ, ours is the exact one."""
    different = 0
    for n_in in range(1, 40):
        row = torch.arange(float(n_in)).view(1, 1, n_in)
        for n_out in range(1, 80):
            ours = nearest_indices(n_in, n_out, rule)
            theirs = F.interpolate(row, size=n_out, mode=mode)[0, 0].long()
            for i in torch.nonzero(ours != theirs).flatten().tolist():
                exact = Fraction(2 * i + 1, 2) * n_in / n_out if rule == "exact" else Fraction(i * n_in, n_out)
                assert exact.denominator == 1, "only a boundary between two pixels may be rounded to the wrong side"
                assert int(ours[i]) == exact
                different += 1
    assert different < 40 * 80 / 20


def test_border_indices_by_hand():
    """Oracle: … c b a | a b c | c b a … written out."""
    places = torch.arange(-5, 8)
    assert border_indices(places, 3, "replicate").tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert border_indices(places, 3, "symmetric").tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: as_fraction(0), ValueError, "scale must be a positive finite number, got 0"),
        (lambda: as_fraction(-2.5), ValueError, "got -2.5"),
        (lambda: as_fraction(math.nan), ValueError, "got nan"),
        (lambda: as_fraction(math.inf), ValueError, "got inf"),
        (lambda: as_fraction(True), TypeError, "got bool"),
        (lambda: as_fraction("2"), TypeError, "got str"),
        (lambda: output_size(0, 2), ValueError, "n must be at least 1, got 0"),
        (lambda: output_size(2.5, 2), TypeError, "n must be a whole number, got 2.5"),
        (lambda: source_coordinates(3, 0), ValueError, "n_out must be at least 1, got 0"),
        (lambda: source_coordinates(3, 4, grid="centre"), ValueError, "grid must be one of 'half_pixel'"),
        (lambda: nearest_indices(3, 4, "nearest"), ValueError, "rule must be one of 'floor'"),
        (lambda: border_indices(torch.arange(3), 3, "reflect"), ValueError, "border must be one of 'replicate'"),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        call()
