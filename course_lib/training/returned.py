"""What the methods of a recipe return, checked by name."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.training.checkpoint import FIRST_COLUMNS
from course_lib.training.recipe import Recipe


class Loss(nn.Module):
    """The recipe's loss as a module's forward, so that averaging and autocast cover whatever it calls of the model."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        """Keep both; the model's parameters become this module's."""
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and what is logged beside it, without gradient.

        Raises TypeError or ValueError for anything but a scalar or (scalar, {name: scalar}).
        """
        result = self.recipe.loss(self.model, batch)
        loss, logs = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            raise TypeError(
                f"loss of the recipe {self.recipe.name} must return a scalar tensor, or (scalar tensor, {{name: "
                f"number}}), got {_kind(loss)}"
            )
        named = check_named(self.recipe, "loss", logs)
        return loss, {name: torch.as_tensor(number).detach().reshape(()) for name, number in named.items()}


def check_named(recipe: Recipe, method: str, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the numbers by name that a method of the recipe returned.

    Raises TypeError for what is no number or scalar tensor, ValueError for a name that the curve has already.
    """
    for name, number in numbers.items():
        if name in FIRST_COLUMNS:
            raise ValueError(f"{method} of the recipe {recipe.name} returns {name!r}, which the curve has already")
        if not isinstance(number, Real) and not (isinstance(number, Tensor) and number.numel() == 1):
            raise TypeError(f"{method} of the recipe {recipe.name} must return numbers, {name!r} is a {_kind(number)}")
    return numbers


def not_finite(model: nn.Module) -> str:
    """Return which weight of a model is infinite or not a number, or "" where none is."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weight {name}"
    for name, buffer in model.named_buffers():
        if torch.isnan(buffer).any():  # an infinite one may be a mask
            return f"the buffer {name}"
    return ""


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
