"""Exercises of chapter 09, Meta-SR."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from course_lib.super_resolution.meta_upscale import projection
from course_lib.upsampling import as_fraction

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise


def owned(r: Any, n: Any) -> list[int]:
    """Row i belongs to small pixel floor(i / r); with fractions, // rounds down without an error."""
    exact = as_fraction(r)
    owners = [i // exact for i in range(math.floor(exact * n))]
    return [owners.count(pixel) for pixel in range(n)]


def _in_floats(r: Any, n: Any) -> list[int]:
    owners = (torch.arange(math.floor(as_fraction(r) * n)).float() * (1 / r)).floor().tolist()
    return [owners.count(pixel) for pixel in range(n)]


def _one_short(r: Any, n: Any) -> list[int]:
    owners = [i // as_fraction(r) for i in range(int(r * n))]
    return [owners.count(pixel) for pixel in range(n)]


def _by_centres(r: Any, n: Any) -> list[int]:
    exact = as_fraction(r)
    owners = [(i + Fraction(1, 2)) // exact for i in range(math.floor(exact * n))]
    return [owners.count(pixel) for pixel in range(n)]


@exercise(
    "09.1",
    title="who owns what",
    hints=(
        "First make r a fraction: r = upsampling.as_fraction(r). How many large pixels are there?",
        "math.floor(r * n) of them. Row i has the owner i // r, exact on fractions. How often does each owner come?",
        "owners = [i // r for i in range(math.floor(r * n))], then [owners.count(k) for k in range(n)].",
    ),
    solution=owned,
    wrong=[
        (_in_floats, "float"),
        (_one_short, "int(r * n)"),
        (_by_centres, "upper left corner"),
        ([2, 1, 2, 1], "expected a function"),
    ],
)
def check_09_1(answer: Any) -> str:
    """Oracle: `projection`, and the patterns done by hand in the chapter."""
    if callable(answer):
        came = _listed(answer(1.5, 4))
        if came == _by_centres(1.5, 4):
            raise Wrong(
                "owned(1.5, 4) came as [1, 2, 1, 2]: the owner holds the upper left corner of a pixel, not its centre"
            )
        if _listed(answer(2.3, 50)) == _one_short(2.3, 50):
            raise Wrong("owned(2.3, 50) has 114 large pixels, expected 115: int(r * n) in floats is one short")
        if _listed(answer(2.3, 40)) == _in_floats(2.3, 40):
            raise Wrong(
                "owned(2.3, 40) gives row 69 to pixel 29, expected 30: a product of floats was rounded down; "
                "use fractions"
            )
    for r, n in ((1.5, 4), (2.5, 4), (2.0, 3), (1.1, 12), (2.3, 100), (2.7, 60), (3.7, 70), (1.4, 45)):
        large = math.floor(as_fraction(r) * n)
        owners = projection(n, large, r)[0]
        same_call(answer, (r, n), [owners.count(k) for k in range(n)])
    return "No two neighbours differ by more than one."


def filters(r: Any, n: Any) -> int:
    """p rests along an axis, or one for each row of the large picture where there are fewer."""
    exact = as_fraction(r)
    return int(min(exact.numerator, math.floor(exact * n))) ** 2


def _area(r: Any, n: Any) -> float:
    return float(r * r)


def _rounded_up(r: Any, n: Any) -> int:
    return math.ceil(float(r)) ** 2


def _along_an_axis(r: Any, n: Any) -> int:
    return as_fraction(r).numerator


def _never_small(r: Any, n: Any) -> int:
    return as_fraction(r).numerator ** 2


@exercise(
    "09.2",
    title="how many filters",
    hints=(
        "Write r as a fraction p / q in lowest terms. After how many large pixels does the pattern begin anew?",
        "After p, along each axis. And if the large picture has fewer than p rows?",
        "min(p, floor(r n)) along an axis, and the square of that in the plane.",
    ),
    solution=filters,
    wrong=[
        (_area, "r squared"),
        (_rounded_up, "lowest terms"),
        (_along_an_axis, "in the plane"),
        (_never_small, "only 5 x 5 pixels"),
        (9, "expected a function"),
    ],
)
def check_09_2(answer: Any) -> str:
    """Oracle: the pairs of offsets that `projection` gives, counted."""
    if callable(answer):
        came = answer(1.5, 40)
        if came == 2.25:
            raise Wrong("filters(1.5, 40) came as 2.25: r squared is how many pixels one owns in the mean")
        if came == 4:
            raise Wrong(
                "filters(1.5, 40) came as 4, expected 9: write 1.5 in lowest terms, p / q; what repeats after p?"
            )
        if came == 3:
            raise Wrong("filters(1.5, 40) came as 3: that is along one axis; how many are there in the plane?")
        if answer(2.7, 2) == 729:
            raise Wrong("filters(2.7, 2) came as 729, but two small pixels give only 5 x 5 pixels")
    for r, n in ((1.5, 40), (2.0, 10), (3.0, 7), (2.7, 48), (2.7, 2), (3.4, 48), (1.1, 5), (2.5, 1)):
        large = math.floor(as_fraction(r) * n)
        same_call(answer, (r, n), len(set(projection(n, large, r)[1])) ** 2)
    return "x1.5 and x3 need nine each: what counts is p."


def nearest_centre(dy: Any, dx: Any, s: Any) -> list[list[float]]:
    """t = d + (s - 1) / 2 leads from the owner's centre to the pixel's; from 1/2 on the next small pixel is nearer."""
    row, column = (1 + math.floor(d + (s - 1) / 2 + 1 / 2) for d in (dy, dx))
    return [[float((k, m) == (row, column)) for m in range(3)] for k in range(3)]


def _the_owner(dy: Any, dx: Any, s: Any) -> list[list[float]]:
    return [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def _by_the_rest(dy: Any, dx: Any, s: Any) -> list[list[float]]:
    return nearest_centre(dy, dx, 1)


def _exchanged(dy: Any, dx: Any, s: Any) -> list[list[float]]:
    return nearest_centre(dx, dy, s)


@exercise(
    "09.3",
    title="the nearest centre",
    hints=(
        "The rest is not the way from centre to centre. The chapter calls that way t: what is it?",
        "t = d + (s - 1) / 2, never below -1/2. When is the small pixel after the owner nearer than the owner?",
        "Where t >= 1/2: row 2 instead of row 1 of the 3 by 3 numbers, and likewise the column.",
    ),
    solution=nearest_centre,
    wrong=[
        (_the_owner, "is not always the owner"),
        (_by_the_rest, "without 1/r"),
        (_exchanged, "rows"),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], "expected a function"),
    ],
)
def check_09_3(answer: Any) -> str:
    """Oracle: of all small pixels, the one whose centre is nearest, found by looking at each (exact fractions)."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    for r in (Fraction(6, 5), Fraction(4, 3), Fraction(8, 5), Fraction(2), Fraction(10, 3), Fraction(5)):
        n = 3 * r.denominator
        owners, rests = projection(n, math.floor(r * n), r)
        places = [_shift(i, owner, n, r) for i, owner in enumerate(owners)]
        for i, j in itertools.islice(itertools.product(range(len(owners)), repeat=2), 0, None, 3):
            if min(owners[i], owners[j]) == 0 or max(owners[i], owners[j]) >= n - 1:
                continue  # the border has neighbours on one side only
            args = tuple(float(number) for number in (rests[i], rests[j], 1 / r))
            expected = torch.zeros(3, 3)
            expected[1 + places[i], 1 + places[j]] = 1
            came = _nine(answer(*args))
            if torch.equal(came, expected):
                continue
            call = f"nearest_centre({', '.join(f'{number:.3f}' for number in args)})"
            for wrong, why in (
                (_the_owner, f"{call}: the nearest is not always the owner"),
                (_by_the_rest, f"{call}: without 1/r the rest alone does not say where the centre is"),
                (_exchanged, f"{call}: dy chooses among the rows, dx among the columns"),
            ):
                if torch.equal(came, torch.tensor(wrong(*args))):
                    raise Wrong(why)
            same_numbers(came, expected, call)
    return "From x1.1 to x4 the owner is not always the nearest; at whole factors it is."


def _shift(i: int, owner: int, n: int, r: Fraction) -> int:
    """How many small pixels after its owner the one lies whose centre is nearest."""
    at = (i + Fraction(1, 2)) / r - Fraction(1, 2)
    return min(range(n), key=lambda k: abs(at - k)) - owner


def reorder(weight: Any) -> Tensor:
    """The authors' columns are (1/r, dy, dx): dy is column 1, dx is column 2, 1/r is column 0."""
    turned: Tensor = weight[:, [1, 2, 0]]
    return turned


def _the_other_way(weight: Any) -> Any:
    return weight[:, [2, 0, 1]]


def _as_it_is(weight: Any) -> Any:
    return weight


def _turned_round(weight: Any) -> Any:
    return weight.flip(1)


@exercise(
    "09.4",
    title="three columns",
    hints=(
        "Column k of the weight multiplies number k of v. Which column of theirs multiplies dy?",
        "Their column 1 multiplies dy, column 2 dx, column 0 multiplies 1/r. In your order: dy, dx, 1/r.",
        "weight[:, [1, 2, 0]].",
    ),
    solution=reorder,
    wrong=[
        (_the_other_way, "the other way"),
        (_as_it_is, "unchanged"),
        (_turned_round, "exchanged"),
        ([1, 2, 0], "expected a function"),
    ],
)
def check_09_4(answer: Any) -> str:
    """Oracle: both layers give the same numbers for the same place."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    draw = torch.Generator().manual_seed(9)
    weight = torch.randn(256, 3, dtype=torch.float64, generator=draw)
    came = answer(weight.clone())
    if not isinstance(came, Tensor) or came.shape != weight.shape:
        shape = tuple(came.shape) if isinstance(came, Tensor) else kind(came)
        raise Wrong(f"reorder(weight) came as {shape}, expected a tensor (256, 3)")
    for wrong, why in (
        (_the_other_way, "the other way: this turns the paper's order into the authors'"),
        (_as_it_is, "it came back unchanged: then dy is multiplied by what belongs to 1/r"),
        (_turned_round, "1/r is last now, but dy and dx are exchanged: a square test would not notice"),
    ):
        if torch.equal(came, wrong(weight)):
            raise Wrong(why)
    dy, dx, s = torch.rand(3, dtype=torch.float64, generator=draw)
    same_numbers(came @ torch.stack([dy, dx, s]), weight @ torch.stack([s, dy, dx]), "reorder(weight) @ (dy, dx, 1/r)")
    return "Strict loading does not see this: all shapes fit."


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _nine(value: Any) -> Tensor:
    """Return the answer as float32 (3, 3), or say what shape was expected."""
    came = value if isinstance(value, Tensor) else None
    if came is None:
        same_numbers(value, value, "nearest_centre")
        came = torch.tensor(value, dtype=torch.float64)
    if tuple(came.shape) != (3, 3):
        raise Wrong(f"nearest_centre came with shape {tuple(came.shape)}, expected (3, 3)")
    return came.detach().cpu().float()
