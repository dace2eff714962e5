"""Exercises of chapter 02, nearest neighbour."""

from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.compare import Wrong, same_call, same_numbers
from course_lib.exercises.registry import exercise
from course_lib.upsampling import nearest_indices

FOUR_TO_SIX = {"round": [0, 1, 1, 2, 3, 3], "floor": [0, 0, 1, 2, 2, 3], "exact": [0, 1, 1, 2, 3, 3]}


@exercise(
    "02.1",
    title="three rules from 4 to 6",
    hints=(
        "One step of the output is 4/6 = 2/3 of an input pixel. First write down where the outputs look: i * 2/3 for "
        "round and floor, (i + 1/2) * 2/3 for exact.",
        "i * 2/3 is 0, 2/3, 4/3, 2, 8/3, 10/3: floor drops what is behind the point, round adds 1/2 first. "
        "(i + 1/2) * 2/3 is 1/3, 1, 5/3, 7/3, 3, 11/3: drop what is behind the point.",
    ),
    solution=FOUR_TO_SIX,
    wrong=[
        ({**FOUR_TO_SIX, "floor": [0, 1, 1, 2, 3, 3]}, "the list of floor"),
        ({**FOUR_TO_SIX, "exact": [0, 0, 1, 2, 2, 3]}, "the list of exact"),
        ({**FOUR_TO_SIX, "round": [0, 1, 1, 2, 3, 4]}, "there is no pixel 4"),
        ([0, 1, 1, 2, 3, 3], "a dictionary"),
        ({"floor": [0, 0, 1, 2, 2, 3]}, "missing"),
    ],
)
def check_02_1(answer: Any) -> str:
    """Compare the three lists, one after the other."""
    if not isinstance(answer, dict):
        raise Wrong(f"the answer came as a {type(answer).__name__}, expected a dictionary of three lists")
    missing = [name for name in FOUR_TO_SIX if name not in answer]
    if missing:
        raise Wrong(f"the dictionary came with {', '.join(map(str, answer))}, missing: {', '.join(missing)}")
    for name, expected in FOUR_TO_SIX.items():
        given = answer[name]
        if isinstance(given, (list, tuple)) and 4 in given:
            raise Wrong(f"the list of {name} came with a 4, expected indices 0 to 3: there is no pixel 4")
        same_numbers(given, expected, f"the list of {name}")
    return "Here round and exact happen to agree; from 3 to 4 they did not."


def _same_call(answer: Any, args: tuple[Any, ...], expected: object, name: str, why: str) -> None:
    """Compare as `same_call` does; where a function gives something else, the message goes on with why."""
    try:
        same_call(answer, args, expected, name)
    except Wrong as reason:
        raise Wrong(f"{reason}; {why}" if callable(answer) else str(reason)) from None


def off_the_end(r: int) -> int:
    """Output i asks for pixel n or more when i / r + 1/2 >= n, that is for the last r / 2 of its r n outputs."""
    return r // 2


