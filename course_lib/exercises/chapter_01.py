"""Exercises of chapter 01: a matrix by hand, a false frequency, a halving that stays put, a stack of strides."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .compare import Wrong, same_call, same_numbers
from .registry import exercise

_SHARES = [
    [Fraction(1), Fraction(0)],
    [Fraction(3, 4), Fraction(1, 4)],
    [Fraction(1, 4), Fraction(3, 4)],
    [Fraction(0), Fraction(1)],
]
_ORIGIN = [[1, 0], [Fraction(1, 2), Fraction(1, 2)], [0, 1], [0, 1]]
_CORNERS = [[1, 0], [Fraction(2, 3), Fraction(1, 3)], [Fraction(1, 3), Fraction(2, 3)], [0, 1]]
_STRAIGHT_ON = [[Fraction(5, 4), Fraction(-1, 4)], _SHARES[1], _SHARES[2], [Fraction(-1, 4), Fraction(5, 4)]]
_SWAPPED = [[0, 1], [Fraction(1, 4), Fraction(3, 4)], [Fraction(3, 4), Fraction(1, 4)], [1, 0]]
_TRANSPOSED = [list(column) for column in zip(*_SHARES, strict=True)]


@exercise(
    "01.1",
    title="the matrix of 2 -> 4",
    hints=(
        "First the four places: s = 2, so (i + 1/2) / 2 - 1/2 for i = 0, 1, 2, 3.",
        "The places are -1/4, 1/4, 3/4, 5/4. A place p between 0 and 1 takes 1 - p of pixel 0 and p of pixel 1.",
        "Places below 0 take pixel 0 whole, places above 1 take pixel 1 whole.",
    ),
    solution=_SHARES,
    wrong=[
        (_ORIGIN, "origin"),
        (_CORNERS, "align_corners"),
        (_STRAIGHT_ON, "beyond the end centres"),
        (_SWAPPED, "the nearer pixel"),
        (_TRANSPOSED, "rows are outputs"),
        ([Fraction(-1, 4), Fraction(1, 4), Fraction(3, 4), Fraction(5, 4)], "shape"),
    ],
)
def check_01_1(answer: Any) -> str:
    """Compare with the four rows and name the usual mistakes."""
    known = (
        (_ORIGIN, "this is the matrix of origin: its places are 0, 1/2, 1, 3/2"),
        (_CORNERS, "this is the matrix of align_corners: its places are 0, 1/3, 2/3, 1"),
        (_STRAIGHT_ON, "beyond the end centres you continued the straight line; take the edge pixel whole instead"),
        (_SWAPPED, "the shares of each row are swapped: the nearer pixel gets the larger one"),
        (_TRANSPOSED, "this is the transpose: rows are outputs, so there are four, and columns are inputs"),
    )
    for matrix, why in known:
        if _matches(answer, matrix):
            raise Wrong(why)
    same_numbers(answer, _SHARES, "the matrix")
    return "Both columns sum to 2: each input pixel is used twice, as it should be when the size doubles."


def alias(f: Any, step: int) -> Any:
    """The frequency, in cycles per kept pixel, that remains visible."""
    turns = f * step
    return abs(turns - round(turns))


@exercise(
    "01.2",
    title="the frequency that is left",
    hints=(
        "How many cycles pass from one kept pixel to the next? A whole cycle more or less cannot be seen.",
        "Subtract the nearest whole number of cycles; a wave running backwards looks like one running forwards.",
        "abs(t - round(t)) with t = f * step.",
    ),
    solution=alias,
    wrong=[
        (lambda f, step: f * step, "not folded"),
        (lambda f, step: f * step % 1, "backwards"),
        (lambda f, step: abs(f * step - round(f * step)) / step, "per new pixel"),
        (lambda f, step: abs(f - round(f)), "came as"),
    ],
)
def check_01_2(answer: Callable[[Any, int], Any]) -> str:
    """Compare on stripes that survive, fold once, and fold several times."""
    cases: list[tuple[Any, int]] = [(Fraction(7, 16), 2), (0.3, 2), (0.3, 3), (Fraction(1, 4), 4), (0.1, 2), (0.45, 5)]
    came = [answer(f, step) for f, step in cases]
    known = (
        ([f * s for f, s in cases], "f * step is the frequency per kept pixel, not folded: above 1/2 another is seen"),
        ([f * s % 1 for f, s in cases], "whole turns are gone, but 7/8 of a turn looks like 1/8 of a turn backwards"),
        ([alias(f, s) / s for f, s in cases], "these are cycles per old pixel; asked are cycles per new pixel"),
    )
    for values, why in known:
        if _matches(came, values):
            raise Wrong(why)
    for f, step in cases:
        same_call(answer, (f, step), alias(f, step))
    return "0.3 and 0.2 both end at 0.4 when every 2nd pixel is kept: nobody can undo that afterwards."


def halve(row: Tensor) -> Tensor:
    """Half_pixel looks at 2 i + 1/2, midway between pixels 2 i and 2 i + 1: their mean."""
    return (row[0::2] + row[1::2]) / 2


@exercise(
    "01.3",
    title="a halving that stays put",
    hints=(
        "Where does half_pixel look when s = 1/2? Put i = 0 and i = 1 into its formula.",
        "At 2 i + 1/2: exactly between two pixels. What share does each of them get?",
    ),
    solution=halve,
    wrong=[
        (lambda row: row[::2], "half a pixel too far left"),
        (lambda row: row[1::2], "half a pixel too far right"),
        (lambda row: row[0::2] + row[1::2], "sum to 1"),
        (lambda row: (row[:-1] + row[1:]) / 2, "shape"),
    ],
)
def check_01_3(answer: Callable[[Tensor], Any]) -> str:
    """A constant row, the ramp that reads off the places, and a row of no pattern."""
    ramp = torch.arange(10, dtype=torch.float64)
    same_call(answer, (torch.zeros(10, dtype=torch.float64),), [0.0] * 5, "halve(ten zeros)")
    if not _matches(answer(torch.ones(10, dtype=torch.float64)), [1.0] * 5):
        raise Wrong("a row of ones must stay ones: do the shares of each output sum to 1?")
    for shift, side in ((0, "left"), (1, "right")):
        if _matches(answer(ramp.clone()), ramp[shift::2]):
            raise Wrong(f"the ramp 0, 1, 2, ... came as {ramp[shift::2].tolist()}: half a pixel too far {side}")
    same_call(answer, (ramp,), [0.5, 2.5, 4.5, 6.5, 8.5], "halve(the ramp 0..9)")
    row = torch.cos(torch.arange(12, dtype=torch.float64) ** 2)
    same_call(answer, (row,), halve(row), "halve(a row of 12)", tolerance=1e-5)
    return "Put it in place of [::2] in the cat's trip, along both axes, and the cat stays."


def miss(layers: int) -> float:
    """The stride is s = 2 ** layers: the cell sits on s i, its stretch has its middle at s (i + 1/2) - 1/2."""
    return float(2**layers - 1) / 2


@exercise(
    "01.4",
    title="how far a stack of strides misses",
    hints=(
        "One layer first. Cell i sits on pixel 2 i. Put 1/s = 2 into half_pixel's formula and subtract.",
        "Two layers: cell i sits on 2 (2 i) = 4 i, and 1/s = 4. The gap does not depend on i.",
        "2^L (i + 1/2) - 1/2 - 2^L i.",
    ),
    solution=miss,
    wrong=[
        (lambda layers: layers / 2, "adds half a pixel per layer"),
        (lambda layers: 2**layers / 2, "1/2 too large"),
        (lambda layers: 2**layers - 1, "twice"),
        (lambda layers: -(2**layers - 1) / 2, "not negative"),
        (lambda layers: 0.5, "came as"),
    ],
)
def check_01_4(answer: Callable[[int], Any]) -> str:
    """Compare for one to five layers and name the usual mistakes."""
    layers = range(1, 6)
    came = [answer(n) for n in layers]
    known = (
        (
            [n / 2 for n in layers],
            "this adds half a pixel per layer, but half a pixel of a small map is many of the input",
        ),
        ([2**n / 2 for n in layers], "this is 1/2 too large: half_pixel's formula ends in - 1/2"),
        ([2**n - 1 for n in layers], "this is twice too much: the middle is half way through the stretch"),
        ([-miss(n) for n in layers], "the size of the gap is asked, not negative"),
    )
    for values, why in known:
        if _matches(came, values):
            raise Wrong(why)
    for n in layers:
        same_call(answer, (n,), miss(n))
    return "15.5 pixels after five layers: default boxes in part 3 sit at the half_pixel places, for this reason."


def _matches(answer: Any, expected: Any) -> bool:
    try:
        same_numbers(answer, expected)
    except Wrong:
        return False
    return True
