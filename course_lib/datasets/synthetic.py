"""Test pictures made from a formula, where the right answer is known before anything is computed."""

import math

import torch
from torch import Tensor


def _check(**sizes: float) -> None:
    for name, value in sizes.items():
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be a positive number, got {value}")


def zone_plate(n: int = 256, c: float | None = None) -> Tensor:
    """Return (1, n, n) in [0, 1]: rings 1/2 + 1/2 cos(c (y^2 + x^2)) around the centre, finer and finer outwards.

    The frequency at distance r is c r / pi cycles per pixel; by default c = pi / n, which reaches the limit of 1/2 in
    the middle of each side. Raises ValueError for n < 1 or c <= 0.
    """
    slope = math.pi / n if c is None and n > 0 else c
    _check(n=n, c=slope if slope is not None else 1)
    assert slope is not None
    axis = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    return (0.5 + 0.5 * torch.cos(slope * (axis[:, None] ** 2 + axis**2)))[None]


def stripes(height: int = 64, width: int = 64, period: float = 4.0, angle: float = 0.0) -> Tensor:
    """Return (1, height, width) in [0, 1]: a cosine of `period` pixels; angle 0 varies along x, 90 along y (degrees).

    Raises ValueError for sizes or a period that are not positive.
    """
    _check(height=height, width=width, period=period)
    y, x = torch.arange(height, dtype=torch.float32)[:, None], torch.arange(width, dtype=torch.float32)
    turn = math.radians(angle)
    return (0.5 + 0.5 * torch.cos(2 * math.pi / period * (math.cos(turn) * x + math.sin(turn) * y)))[None]


def ramp(height: int = 8, width: int = 64) -> Tensor:
    """Return (1, height, width): straight from 0 at the left edge's pixel to 1 at the right one's.

    Raises ValueError for sizes that are not positive.
    """
    _check(height=height, width=width)
    return torch.linspace(0, 1, width).expand(1, height, width).clone()


def step_edge(height: int = 64, width: int = 64, at: float = 0.5) -> Tensor:
    """Return (1, height, width): 0 in the first floor(at * width) columns, 1 in the others.

    Raises ValueError for sizes that are not positive or `at` outside [0, 1].
    """
    _check(height=height, width=width)
    if not 0 <= at <= 1:
        raise ValueError(f"at must be in [0, 1], got {at}")
    row = (torch.arange(width) >= math.floor(at * width)).to(torch.float32)
    return row.expand(1, height, width).clone()


def checkerboard(height: int = 64, width: int = 64, cell: int = 1) -> Tensor:
    """Return (1, height, width) of 0 and 1: squares of `cell` pixels, the first one 0.

    Raises ValueError for sizes that are not positive.
    """
    _check(height=height, width=width, cell=cell)
    rows, columns = torch.arange(height) // cell, torch.arange(width) // cell
    return ((rows[:, None] + columns) % 2).to(torch.float32)[None]
