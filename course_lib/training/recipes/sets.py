"""Detectors that answer with a set, from DETR to ViDT, on generated scenes (chapters 19 to 24)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_lib.datasets.annotations import Labelled
from course_lib.detection.assignment import SetTruth
from course_lib.detection.boxes import to_cxcywh, to_normalised
from course_lib.detection.families.detr.tiny import Member, TinySetDetector
from course_lib.detection.set_losses import FOCAL, SetWeights, set_losses, total
from course_lib.training.detectors import EASY, DetectorRecipe, OnScenes, knobs
from course_lib.training.processes import mean_over_processes
from course_lib.training.recipe import Recipe

Batch = tuple[Tensor, list[SetTruth]]
"""Pictures (N, 3, H, W) in [0, 1], and what is in each."""

_ARGUMENTS = (
    *("member", "picture", "queries", "width", "heads", "feed", "encoder", "decoder", "points"),
    *("widths", "cell", "levels", "body_width", "depths", "body_heads", "patch", "window"),
)
"""Fields that are arguments of `TinySetDetector` under the same names."""


@dataclass(frozen=True, kw_only=True)
class SetRecipe(OnScenes, DetectorRecipe):
    """Each object is matched with one query, in every layer; losses of DETR, or of Deformable DETR for sigmoids.

    eos: how much "no object" counts among a softmax's classes. The other fields of its own are arguments of
    `TinySetDetector`.
    """

    clip: float | None = 1.0
    rate: float = 5e-4
    member: Member = "detr"
    queries: int = 12
    width: int = 64
    heads: int = 4
    feed: int = 128
    encoder: int = 2
    decoder: int = 3
    points: int = 4
    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 64)
    cell: int = 16
    levels: int = 3
    body_width: int = 64
    depths: tuple[int, ...] = (4,)
    body_heads: tuple[int, ...] = (4,)
    patch: int = 8
    window: int = 4
    eos: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields; the detector is made without memory."""
        super().__post_init__()
        self.check_scenes()
        self.check_positive("eos")
        try:
            with torch.device("meta"):
                TinySetDetector(**self._arguments())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no detector: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        return {"names": self.names} | {name: getattr(self, name) for name in _ARGUMENTS}

    def model(self) -> TinySetDetector:
        """Return the detector with the weights it starts from."""
        model = TinySetDetector(**self._arguments())
        # faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def collate(self, samples: Sequence[Labelled]) -> Batch:
        """Return the pictures, and labels and normalised boxes of each."""
        truths = [SetTruth(one.labels, to_cxcywh(to_normalised(one.boxes, one.size))) for one in samples]
        return torch.stack([one.image for one in samples]), truths

    def loss(self, model: TinySetDetector, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the weighted losses of all layers, over the objects of all processes."""
        images, truths = batch
        said = model(model.normalisation(images))
        there = torch.tensor(float(sum(len(truth) for truth in truths)), device=images.device)
        count = mean_over_processes(there)
        losses = set_losses(said, truths, focal=not model.background, eos=self.eos, count=count)
        logged = {f"loss_{name}": losses[name] for name in ("classes", "boxes", "giou")}
        return total(losses, SetWeights() if model.background else FOCAL), logged


RECIPES: tuple[Recipe, ...] = (
    SetRecipe(
        name="detr-tiny",
        about="a small DETR for discs, squares and triangles of 10 to 30 pixels",
        **knobs(EASY),
        steps=4000,
        batch=32,
        validate_every=1000,
        aim=0.95,
    ),
)
