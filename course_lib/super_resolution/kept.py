"""What was made of a network's weights, kept as long as they stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_SAMPLE = 256


class _Source(NamedTuple):
    """A parameter as it was: the memory is held, so that no other weights can get the same address."""

    memory: Tensor
    version: int
    sample: Tensor

    @classmethod
    def of(cls, parameter: nn.Parameter) -> _Source:
        return cls(parameter.detach(), parameter._version, _sample(parameter).clone())

    def is_still(self, parameter: nn.Parameter) -> bool:
        return (
            parameter._version == self.version
            and parameter.is_set_to(self.memory)
            and torch.equal(_sample(parameter), self.sample)
        )


class _Made(NamedTuple):
    key: Hashable
    sources: list[_Source]
    result: Tensor

    def holds(self, parameters: Sequence[nn.Parameter]) -> bool:
        return len(parameters) == len(self.sources) and all(
            source.is_still(parameter) for source, parameter in zip(self.sources, parameters, strict=True)
        )


class Kept:
    """One tensor made of parameters on a CPU, given again until one of them changes.

    torch counts what is written into a parameter by hand, by `load_state_dict` and by most optimisers. It does not
    count a fused optimiser's step, nor what is written through `parameter.data` or a NumPy array that shares its
    memory; so some hundred numbers of each parameter are compared as well. Whoever writes single numbers that way calls
    `forget`.

    Nothing is kept where gradients are switched on or a program is recorded (torch.compile, torch.jit.trace), nothing
    of tensors that stand in for parameters, and nothing on a GPU, where to compare is to wait. A copy and a pickle
    begin with nothing. Threads may share it.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._made: _Made | None = None

    def forget(self) -> None:
        """Give up what is kept."""
        self._made = None

    def get(self, parameters: Sequence[Tensor], key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return `make()`, or what it returned for the same parameters and key the last time.

        key: all else that the result depends on.
        """
        plain = [p for p in parameters if type(p) is nn.Parameter and p.device.type == "cpu" and not p.is_inference()]
        recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        if torch.is_grad_enabled() or recorded or len(plain) < len(parameters):
            return make()
        made = self._made
        if made is not None and made.key == key and made.holds(plain):
            return made.result
        # what another thread writes from here on is a change: these sources are no longer the same then
        sources = [_Source.of(parameter) for parameter in plain]
        result = make()
        self._made = _Made(key, sources, result)
        return result

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Copies and pickles begin with nothing."""
        return Kept, ()


def _sample(parameter: nn.Parameter) -> Tensor:
    numbers = parameter.detach().flatten()
    return numbers[:: numbers.numel() // _SAMPLE | 1]
