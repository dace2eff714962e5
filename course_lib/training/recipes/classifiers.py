"""Small classifiers of what a scene shows: bodies for detectors, and who learns from few pictures (chapter 21)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from course_lib.classification import Kind, TinyClassifier
from course_lib.datasets.counter import random_bits
from course_lib.datasets.scenes import Scenes
from course_lib.training.detectors import OnScenes
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.segmentation import HELD_OUT_SEED
from course_lib.training.schedules import warm_up_cosine

_STREAM = 7  # of random numbers
_ARGUMENTS = ("kind", "picture", "widths", "body_width", "depths", "body_heads", "patch", "window")


@dataclass(frozen=True)
class ShownShapes:
    """Scenes of one object as (picture, label); of `pictures` scenes that come again in another order each time.

    pictures: None: the scenes have no end.
    """

    scenes: Scenes
    pictures: int | None = None

    @property
    def description(self) -> str:
        """What the samples are made of."""
        return f"generated: {self.scenes}" + (f"; {self.pictures} of them" if self.pictures else "")

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the picture (3, H, W) and the label, a number without shape, of an index."""
        if self.pictures is None:
            return _shown(self.scenes[index])
        turn, place = divmod(index, self.pictures)
        return _made(self.scenes, int(_order(self.scenes.seed, turn, self.pictures)[place]))


@functools.lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> Any:
    return np.argsort(random_bits(seed, turn, count, _STREAM), kind="stable")


@functools.lru_cache(maxsize=10_000)
def _made(scenes: Scenes, index: int) -> tuple[Tensor, Tensor]:
    return _shown(scenes[index])


def _shown(scene: Any) -> tuple[Tensor, Tensor]:
    if len(scene.labels) != 1:
        raise ValueError(f"a scene must have one object, got {len(scene.labels)}")
    return scene.image, scene.labels[0]


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(OnScenes, Recipe):
    """Cross-entropy, AdamW, warm-up and cosine, on scenes of one object.

    pictures: how many different ones; None: no end. rate: largest learning rate. decay: of all weights. The other
    fields of its own are arguments of `TinyClassifier`.
    """

    clip: float | None = 1.0
    count: tuple[int, int] = (1, 1)
    object_size: tuple[float, float] = (6, 32)
    held_out: int = 1000
    kind: Kind = "conv"
    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 64)
    body_width: int = 64
    depths: tuple[int, ...] = (4,)
    body_heads: tuple[int, ...] = (4,)
    patch: int = 8
    window: int = 4
    pictures: int | None = None
    rate: float = 1e-3
    decay: float = 0.05
    warm_up: int = 100
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields; the classifier is made without memory."""
        super().__post_init__()
        self.check_scenes()
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "decay")
        if self.pictures is not None:
            self.check_whole(1, "pictures")
        if self.aim is not None:
            self.check_positive("aim")
        if self.count != (1, 1) or self.grey:
            raise ValueError(
                f"count of the recipe {self.name} must be (1, 1) and grey 0, got {self.count} and {self.grey}"
            )
        try:
            with torch.device("meta"):
                TinyClassifier(**self._arguments())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no classifier: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        return {"names": self.names} | {name: getattr(self, name) for name in _ARGUMENTS}

    def model(self) -> TinyClassifier:
        """Return the classifier with the weights it starts from."""
        model = TinyClassifier(**self._arguments())
        # faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return the scenes of this recipe's seed."""
        return ShownShapes(self.scenes(), self.pictures)

    def loss(self, model: TinyClassifier, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the cross-entropy; the share of right answers is logged."""
        images, labels = batch
        logits = model(model.normalisation(images))
        right = (logits.argmax(-1) == labels).to(logits.dtype).mean()
        return F.cross_entropy(logits.float(), labels), {"accuracy_training": right}

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW for all weights."""
        return AdamW(model.parameters(), lr=self.rate, weight_decay=self.decay)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps - 1))

    def validate(self, model: TinyClassifier) -> Mapping[str, float]:
        """Return `accuracy` on scenes that nobody trains on, the same for every run."""
        return accuracy(model, replace(self.scenes(), seed=HELD_OUT_SEED), self.held_out)


@torch.no_grad()
def accuracy(model: TinyClassifier, scenes: Scenes, count: int) -> dict[str, float]:
    """Return "accuracy", the share of right answers of a classifier in eval mode on the first `count` scenes of one
    object, and that of each class as "accuracy_disc" and so on.
    """
    images, labels = _held_out(scenes, count)
    device = next(model.parameters()).device
    said = [model(model.normalisation(some.to(device))).argmax(-1).cpu() for some in torch.split(images, 100)]
    right = (torch.cat(said) == labels).double()
    by_class = {f"accuracy_{name}": float(right[labels == k].mean()) for k, name in enumerate(model.names)}
    return {"accuracy": float(right.mean())} | by_class


@functools.lru_cache(maxsize=2)
def _held_out(scenes: Scenes, count: int) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(_shown(scenes[index]) for index in range(count)), strict=True)
    return torch.stack(images), torch.stack(labels)


_VIT: dict[str, Any] = {"kind": "vit", "body_width": 64, "depths": (4,), "body_heads": (4,), "patch": 8}
_SWIN: dict[str, Any] = {
    "kind": "swin",
    "body_width": 20,
    "depths": (2, 2, 2),
    "body_heads": (2, 2, 4),
    "patch": 4,
    "window": 4,
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": ("convolutions", {"kind": "conv", "widths": (16, 24, 32, 48, 64, 64)}),
    "vit": ("a small vision transformer", _VIT),
    "swin": ("a small Swin", _SWIN),
}
"""The three bodies of the small detectors: in words, and as fields of a recipe."""


def _body(name: str) -> ClassifierRecipe:
    what, fields = BODIES[name]
    return ClassifierRecipe(
        name=f"body-{name}",
        about=f"{what}: which of three shapes a scene shows, so that detectors can begin with it",
        steps=3000,
        batch=32,
        validate_every=1000,
        checkpoint_every=1000,
        **fields,
    )


def _few(name: str) -> ClassifierRecipe:
    what, fields = BODIES[name]
    return ClassifierRecipe(
        name=f"{name}-scenes",
        about=f"{what}: which of three shapes a scene shows, learned from 1000 pictures",
        steps=1000,
        batch=32,
        validate_every=250,
        pictures=1000,
        **fields,
    )


RECIPES: tuple[Recipe, ...] = (*map(_body, BODIES), *map(_few, BODIES))
