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
from course_lib.datasets.scenes import Scene, Scenes
from course_lib.segmentation import class_iou, confusion_matrix
from course_lib.training.detectors import LINE, OnScenes, knobs
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.segmentation import HELD_OUT_SEED
from course_lib.training.schedules import warm_up_cosine

_STREAM = 7  # of random numbers
_ARGUMENTS = ("kind", "cells", "picture", "widths", "body_width", "depths", "body_heads", "patch", "window")

Labelled = tuple[Tensor, Tensor]
"""A picture (3, H, W) and its label, a number; or the class of each pixel (H, W), 0 for the background."""


@dataclass(frozen=True)
class NamedScenes:
    """Scenes with a label each, of their one object, or with `cells` the class of each pixel.

    pictures: so many scenes come again and again, in another order each time; None: they have no end.
    """

    scenes: Scenes
    cells: bool = False
    pictures: int | None = None

    @property
    def description(self) -> str:
        """What the samples are made of."""
        return f"generated: {self.scenes}" + (f"; {self.pictures} of them" if self.pictures else "")

    def sample(self, index: int) -> Labelled:
        """Return the sample of an index."""
        if self.pictures is None:
            return labelled(self.scenes[index], self.cells)
        turn, place = divmod(index, self.pictures)
        return _kept(self.scenes, int(_order(self.scenes.seed, turn, self.pictures)[place]), self.cells)


@functools.lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> Any:
    return np.argsort(random_bits(seed, turn, count, _STREAM), kind="stable")


@functools.lru_cache(maxsize=10_000)
def _kept(scenes: Scenes, index: int, cells: bool) -> Labelled:
    return labelled(scenes[index], cells)


