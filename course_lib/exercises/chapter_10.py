"""Exercises of chapter 10, LIIF."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from course_lib.upsampling import resize_matrix

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise


def ensemble_weights(down: Any, right: Any) -> tuple[Any, Any, Any, Any]:
    """The rectangle opposite to 00 is the one between the place and 11: what is left of the way, down and right."""
    return (1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right


def _same_side(down: Any, right: Any) -> tuple[Any, Any, Any, Any]:
    return down * right, down * (1 - right), (1 - down) * right, (1 - down) * (1 - right)


def _x_first(down: Any, right: Any) -> tuple[Any, Any, Any, Any]:
    return ensemble_weights(right, down)


def _areas(down: Any, right: Any) -> tuple[Any, ...]:
    return tuple(4 * w for w in ensemble_weights(down, right))


@exercise(
    "10.1",
    title="the weights of four codes",
    hints=(
        "If the place lies on code 00 (down = right = 0), which weights must come out?",
        "The rectangle opposite to 00 lies between the place and 11. Its sides are 1 - down and 1 - right.",
        "At down = 2/5, right = 1/4: 3/5 * 3/4 = 9/20 for 00, then 3/20, 3/10 and 1/10.",
    ),
    solution=ensemble_weights,
    wrong=[
        (_same_side, "same side"),
        (_x_first, "first digit"),
        (_areas, "sum to 1"),
        ((0.45, 0.15, 0.3, 0.1), "expected a function"),
    ],
)
def check_10_1(answer: Any) -> str:
    """Oracle: the chapter's numbers by hand, and the products of shares."""
    if callable(answer):
        down, right = Fraction(2, 5), Fraction(1, 4)
        came = tuple(answer(down, right))
        for wrong, why in (
            (_same_side, "these are the rectangles on the same side, which give 29.5; take the ones opposite"),
            (_x_first, "01 and 10 are exchanged: the first digit of a code counts down, the second to the right"),
            (_areas, "these are the areas S_t, in half pixels; weights sum to 1, so divide by S"),
        ):
            if came == wrong(down, right):
                raise Wrong(f"ensemble_weights(2/5, 1/4) came as {tuple(map(str, came))}: {why}")
    for place in ((0.4, 0.25), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.125, 0.875)):
        same_call(answer, place, ensemble_weights(*place))
    return "They sum to 1, and whoever is about to leave has none."


def corner(f: Any, z: Any) -> Any:
    """Per pixel it is the second difference of the three answers at the middle code; a half pixel is half of that."""
    left, middle, right = z
    return (f(left, 2) - 2 * f(middle, 0) + f(right, -2)) / 2


def _per_pixel(f: Any, z: Any) -> Any:
    return 2 * corner(f, z)


def _own_pixel(f: Any, z: Any) -> Any:
    return (f(z[0], 1) - 2 * f(z[1], 0) + f(z[2], -1)) / 2


def _own_values(f: Any, z: Any) -> Any:
    return (z[0] - 2 * z[1] + z[2]) / 2


def _jump(f: Any, z: Any) -> Any:
    return f(z[2], -1) - f(z[1], 1)


def _slope(z: Any, x: Any) -> Any:
    return z * (1 + x / 5)


