"""Exercises of chapter 07, DUpsampling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from course_lib.upsampling import windows_to_image

from .compare import Wrong, one_number, same_call, same_numbers
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


@exercise(
    "07.3",
    title="the paper's sizes",
    hints=(
        "A window has N = r*r*C numbers.",
        "N = 16 * 16 * 21 = 5376, kept in 64.",
        "W is an N by 64 matrix.",
    ),
    solution=(84, 344064),
    wrong=[
        ((4, 16384), "21 classes"),
        ((84, 5376), "one column"),
        ((1 / 84, 344064), "how many times smaller"),
        (84, "a pair"),
    ],
)
def check_07_3(answer: Any) -> None:
    """Oracle: 16 * 16 * 21 = 5376 = 84 * 64."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong(f"the answer came as {answer!r}, expected a pair (factor, weights)")
    factor, weights = (one_number(part, name) for part, name in zip(answer, ("the factor", "the weights"), strict=True))
    if abs(factor - 4) < 1e-9:
        raise Wrong("the factor came as 4: a pixel of the window is 21 classes wide, 21 numbers and not one")
    if abs(factor * 84 - 1) < 1e-9:
        raise Wrong("the factor came as 1/84; say how many times smaller the code is than the window")
    if weights == 5376:
        raise Wrong("the weights came as 5376, which is one column of W; it has 64")
    same_numbers(factor, 84, "the factor")
    same_numbers(weights, 344064, "the weights")


def lay_out(vectors: Any, h: Any, w: Any, r: Any, C: Any) -> Any:
    """(h, w, row, column, class) -> (class, h, row, w, column), then two pairs become sides."""
    blocks = vectors.reshape(h, w, r, r, C)
    return blocks.permute(4, 0, 2, 1, 3).reshape(C, h * r, w * r)


def _sides_swapped(vectors: Any, h: Any, w: Any, r: Any, C: Any) -> Any:
    right = lay_out(vectors, h, w, r, C)
    return right.permute(1, 2, 0).reshape(w * r, h * r, C).permute(2, 0, 1)


def _class_slowest(vectors: Any, h: Any, w: Any, r: Any, C: Any) -> Any:
    return vectors.reshape(h, w, C, r, r).permute(2, 0, 3, 1, 4).reshape(C, h * r, w * r)


def _columns_first(vectors: Any, h: Any, w: Any, r: Any, C: Any) -> Any:
    return vectors.reshape(h, w, r, r, C).permute(4, 0, 3, 1, 2).reshape(C, h * r, w * r)


def _only_reshaped(vectors: Any, h: Any, w: Any, r: Any, C: Any) -> Any:
    return vectors.reshape(C, h * r, w * r)


@exercise(
    "07.4",
    title="windows laid out as a map",
    hints=(
        "Give every axis its own place first: vectors.reshape(h, w, r, r, C) is window row, window column, row, "
        "column, class.",
        "The output is class, window row, row, window column, column: permute before you reshape.",
        "vectors.reshape(h, w, r, r, C).permute(4, 0, 2, 1, 3), then reshape to (C, h * r, w * r).",
    ),
    solution=lay_out,
    wrong=[
        (_sides_swapped, "came with shape"),
        (_class_slowest, "class runs fastest"),
        (_columns_first, "rows and columns within"),
        (_only_reshaped, "only reshaped"),
        (3, "expected a function"),
    ],
)
def check_07_4(answer: Any) -> None:
    """Oracle: the library's layout, on numbers that are all different."""
    h, w, r, C = 2, 3, 2, 3
    vectors = torch.arange(float(h * w * r * r * C)).view(h * w, r * r * C)
    expected = windows_to_image(vectors, (h * r, w * r), r, C)
    if callable(answer):
        came = answer(vectors.clone(), h, w, r, C)
        if isinstance(came, Tensor) and came.shape == expected.shape:
            if torch.equal(came, _only_reshaped(vectors, h, w, r, C)):
                raise Wrong("the numbers were only reshaped: windows lie side by side, so axes must change places")
            if torch.equal(came, _class_slowest(vectors, h, w, r, C)):
                raise Wrong("the class was read as the slowest of the three; in these vectors the class runs fastest")
            if torch.equal(came, _columns_first(vectors, h, w, r, C)):
                raise Wrong("rows and columns within each window are exchanged")
    same_call(answer, (vectors, h, w, r, C), expected)
