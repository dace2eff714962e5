"""Exercises of chapter 01: a matrix by hand, waves in disguise, a halving that stays put, a stack of strides."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .compare import Wrong, kind, same_call, same_numbers
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


def disguises(g: Fraction, step: int) -> list[Fraction]:
    """Every f for which f * step is g more, or g less, than a whole number of cycles; the set drops doubles."""
    found = {(turns + side * g) / step for turns in range(step) for side in (1, -1)}
    return sorted(f for f in found if 0 <= f <= Fraction(1, 2))


def _forwards_only(g: Fraction, step: int) -> list[Fraction]:
    return [(turns + g) / step for turns in range(step) if (turns + g) / step <= Fraction(1, 2)]


def _up_to_one(g: Fraction, step: int) -> list[Fraction]:
    found = {(turns + side * g) / step for turns in range(step + 1) for side in (1, -1)}
    return sorted(f for f in found if 0 <= f <= 1)


def _per_kept_pixel(g: Fraction, step: int) -> list[Fraction]:
    return [f * step for f in disguises(g, step)]


def _twice(g: Fraction, step: int) -> list[Fraction]:
    found = [(turns + side * g) / step for turns in range(step) for side in (1, -1)]
    return sorted(f for f in found if 0 <= f <= Fraction(1, 2))


def _fold(g: Fraction, step: int) -> Fraction:
    return abs(step * g - round(step * g))


@exercise(
    "01.2",
    title="all waves behind one disguise",
    hints=(
        "From one kept pixel to the next, f makes f * step cycles. Which values of f * step look like g?",
        "A whole number of cycles more looks like g, and so does a turn backwards: f * step = m + g or m - g.",
        "f = (m + g) / step and (m - g) / step for m = 0, 1, 2, ...; keep what lies in 0..1/2, each once, and sort.",
    ),
    solution=disguises,
    wrong=[
        (_fold, "expected a list"),
        (lambda g, step: [g / step], "only the slowest"),
        (_forwards_only, "backwards"),
        (_up_to_one, "above 1/2"),
        (_per_kept_pixel, "cycles per old pixel"),
        (_twice, "more than once"),
        (lambda g, step: disguises(g, step)[::-1], "the smallest first"),
        (0.4, "expected a function"),
    ],
)
def check_01_2(answer: Callable[[Fraction, int], Any]) -> str:
    """Compare where each wave has its own place, and where two disguises meet at 0 or at 1/2."""
    # step 3 for g = 0 and 1/2, and step 4 for 0: forwards and backwards meet there
    cases = [(Fraction(*g), step) for g, step in (((1, 8), 3), ((2, 5), 2), ((1, 3), 5), ((0, 1), 4), ((1, 2), 3))]
    for g, step in cases:
        came, wanted = answer(g, step), disguises(g, step)
        call = f"disguises({g}, {step})"
        if not isinstance(came, (list, tuple, Tensor)):
            raise Wrong(f"{call} came as {kind(came)}, expected a list of frequencies")
        known = (
            ([g / step], f"this is only the slowest wave; {len(wanted)} waves end there"),
            (_forwards_only(g, step), "half of them are missing: a wave running backwards shows g as well"),
            (_up_to_one(g, step), "frequencies above 1/2 are in it; the old pixels cannot hold those"),
            (_per_kept_pixel(g, step), "these are cycles per kept pixel; asked are cycles per old pixel"),
        )
        if _matches(came, wanted):
            continue
        for usual, why in known:
            if _matches(came, usual):
                raise Wrong(f"{call}: {why}")
        if all(any(_matches(f, w) for w in wanted) for f in came):
            if _matches(sorted(came, key=float), wanted):
                raise Wrong(f"{call} holds the right ones; the smallest first, please")
            if len(came) > len(wanted):
                raise Wrong(f"{call} holds one frequency more than once")
        same_numbers(came, wanted, call)
    return "At g = 2/5 and step 2 these are 0.2 and 0.3: once every 2nd pixel is gone, nobody can tell which it was."


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
        (15.5, "the answer came as float 15.5, expected a function"),
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
