"""What a reader types under an exercise: check, hint, solution. All of them print, none of them raises."""

from __future__ import annotations

import inspect
import textwrap

from .compare import short
from .examine import examine
from .registry import UnknownExercise, find


def check(id: str, answer: object) -> None:
    """Print how the answer to exercise `id` ("04.2") stands: passed, came and expected, or still empty."""
    try:
        print(examine(id, answer).message)
    except UnknownExercise as unknown:
        print(_said(unknown))


def hint(id: str, level: int = 1) -> None:
    """Print hint `level` (1 is the gentlest) of exercise `id`."""
    try:
        hints = find(id).hints
    except UnknownExercise as unknown:
        print(_said(unknown))
        return
    if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= len(hints):
        print(
            f'{id} has hints 1 to {len(hints)}, there is no hint {short(level)}; solution("{id}") shows the solution.'
        )
        return
    more = f'hint("{id}", {level + 1}) says more.' if level < len(hints) else f'solution("{id}") shows the solution.'
    print(f"Hint {level} of {len(hints)} for {id}: {hints[level - 1]}  ({more})")


def solution(id: str) -> None:
    """Print the solution of exercise `id`: its source if it is a function, else the value."""
    try:
        task = find(id)
    except UnknownExercise as unknown:
        print(_said(unknown))
        return
    print(f"# One solution of {id}, {task.title}:")
    print(source_of(task.solution))


def source_of(answer: object) -> str:
    """The source of a function, or `answer = ...` for a value."""
    if inspect.isroutine(answer) or inspect.isclass(answer):
        return textwrap.dedent(inspect.getsource(answer)).rstrip()
    return f"answer = {answer!r}"


def _said(unknown: UnknownExercise) -> str:
    text = str(unknown)
    return text[0].upper() + text[1:] + "."
