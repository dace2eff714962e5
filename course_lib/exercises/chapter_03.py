"""Chapter 03: a mixture by hand, the corner-aligned row, what bilinear reproduces, blurs, and reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .compare import Wrong, same_numbers
from .registry import exercise

_MIXTURES = {
    9.5: "that weighs each pixel by the rectangle on its own side; the weight is the area opposite",
    13.5: "right and down are swapped, or Q21 and Q12: the first digit of Q counts to the right",
    13.0: "that is the plain mean of the four, right only in the middle of the cell",
    14.0: "that is R1, the mixture of the upper row; half of the way down is still to go",
    19.0: "that is R2, the mixture of the lower row; half of the way up is still to go",
}


@exercise(
    "03.1",
    title="four pixels mixed by hand",
    hints=(
        "two straight lines first, along the upper and along the lower row; then one between the two results",
        "three quarters of the way from 8 to 16 is 14; do the same from 4 to 24",
        "the upper row gives 14, the lower one 19, and P is half of the way between them",
    ),
    solution=16.5,
    wrong=[
        (9.5, "the area opposite"),
        (13.5, "right and down are swapped"),
        (13, "plain mean"),
        (14, "R1"),
        (19.0, "R2"),
        ("16?", "expected a number"),
    ],
)
def check_03_1(answer: Any) -> str:
    """f(P) at t = 3/4, u = 1/2 between 8, 16 and 4, 24."""
    if isinstance(answer, (int, float, Fraction)) and float(answer) in _MIXTURES:
        raise Wrong(f"the answer came as {float(answer):g}; {_MIXTURES[float(answer)]}")
    same_numbers(answer, 16.5)
    return "By areas: 1/8 of 8, 3/8 of 16, 1/8 of 4 and 3/8 of 24."


def stretch(row: Sequence[float], n_out: int) -> list[float]:
    """A row, linearly interpolated at n_out places from its first pixel to its last."""
    out = []
    for i in range(n_out):
        place = i * (len(row) - 1) / (n_out - 1)
        # The last place is a pixel with no right neighbour: give it the cell before, at its far end.
        left = min(int(place), len(row) - 2)
        t = place - left
        out.append((1 - t) * row[left] + t * row[left + 1])
    return out


def _half_pixel(row: Sequence[float], n_out: int) -> list[float]:
    out = []
    for i in range(n_out):
        place = min(max((i + 0.5) * len(row) / n_out - 0.5, 0), len(row) - 1)
        left = min(int(place), len(row) - 2)
        out.append(row[left] + (place - left) * (row[left + 1] - row[left]))
    return out


def _origin(row: Sequence[float], n_out: int) -> list[float]:
    out = []
    for i in range(n_out):
        place = min(i * len(row) / n_out, len(row) - 1)
        left = min(int(place), len(row) - 2)
        out.append(row[left] + (place - left) * (row[left + 1] - row[left]))
    return out


def _off_the_end(row: Sequence[float], n_out: int) -> list[float]:
    out = []
    for i in range(n_out):
        place = i * (len(row) - 1) / (n_out - 1)
        left, t = int(place), place - int(place)
        out.append((1 - t) * row[left] + t * row[left + 1])
    return out


def _swapped(row: Sequence[float], n_out: int) -> list[float]:
    out = []
    for i in range(n_out):
        place = i * (len(row) - 1) / (n_out - 1)
        left = min(int(place), len(row) - 2)
        t = place - left
        out.append(t * row[left] + (1 - t) * row[left + 1])
    return out


def _copied(row: Sequence[float], n_out: int) -> list[float]:
    return [row[int(i * (len(row) - 1) / (n_out - 1) + 0.5)] for i in range(n_out)]


_CORNERS = "on this one output i looks at i * (len(row) - 1) / (n_out - 1)"
_ROWS = (
    (f"that is the half-pixel grid; {_CORNERS}", _half_pixel),
    (f"that is the origin grid; {_CORNERS}", _origin),
    ("the weights are swapped, the near pixel must weigh more", _swapped),
    ("that copies the nearest pixel instead of mixing two", _copied),
)


@exercise(
    "03.2",
    title="the corner-aligned row",
    hints=(
        "three steps for every output: where does it look, which pixel stands just before, how far beyond it are you",
        "output i looks at i * (len(row) - 1) / (n_out - 1): from 0 to the last pixel in n_out - 1 equal steps",
        "the last output looks exactly at the last pixel, which has no right neighbour: keep the left pixel at most "
        "len(row) - 2; then the fraction is 1 and the formula still holds",
    ),
    solution=stretch,
    wrong=[
        (_half_pixel, "half-pixel grid"),
        (_origin, "the origin grid"),
        (_off_the_end, "there is no next one"),
        (_swapped, "the near pixel must weigh more"),
        (_copied, "instead of mixing"),
        ([10, 20], "expected a function"),
    ],
)
def check_03_2(answer: Any) -> None:
    """Linear interpolation of a list on the corner-aligned grid."""
    if not callable(answer):
        raise Wrong(f"the answer came as a {type(answer).__name__}, expected a function of a list and a number")
    for row, n_out in (([10.0, 20.0], 4), ([3.0, 1.0, 4.0, 1.0, 5.0], 9), ([0.0, 6.0, 2.0], 2), ([1.0, 2.0, 8.0], 8)):
        wanted, name = stretch(row, n_out), f"stretch({row}, {n_out})"
        try:
            came = answer(list(row), n_out)
        except IndexError as error:
            about = "the last output stands on the last pixel; there is no next one"
            raise Wrong(f"{name} raised IndexError: {error}; {about}") from None
        for about, other in _ROWS:
            if _alike(came, other(row, n_out)) and not _alike(came, wanted):
                raise Wrong(f"{name}: {about}")
        same_numbers(came, wanted, name)


def _alike(came: object, wanted: object) -> bool:
    try:
        same_numbers(came, wanted)
    except Wrong:
        return False
    return True


_FUNCTIONS = {
    "A": "3 - 2x + y is a plane",
    "B": "(x - 1)(y + 2) = xy + 2x - y - 2 holds nothing but xy, x, y and 1",
    "C": "x² - y² bends along x: half of the way between two pixels the straight line is off by 1/4",
    "D": "|x - 2| has its corner on a pixel line, where bilinear may bend; between pixels it is straight",
    "E": "|x - 2.5| has its corner between two pixels; there bilinear is straight and gives 1/2 instead of 0",
    "F": "(x + y)² = x² + 2xy + y²: the squares bend",
}


@exercise(
    "03.3",
    title="what bilinear brings back",
    hints=(
        "between four pixels bilinear can only draw a + bx + cy + dxy; it may change from cell to cell",
        "multiply B and F out and look for squares",
        "D and E are straight but for one corner each. Where may bilinear have a corner?",
    ),
    solution="ABD",
    wrong=[
        ("AB", "left out D"),
        ("ABDE", "E should not be in it"),
        ("A", "left out B"),
        ("ABCD", "C should not be in it"),
        ("ABDF", "F should not be in it"),
        ("planes", "expected a text of the letters A to F"),
    ],
)
def check_03_3(answer: Any) -> str:
    """Which functions bilinear interpolation reproduces."""
    given = set(answer.upper()) - set(" ,;") if isinstance(answer, str) else set()
    if isinstance(answer, (list, tuple, set)):
        given = {str(letter).strip().upper() for letter in answer}
    if not given or not given <= set(_FUNCTIONS):
        raise Wrong(f'the answer came as {answer!r}, expected a text of the letters A to F such as "AD"')
    for letter in sorted(given - set("ABD")):
        raise Wrong(f"{letter} should not be in it: {_FUNCTIONS[letter]}")
    for letter in sorted(set("ABD") - given):
        raise Wrong(f"the answer left out {letter}: {_FUNCTIONS[letter]}")
    return "D is the one to remember: a corner is no trouble if it stands on a pixel line."


def shifts_until(period: float, left: float) -> int:
    """How many half-pixel shifts bring a stripe of `period` pixels down to the fraction `left`."""
    kept = abs(math.cos(math.pi / period))  # omega = 2 pi / period
    shifts, amplitude = 0, 1.0
    while amplitude > left:
        amplitude *= kept
        shifts += 1
    return shifts


def _whole_angle(period: float, left: float) -> int:
    return math.ceil(math.log(left) / math.log(abs(math.cos(2 * math.pi / period))) - 1e-9)


def _energy(period: float, left: float) -> int:
    return math.ceil(math.log(left) / (2 * math.log(math.cos(math.pi / period))) - 1e-9)


def _one_too_few(period: float, left: float) -> int:
    return math.floor(math.log(left) / math.log(math.cos(math.pi / period)))


def _not_whole(period: float, left: float) -> float:
    return math.log(left) / math.log(math.cos(math.pi / period))


def _in_degrees(period: float, left: float) -> int:
    return math.ceil(math.log(left) / math.log(abs(math.cos(180 / period))))


@exercise(
    "03.4",
    title="how many shifts a stripe survives",
    hints=(
        "a stripe of `period` pixels per cycle has the angular frequency omega = 2 pi / period",
        "each shift multiplies the amplitude by |cos(omega / 2)| = |cos(pi / period)|; count how often until it is "
        "small enough",
        "a loop will do: amplitude = 1, and while it is above `left`, multiply and count",
    ),
    solution=shifts_until,
    wrong=[
        (_whole_angle, "half of omega"),
        (_energy, "energy"),
        (_one_too_few, "one shift too few"),
        (_not_whole, "whole number"),
        (_in_degrees, "radians"),
        (14, "expected a function"),
    ],
)
def check_03_4(answer: Any) -> str:
    """The smallest n with |cos(pi / period)| ** n <= left."""
    if not callable(answer):
        raise Wrong(f"the answer came as {answer}, expected a function of the period and the fraction")
    for period, left in ((6, 0.1), (4, 0.6), (8, 0.01), (3, 0.2), (6.5, 0.05)):
        came, wanted = answer(period, left), shifts_until(period, left)
        name = f"shifts_until({period}, {left})"
        for about, other in (
            ("the cosine takes half of omega, pi / period", _whole_angle),
            ("that is when the energy, the square, has fallen so far; the amplitude was asked", _energy),
            ("one shift too few, more than that fraction is still left", _one_too_few),
            ("a shift happens or does not: round up to a whole number", _not_whole),
            ("the cosine of Python takes radians, pi / period, not degrees", _in_degrees),
        ):
            if _alike(came, other(period, left)) and not _alike(came, wanted):
                raise Wrong(f"{name} came as {came:.4g}, expected {wanted}: {about}")
        same_numbers(came, wanted, name)
    return "At 4 pixels per cycle, 14 shifts leave less than one per cent."


def fraction_read(r: int) -> Fraction:
    """The fraction of pixels that an r times smaller bilinear picture reads without antialiasing."""
    # Output i looks at r i + (r - 1) / 2: on a pixel if r is odd, half of the way between two if it is even.
    along_one_axis = Fraction(1, r) if r % 2 else Fraction(2, r)
    return along_one_axis**2


def _always_one(r: int) -> Fraction:
    return Fraction(1, r * r)


def _always_four(r: int) -> Fraction:
    return Fraction(4, r * r)


def _one_axis(r: int) -> Fraction:
    return Fraction(1, r) if r % 2 else Fraction(2, r)


def _all_of_them(r: int) -> int:
    return 1


@exercise(
    "03.5",
    title="what a shrink reads, and what its gradient reaches",
    hints=(
        "one axis first: output i looks at (i + 1/2) r - 1/2. Put in r = 3 and r = 4. On a pixel, or between two?",
        "r odd: exactly on a pixel, so one pixel in r is read. r even: between two, so two in r",
        "a picture has two axes: square the fraction of one axis",
    ),
    solution=fraction_read,
    wrong=[
        (_always_one, "for an even r"),
        (_always_four, "for an odd r"),
        (_one_axis, "along one axis"),
        (_all_of_them, "every pixel"),
        (Fraction(1, 9), "expected a function"),
    ],
)
def check_03_5(answer: Any) -> str:
    """Fraction of pixels with a weight above zero when shrinking r times."""
    if not callable(answer):
        raise Wrong(f"the answer came as {answer}, expected a function of r")
    for r in (3, 4, 2, 5, 6):
        came, wanted = answer(r), fraction_read(r)
        for about, other in (
            ("for an even r the outputs look between two pixels, and read both", _always_one),
            ("for an odd r the outputs look exactly on a pixel, and read only that one", _always_four),
            ("that is the fraction along one axis; a picture has two", _one_axis),
            ("that would be every pixel; without antialiasing an output reads four at most", _all_of_them),
        ):
            if _alike(came, other(r)) and not _alike(came, wanted):
                raise Wrong(f"fraction_read({r}) came as {came}, expected {wanted}: {about}")
        same_numbers(came, wanted, f"fraction_read({r})")
    return "At r = 8 that is 1/16: fifteen of sixteen pixels never hear from the loss."