def labelled(scene: Scene, cells: bool) -> Labelled:
    """Return a scene's picture and label or labels. Raises ValueError where one label is to say what several are."""
    if cells:
        return scene.image, scene.semantic()
    if len(scene.labels) != 1:
        raise ValueError(f"a scene must have one object, got {len(scene.labels)}")
    return scene.image, scene.labels[0]


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(OnScenes, Recipe):
    """Cross-entropy, AdamW, warm-up and cosine, on scenes.

    pictures: how many different ones; None: no end. rate: largest learning rate. decay: of all weights. aim: accuracy,
    or with `cells` mean IoU, of the finished network, for its card. The other fields of its own are arguments of
    `TinyClassifier`; without `cells` a scene has one object.
    """

    clip: float | None = 1.0
    held_out: int = 500
    kind: Kind = "conv"
    cells: bool = False
    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 64)
    body_width: int = 64
    depths: tuple[int, ...] = (4,)
    body_heads: tuple[int, ...] = (4,)
    patch: int = 8
    window: int = 4
    pictures: int | None = None
    rate: float = 1e-3
    decay: float = 0.01
    warm_up: int = 100
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields; the classifier is made without memory."""
        super().__post_init__()
        self.check_scenes()
        self.check_flags("cells")
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "decay")
        if self.pictures is not None:
            self.check_whole(1, "pictures")
        if self.aim is not None:
            self.check_positive("aim")
        if self.grey or (not self.cells and self.count != (1, 1)):
            came = f"{self.count} and {self.grey}"
            raise ValueError(f"count of the recipe {self.name} must be (1, 1) without cells, and grey 0, got {came}")
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
        return NamedScenes(self.scenes(), self.cells, self.pictures)

    def loss(self, model: TinyClassifier, batch: Labelled) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the cross-entropy, with `cells` the mean of all heads' and of their cells; "right" is logged too."""
        images, labels = batch
        said = model.all(model.normalisation(images))
        asked = [at_cells(labels, one) if self.cells else labels for one in said]
        losses = [F.cross_entropy(one.float(), wanted) for one, wanted in zip(said, asked, strict=True)]
        right = (said[0].argmax(1) == asked[0]).to(said[0].dtype).mean()
        return torch.stack(losses).mean(), {"right": right}

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW for all weights."""
        return AdamW(model.parameters(), lr=self.rate, weight_decay=self.decay)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps - 1))

    def validate(self, model: TinyClassifier) -> Mapping[str, float]:
        """Return what `measured` does on scenes that nobody trains on, the same for every run."""
        return measured(model, replace(self.scenes(), seed=HELD_OUT_SEED), self.held_out)


def at_cells(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the labels (N, h, w) of the pixels at the centres of a map's cells: of (N, H, W) for (N, K, h, w)."""
    down, across = labels.shape[1] // logits.shape[2], labels.shape[2] // logits.shape[3]
    return labels[:, down // 2 :: down, across // 2 :: across]


@torch.no_grad()
def measured(model: TinyClassifier, scenes: Scenes, count: int) -> dict[str, float]:
    """Return how well a classifier in eval mode does on the first `count` scenes.

    "accuracy", the share of right answers, and that of each class as "accuracy_disc" and so on; of one of cells "miou",
    the mean over background and classes of intersection over union on the finest map, "iou_disc" and so on.
    """
    images, labels = held_out(scenes, count, model.cells)
    device = next(model.parameters()).device
    logits = torch.cat([model(model.normalisation(some.to(device))).cpu() for some in torch.split(images, 100)])
    if not model.cells:
        right = (logits.argmax(1) == labels).double()
        by_class = {f"accuracy_{name}": float(right[labels == k].mean()) for k, name in enumerate(model.names)}
        return {"accuracy": float(right.mean())} | by_class
    columns = ("background", *model.names)
    found = class_iou(confusion_matrix(logits.argmax(1), at_cells(labels, logits), len(columns)))
    by_class = {f"iou_{name}": float(value) for name, value in zip(columns, found, strict=True)}
    return {"miou": float(found.nanmean())} | by_class


@functools.lru_cache(maxsize=2)
def held_out(scenes: Scenes, count: int, cells: bool) -> Labelled:
    """Return the first `count` scenes as pictures (count, 3, H, W) and labels, made once."""
    images, labels = zip(*(labelled(scenes[index], cells) for index in range(count)), strict=True)
    return torch.stack(images), torch.stack(labels)


CONV: dict[str, Any] = {"widths": (16, 24, 32, 48, 64, 64)}
VIT: dict[str, Any] = {"body_width": 64, "depths": (4,), "body_heads": (4,), "patch": 8}
SWIN: dict[str, Any] = {"body_width": 20, "depths": (2, 2, 2), "body_heads": (2, 2, 4), "patch": 4, "window": 4}
SMALL_SWIN: dict[str, Any] = SWIN | {"body_width": 16}
"""The bodies of the small detectors, as fields of a recipe."""


def _body(name: str, what: str, kind: Kind, body: dict[str, Any], steps: int, rate: float) -> ClassifierRecipe:
    return ClassifierRecipe(
        name=f"body-{name}",
        about=f"{what}: what lies at each cell, for detectors to begin with",
        kind=kind,
        cells=True,
        steps=steps,
        batch=16,
        rate=rate,
        validate_every=500,
        checkpoint_every=1000,
        **knobs(LINE),
        **body,
    )


def _few(kind: Kind, what: str, body: dict[str, Any]) -> ClassifierRecipe:
    return ClassifierRecipe(
        name=f"{kind}-scenes",
        about=f"{what}: which shape a small picture shows, learned from 1000 pictures",
        kind=kind,
        steps=1000,
        batch=32,
        validate_every=250,
        pictures=1000,
        **knobs(Scenes(size=(32, 32), count=(1, 1), object_size=(16, 30), contrast=0.4)),
        **body,
    )


RECIPES: tuple[Recipe, ...] = (
    _body("conv", "a body of convolutions", "conv", CONV, 6000, 3e-3),
    _body("vit", "a small ViT", "vit", VIT, 8000, 1e-3),
    _body("swin", "a small Swin", "swin", SWIN, 6000, 1e-3),
    _body("swin-small", "a smaller Swin", "swin", SMALL_SWIN, 5000, 1e-3),
    _few("conv", "convolutions", CONV),
    _few("vit", "a small ViT", VIT | {"patch": 4}),
    _few("swin", "a small Swin", SWIN),
)
