"""Exercises of chapter 07, DUpsampling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from course_lib.upsampling import windows_to_image

from .compare import Wrong, one_number, same_call
from .registry import exercise


def temperature(C: Any, p: Any) -> Any:
    """From p = e / (e + C - 1) with e = exp(1/T): e = (C - 1) p / (1 - p)."""
    return 1 / math.log((C - 1) * p / (1 - p))


def _sharpness(C: Any, p: Any) -> Any:
    return math.log((C - 1) * p / (1 - p))


def _all_classes(C: Any, p: Any) -> Any:
    return 1 / math.log(C * p / (1 - p))


def _two_classes(C: Any, p: Any) -> Any:
    return 1 / math.log(p / (1 - p))


@exercise(
    "07.1",
    title="the temperature for a probability",
    hints=(
        "Write e for exp(1/T). The softmax gives the right class p = e / (e + C - 1).",
        "Solve for e first: p (e + C - 1) = e, so e (1 - p) = p (C - 1).",
        "T = 1 / log(e), with e = (C - 1) p / (1 - p).",
    ),
    solution=temperature,
    wrong=[
        (_sharpness, "that is 1/T"),
        (_all_classes, "C - 1 others"),
        (_two_classes, "C - 1 others"),
        (0.1, "expected a function"),
    ],
)
def check_07_1(answer: Any) -> str:
    """Put the answer back into the softmax."""
    if callable(answer):
        for C, p in ((21, 0.9), (2, 0.7), (5, 0.99)):
            came = one_number(answer(C, p), f"temperature({C}, {p})")
            wanted = temperature(C, p)
            if abs(came - wanted) > 1e-6 and abs(came * wanted - 1) < 1e-6:
                raise Wrong(f"temperature({C}, {p}) came as {came:.6g}: that is 1/T")
            if C > 2 and any(abs(came - other(C, p)) < 1e-6 for other in (_all_classes, _two_classes)):
                raise Wrong(f"temperature({C}, {p}) came as {came:.6g}: e stands beside C - 1 others, each exp(0) = 1")
    for C, p in ((21, 0.9), (2, 0.7), (5, 0.99), (21, 0.11965)):
        same_call(answer, (C, p), temperature(C, p))
    return f"For 21 classes and p = 0.9991 it is {temperature(21, 0.9991):.2f}."


def enough(r: Any, C: Any) -> Any:
    """In each pixel the C numbers sum to 1, so C - 1 are free there; and one more for the common offset."""
    return r * r * (C - 1) + 1


def _all_numbers(r: Any, C: Any) -> Any:
    return r * r * C


def _no_offset(r: Any, C: Any) -> Any:
    return r * r * (C - 1)


def _all_windows(r: Any, C: Any) -> Any:
    return C ** (r * r)


@exercise(
    "07.2",
    title="the rank at which nothing is lost",
    hints=(
        "All N = r*r*C numbers would do. But in each pixel the C numbers always sum to 1.",
        "So the sums of all pixels are equal: r*r - 1 conditions that hold for every window and every combination.",
        "N - (r*r - 1) = r*r*C - r*r + 1.",
    ),
    solution=enough,
    wrong=[
        (_all_numbers, "sum to 1"),
        (_no_offset, "one more"),
        (_all_windows, "number of windows"),
        (5, "expected a function"),
    ],
)
def check_07_2(answer: Any) -> str:
    """Oracle: the conditions counted by hand."""
    if callable(answer):
        came = one_number(answer(2, 2), "enough(2, 2)")
        if came == 8:
            raise Wrong("enough(2, 2) came as 8, all numbers there are; but in each pixel they sum to 1")
        if came == 16:
            raise Wrong("enough(2, 2) came as 16, the number of windows; most are combinations of others")
        if came == 4:
            raise Wrong("enough(2, 2) came as 4; without a mean to subtract it takes one more")
    for r, C in ((2, 2), (3, 2), (1, 4), (4, 5)):
        same_call(answer, (r, C), enough(r, C))
    return "For r = 4 and five classes 65, the rank of the toy map in the tests."


def equal_stride(r: Any, C: Any, k: Any) -> Any:
    """Numbers for each pixel: C / s^2 = k / r^2."""
    return r * math.sqrt(C / k)


def _squared(r: Any, C: Any, k: Any) -> Any:
    return r * C / k


def _upside_down(r: Any, C: Any, k: Any) -> Any:
    return r * math.sqrt(k / C)


def _no_classes(r: Any, C: Any, k: Any) -> Any:
    return r / math.sqrt(k)


@exercise(
    "07.3",
    title="as many numbers",
    hints=(
        "Count numbers for each pixel: windows have k / (r*r).",
        "Bilinear at stride s has C / (s*s) for each pixel. Set them equal.",
        "s*s = r*r*C / k, so s = r * sqrt(C / k).",
    ),
    solution=equal_stride,
    wrong=[
        (_squared, "both directions"),
        (_upside_down, "finer"),
        (_no_classes, "C numbers"),
        (9.17, "expected a function"),
    ],
)
def check_07_3(answer: Any) -> str:
    """Oracle: the numbers counted for each pixel."""
    if callable(answer):
        came = one_number(answer(16, 4, 64), "equal_stride(16, 4, 64)")
        if abs(came - 1) < 1e-6:
            raise Wrong("equal_stride(16, 4, 64) came as 1; a stride counts in both directions, so its square divides")
        if abs(came - 64) < 1e-6:
            raise Wrong("equal_stride(16, 4, 64) came as 64; more numbers for the same map make a finer grid")
        if abs(came - 2) < 1e-6:
            raise Wrong("equal_stride(16, 4, 64) came as 2; each place of bilinear's grid holds C numbers")
    for r, C, k in ((16, 4, 64), (16, 4, 4), (32, 4, 16), (16, 21, 64)):
        same_call(answer, (r, C, k), equal_stride(r, C, k))
    return f"The paper's 64 numbers are those of bilinear at stride {equal_stride(16, 21, 64):.1f}."


def take_apart(scores: Any, r: Any) -> Any:
    """Both sides become pairs, then (class, h, row, w, column) -> (h, w, row, column, class)."""
    C, height, width = scores.shape
    blocks = scores.reshape(C, height // r, r, width // r, r)
    return blocks.permute(1, 3, 2, 4, 0).reshape(-1, r * r * C)


def _class_slowest(scores: Any, r: Any) -> Any:
    C, height, width = scores.shape
    blocks = scores.reshape(C, height // r, r, width // r, r)
    return blocks.permute(1, 3, 0, 2, 4).reshape(-1, r * r * C)


def _columns_first(scores: Any, r: Any) -> Any:
    C, height, width = scores.shape
    blocks = scores.reshape(C, height // r, r, width // r, r)
    return blocks.permute(1, 3, 4, 2, 0).reshape(-1, r * r * C)


def _along_columns(scores: Any, r: Any) -> Any:
    C, height, width = scores.shape
    blocks = scores.reshape(C, height // r, r, width // r, r)
    return blocks.permute(3, 1, 2, 4, 0).reshape(-1, r * r * C)


def _only_reshaped(scores: Any, r: Any) -> Any:
    return scores.reshape(-1, r * r * scores.shape[0])


def _as_a_grid(scores: Any, r: Any) -> Any:
    C, height, width = scores.shape
    return take_apart(scores, r).reshape(height // r, width // r, r * r * C)


@exercise(
    "07.4",
    title="a map taken apart into windows",
    hints=(
        "Split both sides first: scores.reshape(C, h, r, w, r) is class, window row, row, window column, column.",
        "The output is window row, window column, row, column, class: permute before you reshape.",
        "scores.reshape(C, h, r, w, r).permute(1, 3, 2, 4, 0), then reshape to (h * w, r * r * C).",
    ),
    solution=take_apart,
    wrong=[
        (_as_a_grid, "came with shape"),
        (_class_slowest, "class runs fastest"),
        (_columns_first, "rows and columns within"),
        (_along_columns, "along the rows"),
        (_only_reshaped, "only reshaped"),
        (3, "expected a function"),
    ],
)
def check_07_4(answer: Any) -> None:
    """Oracle: the library lays numbers that are all different out as a map."""
    h, w, r, C = 2, 3, 2, 3
    expected = torch.arange(float(h * w * r * r * C)).view(h * w, r * r * C)
    scores = windows_to_image(expected, (h * r, w * r), r, C)
    if callable(answer):
        came = answer(scores.clone(), r)
        if isinstance(came, Tensor) and came.shape == expected.shape:
            if torch.equal(came, _only_reshaped(scores, r)):
                raise Wrong("the numbers were only reshaped: a window's rows lie apart in the map, so axes must change")
            if torch.equal(came, _class_slowest(scores, r)):
                raise Wrong("the class was made the slowest of the three; here the class runs fastest")
            if torch.equal(came, _columns_first(scores, r)):
                raise Wrong("rows and columns within each window are exchanged")
            if torch.equal(came, _along_columns(scores, r)):
                raise Wrong("the windows came down the columns; they shall come along the rows")
    same_call(answer, (scores, r), expected)
