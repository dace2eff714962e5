"""Which exercises exist: each chapter's module registers its own, and is imported when first asked for."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .compare import short

Checker = Callable[[Any], str | None]
"""Looks at an answer: raises `Wrong` with the reason, or returns (None, or a remark for whoever passed)."""


class UnknownExercise(LookupError):
    """No exercise of this number; the message lists those that exist."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: its check, graded hints (gentle to plain), solution, and typical wrong answers with the fragment
    of the message that each must get."""

    id: str
    title: str
    hints: tuple[str, ...]
    solution: Any
    wrong: tuple[tuple[Any, str], ...]
    checker: Checker


_registered: dict[str, Exercise] = {}
_ID = re.compile(r"\d\d\.\d{1,2}")
_CHAPTER = re.compile(r"chapter_\d\d")


def exercise(
    id: str, *, title: str, hints: Sequence[str], solution: Any, wrong: Sequence[tuple[Any, str]] = ()
) -> Callable[[Checker], Checker]:
    """Register the decorated function as the check of exercise `id` ("04.2": chapter 04, second exercise).

    title: a few words, printed when the answer passes. hints: at least two, each saying more than the one before.
    solution: a function or a value that passes. wrong: (typical wrong answer, fragment of the message it gets) pairs.
    Raises ValueError for a malformed id, fewer than two hints, or an id taken by another function.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f'id must look like "04.2" (chapter, dot, number), got {id!r}')
    if isinstance(hints, str) or len(hints) < 2:
        raise ValueError(f"exercise {id} needs at least two hints, got {hints!r}")

    def register(checker: Checker) -> Checker:
        before = _registered.get(id)
        # Reloading a module registers the same function again, which is fine.
        if before is not None and _place(before.checker) != _place(checker):
            raise ValueError(f"exercise {id} is already registered by {'.'.join(_place(before.checker))}")
        _registered[id] = Exercise(id, title, tuple(hints), solution, tuple(wrong), checker)
        return checker

    return register


def _place(checker: Checker) -> tuple[str, str]:
    return checker.__module__, getattr(checker, "__qualname__", "?")


def chapters() -> list[str]:
    """Chapter numbers that have a module of exercises: ["01", "02", ...]."""
    package = importlib.import_module(__package__)
    return sorted(m.name[-2:] for m in pkgutil.iter_modules(package.__path__) if _CHAPTER.fullmatch(m.name))


def exercises(chapter: str | None = None) -> dict[str, Exercise]:
    """Exercises by id, in order; of one chapter ("04") or of all."""
    for number in chapters() if chapter is None else sorted({chapter} & set(chapters())):
        importlib.import_module(f"{__package__}.chapter_{number}")
    found = {k: e for k, e in _registered.items() if chapter is None or k.startswith(f"{chapter}.")}
    return dict(sorted(found.items(), key=lambda item: (item[0][:2], int(item[0][3:]))))


def find(id: str) -> Exercise:
    """The exercise of this id; raises UnknownExercise with the ids that exist, of its chapter if there are any."""
    chapter = id[:2] if isinstance(id, str) else ""
    found = exercises(chapter)
    if isinstance(id, str) and id in found:
        return found[id]
    if found:
        raise UnknownExercise(f"there is no exercise {short(id)}; chapter {chapter} has {', '.join(found)}")
    having = sorted(set(chapters()) | {k[:2] for k in _registered})
    raise UnknownExercise(
        f'there is no exercise {short(id)}; an id looks like "04.2", and there are exercises in chapters: '
        f"{', '.join(having) or 'none yet'}"
    )
