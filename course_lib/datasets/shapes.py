"""Plain shapes by their signed distances: drawn at any size and turn, with smooth edges and an exact mask."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_TRIES = 12


@dataclass(frozen=True)
class Shape:
    """A shape in its own coordinates, where it reaches about 1 from the origin.

    distance(u, v, detail): signed distance to the outline, negative inside, (h, w) like u and v. hull(detail): points
    (n, 2) as (u, v) that reach as far as the shape in every direction. detail in [0, 1]: its thickness, bend or
    elongation. slack: by how many pixels it reaches further than it is counted, about, which is more where it has sharp
    corners; it only makes `fitted` faster. Every shape is its own mirror image about an axis, so that its box is
    square when turned by 45 degrees.
    """

    distance: Callable[[Array, Array, float], Array]
    hull: Callable[[float], npt.NDArray[np.float64]]
    slack: float = 0.3


@dataclass(frozen=True)
class Stamp:
    """A shape on the grid of pixels: alpha (h, w) in [0, 1], the part of each pixel that it covers, about; inside
    (h, w), the pixels whose centres it holds; box: top, left, height and width of `inside` within the array.
    """

    alpha: Array
    inside: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]


def stamp(shape: Shape, detail: float, turn: float, reach: float, phase: tuple[float, float]) -> Stamp | None:
    """Return a shape whose unit is `reach` pixels, turned by `turn` (radians) about a point that lies `phase` (y, x)
    pixels off a pixel's centre; None when it holds no pixel's centre.
    """
    c, s = math.cos(turn), math.sin(turn)
    hull = shape.hull(detail) @ (reach * np.array([[c, s], [-s, c]])) + phase[::-1]
    (left, top), (right, bottom) = hull.min(0).tolist(), hull.max(0).tolist()
    x = np.arange(math.floor(left) - 1, math.ceil(right) + 2, dtype=np.float32) - phase[1]
    y = np.arange(math.floor(top) - 1, math.ceil(bottom) + 2, dtype=np.float32)[:, None] - phase[0]
    d = shape.distance((c / reach) * x + (s / reach) * y, (c / reach) * y - (s / reach) * x, detail)
    d *= -reach
    inside = d > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    d += 0.5
    np.maximum(d, 0, out=d)
    np.minimum(d, 1, out=d)
    return Stamp(d, inside, (y0, x0, y1 - y0, x1 - x0))


def fitted(shape: Shape, detail: float, turn: float, side: int, phase: tuple[float, float]) -> Stamp | None:
    """Return a stamp the short side of whose box is exactly `side` pixels, or None where none was found.

    Pixels are counted by their centres, so a sharp corner may reach a pixel further than is counted: the unit is
    corrected until the count is right.
    """
    c, s = math.cos(turn), math.sin(turn)
    unit = float(np.ptp(shape.hull(detail) @ np.array([[c, s], [-s, c]]), axis=0).min())
    reach, step = (side + shape.slack) / unit, 0.9 / unit
    low, high = 0.0, math.inf
    for _ in range(_TRIES):
        found = stamp(shape, detail, turn, reach, phase)
        short = min(found.box[2:]) if found else 0
        if short == side:
            return found
        if short < side:
            low = reach
            reach = reach + (side - short) * step if high == math.inf else (low + high) / 2
        else:
            high = reach
            reach = reach - (short - side) * step if low == 0 else (low + high) / 2
    return None


def _circle(u: Array, v: Array) -> Array:
    d: Array = np.sqrt(u * u + v * v)
    return d


def _points(*points: tuple[float, float]) -> Callable[[float], npt.NDArray[np.float64]]:
    array = np.array(points)
    return lambda detail: array


def _on_circle(first: float, last: float, count: int) -> list[tuple[float, float]]:
    angles = [first + (last - first) * k / (count - 1) for k in range(count)]
    return [(math.cos(a), math.sin(a)) for a in angles]


_ROUND = _points(*_on_circle(0, 2 * math.pi, 49))
_CORNERS = _points((1, 1), (1, -1), (-1, 1), (-1, -1))
_ROOT3 = math.sqrt(3)


def _disc(u: Array, v: Array, detail: float) -> Array:
    return _circle(u, v) - 1


def _ring(u: Array, v: Array, detail: float) -> Array:
    half = 0.18 + 0.1 * detail
    return np.abs(_circle(u, v) - (1 - half)) - half


def _flatness(detail: float) -> float:
    return 0.45 + 0.2 * detail


def _ellipse(u: Array, v: Array, detail: float) -> Array:
    b = _flatness(detail)
    # the value over its slope: exact on the outline, which is where it matters
    q = v / (b * b)
    value, slope = u * u + v * q, u * u + q * q
    return (value - 1) / (2 * np.sqrt(slope) + 1e-3)


def _ellipse_hull(detail: float) -> npt.NDArray[np.float64]:
    return _ROUND(detail) * (1, _flatness(detail))


def _square(u: Array, v: Array, detail: float) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 1


def _frame(u: Array, v: Array, detail: float) -> Array:
    half = 0.2 + 0.08 * detail
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - (1 - half)) - half


def _bar_half(detail: float) -> float:
    return 0.2 + 0.14 * detail


def _bar(u: Array, v: Array, detail: float) -> Array:
    d: Array = np.maximum(np.abs(u) - 1, np.abs(v) - _bar_half(detail))
    return d


def _bar_hull(detail: float) -> npt.NDArray[np.float64]:
    return _CORNERS(detail) * (1, _bar_half(detail))


def _cross_half(detail: float) -> float:
    return 0.24 + 0.12 * detail


def _cross(u: Array, v: Array, detail: float) -> Array:
    half, x, y = _cross_half(detail), np.abs(u), np.abs(v)
    d: Array = np.maximum(np.maximum(x, y) - 1, np.minimum(x, y) - half)
    return d


def _cross_hull(detail: float) -> npt.NDArray[np.float64]:
    half = _cross_half(detail)
    return np.concatenate([_CORNERS(detail) * (1, half), _CORNERS(detail) * (half, 1)])


def _triangle(u: Array, v: Array, detail: float) -> Array:
    return np.maximum(-v, _ROOT3 / 2 * np.abs(u) + v / 2) - 0.5


def _hexagon(u: Array, v: Array, detail: float) -> Array:
    x, y = np.abs(u), np.abs(v)
    return np.maximum(y, _ROOT3 / 2 * x + y / 2) - _ROOT3 / 2


_MIRRORS = [(math.cos(a), math.sin(a)) for a in (math.radians(18), math.radians(-18), math.radians(-54))]
_NOTCH = (0.46 * math.cos(math.pi / 5), 0.46 * math.sin(math.pi / 5))  # the inner corner beside the tip (1, 0)
_EDGE = math.hypot(1 - _NOTCH[0], _NOTCH[1])


def _star(u: Array, v: Array, detail: float) -> Array:
    # folded at its mirror lines, the star is what lies below one edge, from the tip (1, 0) to the notch at 36 degrees
    u, v = u.copy(), np.abs(v)
    for nu, nv in _MIRRORS:
        over = np.minimum(nu * u + nv * v, 0) * 2
        u -= nu * over
        v -= nv * over
    return ((u - 1) * _NOTCH[1] + v * (1 - _NOTCH[0])) / _EDGE


def _half_disc(u: Array, v: Array, detail: float) -> Array:
    d: Array = np.maximum(_circle(u, v) - 1, -v)
    return d


_BITE = 0.55


def _crescent(u: Array, v: Array, detail: float) -> Array:
    d: Array = np.maximum(_circle(u, v) - 1, 0.85 - _circle(u - _BITE, v))
    return d


_HORN = math.acos((1 + _BITE**2 - 0.85**2) / (2 * _BITE))  # where the two circles of the crescent meet

SHAPES: dict[str, Shape] = {
    "disc": Shape(_disc, _ROUND, 0.2),
    "square": Shape(_square, _CORNERS),
    "triangle": Shape(_triangle, _points((0, 1), (_ROOT3 / 2, -0.5), (-_ROOT3 / 2, -0.5)), 0.6),
    "ring": Shape(_ring, _ROUND, 0.2),
    "cross": Shape(_cross, _cross_hull),
    "star": Shape(_star, _points(*_on_circle(0, 2 * math.pi, 6)), 1.2),
    "ellipse": Shape(_ellipse, _ellipse_hull, 0.1),
    "bar": Shape(_bar, _bar_hull),
    "crescent": Shape(_crescent, _points(*_on_circle(_HORN, 2 * math.pi - _HORN, 41)), 0.6),
    "hexagon": Shape(_hexagon, _points(*_on_circle(0, 2 * math.pi, 7))),
    "frame": Shape(_frame, _CORNERS),
    "half_disc": Shape(_half_disc, _points(*_on_circle(0, math.pi, 25))),
}
"""The shapes that scenes are made of, by name."""


def _stroke(u: Array, v: Array, detail: float) -> Array:
    d: Array = np.maximum(np.abs(v - 0.7 * detail * u * u) - 0.1, np.abs(u) - 1)
    return d


def _corner(u: Array, v: Array, detail: float) -> Array:
    slope = 0.4 + 0.8 * detail
    return np.maximum(np.abs(v - slope * np.abs(u)) / math.hypot(1, slope) - 0.1, np.abs(u) - 0.8)


def _blob(u: Array, v: Array, detail: float) -> Array:
    # three round fields that melt into each other; for one alone this is the exact distance
    spread = 0.4 + 0.15 * detail
    field = 0.3 / ((u - spread) ** 2 + v * v + 0.01)
    field += 0.14 / ((u + spread) ** 2 + (v - 0.3) ** 2 + 0.01)
    field += 0.1 / (u * u + (v + 0.5) ** 2 + 0.01)
    d: Array = 0.5 * (1 / np.sqrt(field) - 0.8)
    return d


_AROUND = _points((1.2, 1.1), (1.2, -1), (-1.2, 1.1), (-1.2, -1))

DISTRACTORS: dict[str, Shape] = {
    "stroke": Shape(_stroke, _AROUND),
    "corner": Shape(_corner, _AROUND),
    "blob": Shape(_blob, _AROUND),
}
"""Pieces that are no objects: fragments of lines and irregular spots."""
