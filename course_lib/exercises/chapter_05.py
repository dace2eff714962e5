"""Exercises of chapter 05, transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise


def small_matrix(a: Any, b: Any, c: Any, d: Any) -> list[list[Any]]:
    """One row for each place of the kernel: a step to the right is one column, a step down three."""
    return [
        [a, b, 0, c, d, 0, 0, 0, 0],
        [0, a, b, 0, c, d, 0, 0, 0],
        [0, 0, 0, a, b, 0, c, d, 0],
        [0, 0, 0, 0, a, b, 0, c, d],
    ]


def _row_missing(a: Any, b: Any, c: Any, d: Any) -> list[list[Any]]:
    right = small_matrix(a, b, c, d)
    return [right[0], right[1], right[3], [0, 0, 0, 0, 0, a, b, 0, c]]


def _no_gap(a: Any, b: Any, c: Any, d: Any) -> list[list[Any]]:
    return [[0] * k + [a, b, c, d] + [0] * (5 - k) for k in (0, 1, 3, 4)]


def _turned(a: Any, b: Any, c: Any, d: Any) -> list[list[Any]]:
    return small_matrix(d, c, b, a)


def _transposed(a: Any, b: Any, c: Any, d: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*small_matrix(a, b, c, d), strict=True)]


@exercise(
    "05.1",
    title="a matrix of four rows and nine columns",
    hints=(
        "Four places for the kernel, so four rows; nine pixels, so nine columns.",
        "With its corner on pixel 0 the kernel covers pixels 0, 1 and, in the row below, 3, 4.",
        "The first row is a b 0 c d 0 0 0 0. One step to the right shifts it by one, one step down by three.",
    ),
    solution=small_matrix,
    wrong=[
        (_row_missing, "the row of output (1, 0) is missing"),
        (_no_gap, "the gap"),
        (_turned, "turned round"),
        (_transposed, "the way back"),
        ([[1, 2], [3, 4]], "expected a function"),
    ],
)
def check_05_1(answer: Any) -> None:
    """Oracle: the four rows written out."""
    letters = (2.0, 3.0, 5.0, 7.0)
    if callable(answer):
        came = answer(*letters)
        for about, other in (
            ("the row of output (1, 0) is missing, as in the source notes", _row_missing),
            ("between the kernel's two rows lies the gap to the next picture row, 0 between b and c", _no_gap),
            ("the kernel is turned round; a convolution in a network does not turn it", _turned),
            ("nine rows of four are the transpose, the way back", _transposed),
        ):
            if came == other(*letters):
                raise Wrong(f"small_matrix(2, 3, 5, 7): {about}")
    same_call(answer, letters, small_matrix(*letters))
    same_call(answer, (0.0, 1.0, -1.0, 0.5), small_matrix(0.0, 1.0, -1.0, 0.5))


def cover(k: int, s: int) -> list[int]:
    """Output q of a period is covered by the stamps that start at q, q - s, q - 2s, ... down to q - k + 1."""
    return [len(range(q, k, s)) for q in range(s)]


def _rounded_down(k: int, s: int) -> list[int]:
    return [k // s] * s


def _backwards(k: int, s: int) -> list[int]:
    return cover(k, s)[::-1]


def _rounded_up(k: int, s: int) -> list[int]:
    return [-(-k // s)] * s


@exercise(
    "05.2",
    title="stamps over one period",
    hints=(
        "Far from the border every multiple of s is the start of a stamp. Output q sees weight q of one stamp, "
        "weight q + s of the one before, and so on.",
        "So output q is covered as often as there are weights among q, q + s, q + 2s, ... below k.",
        "Those are len(range(q, k, s)). For k = 5, s = 3: 0 and 3; 1 and 4; 2 alone.",
    ),
    solution=cover,
    wrong=[
        (_rounded_down, "add up to k"),
        (_rounded_up, "add up to k"),
        (_backwards, "starts at an output where a stamp starts"),
        ([2, 1], "expected a function"),
    ],
)
def check_05_2(answer: Any) -> str:
    """Oracle: the weights of each phase, counted; all of them together are the k weights of one stamp."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    for k, s in ((3, 2), (4, 2), (6, 3), (5, 3), (7, 4), (2, 3), (1, 1)):
        came = answer(k, s)
        if isinstance(came, list) and len(came) == s and sum(came) != k:
            raise Wrong(f"cover({k}, {s}) came as {came}; over one period the counts must add up to k = {k}")
        if came == _backwards(k, s) != cover(k, s):
            raise Wrong(f"cover({k}, {s}) came as {came}; the list starts at an output where a stamp starts")
        same_numbers(came, cover(k, s), f"cover({k}, {s})")
    return "All counts are equal exactly when s divides k; here they are 2, 2, 2 for 6 and 3, and 2, 2, 1 for 5 and 3."


