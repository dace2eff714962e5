"""What recipes of detectors share: how they learn and are watched, and the scenes they look at (chapters 14 to 24)."""

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from course_lib.datasets.annotations import Labelled
from course_lib.datasets.counter import random_bits
from course_lib.datasets.scenes import Scenes
from course_lib.detection.evaluation import BANDS, evaluate
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.segmentation import HELD_OUT_SEED
from course_lib.training.schedules import warm_up_cosine

EASY = Scenes()
"""One to four shapes of 10 to 30 pixels."""
HARD = Scenes(size=(96, 96), count=(4, 14), object_size=(4, 48), overlap=0.4, hidden=0.6, clutter=1.0, contrast=0.15)
"""Crowds, clutter, little contrast, and sizes from 4 pixels."""
FAMILY = Scenes(size=(96, 96), count=(2, 10), object_size=(4, 48), clutter=0.5, contrast=0.15)
"""Every size from 4 to 48 pixels as often, by ratio: what the members of the family are compared on."""
LINE = Scenes(object_size=(6, 32))
"""One to four shapes of 6 to 32 pixels: what detectors that answer with a set are trained and compared on."""

SCENES = {"easy": EASY, "hard": HARD, "family": FAMILY, "line": LINE}
"""All of them by name."""

KNOBS = ("count", "object_size", "overlap", "hidden", "clutter", "contrast")
"""What recipes take over of `Scenes` under its own name."""
_STREAM = 6  # of random numbers


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(Recipe):
    """AdamW, warm-up and cosine, and average precision on pictures that nobody trains on.

    picture: (height, width) of the pictures. rate: largest learning rate. decay: of all weights. bands: sides in pixels
    that part small, medium and large objects in the curve. aim: AP50 of the finished network, for its card.
    """

    clip: float | None = 5.0
    picture: tuple[int, int] = (64, 64)
    rate: float = 2e-3
    decay: float = 1e-4
    warm_up: int = 50
    bands: tuple[float, float] = BANDS
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "decay")
        two = isinstance(self.bands, tuple) and len(self.bands) == 2
        if not two or not 0 < self.bands[0] < self.bands[1]:
            raise ValueError(f"bands of the recipe {self.name} must be two rising numbers above 0, got {self.bands!r}")
        if self.aim is not None:
            self.check_positive("aim")

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The classes, label 0 first."""

    @abstractmethod
    def examples(self) -> Sequence[Labelled]:
        """Return the pictures that the curve is measured on; nobody trains on them."""

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW for all that is trained."""
        return AdamW([p for p in model.parameters() if p.requires_grad], lr=self.rate, weight_decay=self.decay)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps - 1))

    def validate(self, model: Any) -> Mapping[str, float]:
        """Return what `evaluate` measures on the examples, the AP50 of each class as "AP50_disc" and so on."""
        found = evaluate(model, self.examples(), self.names, size=self.picture, bands=self.bands)
        by_class = {f"AP50_{name}": value for name, value in found["per_class"].items()}
        return {name: value for name, value in found.items() if isinstance(value, float)} | by_class


@dataclass(frozen=True)
class ShownScenes:
    """Scenes as labelled pictures, a part of them (`grey`, in [0, 1]) without colour: all channels are their mean."""

    scenes: Scenes
    grey: float = 0.0

    @property
    def description(self) -> str:
        """What the samples are made of."""
        return f"generated: {self.scenes}" + (f"; {self.grey:g} of them grey" if self.grey else "")

    def sample(self, index: int) -> Labelled:
        """Return the labelled picture of an index."""
        scene = self.scenes[index]
        image = scene.image
        if random_bits(self.scenes.seed, index, 1, _STREAM)[0] < self.grey * 2**64:
            image = image.mean(0, keepdim=True).expand(3, -1, -1).contiguous()
        return Labelled(image, scene.boxes, scene.labels)


@dataclass(frozen=True, kw_only=True)
class OnScenes:
    """The part of a recipe that makes its pictures: shapes in generated scenes.

    name, seed, picture: of the recipe. shapes, count, object_size, overlap, hidden, clutter, contrast: of `Scenes`;
    their size is `picture`. grey: share of the training's scenes that are grey. held_out: scenes the curve is measured
    on. It stands before the recipe among the classes that one is made from.
    """

    name: str
    seed: int = 0
    picture: tuple[int, int] = (64, 64)
    shapes: tuple[str, ...] = EASY.classes
    count: tuple[int, int] = EASY.count
    object_size: tuple[float, float] = EASY.object_size
    overlap: float = EASY.overlap
    hidden: float = EASY.hidden
    clutter: float = EASY.clutter
    contrast: float = EASY.contrast
    grey: float = 0.0
    held_out: int = 300

    def check_scenes(self) -> None:
        """Raise ValueError for fields of which no scenes can be made."""
        try:
            self.scenes()
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no scenes: {error}") from error
        if not isinstance(self.grey, int | float) or not 0 <= self.grey <= 1:
            raise ValueError(f"grey of the recipe {self.name} must be a number from 0 to 1, got {self.grey!r}")
        if not isinstance(self.held_out, int) or self.held_out < 1:
            raise ValueError(f"held_out of the recipe {self.name} must be a whole number >= 1, got {self.held_out!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The shapes."""
        return self.shapes

    def scenes(self) -> Scenes:
        """Return the scenes that are trained on."""
        knobs = {name: getattr(self, name) for name in KNOBS}
        return Scenes(seed=self.seed, size=self.picture, classes=self.shapes, **knobs)

    def data(self) -> Data:
        """Return endless scenes of this recipe's seed."""
        return ShownScenes(self.scenes(), self.grey)

    def examples(self) -> Sequence[Labelled]:
        """Return scenes of a seed that no recipe trains with, in colour; every run is measured on the same ones."""
        return held_out(replace(self.scenes(), seed=HELD_OUT_SEED), self.held_out)


@functools.lru_cache(maxsize=2)
def held_out(scenes: Scenes, count: int) -> tuple[Labelled, ...]:
    """Return the first `count` scenes as labelled pictures, made once."""
    return tuple(ShownScenes(scenes).sample(index) for index in range(count))


def knobs(scenes: Scenes) -> dict[str, Any]:
    """Return scenes as fields of `OnScenes`."""
    return {"picture": scenes.size, "shapes": scenes.classes} | {name: getattr(scenes, name) for name in KNOBS}
