"""Small detectors of SSD's family: on generated scenes, and on blood cells under a microscope."""

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from course_lib.datasets import bccd
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.counter import random_bits
from course_lib.datasets.scenes import Scenes
from course_lib.detection.augmentation import Augmentation, Augmented
from course_lib.detection.boxes import to_normalised
from course_lib.detection.evaluation import BANDS, evaluate
from course_lib.detection.families.ssd.tiny import Member, TinyDetector, check_arguments
from course_lib.detection.losses import Targets, multibox_loss, targets
from course_lib.training.processes import mean_over_processes
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.segmentation import HELD_OUT_SEED
from course_lib.training.schedules import warm_up_cosine

Batch = tuple[Tensor, Targets]
"""Pictures (N, 3, H, W) in [0, 1], and what each anchor is to say of them."""

EASY = Scenes()
"""One to four shapes of 10 to 30 pixels."""
HARD = Scenes(size=(96, 96), count=(4, 14), object_size=(4, 48), overlap=0.4, hidden=0.6, clutter=1.0, contrast=0.15)
"""Crowds, clutter, little contrast, and sizes from 4 pixels."""
FAMILY = Scenes(size=(96, 96), count=(2, 10), object_size=(4, 48), clutter=0.5, contrast=0.15)
"""Every size from 4 to 48 pixels as often, by ratio: what the members of the family are compared on."""

SCENES = {"easy": EASY, "hard": HARD, "family": FAMILY}
"""The three by name."""

_KNOBS = ("count", "object_size", "overlap", "hidden", "clutter", "contrast")
_STREAM = 6  # of random numbers


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Recipe):
    """SSD's loss with greedy matching; AdamW, warm-up and cosine.

    member, picture, widths, sizes, ratios, width: of `TinyDetector`. threshold: IoU from which an anchor is to find an
    object. negatives: as many for each positive anchor. rate: largest learning rate. decay: of all weights. bands:
    sides in pixels that part small, medium and large objects in the curve.
    """

    clip: float | None = 5.0
    member: Member = "ssd"
    picture: tuple[int, int] = (64, 64)
    widths: tuple[int, ...] = (24, 32, 48, 64, 96, 96)
    sizes: tuple[float, ...] = (8, 16, 28, 48, 80)
    ratios: tuple[float, ...] = (2,)
    width: int = 32
    threshold: float = 0.5
    negatives: float = 3.0
    rate: float = 2e-3
    decay: float = 1e-4
    warm_up: int = 50
    bands: tuple[float, float] = BANDS
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "decay", "negatives")
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold of the recipe {self.name} must be above 0 and at most 1, got {self.threshold!r}"
            )
        two = isinstance(self.bands, tuple) and len(self.bands) == 2
        if not two or not 0 < self.bands[0] < self.bands[1]:
            raise ValueError(f"bands of the recipe {self.name} must be two rising numbers above 0, got {self.bands!r}")
        if self.aim is not None:
            self.check_positive("aim")
        try:
            check_arguments(**self._arguments())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no detector: {error}") from error

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The classes, label 0 first."""

    @abstractmethod
    def examples(self) -> Sequence[Labelled]:
        """Return the pictures that the curve is measured on; nobody trains on them."""

    def _arguments(self) -> dict[str, Any]:
        own = ("member", "picture", "widths", "sizes", "ratios", "width")
        return {"names": self.names} | {name: getattr(self, name) for name in own}

    def model(self) -> TinyDetector:
        """Return the detector with the weights it starts from."""
        model = TinyDetector(**self._arguments())
        # faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def collate(self, samples: Sequence[Labelled]) -> Batch:
        """Return the pictures, and the targets of each, which do not depend on the others."""
        boxes = [to_normalised(one.boxes, one.size) for one in samples]
        wanted = targets(boxes, [one.labels for one in samples], self.anchors(), threshold=self.threshold)
        return torch.stack([one.image for one in samples]), wanted

    def anchors(self) -> Tensor:
        """Return the detector's anchors for a sample, cxcywh (P, 4)."""
        return _anchors(tuple(self._arguments().items()))

    def loss(self, model: TinyDetector, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the losses of classes and offsets together, over the positive anchors of all processes."""
        images, wanted = batch
        found = model(model.normalisation(images))
        count = mean_over_processes((wanted.labels > 0).sum().to(images.dtype))
        classes, offsets = multibox_loss(found["logits"], found["offsets"], wanted, self.negatives, count)
        return classes + offsets, {"loss_classes": classes, "loss_offsets": offsets}

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW for all that is trained."""
        return AdamW([p for p in model.parameters() if p.requires_grad], lr=self.rate, weight_decay=self.decay)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps - 1))

    def validate(self, model: TinyDetector) -> Mapping[str, float]:
        """Return what `evaluate` measures on the examples, the AP50 of each class as "AP50_disc" and so on."""
        found = evaluate(model, self.examples(), self.names, size=self.picture, bands=self.bands)
        by_class = {f"AP50_{name}": value for name, value in found["per_class"].items()}
        return {name: value for name, value in found.items() if isinstance(value, float)} | by_class