@exercise(
    "10.2",
    title="the corner at a code",
    hints=(
        "The chapter has the change of the slope per pixel: three answers about the place of the middle code.",
        "Seen from the left code the middle one stands at x = 2, seen from the right code at x = -2.",
        "(f(left, 2) - 2 f(middle, 0) + f(right, -2)) / 2: half a pixel is half the way, so half the climb.",
    ),
    solution=corner,
    wrong=[
        (_per_pixel, "per pixel"),
        (_own_pixel, "2 half pixels"),
        (_own_values, "not the codes"),
        (_jump, "expected"),
        (5, "expected a function"),
    ],
)
def check_10_2(answer: Any) -> str:
    """Oracle: slopes of the blended answer on both sides of the middle code, by differences."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    came = answer(_curved, (1.0, -2.0, 5.0))
    for wrong, why in (
        (_per_pixel, "that is per pixel; asked is the change per half pixel"),
        (_own_pixel, "the neighbours stand 2 half pixels away: they are asked at x = 2 and x = -2"),
        (_own_values, "the answers f(z, x) are blended, not the codes themselves"),
    ):
        if _near(came, wrong(_curved, (1.0, -2.0, 5.0))):
            raise Wrong(f"for f(z, x) = z + 0.3 x z - 0.1 x^2 and the codes 1, -2, 5 it came as {came:g}: {why}")
    for f, z in ((_slope, (10.0, 20.0, 60.0)), (_slope, (20.0, 60.0, 40.0)), (_curved, (1.0, -2.0, 5.0))):
        same_numbers(answer(f, z), _by_differences(f, z), f"corner(f, {z})", tolerance=1e-4)
    return "With f(z, x) = z it is half the second difference of the pixels: the bends that chapter 03 measured."


def _curved(z: Any, x: Any) -> Any:
    return z + 0.3 * x * z - 0.1 * x**2


def _by_differences(f: Any, z: Any) -> float:
    def blended(p: float) -> float:  # p in half pixels from the middle code
        (a, b), u = ((z[0], z[1]), (p + 2) / 2) if p < 0 else ((z[1], z[2]), p / 2)
        return float((1 - u) * f(a, 2 * u) + u * f(b, 2 * u - 2))

    step = 1e-6
    return (blended(step) - 2 * blended(0.0) + blended(-step)) / step


def _near(came: Any, value: float) -> bool:
    return isinstance(came, (int, float, Fraction)) and abs(float(came) - value) < 1e-9


def window(top: Any, left: Any, n: Any, m: Any, H: Any, W: Any) -> tuple[Tensor, Tensor]:
    """Pixel i of H has its centre at -1 + (2 i + 1) / H, whichever part of the picture is asked for."""
    y = -1 + (2 * (top + torch.arange(n, dtype=torch.float64)) + 1) / H
    x = -1 + (2 * (left + torch.arange(m, dtype=torch.float64)) + 1) / W
    return torch.cartesian_prod(y, x), torch.tensor([2 / H, 2 / W], dtype=torch.float64)


def _all_of_it(top: Any, left: Any, n: Any, m: Any, H: Any, W: Any) -> tuple[Tensor, Tensor]:
    return window(0, 0, n, m, n, m)


def _cell_of_window(top: Any, left: Any, n: Any, m: Any, H: Any, W: Any) -> tuple[Tensor, Tensor]:
    return window(top, left, n, m, H, W)[0], torch.tensor([2 / n, 2 / m], dtype=torch.float64)


def _corners(top: Any, left: Any, n: Any, m: Any, H: Any, W: Any) -> tuple[Tensor, Tensor]:
    q, cell = window(top, left, n, m, H, W)
    return q - cell / 2, cell


def _x_before_y(top: Any, left: Any, n: Any, m: Any, H: Any, W: Any) -> tuple[Tensor, Tensor]:
    q, cell = window(top, left, n, m, H, W)
    return q.flip(-1), cell.flip(-1)


@exercise(
    "10.3",
    title="a window of the large picture",
    hints=(
        "Which rows of the whole large picture are asked for? Row i of H has its centre at -1 + (2 i + 1) / H.",
        "Rows top, top + 1, ... top + n - 1. Nothing else changes: places and cell are those of the whole picture.",
        "torch.cartesian_prod(y, x) lists all pairs row by row; the cell is (2 / H, 2 / W).",
    ),
    solution=window,
    wrong=[
        (_all_of_it, "whole square"),
        (_cell_of_window, "2 / H"),
        (_corners, "corners"),
        (_x_before_y, "(y, x)"),
        (4, "expected a function"),
    ],
)
def check_10_3(answer: Any) -> str:
    """Oracle: with f(z, x) = z, `resize_matrix` of bilinear, cut to the window."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    args = (3, 10, 4, 5, 16, 30)
    q, cell = _two_tensors(answer(*args), 20)
    for wrong, why in (
        (_all_of_it, "these places fill the whole square from -1 to 1; the window is a part of it"),
        (_corners, "these are the upper left corners of the pixels, asked are their centres"),
        (_x_before_y, "these are (x, y); asked is (y, x)"),
        (_cell_of_window, "the cell is the size of a pixel of the whole large picture: (2 / H, 2 / W)"),
    ):
        if torch.equal(q, wrong(*args)[0]) and torch.equal(cell, wrong(*args)[1]):
            raise Wrong(f"window{args}: {why}")
    for top, left, n, m, height, width in (args, (0, 0, 3, 2, 3, 2), (7, 1, 1, 6, 9, 8)):
        q, cell = _two_tensors(answer(top, left, n, m, height, width), n * m)
        same_numbers(cell, [2 / height, 2 / width], "the cell")
        rows, columns = (resize_matrix(2, size, method="bilinear").to_dense() for size in (height, width))
        y, x = rows[top : top + n, 1], columns[left : left + m, 1]  # the share of the second of two codes
        seen = ((q * 2 + 1) / 2).clamp(0, 1)  # of two codes, at -1/2 and 1/2: how far to the second
        same_numbers(seen.view(n, m, 2)[..., 0], y[:, None].expand(n, m), "how far down the places lie", 1e-5)
        same_numbers(seen.view(n, m, 2)[..., 1], x[None].expand(n, m), "how far right the places lie", 1e-5)
        same_numbers(q, window(top, left, n, m, height, width)[0], "the places")
    return "So a zoom to x30 costs what you see, not what there is."


def _two_tensors(value: Any, count: int) -> tuple[Tensor, Tensor]:
    """Return the answer's places and cell as float64, or say what was expected."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Wrong(f"window(...) came as {kind(value)}, expected (q, cell)")
    q, cell = (v if isinstance(v, Tensor) else torch.as_tensor(v) for v in value)
    if tuple(q.shape) != (count, 2) or tuple(cell.shape) != (2,):
        raise Wrong(
            f"q and cell came with shapes {tuple(q.shape)} and {tuple(cell.shape)}, expected ({count}, 2), (2,)"
        )
    return q.detach().cpu().double(), cell.detach().cpu().double()
