"""Interpolation kernels: how much an output reads from a pixel at a given distance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kernel:
    """A weight function of distance, with its derivative and its frequency response.

    `support`: the radius beyond which it is zero, in pixels. All three functions map a float tensor to one of the
    same shape: `kernel(x)` and `kernel.derivative(x)` take distances in pixels, `kernel.frequency_response(f)` takes
    frequencies in cycles per pixel and returns the Fourier integral of the kernel (1 at f = 0).
    """

    name: str
    support: float
    weight: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    frequency_response: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the weight at distance `x` (pixels)."""
        return self.weight(x)


def box() -> Kernel:
    """Return the box: 1 on [-1/2, 1/2), else 0. Copying the nearest pixel is interpolation with this kernel.

    Half open, so that exactly one pixel answers at every place. Its derivative is 0 wherever it exists.
    """
    return Kernel(
        name="box",
        support=0.5,
        weight=lambda x: ((x >= -0.5) & (x < 0.5)).to(x.dtype),
        derivative=torch.zeros_like,
        frequency_response=torch.sinc,
    )


def tent() -> Kernel:
    """Return the tent max(0, 1 - |x|), the box convolved with itself: linear interpolation.

    The derivative at the three kinks is taken as 0.
    """
    return Kernel(
        name="tent",
        support=1.0,
        weight=lambda x: (1 - x.abs()).clamp(min=0),
        derivative=lambda x: torch.where(x.abs() < 1, -torch.sign(x), torch.zeros_like(x)),
        frequency_response=lambda f: torch.sinc(f) ** 2,
    )


def cubic(a: float = -0.5) -> Kernel:
    """Return the cubic convolution kernel with slope `a` at distance 1.

    a = -1/2 reproduces quadratics (third-order accurate); PyTorch's and OpenCV's unfiltered bicubic uses -3/4.
    Raises ValueError if `a` is not finite. Keys 1981, the kernel with W(0) = 1 and W(1) = W(2) = 0.
    """
    if not math.isfinite(a):
        raise ValueError(f"a must be a finite number, got {a}")

    def weight(x: Tensor) -> Tensor:
        d = x.abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    def derivative(x: Tensor) -> Tensor:
        d = x.abs()
        near = (3 * (a + 2) * d - 2 * (a + 3)) * d
        far = (3 * a * d - 10 * a) * d + 8 * a
        return torch.sign(x) * torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    def frequency_response(f: Tensor) -> Tensor:
        # Near zero the closed form divides two vanishing numbers (hence float64); closer still its series takes over.
        exact = f.double()
        small = exact.abs() < 1e-3
        g = torch.where(small, torch.ones_like(exact), exact)
        factor = 1 / (math.pi * g) ** 2
        base = 3 * factor * (torch.sinc(g) ** 2 - torch.sinc(2 * g))
        tail = 2 * a * factor * (3 * torch.sinc(2 * g) ** 2 - 2 * torch.sinc(2 * g) - torch.sinc(4 * g))
        series = 1 - (math.pi * exact) ** 2 * (2 * a + 1) * 4 / 15
        return torch.where(small, series, base + tail).to(f.dtype)

    return Kernel(f"cubic(a={a:g})", 2.0, weight, derivative, frequency_response)
