"""Exercises of chapter 12, SAN."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .compare import Wrong, kind, one_number, same_call, same_numbers
from .registry import exercise


def covariance(X: Tensor) -> Tensor:
    """Centre each row first: what is left is small, and nothing cancels."""
    D = X - X.mean(1, keepdim=True)
    return D @ D.T / X.shape[1]


def _unbiased(X: Tensor) -> Tensor:
    return covariance(X) * X.shape[1] / (X.shape[1] - 1)


def _not_centred(X: Tensor) -> Tensor:
    return X @ X.T / X.shape[1]


def _subtracted_late(X: Tensor) -> Tensor:
    m = X.mean(1, keepdim=True)
    return X @ X.T / X.shape[1] - m @ m.T


def _of_places(X: Tensor) -> Tensor:
    return covariance(X.T)


def _centred_by_columns(X: Tensor) -> Tensor:
    D = X - X.mean(0, keepdim=True)
    return D @ D.T / X.shape[1]


@exercise(
    "12.1",
    title="covariance that keeps its digits",
    hints=(
        "X has one row for each map. Subtract from each row its own mean: X.mean(1, keepdim=True).",
        "With D the deviations, D @ D.T holds sums over the places of products of two rows.",
        "D @ D.T / X.shape[1]. Centre before you multiply: at large means the other order has no digit left.",
    ),
    solution=covariance,
    wrong=[
        (_unbiased, "s - 1"),
        (_not_centred, "mean of each row"),
        (_subtracted_late, "centre first"),
        (_of_places, "shape"),
        (_centred_by_columns, "columns"),
        ([[1.25, -0.5], [-0.5, 1.0]], "expected a function"),
    ],
)
def check_12_1(answer: Any) -> str:
    """Oracle: the chapter's numbers by hand, and the definition in float64 where the means are large."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    X = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 0.0, 2.0, 0.0]])
    came = answer(X.clone())
    for wrong, why in (
        (_unbiased, "it was divided by s - 1; here by s, the number of places"),
        (_not_centred, "the mean of each row is still inside"),
        (_centred_by_columns, "the means of the columns were subtracted; a map is a row"),
    ):
        if isinstance(came, Tensor) and came.shape == (2, 2) and torch.allclose(came.double(), wrong(X).double()):
            raise Wrong(f"for the rows 1 2 3 4 and 2 0 2 0: {why}")
    same_numbers(came, [[1.25, -0.5], [-0.5, 1.0]], "covariance of the rows 1 2 3 4 and 2 0 2 0")
    high = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 0.0, 2.0, 0.0, 1.0]]) + 30_000
    try:
        same_numbers(answer(high.clone()), covariance(high.double()), "covariance", tolerance=1e-4)
    except Wrong as wrong:
        raise Wrong(f"at means of 30,000, in float32, digits are lost: centre first, then multiply ({wrong})") from None
    maps = torch.rand(5, 77, generator=torch.Generator().manual_seed(0))
    same_numbers(answer(maps.clone()), covariance(maps.double()), "covariance of 5 maps", tolerance=1e-5)
    return "The table has C x C numbers, however large the picture."


def rounds(lam: Any, n: Any) -> Any:
    """Both get the same factor, computed from the old y and z."""
    y, z = lam, 1
    for _ in range(n):
        factor = (3 - z * y) / 2
        y, z = y * factor, factor * z
    return y


def _new_y_in_z(lam: Any, n: Any) -> Any:
    y, z = lam, 1
    for _ in range(n):
        y = y * (3 - z * y) / 2
        z = (3 - z * y) * z / 2
    return y


def _herons(lam: Any, n: Any) -> Any:
    y = lam
    for _ in range(n):
        y = (y + lam / y) / 2
    return y


def _inverse_root(lam: Any, n: Any) -> Any:
    return rounds(lam, n) / lam


def _one_short(lam: Any, n: Any) -> Any:
    return rounds(lam, n - 1)


@exercise(
    "12.2",
    title="Newton and Schulz for one number",
    hints=(
        "Keep two numbers, y = lam and z = 1. In each round both are multiplied by the same factor.",
        "The factor is (3 - z * y) / 2 with the old y and the old z. Compute it once, then change both.",
        "For 1/4 the first factor is 11/8: y = 11/32, z = 11/8. The second is (3 - 121/256) / 2.",
    ),
    solution=rounds,
    wrong=[
        (_new_y_in_z, "old y"),
        (_herons, "Heron"),
        (_inverse_root, "is z"),
        (_one_short, "n rounds"),
        (0.5, "expected a function"),
    ],
)
def check_12_2(answer: Any) -> str:
    """Oracle: the fractions of the first rounds, and e' = 3/4 e^2 + 1/4 e^3 with y = lam z."""
    quarter = Fraction(1, 4)
    if callable(answer):
        came = answer(quarter, 2)
        for wrong, why in (
            (_new_y_in_z, "z must be multiplied by the factor of the old y, not of the new one"),
            (_herons, "this is Heron's rule, which divides; here nothing is divided by y"),
            (_inverse_root, "this is z, near 1 / root; asked is y"),
            (_one_short, "one round is missing: after n rounds, not n - 1"),
        ):
            if came == wrong(quarter, 2):
                raise Wrong(f"rounds(1/4, 2) came as {float(came):.5f}, expected 0.43439: {why}")
    same_call(answer, (quarter, 1), Fraction(11, 32))
    for lam, n in ((0.25, 0), (0.25, 5), (0.01, 5), (1.0, 3), (3.0, 4), (3.5, 10)):
        error = 1 - lam
        sign = 1.0
        for _ in range(n):
            sign *= math.copysign(1, 1 + error / 2)  # the factor's
            error = 3 / 4 * error**2 + 1 / 4 * error**3
        same_call(answer, (lam, n), sign * math.sqrt(lam * (1 - error)))
    return "3 is lost in the first round, 3.5 finds the wrong root: hence the division by the trace."


