"""Exercises of chapter 04, bicubic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from course_lib.plain import W, resample_row

from .compare import Wrong, kind, one_number, same_call, same_numbers
from .registry import exercise


def halfway(a: Any) -> list[Any]:
    """W(3/2) = 27a/8 - 45a/4 + 12a - 4a = a/8, and W(1/2) = (a+2)/8 - (a+3)/4 + 1 = (4-a)/8."""
    return [a / 8, (4 - a) / 8, (4 - a) / 8, a / 8]


def _outer_sign(a: Any) -> list[Any]:
    return [-a / 8, (4 + a) / 8, (4 + a) / 8, -a / 8]


def _only_minus_half(a: Any) -> list[Any]:
    return [-1 / 16, 9 / 16, 9 / 16, -1 / 16]


def _inner_first(a: Any) -> list[Any]:
    return [(4 - a) / 8, a / 8, a / 8, (4 - a) / 8]


@exercise(
    "04.1",
    title="the four weights halfway, for every a",
    hints=(
        "Halfway between two pixels, the four pixels are at distances 3/2, 1/2, 1/2 and 3/2.",
        "Put x = 1/2 into the piece for |x| <= 1, and x = 3/2 into the piece for 1 < |x| < 2; collect what has an a.",
        "The outer weight is 27a/8 - 45a/4 + 12a - 4a. The four must add up to 1, which gives you the inner one.",
    ),
    solution=halfway,
    wrong=[
        (_only_minus_half, "right for a = -1/2"),
        (_outer_sign, "(-0.75) came as [0.09375"),
        (_inner_first, "far pixels"),
        ([-0.0625, 0.5625, 0.5625, -0.0625], "expected a function"),
    ],
)
def check_04_1(answer: Any) -> None:
    """Compare with W(3/2) and W(1/2) written as polynomials in a."""
    if callable(answer):
        came = list(answer(-0.75))
        if len(came) == 4 and came == list(answer(-0.5)):
            raise Wrong(f"halfway(-0.75) came as {came}, the same as for a = -0.5; right for a = -1/2 at most")
        if len(came) == 4 and came[0] > came[1]:
            raise Wrong(f"halfway(-0.75) came as {came}: the far pixels (first and last) weigh more than the near ones")
    for a in (-0.75, -0.5, 0.0, Fraction(-1)):
        same_call(answer, (a,), halfway(a))


_WORST = 0.5 - math.sqrt(3) / 6


@exercise(
    "04.2",
    title="where PyTorch's ramp is worst",
    hints=(
        "The error is (2a + 1) s (1 - s) (2s - 1). The factor 2a + 1 sets the size of the worst error, not its place.",
        "Set the derivative of s (1 - s) (2s - 1) to zero; with s = 1/2 + d it is (1/4 - d*d) * 2d.",
        "d = -sqrt(3)/6. Put s = 1/2 - sqrt(3)/6 back into the formula; both 2a + 1 and 2s - 1 are negative there.",
    ),
    solution=(_WORST, math.sqrt(3) / 36),
    wrong=[
        ((0.25, 0.046875), "missed by 0.04688; there is a place"),
        ((1 - _WORST, -math.sqrt(3) / 36), "below one half"),
        ((_WORST, 0.05), "s is right"),
        ((_WORST, -math.sqrt(3) / 36), "sign"),
        ((_WORST, math.sqrt(3) / 18), "factor 2a + 1"),
        (_WORST, "a pair"),
    ],
)
def check_04_2(answer: Any) -> None:
    """Oracle: the extremum of a cubic, by hand."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong(f"the answer came as {answer!r}, expected a pair (s, error)")
    s, error = answer
    same_numbers(s, s, "s")
    same_numbers(error, error, "the error")
    if s < 0 or s > 0.5:
        raise Wrong(f"s came as {s:.4f}, expected a place above 0 and below one half")
    worst, here = math.sqrt(3) / 36, -0.5 * s * (1 - s) * (2 * s - 1)
    if not abs(s - _WORST) < 6e-5:  # so that NaN is no answer either
        raise Wrong(f"at s = {s:.5g} the ramp is missed by {here:.5f}; there is a place where it is missed by more")
    if abs(error + worst) < 1e-3:
        raise Wrong(f"the error came with the wrong sign, {error:.5f}: both 2a + 1 and 2s - 1 are negative there")
    if abs(abs(error) - 2 * worst) < 1e-3:
        raise Wrong(f"the error came as {error:.5f}, which is s (1 - s) (2s - 1) alone: the factor 2a + 1 is missing")
    if not abs(error - worst) < 6e-5:
        raise Wrong(f"s is right; the error came as {error:.5g}, and the formula says something else there")


_UNHARMED = 2 - 2 * math.sqrt(2)