@functools.lru_cache(maxsize=8)
def _anchors(arguments: tuple[tuple[str, Any], ...]) -> Tensor:
    with torch.device("meta"):
        model = TinyDetector(**dict(arguments))
    return model.anchors(device="cpu")


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
class ScenesRecipe(DetectionRecipe):
    """A detector of shapes in generated scenes.

    shapes, count, object_size, overlap, hidden, clutter, contrast: of `Scenes`; their size is `picture`. grey: share of
    the training's scenes that are grey. held_out: scenes the curve is measured on.
    """

    shapes: tuple[str, ...] = EASY.classes
    count: tuple[int, int] = EASY.count
    object_size: tuple[float, float] = EASY.object_size
    overlap: float = EASY.overlap
    hidden: float = EASY.hidden
    clutter: float = EASY.clutter
    contrast: float = EASY.contrast
    grey: float = 0.0
    held_out: int = 300

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        try:
            self.scenes()
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no scenes: {error}") from error
        self.check_whole(1, "held_out")
        if not isinstance(self.grey, int | float) or not 0 <= self.grey <= 1:
            raise ValueError(f"grey of the recipe {self.name} must be a number from 0 to 1, got {self.grey!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The shapes."""
        return self.shapes

    def scenes(self) -> Scenes:
        """Return the scenes that are trained on."""
        knobs = {name: getattr(self, name) for name in _KNOBS}
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


@dataclass(frozen=True, kw_only=True)
class BccdRecipe(DetectionRecipe):
    """A detector of blood cells, trained on BCCD's part "train" and watched on "val".

    read: (height, width) that pictures are shrunk to once; each sample is then made of one of them, of size `picture`.
    bands: COCO's 32 and 96 pixels of the pictures as they are, 480 x 640.
    flip, upside_down, zoom_out, most, patch, smallest, brightness, contrast, saturation, hue: of `Augmentation`.
    """

    picture: tuple[int, int] = (120, 160)
    bands: tuple[float, float] = (8, 24)
    read: tuple[int, int] = (240, 320)
    flip: float = 0.5
    upside_down: float = 0.5
    zoom_out: float = 0.0
    most: float = 2.0
    patch: float = 0.5
    smallest: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 10.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        try:
            self.augmentation()
            replace(self.augmentation(), size=self.read)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no augmentation, or no size to read: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Red cells, white cells, platelets."""
        return bccd.CLASSES

    def augmentation(self) -> Augmentation:
        """Return how samples are made other than the pictures are."""
        own = ("flip", "upside_down", "zoom_out", "most", "patch", "smallest")
        light = ("brightness", "contrast", "saturation", "hue")
        return Augmentation(size=self.picture, **{name: getattr(self, name) for name in (*own, *light)})

    def data(self) -> Data:
        """Return endless samples of the part "train"."""
        return Augmented(cells("train", self.read), self.augmentation(), self.seed)

    def examples(self) -> Sequence[Labelled]:
        """Return the part "val", whole; sizes are those of `picture`."""
        part = cells("val", self.picture)
        return [part.sample(index) for index in range(len(part))]


@functools.lru_cache(maxsize=4)
def cells(part: bccd.Part, size: tuple[int, int]) -> bccd.BCCD:
    """Return a part of BCCD at a size, read once. Raises DataMissing."""
    return bccd.BCCD(part, size)


def _on(scenes: Scenes, **fields: Any) -> ScenesRecipe:
    own = {name: getattr(scenes, name) for name in _KNOBS}
    return ScenesRecipe(picture=scenes.size, shapes=scenes.classes, **own, **fields)


def _compared(name: str, about: str, member: Member, **fields: Any) -> ScenesRecipe:
    return _on(
        FAMILY,
        name=f"family-{name}",
        about=f"{about}: compared on objects of 4 to 48 pixels",
        member=member,
        steps=2000,
        batch=16,
        validate_every=1000,
        rate=4e-3,
        held_out=500,
        **({"widths": (16, 24, 32, 48, 64, 64)} | fields),
    )


_WIDTHS = (24, 32, 48, 64, 96, 80)

RECIPES: tuple[Recipe, ...] = (
    _on(
        EASY,
        name="ssd-tiny",
        about="a small SSD for discs, squares and triangles of 10 to 30 pixels",
        widths=_WIDTHS,
        steps=6000,
        batch=32,
        rate=4e-3,
        grey=0.3,
        validate_every=2000,
        checkpoint_every=1000,
        aim=0.95,
    ),
    BccdRecipe(
        name="ssd-tiny-bccd",
        about="a small SSD for red cells, white cells and platelets",
        widths=_WIDTHS,
        sizes=(12, 24, 36, 52, 80),
        steps=3000,
        batch=16,
        rate=3e-3,
        validate_every=1000,
        aim=0.75,
    ),
    _compared("ssd", "a small SSD", "ssd"),
    # as dear as the mean of the three that follow: is it the idea, or the arithmetic?
    _compared("ssd-wide", "the same with more channels", "ssd", widths=(20, 32, 48, 64, 80, 80)),
    _compared("dssd", "the same with a way back by deconvolutions, and prediction modules", "dssd", width=24),
    _compared("fssd", "the same with maps fused once and a new pyramid", "fssd", width=24),
    _compared("rssd", "the same with all maps at every size, and one pair of heads", "rssd"),
    _compared("dsod", "a small DSOD", "dsod"),
    _compared("dsod-plain", "the same without the connections in its blocks, at equal cost", "dsod_plain"),
)
