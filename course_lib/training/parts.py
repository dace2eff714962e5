"""Trainings that begin with what another training has made: its parts are shipped checkpoints, found by name."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from course_lib import checkpoints
from course_lib.classification import TinyClassifier, body_tensors, take_body
from course_lib.training.recipe import Data


def part(recipe: str, name: str) -> nn.Module:
    """Return a checkpoint's network for a recipe, in eval mode, on the CPU.

    Raises CheckpointMissing, which says how it is made, and what `checkpoints.read` raises.
    """
    try:
        return checkpoints.load(name)
    except checkpoints.CheckpointMissing as error:
        make = f"course train {name} --save, then course ship {name}, make it"
        raise checkpoints.CheckpointMissing(f"the recipe {recipe} needs a trained network: {error}; {make}") from None


@dataclass(frozen=True)
class WithParts:
    """Data whose description names what else a training is made of: another file of weights makes another training."""

    data: Data
    parts: tuple[str, ...]

    @property
    def description(self) -> str:
        """What the samples are made of, and the checkpoints by the first digits of their SHA-256."""
        told = [f"{name} (sha256 {checkpoints.sha256(checkpoints.paths(name)[0])[:12]})" for name in self.parts]
        return f"{self.data.description}; trained parts: {', '.join(told)}"

    def sample(self, index: int) -> Any:
        """Return sample `index` of the data."""
        return self.data.sample(index)


@dataclass(frozen=True, kw_only=True)
class OnBody:
    """The part of a detector's recipe that lets it begin with a classifier's body.

    name, rate: of the recipe. body: name of the checkpoint of a `TinyClassifier`; None: all weights are drawn.
    body_rate: largest learning rate of what the classifier had; None: `rate`. It stands before the recipe among the
    classes that one is made from.
    """

    name: str
    rate: float
    body: str | None = None
    body_rate: float | None = None

    def begin(self, model: Any) -> None:
        """Copy the body into a detector. Raises CheckpointMissing, and ValueError where it is another body."""
        if self.body is None:
            return
        classifier = part(self.name, self.body)
        if not isinstance(classifier, TinyClassifier):
            raise ValueError(f"body of the recipe {self.name} must be a classifier's, got {type(classifier).__name__}")
        try:
            take_body(model, classifier)
        except ValueError as error:
            raise ValueError(f"the recipe {self.name} cannot begin with {self.body}: {error}") from error

    def groups(self, model: Any) -> list[dict[str, Any]]:
        """Return the parameters that are trained, with their rates, for an optimiser."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.body_rate is None:
            return [{"params": trained, "lr": self.rate}]
        of_body = {id(tensor) for tensor in body_tensors(model).values()}
        first = [parameter for parameter in trained if id(parameter) in of_body]
        others = [parameter for parameter in trained if id(parameter) not in of_body]
        return [{"params": others, "lr": self.rate}, {"params": first, "lr": self.body_rate}]