@exercise(
    "04.3",
    title="the a that lets the wave pass",
    hints=(
        "With the weights of 04.1, a wave shifted by half a pixel keeps "
        "2 (4 - a)/8 cos(w/2) + 2 a/8 cos(3w/2) of its height.",
        "At w = pi/2 the two cosines are cos(pi/4) = sqrt(2)/2 and cos(3 pi/4) = -sqrt(2)/2.",
        "So sqrt(2)/8 * (4 - 2a) = 1; solve for a.",
    ),
    solution=_UNHARMED,
    wrong=[
        (-0.75, "keeps 0.9723"),
        (-1.0, "keeps 1.0607"),
        (2 * math.sqrt(2) - 2, "positive"),
        ((-0.8284,), "one number"),
    ],
)
def check_04_3(answer: Any) -> str:
    """Oracle: sqrt(2)/8 (4 - 2a) = 1, solved by hand."""
    if isinstance(answer, (tuple, list)):
        raise Wrong(f"the answer came as {answer!r}, expected one number")
    same_numbers(answer, answer)
    if answer > 0:
        raise Wrong(
            f"the answer came as {float(answer):.4f}: with a positive a the curve runs backwards through pixels"
        )
    kept = math.sqrt(2) / 8 * (4 - 2 * answer)
    if not abs(answer - _UNHARMED) < 6e-5:  # so that NaN is no answer either
        raise Wrong(f"the answer came as {float(answer):.6g}, which keeps {kept:.4f} of the wave's height, not 1")
    return "That is 2 - 2 sqrt(2), and its price is a step that overshoots by 12.3 %."


def find_a(enlarge: Any) -> Any:
    """A quarter beyond pixel 5, a ramp is wrong by (2a + 1) * 1/4 * 3/4 * (-1/2) = -(2a + 1) * 3/32."""
    error = enlarge([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])[11] - 5.25
    return (-32 * error / 3 - 1) / 2


def _enlarger(a: float) -> Callable[[Sequence[Any]], list[float]]:
    def enlarge(row: Sequence[Any]) -> list[float]:
        pixels = [float(value) for value in row]
        if not pixels:
            raise ValueError("enlarge needs at least one pixel, got an empty row")
        return resample_row(pixels, 2 * len(pixels), 2, lambda x: W(x, a), 2, "half_pixel", "replicate")

    return enlarge


def _always_honest(enlarge: Any) -> float:
    return -0.5


def _weight_itself(enlarge: Any) -> Any:
    return enlarge([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])[13]


def _sign_lost(enlarge: Any) -> Any:
    return -1 - find_a(enlarge)


def _at_the_edge(enlarge: Any) -> Any:
    error = enlarge([0, 1, 2, 3, 4, 5])[1] - 0.25
    return (-32 * error / 3 - 1) / 2


@exercise(
    "04.4",
    title="the a of an unknown enlarger",
    hints=(
        "Flat grey tells nothing: every a keeps it. A ramp is missed by (2a + 1) s (1 - s) (2s - 1).",
        "Enlarge 0, 1, 2, ... 11. Output 11 looks at (11 + 1/2)/2 - 1/2 = 5.25: s is 1/4, and far from both edges.",
        "There the error is enlarge(row)[11] - 5.25 = -(2a + 1) * 3/32; solve for a.",
    ),
    solution=find_a,
    wrong=[
        (_always_honest, "whatever it is given"),
        (_weight_itself, "W(5/4) = 9a/64"),
        (_sign_lost, "2s - 1"),
        (_at_the_edge, "edge"),
        (-0.75, "expected a function"),
    ],
)
def check_04_4(answer: Any) -> str:
    """Hand over enlargers of known a, made by the plain row-by-row resampling."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    truth = (-0.75, -0.5, -1.0, -0.3)
    came = [one_number(answer(_enlarger(a)), "find_a(enlarge)") for a in truth]
    if max(came) - min(came) < 1e-9:
        raise Wrong(f"find_a answers {came[0]:.6g} whatever it is given: enlarge a row, and let the result decide")
    for found, a in zip(came, truth, strict=True):
        if abs(found - a) < 6e-5:
            continue
        said = f"for an enlarger with a = {a} find_a answers {found:.6g}"
        if abs(found - 9 * a / 64) < 1e-6:
            raise Wrong(f"{said}: that is the weight W(5/4) = 9a/64 and not yet a")
        if abs(found + 1 + a) < 6e-5:
            raise Wrong(f"{said}, which is -1 - a: below s = 1/2 the factor 2s - 1 is negative")
        raise Wrong(f"{said}. Does the place you read have four true pixels around it, none of them a repeated edge?")
    return "The same three lines tell you what any program's bicubic is made of."
