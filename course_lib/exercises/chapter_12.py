"""Exercises of chapter 12, SAN."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .compare import Wrong, kind, one_number, same_call, same_numbers
from .registry import exercise


def joined(n1: Any, m1: Any, S1: Any, n2: Any, m2: Any, S2: Any) -> Any:
    """The mean of the covariances inside the pieces, and what the distance of their means adds."""
    n, d = n1 + n2, (m1 - m2)[:, None]
    return (n1 * S1 + n2 * S2) / n + (n1 * n2 / n**2) * (d @ d.T)


def _inside_only(n1: Any, m1: Any, S1: Any, n2: Any, m2: Any, S2: Any) -> Any:
    return (n1 * S1 + n2 * S2) / (n1 + n2)


def _equal_pieces(n1: Any, m1: Any, S1: Any, n2: Any, m2: Any, S2: Any) -> Any:
    return joined(1, m1, S1, 1, m2, S2)


def _whole_distance(n1: Any, m1: Any, S1: Any, n2: Any, m2: Any, S2: Any) -> Any:
    d = (m1 - m2)[:, None]
    return _inside_only(n1, m1, S1, n2, m2, S2) + d @ d.T


def _products_of_means(n1: Any, m1: Any, S1: Any, n2: Any, m2: Any, S2: Any) -> Any:
    n, m = n1 + n2, (n1 * m1 + n2 * m2) / (n1 + n2)
    a, b = (S + torch.outer(k, k) for S, k in ((S1, m1), (S2, m2)))
    return (n1 * a + n2 * b) / n - torch.outer(m, m)


@exercise(
    "12.1",
    title="the covariance of two pieces",
    hints=(
        "If both pieces have the same means, what is the covariance of all places? And if not, what is missing?",
        "The mean of all is m = (n1 m1 + n2 m2) / n. Around it each piece has S_k + (m_k - m)(m_k - m)^T.",
        "m1 - m = n2 (m1 - m2) / n: so n1 n2 / n^2 times (m1 - m2)(m1 - m2)^T is added to (n1 S1 + n2 S2) / n.",
    ),
    solution=joined,
    wrong=[
        (_inside_only, "means of the pieces"),
        (_equal_pieces, "places each"),
        (_whole_distance, "n1 n2 / n^2"),
        (_products_of_means, "digits"),
        ([[1.25, -0.5], [-0.5, 1.0]], "expected a function"),
    ],
)
def check_12_1(answer: Any) -> str:
    """Oracle: the definition, on all places together, in float64; also where float32 means are large."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    X = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 0.0, 2.0, 0.0]])
    came = answer(*_piece(X[:, :1]), *_piece(X[:, 1:]))
    for wrong, why in (
        (_inside_only, "the means of the pieces differ, and that adds to the covariance"),
        (_equal_pieces, "the pieces have 1 and 3 places each: weigh them"),
        (_whole_distance, "the product of the differences of the means has the factor n1 n2 / n^2"),
    ):
        if isinstance(came, Tensor) and torch.allclose(came, wrong(*_piece(X[:, :1]), *_piece(X[:, 1:]))):
            raise Wrong(f"for the rows 1 2 3 4 and 2 0 2 0, cut after the first place: {why}")
    same_numbers(came, [[1.25, -0.5], [-0.5, 1.0]], "covariance of the rows 1 2 3 4 and 2 0 2 0 in pieces")
    maps = torch.rand(5, 77, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for cut in (1, 30, 76):
        came = answer(*_piece(maps[:, :cut]), *_piece(maps[:, cut:]))
        same_numbers(came, _covariance(maps), f"covariance of 5 maps in pieces of {cut} and {77 - cut} places")
    high = X + 30_000
    try:
        came = answer(*_piece(high[:, :2]), *_piece(high[:, 2:]))
        same_numbers(came, _covariance(high.double()), "covariance", tolerance=1e-3)
    except Wrong as wrong:
        raise Wrong(
            f"at means of 30,000, in float32, digits are lost: subtract means before you multiply ({wrong})"
        ) from None
    return "So one pass over a picture is enough, piece by piece: count, means, covariance."


def _piece(X: Tensor) -> tuple[int, Tensor, Tensor]:
    return X.shape[1], X.mean(1), _covariance(X)


def _covariance(X: Tensor) -> Tensor:
    D = X - X.mean(1, keepdim=True)
    return D @ D.T / X.shape[1]


def rounds_needed(lam: Any, share: Any) -> int:
    """y / root = sqrt(z y): count rounds until it is large enough."""
    y, z, n = lam, 1, 0
    while math.sqrt(z * y) < share:
        factor = (3 - z * y) / 2
        y, z, n = y * factor, factor * z, n + 1
    return n


def _one_more(lam: Any, share: Any) -> int:
    return rounds_needed(lam, share) + 1


def _of_the_square(lam: Any, share: Any) -> int:
    return rounds_needed(lam, math.sqrt(share))


def _of_lam(lam: Any, share: Any) -> int:
    return 0


def _herons(lam: Any, share: Any) -> int:
    y, n = lam, 0
    while y < share * math.sqrt(lam):
        y, n = (y + lam / y) / 2, n + 1
    return n


@exercise(
    "12.2",
    title="how many rounds",
    hints=(
        "Keep y = lam, z = 1 and a counter. In each round both are multiplied by the factor of the old y and z.",
        "y has reached the share when y >= share * sqrt(lam). Perhaps it has before the first round.",
        "while y < share * lam ** 0.5: factor = (3 - z * y) / 2; y, z, n = y * factor, factor * z, n + 1",
    ),
    solution=rounds_needed,
    wrong=[
        (_one_more, "one too many"),
        (_of_the_square, "z y"),
        (_of_lam, "of the root"),
        (_herons, "Heron"),
        (5, "expected a function"),
    ],
)
def check_12_2(answer: Any) -> str:
    """Oracle: the error's own rule, e' = 3/4 e^2 + 1/4 e^3 from e = 1 - lam, with y / root = sqrt(1 - e)."""
    if callable(answer):
        for wrong, share, why in (
            (_of_lam, 0.99, "y begins as lam, but asked is a share of the root of lam"),
            (_herons, 0.99, "this is Heron's rule, which divides by y; count rounds of Newton and Schulz"),
            (_one_more, 0.99, "one too many: how many rounds until y is there, not one further"),
            (_of_the_square, 0.8, "y / root is the root of z y: compare y with share * sqrt(lam), not z y with share"),
        ):
            if (came := answer(0.01, share)) == wrong(0.01, share):
                raise Wrong(
                    f"rounds_needed(0.01, {share}) came as {came}, expected {rounds_needed(0.01, share)}: {why}"
                )
    for lam, share in ((0.25, 0.99), (0.01, 0.99), (0.001, 0.9), (0.0001, 0.99), (1.0, 0.99), (0.81, 0.8), (0.01, 0.8)):
        error, n = 1 - lam, 0
        while 1 - error < share**2 - 1e-12:
            error, n = 3 / 4 * error**2 + 1 / 4 * error**3, n + 1
        same_call(answer, (lam, share), n)
    return "Each factor of ten in lam costs nearly three rounds more: 1.5 times 1.5 times 1.5 is about the root of ten."


def exponent(K: Any, wanted: Any) -> float:
    """K ** alpha = wanted, so alpha is a ratio of logarithms."""
    return math.log(wanted) / math.log(K)


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
        "K ** alpha = wanted. Take logarithms on both sides.",
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