def gradient(g: Sequence[Any], w: Sequence[Any], n: int, s: int) -> list[Any]:
    """Output m reads pixel m s + t with weight w[t], so it sends g[m] w[t] back to it."""
    out = [0.0] * n
    for m, blame in enumerate(g):
        for t, weight in enumerate(w):
            out[m * s + t] += blame * weight
    return out


def _turned_kernel(g: Sequence[Any], w: Sequence[Any], n: int, s: int) -> list[Any]:
    return gradient(g, list(w)[::-1], n, s)


def _no_stride(g: Sequence[Any], w: Sequence[Any], n: int, s: int) -> list[Any]:
    return gradient(g, w, n, 1)


def _last_wins(g: Sequence[Any], w: Sequence[Any], n: int, s: int) -> list[Any]:
    out = [0.0] * n
    for m, blame in enumerate(g):
        for t, weight in enumerate(w):
            out[m * s + t] = blame * weight
    return out


def _too_short(g: Sequence[Any], w: Sequence[Any], n: int, s: int) -> list[Any]:
    return gradient(g, w, (len(g) - 1) * s + len(w), s)


@exercise(
    "05.3",
    title="the gradient of a strided row",
    hints=(
        "Walk over the outputs, not over the pixels: which pixels did output m read, and with which weights?",
        "Output m read pixel m*s + t with weight w[t]. So it adds g[m] * w[t] to that pixel's number.",
        "Start from [0] * n and add (+=), because a pixel may have been read more than once.",
    ),
    solution=gradient,
    wrong=[
        (_turned_kernel, "turned round"),
        (_no_stride, "stride"),
        (_last_wins, "add up"),
        (_too_short, "all n pixels"),
        ([1, 2, 3], "expected a function"),
    ],
)
def check_05_3(answer: Any) -> str:
    """Oracle: the definition, output by output."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    for g, w, n, s in (([1.0, 2.0, 4.0], [1.0, 3.0, 5.0], 8, 2), ([2.0, -1.0], [1.0, 4.0], 6, 3), ([1.0], [2.0], 1, 1)):
        came, wanted, call = answer(list(g), list(w), n, s), gradient(g, w, n, s), f"gradient({g}, {w}, {n}, {s})"
        for about, other in (
            ("the kernel is turned round; pixel m*s + t was read with w[t]", _turned_kernel),
            ("the stride is missing: output m starts at pixel m*s", _no_stride),
            ("where two outputs read one pixel, their parts add up; here the last one wins", _last_wins),
            ("there must be a number for all n pixels, also for those that nobody reads", _too_short),
        ):
            if isinstance(came, list) and came == other(g, w, n, s) != wanted:
                raise Wrong(f"{call}: {about}")
        same_numbers(came, wanted, call)
    return "That is a transposed convolution: stamps of w, pressed every s pixels."


@exercise(
    "05.4",
    title="five weights at stride 2 without a net",
    hints=(
        "An even output is reached by weights 0, 2 and 4, an odd one by weights 1 and 3.",
        "A constant 1 comes out as the sum of the weights that reach it: both sums must be 1.",
        "For instance three thirds at the even places, two halves at the odd ones.",
    ),
    solution=[1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3],
    wrong=[
        ([0.2, 0.2, 0.2, 0.2, 0.2], "0.6 and 0.4"),
        ([0.4, 0.4, 0.4, 0.4, 0.4], "1.2 and 0.8"),
        ([0.5, 0, 0.5, 1, 0], "above 0"),
        ([0.5, 1, 0.5], "five weights"),
        ([1, 1, 1, 1, 1], "3 and 2"),
    ],
)
def check_05_4(answer: Any) -> str:
    """Oracle: the two sums, and the sign."""
    if isinstance(answer, (list, tuple)) and len(answer) != 5:
        raise Wrong(f"the answer came with {len(answer)} weights, expected five weights")
    same_numbers(answer, answer)
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"the answer came as {kind(answer)}, expected a list of five numbers")
    if not all(weight > 0 for weight in answer):
        raise Wrong(f"the answer came as {answer}; every weight must be above 0")
    even, odd = float(sum(answer[::2])), float(sum(answer[1::2]))
    if not (abs(even - 1) < 1e-6 and abs(odd - 1) < 1e-6):
        raise Wrong(f"a constant 1 comes out as {even:.6g} and {odd:.6g} in turn; both must be 1")
    return "The count is uneven, 3 and 2, and the weights make up for it."
