"""Look at one answer and say, in one calm line, how it stands."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any, Literal

from .compare import Empty, Wrong, is_empty, kind
from .registry import Exercise, find

Status = Literal["passed", "wrong", "empty"]


@dataclass(frozen=True)
class Verdict:
    """How an answer stands, and the line that says so."""

    status: Status
    message: str


def examine(id: str, answer: object) -> Verdict:
    """The verdict on an answer to exercise `id`; nothing is printed.

    An answer is a value, a tensor or array, a collection of these, or a function. Errors inside the reader's function
    become part of a "wrong" verdict. Raises UnknownExercise (only) when there is no such exercise.
    """
    task = find(id)
    if is_empty(answer):
        return _empty(task)
    try:
        remark = task.checker(_watched(answer))
    except Empty:
        return _empty(task)
    except Wrong as reason:
        return _wrong(task, str(reason))
    except (Exception, SystemExit) as error:
        return _wrong(task, _failure(task, answer, error))
    return Verdict("passed", f"✓ {task.id} passed: {task.title}." + (f" {remark}" if remark else ""))


def _empty(task: Exercise) -> Verdict:
    return Verdict(
        "empty",
        f'{task.id} is still empty: write your answer in place of the ... and run the cell; hint("{task.id}") helps.',
    )


def _wrong(task: Exercise, reason: str) -> Verdict:
    said = reason.strip()
    stop = "" if said.endswith((".", "?", "!")) else "."
    return Verdict("wrong", f'✗ {task.id} not yet: {said}{stop} hint("{task.id}") helps.')


def _watched(answer: object) -> object:
    """A function answer, wrapped so that a result of None or ... (a stub, or a forgotten return) is noticed."""
    if not inspect.isroutine(answer) and not isinstance(answer, functools.partial):
        return answer
    function: Callable[..., Any] = answer

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except NotImplementedError:
            raise Empty from None
        if is_empty(result):
            if result is None and not _is_stub(function):
                name = getattr(function, "__name__", "the function")
                raise Wrong(f"{name} gave back None, expected a result: is there a return at its end?")
            raise Empty
        return result

    return call


def _is_stub(function: Callable[..., Any]) -> bool:
    """Whether the body does nothing: only a docstring, pass, ... or return None."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return False
    # Names used, or any constant but the docstring and None, mean that something was written.
    constants = set(code.co_consts) - {None, Ellipsis, getattr(function, "__doc__", None)}
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    arguments = code.co_argcount + code.co_kwonlyargcount + stars
    return not code.co_names and not constants and code.co_nlocals == arguments


def _failure(task: Exercise, answer: object, error: BaseException) -> str:
    """The error in one line, with the line of the reader's own code where it happened."""
    try:
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    except Exception:  # the text of the reader's own error may fail in its turn
        said = type(error).__name__
    if callable(task.solution) and not callable(answer):
        return f"the answer came as {kind(answer)}, expected a function: give its name, without calling it"
    if not inspect.isroutine(answer):
        return f"the answer (a {type(answer).__name__}) could not be used: {said}"
    name = getattr(answer, "__name__", "your function")
    line = _own_line(getattr(answer, "__code__", None), error.__traceback__)
    return f"calling {name} raised {said}" if line is None else f"{name} raised {said}, in its line `{line}`"


def _own_line(code: CodeType | None, trace: TracebackType | None) -> str | None:
    """The last line in the reader's file that led to the error, once their function had been entered."""
    while trace is not None and trace.tb_frame.f_code is not code:
        trace = trace.tb_next
    if code is None or trace is None:
        return None
    own = [frame for frame in traceback.extract_tb(trace) if frame.filename == code.co_filename]
    return (own[-1].line or "").strip() or None