@exercise(
    "02.2",
    title="r // 2 outputs run off the end, whatever n is",
    hints=(
        "Count for small cases first: nearest_indices(5, 5 * r, 'round', clamp=False) shows the indices; how many "
        "of them are 5, for r = 2, 3, 4, 5?",
        "Output i runs off when i / r + 1/2 >= n, so when i >= r n - r / 2. The last output is r n - 1. "
        "How many whole numbers lie from r n - r / 2 to r n - 1?",
    ),
    solution=off_the_end,
    wrong=[
        (lambda r: 1, "the outputs 26 to 27 ask for pixel 7"),
        (lambda r: r // 2 + 1, "output 13 asks for pixel 7"),
        (lambda r: r / 2, "as 1.5, expected 1; of 7 pixels made 21, output 20 asks"),
        (lambda r: r, "expected 1"),
        (4, "expected a function"),
    ],
)
def check_02_2(answer: Any) -> None:
    """Compare with counting, and say which outputs were counted."""
    for r in (2, 3, 4, 5, 8, 13):
        last, counted = 7 * r - 1, int((nearest_indices(7, 7 * r, "round", clamp=False) > 6).sum())
        who = f"output {last} asks" if counted == 1 else f"the outputs {last + 1 - counted} to {last} ask"
        why = f"of 7 pixels made {7 * r}, {who} for pixel 7, which does not exist"
        _same_call(answer, (r,), counted, f"the function at r = {r}", why)


def floor_matrix(n_in: int, n_out: int) -> Tensor:
    """Row i holds a 1 in column i * n_in // n_out; whole numbers cannot be rounded wrongly."""
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    for i in range(n_out):
        matrix[i, i * n_in // n_out] = 1
    return matrix


def _by_float32(n_in: int, n_out: int) -> Tensor:
    step = torch.tensor(float(n_in)) / n_out
    index = (torch.arange(n_out) * step).long()
    return torch.nn.functional.one_hot(index, n_in).double()


def _by_rounded_step(n_in: int, n_out: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([int(i * (n_in / n_out)) for i in range(n_out)]), n_in).double()


def _by_rounded_scale(n_in: int, n_out: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([int(i / (n_out / n_in)) for i in range(n_out)]), n_in).double()


def _exact(n_in: int, n_out: int) -> Tensor:
    return torch.nn.functional.one_hot(nearest_indices(n_in, n_out), n_in).double()


@exercise(
    "02.3",
    title="the matrix of the floor rule",
    hints=(
        "Start from torch.zeros(n_out, n_in, dtype=torch.float64) and put one 1 into each row. Which column?",
        "Output i copies floor(i / s), s = n_out / n_in. In whole numbers that is i * n_in // n_out.",
    ),
    solution=floor_matrix,
    wrong=[
        (lambda n_in, n_out: floor_matrix(n_in, n_out).T, "shape (3, 4), expected (4, 3)"),
        (_exact, "floor_matrix(3, 4)"),
        (_by_float32, "floor_matrix(2, 82)"),
        (_by_rounded_step, "row 49, whose 1 belongs in column 1: 49 * 2 / 98 is exactly 1"),
        (_by_rounded_scale, "row 9, whose 1 belongs in column 7: 9 * 14 / 18 is exactly 7"),
        (lambda n_in, n_out: floor_matrix(n_in, n_out).float(), "torch.float32, expected torch.float64"),
        (lambda n_in, n_out: torch.zeros(n_out, n_in), "floor_matrix(3, 4)"),
    ],
)
def check_02_3(answer: Any) -> str:
    """Compare on small sizes, on shrinking, and where float32, a rounded step and a rounded scale err."""
    for n_in, n_out in ((3, 4), (5, 2), (4, 4)):
        same_call(answer, (n_in, n_out), floor_matrix(n_in, n_out), f"floor_matrix({n_in}, {n_out})")
    for n_in, n_out, i in ((2, 82, 41), (3, 123, 82), (2, 98, 49), (14, 18, 9), (14, 36, 18)):
        k = i * n_in // n_out
        why = f"{i} * {n_in} / {n_out} is exactly {k}, but a rounded quotient on the way ends a hair below"
        why = f"look at row {i}, whose 1 belongs in column {k}: {why}"
        _same_call(answer, (n_in, n_out), floor_matrix(n_in, n_out), f"floor_matrix({n_in}, {n_out})", why)
    came = answer(3, 4)
    if isinstance(came, Tensor) and came.dtype != torch.float64:
        raise Wrong(f"floor_matrix(3, 4) has the right numbers as {came.dtype}, expected torch.float64")
    return "Its column sums say how often each pixel is copied; its transpose is the gradient."


def survivors(n: int, m: int, rule: str) -> int:
    """Output j of the way back copies up[down[j]] of the row it started from; it survives where that is j."""
    up = nearest_indices(n, m, rule)  # type: ignore[arg-type]
    down = nearest_indices(m, n, rule)  # type: ignore[arg-type]
    return int((up[down] == torch.arange(n)).sum())


def _still_there(n: int, m: int, rule: str) -> int:
    up, down = nearest_indices(n, m, rule), nearest_indices(m, n, rule)  # type: ignore[arg-type]
    return len(set(up[down].tolist()))


@exercise(
    "02.4",
    title="there and back",
    hints=(
        "up = nearest_indices(n, m, rule) says which pixel each of the m copies holds; down = nearest_indices(m, n, "
        "rule) says which of the m each of the n takes in the end.",
        "What arrives at place j is pixel up[down[j]] of the first row. Count the j for which that is j again.",
    ),
    solution=survivors,
    wrong=[
        (lambda n, m, rule: n, "pixel j must return to place j"),
        (_still_there, "do not count distinct values"),
        (lambda n, m, rule: survivors(n, m, "exact"), "survivors(3, 4, 'floor')"),
    ],
)
def check_02_4(answer: Any) -> str:
    """Compare for both rules, on sizes that can be done by hand and on one that cannot."""
    for n, m in ((3, 4), (300, 400), (5, 10), (7, 10), (9, 9)):
        for rule in ("floor", "exact"):
            why = "pixel j must return to place j; do not count distinct values"
            _same_call(answer, (n, m, rule), survivors(n, m, rule), f"survivors({n}, {m}, {rule!r})", why)
    return "The exact rule brings every pixel back; floor only gcd(n, m) of them, from 300 to 400 one in three."
