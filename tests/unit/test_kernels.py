"""Kernels: oracles are closed forms, Fractions and numerical integration."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from course_lib.plain import W
from course_lib.upsampling import box, cubic, tent

KERNELS = [box(), tent(), cubic(-0.5), cubic(-0.75), cubic(0.0), cubic(-1.0)]


@pytest.mark.parametrize("a", [-1, -0.75, -0.5, 0])
def test_cubic_is_the_plain_formula(a):
    """Oracle: the two-line kernel on exact fractions."""
    distances = [Fraction(k, 16) for k in range(-40, 41)]
    ours = cubic(a)(torch.tensor([float(d) for d in distances], dtype=torch.float64))
    exact = [float(W(d, Fraction(a))) for d in distances]
    torch.testing.assert_close(ours, torch.tensor(exact, dtype=torch.float64), atol=1e-15, rtol=0)


def test_the_tent_is_the_box_convolved_with_itself():
    """Oracle: numpy.convolve of two sampled boxes."""
    step = 1 / 512
    x = np.arange(-1024, 1024) * step
    sampled = box()(torch.from_numpy(x + step / 2)).numpy()
    blurred = np.convolve(sampled, sampled, mode="same") * step
    expected = tent()(torch.from_numpy(x + step)).numpy()
    np.testing.assert_allclose(blurred, expected, atol=2 * step)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_derivative_is_the_difference_quotient(kernel):
    """Oracle: central differences, away from kinks and jumps."""
    x = torch.linspace(-2.4, 2.4, 97, dtype=torch.float64) + 0.0123
    h = 1e-6
    quotient = (kernel(x + h) - kernel(x - h)) / (2 * h)
    torch.testing.assert_close(kernel.derivative(x), quotient, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_frequency_response_is_the_fourier_integral(kernel):
    """Oracle: the midpoint rule on a fine grid."""
    step = 1e-4
    x = (torch.arange(-20_000, 20_000, dtype=torch.float64) + 0.5) * step
    for f in (0.0, 1e-5, 9.9e-4, 1.1e-3, 0.05, 0.25, 0.5, 1.0, 1.7):
        integral = (kernel(x) * torch.cos(2 * torch.pi * f * x)).sum() * step
        response = kernel.frequency_response(torch.tensor([f], dtype=torch.float64))
        assert float(response) == pytest.approx(float(integral), abs=3e-8)


@pytest.mark.parametrize("a", [-1.0, -0.5, 0.0])
def test_frequency_response_has_no_seam_where_the_series_takes_over(a):
    """Oracle: the two sides of f = 0.001 agree to the slope between them, in float32 too."""
    f = torch.tensor([0.000999999, 0.001000001])
    low, high = cubic(a).frequency_response(f).tolist()
    assert low == pytest.approx(high, abs=1e-7)


def test_the_parameter_is_the_slope_at_one():
    """Oracle: W'(0) = W'(2) = 0 and W'(1) = a."""
    slopes = cubic(-0.6).derivative(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(slopes, torch.tensor([0.0, -0.6, 0.0], dtype=torch.float64))


def test_a_must_be_finite():
    with pytest.raises(ValueError, match="a must be a finite number, got nan"):
        cubic(float("nan"))
