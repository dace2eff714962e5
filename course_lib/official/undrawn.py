"""Make a network without drawing its random weights, which released ones replace at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode


def _middle(a: float = 0.0, b: float = 1.0, **named: Any) -> float:
    low, high = named.get("from", a), named.get("to", b)  # as tensors call them
    return float(low + high) / 2


def _mean(mean: float = 0.0, *_: Any, **__: Any) -> float:
    return mean


def _zero(*_: Any, **__: Any) -> float:
    return 0.0


# what draws -> what stands there instead; the others of torch.nn.init call one of these
_DRAWN: dict[Any, Callable[..., float]] = {
    Tensor.uniform_: _middle,
    Tensor.normal_: _mean,
    init.uniform_: _middle,
    init.normal_: _mean,
    init.kaiming_uniform_: _zero,
}


class Undrawn(TorchFunctionMode):
    """Inside, `uniform_` and `normal_` of tensors, and what torch.nn.init makes of them, fill with the mean.

    Drawing is most of the time that a large network takes to be made. All else that a constructor computes is as usual,
    and random numbers stay as they were.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace a function that draws, and call any other."""
        named = dict(kwargs or {})
        if func not in _DRAWN:
            return func(*args, **named)
        tensor, *rest = (named.pop("tensor"), *args[1:]) if "tensor" in named else args
        with torch.no_grad():
            return tensor.fill_(_DRAWN[func](*rest, **named))
