"""Small detectors of SSD's family: on generated scenes, and on blood cells under a microscope."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from course_lib.datasets import bccd
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.scenes import Scenes
from course_lib.detection.augmentation import Augmentation, Augmented
from course_lib.detection.boxes import to_normalised
from course_lib.detection.families.ssd.tiny import Member, TinyDetector, check_arguments
from course_lib.detection.losses import Targets, multibox_loss, targets
from course_lib.training.detectors import EASY, FAMILY, DetectorRecipe, OnScenes, knobs
from course_lib.training.processes import mean_over_processes
from course_lib.training.recipe import Data, Recipe

Batch = tuple[Tensor, Targets]
"""Pictures (N, 3, H, W) in [0, 1], and what each anchor is to say of them."""


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(DetectorRecipe):
    """SSD's loss with greedy matching.

    member, picture, widths, sizes, ratios, width: of `TinyDetector`. threshold: IoU from which an anchor is to find an
    object. negatives: as many for each positive anchor.
    """

    member: Member = "ssd"
    widths: tuple[int, ...] = (24, 32, 48, 64, 96, 96)
    sizes: tuple[float, ...] = (8, 16, 28, 48, 80)
    ratios: tuple[float, ...] = (2,)
    width: int = 32
    threshold: float = 0.5
    negatives: float = 3.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_positive("negatives")
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold of the recipe {self.name} must be above 0 and at most 1, got {self.threshold!r}"
            )
        try:
            check_arguments(**self._arguments())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no detector: {error}") from error

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


@functools.lru_cache(maxsize=8)
def _anchors(arguments: tuple[tuple[str, Any], ...]) -> Tensor:
    with torch.device("meta"):
        model = TinyDetector(**dict(arguments))
    return model.anchors(device="cpu")


@dataclass(frozen=True, kw_only=True)
class ScenesRecipe(OnScenes, DetectionRecipe):
    """A detector of shapes in generated scenes."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_scenes()


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
    return ScenesRecipe(**knobs(scenes), **fields)


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
