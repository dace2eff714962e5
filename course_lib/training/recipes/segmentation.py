"""Five decoders for one small segmentation network, at equal cost, on generated scenes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib.datasets.scenes import Scenes
from course_lib.segmentation import STRIDE, Decoder, SegmentationNet, class_iou, confusion_matrix
from course_lib.training.recipe import Recipe
from course_lib.training.schedules import warm_up_cosine
from course_lib.upsampling import Projection, fit_projection, label_windows

HELD_OUT_SEED = 1_000_003
"""Seed of the scenes nobody trains on; every run is scored on the same ones."""


@dataclass(frozen=True)
class LabelledScenes:
    """Scenes as (image, label map)."""

    scenes: Scenes

    @property
    def description(self) -> str:
        """What the samples are made of."""
        return f"generated: {self.scenes}"

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the image (3, H, W) and the class of every pixel (H, W), 0 for background."""
        scene = self.scenes[index]
        return scene.image, scene.semantic()


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(Recipe):
    """Cross-entropy under a softmax with learned temperature, Adam, warm-up and cosine.

    decoder: see SegmentationNet. side: of the scenes, a multiple of 16. object_size: least and most pixels. rank:
    features in front of W. fitted: scenes whose labels W is computed from. held_out: scenes to be scored on.
    """

    decoder: Decoder
    side: int = 96
    object_size: tuple[int, int] = (16, 48)
    rank: int = 32
    fitted: int = 250
    held_out: int = 300
    rate: float = 2e-3
    warm_up: int = 100

    def __post_init__(self) -> None:
        """Check the fields; the side is what the network halves four times."""
        super().__post_init__()
        if self.decoder not in get_args(Decoder):
            known = ", ".join(get_args(Decoder))
            raise ValueError(f"decoder of the recipe {self.name} must be one of {known}, got {self.decoder!r}")
        self.check_whole(1, "side", "rank", "fitted", "held_out")
        self.check_whole(0, "warm_up")
        self.check_positive("rate")
        if self.side < STRIDE or self.side % STRIDE:
            raise ValueError(f"side of the recipe {self.name} must be a multiple of {STRIDE}, got {self.side!r}")
        try:
            _scenes(self.seed, self.side, self.object_size)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no scenes: {error}") from error

    def model(self) -> SegmentationNet:
        """Return the network; where the decoder wants W, it is computed from training labels first."""
        projection = self.projection() if self.decoder.startswith("dupsampling") else None
        return SegmentationNet(self.decoder, self.classes, rank=self.rank, projection=projection)

    @property
    def classes(self) -> int:
        """Background and shapes."""
        return 1 + len(Scenes().classes)

    def projection(self) -> Projection:
        """Return the closed form for the labels of the first `fitted` training scenes."""
        return _projection(self.data(), self.fitted, self.classes, self.rank)

    def data(self) -> LabelledScenes:
        """Return endless scenes of this recipe's seed."""
        return LabelledScenes(_scenes(self.seed, self.side, self.object_size))

    def loss(self, model: SegmentationNet, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the mean cross-entropy over all pixels, and the temperature to be logged."""
        return model.loss(*batch), {"temperature": model.softmax.T}

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return Adam for all that is trained."""
        return Adam([p for p in model.parameters() if p.requires_grad], lr=self.rate)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps - 1))

    def validate(self, model: SegmentationNet) -> Mapping[str, float]:
        """Return the mean IoU on held-out scenes, and that of each class."""
        device = next(model.parameters()).device
        images, labels = held_out(self.held_out, self.side, self.object_size)
        table = torch.zeros(self.classes, self.classes, dtype=torch.int64)
        for some, truth in zip(torch.split(images, 50), torch.split(labels, 50), strict=True):
            table += confusion_matrix(model(some.to(device)).argmax(1).cpu(), truth, self.classes)
        found = class_iou(table)
        names = ("background", *Scenes().classes)
        return {"miou": float(found.nanmean()), **{f"iou_{n}": float(v) for n, v in zip(names, found, strict=True)}}


@functools.lru_cache(maxsize=2)
def held_out(count: int, side: int, object_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return images (count, 3, side, side) and label maps (count, side, side) that no recipe trains on."""
    scenes = LabelledScenes(_scenes(HELD_OUT_SEED, side, object_size))
    images, labels = zip(*(scenes.sample(index) for index in range(count)), strict=True)
    return torch.stack(images), torch.stack(labels)


@functools.lru_cache(maxsize=4)
def _projection(data: LabelledScenes, fitted: int, classes: int, rank: int) -> Projection:
    labels = torch.stack([data.sample(index)[1] for index in range(fitted)])
    return fit_projection(label_windows(labels, STRIDE, classes), rank)


def _scenes(seed: int, side: int, object_size: tuple[int, int]) -> Scenes:
    return Scenes(seed=seed, size=(side, side), count=(1, 4), object_size=object_size)


def _recipe(decoder: Decoder, about: str) -> SegmentationRecipe:
    return SegmentationRecipe(
        name=f"segment-{decoder}", about=about, decoder=decoder, steps=1500, batch=16, validate_every=250
    )


RECIPES: tuple[Recipe, ...] = (
    _recipe("bilinear", "small segmentation network, scores at stride 16 enlarged bilinearly"),
    _recipe("dupsampling", "the same at the same cost, enlarged by W from the training labels"),
    _recipe("dupsampling-trained", "the same, W trained on from there"),
    _recipe("dupsampling-plain", "the same, W kept, softmax without temperature"),
    _recipe("shuffle", "the same with a W learned from a random start (sub-pixel convolution)"),
)
