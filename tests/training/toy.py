"""The small recipe that the tests train: two layers, dropout, Adam, a schedule, a log and a validation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.training import Recipe

POINTS = torch.linspace(-1, 1, 16, dtype=torch.float32).reshape(-1, 2)


def target(x: Tensor) -> Tensor:
    return torch.sin(3 * x[..., :1]) * x[..., 1:]


class Samples:
    """Points of the square by index."""

    description = "points of a square"

    def __init__(self, seed: int, broken: int = -1) -> None:
        self.seed, self.broken = seed, broken

    def sample(self, index: int) -> dict[str, Tensor]:
        if index == self.broken:
            raise OSError("the disk does not answer")
        x = torch.rand(2, generator=torch.Generator().manual_seed(self.seed * 100_003 + index)) * 2 - 1
        return {"x": x, "y": target(x)}


@dataclass(frozen=True, kw_only=True)
class Toy(Recipe):
    """See the module. broken: the index of a sample that cannot be read."""

    name: str = "toy"
    steps: int = 12
    batch: int = 4
    seed: int = 3
    validate_every: int = 2
    checkpoint_every: int = 3
    clip: float | None = 1.0
    rate: float = 0.05
    dropout: float = 0.2
    broken: int = -1
    sizes: tuple[int, ...] = (2, 8, 1)

    def model(self) -> nn.Module:
        a, b, c = self.sizes
        return nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(b, c))

    def data(self) -> Samples:
        return Samples(self.seed, self.broken)

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        error = model(batch["x"]) - batch["y"]
        return error.square().mean(), {"absolute": error.abs().mean()}

    def optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        first, *_, last = model.children()
        groups = [{"params": first.parameters()}, {"params": last.parameters(), "lr": self.rate / 2}]
        return torch.optim.AdamW(groups, lr=self.rate)

    def factor(self, step: int) -> float:
        return 1 - step / self.steps

    def validate(self, model: Any) -> dict[str, float]:
        x = POINTS.to(next(model.parameters()).device)
        return {"error": (model(x) - target(x)).abs().mean().item()}


@dataclass(frozen=True, kw_only=True)
class Exploding(Toy):
    """At step 7 the loss, or only its gradient, is not finite. value: of the loss; at: "loss" or "gradient"."""

    value: float = math.inf
    at: str = "loss"

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(model, batch)
        if batch["index"].min() == 7 * self.batch:
            # sqrt has an infinite slope at zero: the classic finite loss with a gradient that is not
            loss = loss * self.value if self.at == "loss" else loss + torch.sqrt(0 * loss)
        return loss, logs

    def data(self) -> Any:
        inner = super().data()

        class Indexed:
            description = ""

            def sample(self, index: int) -> Any:
                return inner.sample(index) | {"index": torch.tensor(index)}

        return Indexed()
