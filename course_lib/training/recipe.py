"""What a training is: a recipe, its data, and what comes out."""

import dataclasses
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import default_collate

Row = dict[str, float]
"""One row of a curve: step, seconds, cpu_seconds, loss, learning_rate, and what the recipe logs and validates."""

UNIMPORTANT = ("about", "checkpoint_every", "aim")
"""Fields that may differ between a checkpoint and the recipe that goes on with it: they change no number."""


class Data(Protocol):
    """A stateless set of samples: `sample(index)` is a pure function of the index, for every index from 0 on."""

    @property
    def description(self) -> str:
        """What the samples are made of, for the card of a checkpoint."""

    def sample(self, index: int) -> Any:
        """Return sample `index`, the same on every machine, in every process and at every time."""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """A training in a few fields and methods; everything about it that changes a number is a field.

    name: letters, digits, "_", "-", "." (it names folders). steps: optimiser steps. batch: samples of one step, over
    all processes together. seed: of weights, data and dropout, >= 0. clip: largest 2-norm of all gradients together,
    or None. validate_every, checkpoint_every: steps between two rows of the curve, and between two checkpoints.
    about: one line for the list of recipes. Fields must be what JSON can hold (numbers, text, tuples of them).

    A subclass makes the model, the data, the loss and the optimiser; schedule, collation and validation are optional.
    Raises ValueError for fields out of range.
    """

    name: str
    steps: int
    batch: int
    seed: int = 0
    clip: float | None = None
    validate_every: int = 500
    checkpoint_every: int = 500
    about: str = ""

    def __post_init__(self) -> None:
        """Check the fields; a subclass that has its own check calls this one too."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f'name must be letters, digits, "_", "-" or "." (it names a folder), got {self.name!r}')
        self.check_whole(1, "steps", "batch", "validate_every", "checkpoint_every")
        self.check_whole(0, "seed")
        if self.clip is not None:
            self.check_positive("clip")

    def check_whole(self, least: int, *names: str) -> None:
        """Raise ValueError for fields that are no whole numbers >= `least`."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} of the recipe {self.name} must be a whole number >= {least}, got {value!r}")

    def check_positive(self, *names: str) -> None:
        """Raise ValueError for fields that are no positive, finite numbers."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"{name} of the recipe {self.name} must be a positive number, got {value!r}")

    def check_flags(self, *names: str) -> None:
        """Raise ValueError for fields that are neither True nor False."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{name} of the recipe {self.name} must be True or False, got {value!r}")

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the untrained model; torch, NumPy and `random` have been seeded with `seed` just before.

        In training mode; parts of it that are in eval mode (a frozen normalisation, say) stay so.
        """

    @abstractmethod
    def data(self) -> Data:
        """Return the training data, made once in each process."""

    @abstractmethod
    def loss(self, model: Any, batch: Any) -> Tensor | tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of a batch, a scalar: the mean over its samples; or (loss, {name: scalar to be logged}).

        Where the mean is over something else (boxes that matched, say), divide by `mean_over_processes(count)`. Random
        numbers may be drawn from torch, NumPy and `random`, which are seeded before each step. With several processes
        every parameter that is trained must be used in every step.
        """

    @abstractmethod
    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return the optimiser, with the learning rates that `factor` multiplies in its parameter groups."""

    def factor(self, step: int) -> float:
        """Return what step 0, 1, ... multiplies every learning rate with: the schedule. Default: 1."""
        return 1.0

    def collate(self, samples: Sequence[Any]) -> Any:
        """Return the batch of some samples: nested tuples, lists, dictionaries or dataclasses of tensors."""
        return default_collate(list(samples))

    def validate(self, model: Any) -> Mapping[str, float]:
        """Return what the curve shows beside the loss; the model is in eval mode, gradients are off.

        What is not finite (the score of a class that never came) is left out of the row; so are logs of the loss.
        """
        return {}

    def finished(self, model: Any) -> Any:
        """Return the model as it is used when all steps are taken; what changes then is not in the weights."""
        return model

    def fields(self) -> dict[str, Any]:
        """Return the fields that change a number, as JSON holds them; a checkpoint keeps them."""
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in UNIMPORTANT}
        fields: dict[str, Any] = json.loads(json.dumps(kept))
        return fields


@dataclass(frozen=True)
class Result:
    """A finished training.

    model: on the training's device, in eval mode. curve: its rows. steps: how many were taken. seconds, cpu_seconds:
    wall clock and processor time of the first process, summed over resumptions (without what a kill threw away). data:
    its description. path: the last checkpoint, None where none was kept. machines: hardware, versions, revision, date,
    device, processes and threads of each machine or version of the code that took steps, the last one last.
    """

    recipe: Recipe
    model: nn.Module
    curve: list[Row]
    steps: int
    seconds: float
    cpu_seconds: float
    data: str
    path: Path | None
    machines: list[dict[str, Any]]