def exponent(kappa: Any, wanted: Any) -> float:
    """kappa ** alpha = wanted, so alpha is a ratio of logarithms."""
    return math.log(wanted) / math.log(kappa)


def _ratio(kappa: Any, wanted: Any) -> float:
    return float(wanted / kappa)


def _upside_down(kappa: Any, wanted: Any) -> float:
    return math.log(kappa) / math.log(wanted)


def _always_half(kappa: Any, wanted: Any) -> float:
    return 0.5


@exercise(
    "12.3",
    title="how flat is flat",
    hints=(
        "A power alpha of the matrix is the power of every eigenvalue, so also of the ratio of two of them.",
        "kappa ** alpha = wanted. Take logarithms on both sides.",
        "From 100 to 10: log(10) / log(100) = 1/2, SAN's root.",
    ),
    solution=exponent,
    wrong=[
        (_ratio, "divides"),
        (_upside_down, "upside down"),
        (_always_half, "expected"),
        (0.5, "expected a function"),
    ],
)
def check_12_3(answer: Any) -> str:
    """Oracle: eigenvalues of a matrix raised to the answered power."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    came = one_number(answer(1000.0, 10.0), "exponent(1000, 10)")
    for wrong, why in (
        (_ratio, "that divides one condition number by the other; a power acts on logarithms"),
        (_upside_down, "the fraction is upside down: it would make the spectrum steeper"),
    ):
        if abs(came - wrong(1000.0, 10.0)) < 1e-9:
            raise Wrong(f"exponent(1000, 10) came as {came:g}, expected 1/3: {why}")
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    for kappa, wanted in ((100.0, 10.0), (1000.0, 10.0), (81.0, 3.0), (50.0, 50.0), (7.0, 1.0)):
        alpha = one_number(answer(kappa, wanted), f"exponent({kappa:g}, {wanted:g})")
        matrix = (turn * torch.tensor([1.0, 2.0, 5.0, kappa]).double()) @ turn.T
        values, vectors = torch.linalg.eigh(matrix)
        powered = torch.linalg.eigvalsh((vectors * values**alpha) @ vectors.T)
        name = f"with alpha = exponent({kappa:g}, {wanted:g}) = {alpha:.4g} the condition number"
        same_numbers((powered[-1] / powered[0]).item(), wanted, name, tolerance=1e-5)
    return "At alpha = 0 all directions are equal and nothing is left of the picture; a root is a compromise."


def pairs(H: Any, W: Any, k: Any) -> int:
    """The regions tile the map: k lengths down times k lengths right, each region's places squared."""
    rows = [(j + 1) * H // k - j * H // k for j in range(k)]
    columns = [(j + 1) * W // k - j * W // k for j in range(k)]
    return int(sum((r * c) ** 2 for r in rows for c in columns))


def _formula(H: Any, W: Any, k: Any) -> float:
    return float((H * W) ** 2 / k**2)


def _one_region(H: Any, W: Any, k: Any) -> int:
    return pairs(H // k, W // k, 1)


def _no_square(H: Any, W: Any, k: Any) -> int:
    return int(H * W)


def _whole_map(H: Any, W: Any, k: Any) -> int:
    return int(H * W) ** 2


@exercise(
    "12.4",
    title="the price of looking around",
    hints=(
        "Cut H = 5 into k = 2 parts: the cut is at 5 // 2 = 2, so the parts have 2 and 3 rows.",
        "Part j has (j + 1) * H // k - j * H // k rows. A region of r rows and c columns has (r c) ** 2 pairs.",
        "For 5 x 4 and k = 2: regions of 2 x 2, 2 x 2, 3 x 2, 3 x 2 places: 16 + 16 + 36 + 36 = 104.",
    ),
    solution=pairs,
    wrong=[
        (_formula, "5 x 4"),
        (_one_region, "one region"),
        (_no_square, "with each"),
        (_whole_map, "whole map"),
        (1327104, "expected a function"),
    ],
)
def check_12_4(answer: Any) -> str:
    """Oracle: pairs of places counted one by one."""
    if callable(answer):
        came = answer(48, 48, 2)
        for value, why in (
            (_one_region(48, 48, 2), "these are the pairs of one region; there are k x k of them"),
            (48 * 48, "each place looks once at each with each: square the number of places of a region"),
            ((48 * 48) ** 2, "that is the whole map; a place looks only at its own region"),
        ):
            if came == value:
                raise Wrong(f"pairs(48, 48, 2) came as {came:,}, expected 1,327,104: {why}")
        if answer(5, 4, 2) == 100:
            raise Wrong("pairs(5, 4, 2) came as 100, but regions of a map of 5 x 4 are not equal: 2 and 3 rows")
    for H, W, k in ((48, 48, 2), (48, 48, 1), (48, 48, 4), (5, 4, 2), (7, 11, 3), (1, 6, 2)):
        region = [(y, x) for y in _regions(H, k) for x in _regions(W, k)]
        counts = [region.count(one) for one in set(region)]
        same_call(answer, (H, W, k), sum(n * n for n in counts))
    return "Equal regions are the cheapest: 1 / k^2 of the whole map, and a little more where k does not divide."


def _regions(n: int, k: int) -> list[int]:
    """For each of n pixels of a line, its part when cuts are at j n // k."""
    return [sum(pixel >= j * n // k for j in range(1, k)) for pixel in range(n)]
