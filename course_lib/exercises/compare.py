"""Comparisons for checks: each says what came and what was expected."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class Wrong(Exception):
    """The answer is not right; the message says what came and what was expected."""


class Empty(Exception):
    """Nothing has been answered yet."""


def is_empty(value: object) -> bool:
    """Whether a value is a placeholder: None, ..., a blank text, or a collection that still holds one of these."""
    waiting, met = [value], set()
    while waiting:
        one = waiting.pop()
        if one is None or one is Ellipsis or (isinstance(one, str) and not one.strip()):
            return True
        # A collection may hold itself, or be nested deeper than Python recurses.
        if isinstance(one, (Mapping, list, tuple)) and id(one) not in met:
            met.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
    return False


def same_numbers(answer: object, expected: object, name: str = "the answer", tolerance: float = 1e-6) -> None:
    """Raise `Wrong` unless answer and expected are the same numbers, of the same shape.

    Both: number, Fraction, tensor, array, or (nested) list or tuple of numbers. tolerance: of the difference, absolute
    below 1 and relative above. The message gives both values, or for arrays the first place that differs.
    """
    wanted = _array(expected, "expected")
    came = _array(answer, name, "numbers" if wanted.ndim else "a number")
    if came.shape != wanted.shape:
        raise Wrong(f"{name} came with shape {_shape(came)}, expected {_shape(wanted)}")
    # NaN equals NaN here, and infinities are equal or not: neither has a distance.
    bad = np.asarray(~((came == wanted) | (np.isnan(came) & np.isnan(wanted))))
    finite = np.isfinite(came) & np.isfinite(wanted)
    bad[finite] = np.abs(came[finite] - wanted[finite]) > tolerance * np.maximum(1.0, np.abs(wanted[finite]))
    if not bad.any():
        return
    if came.size <= 8:
        raise Wrong(f"{name} came as {_text(answer)}, expected {_text(expected)}")
    place = tuple(int(k) for k in np.argwhere(bad)[0])
    raise Wrong(
        f"{name} differs at {int(bad.sum())} of {came.size} places; the first is {list(place)}: "
        f"came {came[place]:.6g}, expected {wanted[place]:.6g}"
    )


def one_number(answer: object, name: str = "the answer") -> float:
    """The answer as a float, for checks that accept a range; raises `Wrong` unless it is one finite number."""
    array = _array(answer, name, "a number")
    if array.ndim != 0:
        raise Wrong(f"{name} came with shape {_shape(array)}, expected one number")
    if not np.isfinite(array):
        raise Wrong(f"{name} came as {_text(float(array))}, expected a finite number")
    return float(array)


def same_call(
    answer: Callable[..., Any],
    args: Sequence[Any],
    expected: object,
    name: str | None = None,
    tolerance: float = 1e-6,
    **kwargs: Any,
) -> None:
    """Call the answer with a copy of args (and kwargs) and compare its result with `same_numbers`.

    The message shows the call: "f(3, 0.5) came as 1.3, expected 1.25". Raises `Wrong` also when answer is no function.
    """
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    shown = [short(a) for a in args] + [f"{k}={short(v)}" for k, v in kwargs.items()]
    call = name or f"{getattr(answer, '__name__', 'f')}({', '.join(shown)})"
    same_numbers(answer(*copy.deepcopy(list(args)), **copy.deepcopy(kwargs)), expected, call, tolerance)


def same_choice(answer: object, expected: str, why_not: Mapping[str, str]) -> None:
    """Raise `Wrong` unless the answer is the expected choice, upper or lower case.

    why_not: {wrong choice: what speaks against it}; an answer that is no choice is told which there are.
    """
    choices = sorted({expected, *why_not})
    given = answer.strip().lower() if isinstance(answer, str) else ""
    by_key = {c.lower(): c for c in choices}
    if given not in by_key:
        raise Wrong(f"the answer came as {short(answer)}, expected one of {', '.join(map(repr, choices))}")
    if by_key[given] != expected:
        raise Wrong(f"the answer came as {by_key[given]!r}: {why_not[by_key[given]]}")


def _array(value: object, name: str, wanted: str = "numbers") -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(_plain(value), dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise Wrong(f"{name} came as {kind(value)}, expected {wanted}") from None
    if isinstance(value, str) or array.dtype == object:
        raise Wrong(f"{name} came as {kind(value)}, expected {wanted}")
    return array


def _plain(value: object) -> Any:
    if isinstance(value, torch.Tensor):
        dense = value.detach().cpu()
        return (dense if dense.layout == torch.strided else dense.to_dense()).double().numpy()
    if isinstance(value, (list, tuple, range)):
        return [_plain(v) for v in value]
    return float(value) if isinstance(value, Fraction) else value


def _shape(array: npt.NDArray[np.float64]) -> str:
    return "() (one number)" if array.ndim == 0 else str(array.shape)


def kind(value: object) -> str:
    """What a value is, in words: float 0.5, the text '0.5', a list."""
    if isinstance(value, str):
        return f"the text {short(value)}"
    return f"{type(value).__name__} {short(value)}" if isinstance(value, Number) else f"a {type(value).__name__}"


def _text(value: object) -> str:
    """A value of at most eight numbers, in full and without type names."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.tolist()
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_text(v) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, (float, np.floating)):
        return f"{value:.8g}"
    return str(value) if isinstance(value, (Number, range)) else repr(value)


def short(value: object) -> str:
    """A value in at most 60 signs; its type where it cannot be written (a broken repr, an integer of 5000 digits)."""
    try:
        if isinstance(value, (torch.Tensor, np.ndarray)):
            return _text(value) if np.prod(value.shape) <= 8 else f"<{type(value).__name__} {tuple(value.shape)}>"
        text = _text(value) if isinstance(value, (list, tuple, Number)) else repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
