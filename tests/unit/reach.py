"""How far a network looks: the oracle of its `radius`."""

import torch
from torch import Tensor


def influence(model: torch.nn.Module, lr: Tensor, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return how far up, down, left and right of small pixel `place` its outputs depend on the picture."""
    y, x = place
    scale = getattr(model, "scale", 1)
    lr = lr.clone().requires_grad_()
    block = model(lr)[..., scale * y : scale * (y + 1), scale * x : scale * (x + 1)]
    (gradient,) = torch.autograd.grad(block.sum(), lr)
    rows, columns = (gradient.abs().sum(dim=dims).nonzero().flatten().tolist() for dims in ((0, 1, 3), (0, 1, 2)))
    return y - rows[0], rows[-1] - y, x - columns[0], columns[-1] - x
