"""Oracles that tests of several networks share: how far one looks, the dtype of its result, how large tensors get."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Watches the memory of all tensors that operations make, but for that of given ones and their views.

    numbers, bytes: the most that one of them holds.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.given = {one.untyped_storage().data_ptr() for one in given}
        self.numbers = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple) else (out,):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in self.given:
                size = one.untyped_storage().nbytes()
                self.bytes = max(self.bytes, size)
                self.numbers = max(self.numbers, size // one.element_size())
        return out


def influence(model: torch.nn.Module, lr: Tensor, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return how far up, down, left and right of small pixel `place` its outputs depend on the picture."""
    y, x = place
    scale = getattr(model, "scale", 1)
    lr = lr.clone().requires_grad_()
    block = model(lr)[..., scale * y : scale * (y + 1), scale * x : scale * (x + 1)]
    (gradient,) = torch.autograd.grad(block.sum(), lr)
    rows, columns = (gradient.abs().sum(dim=dims).nonzero().flatten().tolist() for dims in ((0, 1, 3), (0, 1, 2)))
    return y - rows[0], rows[-1] - y, x - columns[0], columns[-1] - x


def keeps_the_dtype(model: torch.nn.Module, mixed_error: float) -> None:
    """Assert that results have the picture's dtype: under autocast, which decides about the layers alone, and in half
    precision; that they are float32's, to the 8 bits that bfloat16 has.

    model: float32; becomes bfloat16.
    """
    lr = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        expected = model(lr)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(lr)
        half = model.bfloat16()(lr.bfloat16())
    assert (mixed.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=mixed_error)
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.02)
