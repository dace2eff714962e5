"""Random numbers that are a pure function of a seed and an index, whatever was drawn before and wherever it runs."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

_ANY = 2**63 - 1


def random_bits(seed: int, index: int, count: int, stream: int = 0) -> npt.NDArray[np.uint64]:
    """Return `count` random uint64: the same for the same (seed, index, stream) in every process, order and version.

    The counter-based generator Philox 4 x 64, whose key is (seed, stream) and whose counter starts at index * 2^64, so
    that no two indices overlap; NumPy promises never to change its bits (its distributions may change, so none is
    used). stream: sets apart the uses of one seed. Raises as `check_whole` does. Salmon et al. 2011.
    """
    check_whole("seed", seed)
    check_whole("index", index)
    philox = np.random.Philox(key=[int(seed), stream], counter=[0, int(index), 0, 0])
    bits: npt.NDArray[np.uint64] = philox.random_raw(count)
    return bits


def check_whole(name: str, value: Any, least: int = 0, most: int = _ANY) -> None:
    """Raise TypeError or ValueError, which call the argument `name`, unless it is a whole number in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if not least <= int(value) <= most:
        expected = f"of at least {least}" if most == _ANY else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {expected}, got {value}")


def check_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a number as a float; raise TypeError or ValueError, which call the argument `name`, unless it is finite
    and in [least, most].
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and least <= float(value) <= most):
        limits = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}"
        raise ValueError(f"{name} must be a finite number{limits if least > -math.inf else ''}, got {value!r}")
    return float(value)
