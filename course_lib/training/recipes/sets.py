"""Detectors that answer with a set, from DETR to ViDT, on generated scenes (chapters 19 to 24)."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from course_lib.datasets.annotations import Labelled
from course_lib.detection.assignment import Costs, SetTruth
from course_lib.detection.boxes import to_cxcywh, to_normalised
from course_lib.detection.families.detr.tiny import Member, TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.families.vidt.distillation import teach, token_matching
from course_lib.detection.set_losses import FOCAL, SetWeights, set_losses, total
from course_lib.training.detectors import EASY, LINE, DetectorRecipe, OnScenes, knobs
from course_lib.training.parts import OnBody, WithParts, part
from course_lib.training.processes import mean_over_processes
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.classifiers import CONV, SMALL_SWIN, SWIN, VIT
from course_lib.training.recipes.detection import ScenesRecipe

Batch = tuple[Tensor, list[SetTruth]]
"""Pictures (N, 3, H, W) in [0, 1], and what is in each."""

_ARGUMENTS = (
    *("member", "picture", "queries", "width", "heads", "feed", "encoder", "decoder", "points", "temperature"),
    *("widths", "cell", "levels", "body_width", "depths", "body_heads", "patch", "window"),
)
"""Fields that are arguments of `TinySetDetector` under the same names."""


@dataclass(frozen=True, kw_only=True)
class SetRecipe(OnBody, OnScenes, DetectorRecipe):
    """Each object is matched with one query, in every layer; losses of DETR, or of Deformable DETR for sigmoids.

    eos: how much "no object" counts among a softmax's classes. teacher: name of the checkpoint of a "vidt" whose tokens
    this one's are to match, beside its other losses, with weight `matching`; None: nobody. official: as the authors'
    code matches them, see `token_matching`. sets: what a card of the finished network measures it on. The other fields
    of its own are arguments of `TinySetDetector`.
    """

    clip: float | None = 1.0
    rate: float = 5e-4
    member: Member = "detr"
    queries: int = 12
    width: int = 64
    heads: int = 4
    feed: int = 128
    encoder: int = 1
    decoder: int = 3
    points: int = 4
    temperature: float = 20.0
    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 64)
    cell: int = 16
    levels: int = 3
    body_width: int = 64
    depths: tuple[int, ...] = (4,)
    body_heads: tuple[int, ...] = (4,)
    patch: int = 8
    window: int = 4
    eos: float = 0.1
    teacher: str | None = None
    matching: float = 4.0
    official: bool = False
    sets: tuple[str, ...] = ("scenes-easy", "scenes-line")

    def __post_init__(self) -> None:
        """Check the fields; the detector is made without memory."""
        super().__post_init__()
        self.check_scenes()
        self.check_positive("eos", "matching")
        self.check_flags("official")
        if self.body_rate is not None:
            self.check_positive("body_rate")
        if self.teacher is not None and self.member != "vidt":
            raise ValueError(f"teacher of the recipe {self.name} must be None but for a vidt, got {self.teacher!r}")
        try:
            with torch.device("meta"):
                TinySetDetector(**self._arguments())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the recipe {self.name} has no detector: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        return {"names": self.names} | {name: getattr(self, name) for name in _ARGUMENTS}

    def model(self) -> TinySetDetector:
        """Return the detector with the weights it starts from. Raises CheckpointMissing."""
        model = TinySetDetector(**self._arguments())
        self.begin(model)
        if self.teacher is not None:
            part(self.name, self.teacher)
        # faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return endless scenes of this recipe's seed."""
        parts = tuple(name for name in (self.body, self.teacher) if name is not None)
        return WithParts(super().data(), parts) if parts else super().data()

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW with a rate for what the body began with, and one for the rest."""
        return AdamW(self.groups(model), lr=self.rate, weight_decay=self.decay)

    def collate(self, samples: Sequence[Labelled]) -> Batch:
        """Return the pictures, and labels and normalised boxes of each."""
        truths = [SetTruth(one.labels, to_cxcywh(to_normalised(one.boxes, one.size))) for one in samples]
        return torch.stack([one.image for one in samples]), truths

    def loss(self, model: TinySetDetector, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the weighted losses of all layers, over the objects of all processes, and the distance of tokens."""
        images, truths = batch
        seen = model.normalisation(images)
        said = model(seen, tokens=True) if self.teacher else model(seen)
        there = torch.tensor(float(sum(len(truth) for truth in truths)), device=images.device)
        count = mean_over_processes(there)
        # what its authors give the one member that has a softmax with the others' costs
        costs = Costs(classes=2.0) if self.member == "vidt_no_neck" else None
        losses = set_losses(said, truths, focal=not model.background, costs=costs, eos=self.eos, count=count)
        logged = {f"loss_{name}": losses[name] for name in ("classes", "boxes", "giou")}
        loss = total(losses, SetWeights() if model.background else FOCAL)
        if self.teacher is None:
            return loss, logged
        known = teach(_teacher(self.name, self.teacher, images.device), seen)
        tokens = token_matching(said, known, self.matching, self.official)
        return loss + tokens, logged | {"loss_tokens": tokens}


@functools.lru_cache(maxsize=2)
def _teacher(recipe: str, name: str, device: torch.device) -> nn.Module:
    return part(recipe, name).to(device).requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class BodiedScenesRecipe(OnBody, ScenesRecipe):
    """SSD's recipe with a body that was trained before."""

    rate: float = 2e-3

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.body_rate is not None:
            self.check_positive("body_rate")

    def model(self) -> TinyDetector:
        """Return the detector with the weights it starts from. Raises CheckpointMissing."""
        model = super().model()
        self.begin(model)
        return model

    def data(self) -> Data:
        """Return endless scenes of this recipe's seed."""
        return WithParts(super().data(), (self.body,)) if self.body else super().data()

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return AdamW with a rate for what the body began with, and one for the rest."""
        return AdamW(self.groups(model), lr=self.rate, weight_decay=self.decay)


_ON_CONV: dict[str, Any] = CONV | {"body": "body-conv"}
_ON_VIT: dict[str, Any] = VIT | {"body": "body-vit"}
_ON_SWIN: dict[str, Any] = SWIN | {"body": "body-swin"}
# DETR's 0.1 for "no object" is for 100 queries and about 7 objects; of 12 queries and 2.5 objects 0.4 says as much
_SOFTMAX: dict[str, Any] = {"eos": 0.4}
_DETR: dict[str, Any] = {"width": 96, "feed": 192, "cell": 8, "rate": 1e-3, "body_rate": 4e-4} | _SOFTMAX
_DEFORMABLE: dict[str, Any] = {"feed": 192, "rate": 1e-3, "body_rate": 1e-3}
_SLOW: dict[str, Any] = {"rate": 5e-4, "body_rate": 5e-4} | _SOFTMAX
_VIDT: dict[str, Any] = {"decoder": 2, "rate": 5e-4, "body_rate": 5e-4}
_MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("a small DETR", {"member": "detr"} | _ON_CONV | _DETR),
    "deformable": ("a small Deformable DETR", {"member": "deformable"} | _ON_CONV | _DEFORMABLE),
    "refine": (
        "a small Deformable DETR with refined boxes",
        {"member": "refine"} | _ON_CONV | _DEFORMABLE,
    ),
    "two-stage": ("a small Deformable DETR in two stages", {"member": "two_stage"} | _ON_CONV | _DEFORMABLE),
    "detr-vit": ("a small DETR on a ViT", {"member": "detr_vit"} | _ON_VIT | _DETR | _SLOW),
    "yolos": ("a small YOLOS", {"member": "yolos"} | _ON_VIT | _SLOW),
    "vidt": ("a small ViDT", {"member": "vidt"} | _ON_SWIN | _VIDT),
    "vidt-no-neck": ("a small ViDT without its neck", {"member": "vidt_no_neck"} | _ON_SWIN | _VIDT | _SLOW),
}
"""The members in words, and as fields of a recipe."""


def _compared(name: str, about: str, **fields: Any) -> SetRecipe:
    return SetRecipe(
        name=f"line-{name}",
        about=f"{about}: compared with equal steps",
        steps=1000,
        batch=16,
        validate_every=250,
        warm_up=100,
        **(knobs(LINE) | fields),
    )


def _shipped(name: str, member: str, steps: int, **more: Any) -> SetRecipe:
    what, own = _MEMBERS[member]
    fields = knobs(LINE) | own | more
    low, high = fields["object_size"]
    return SetRecipe(
        name=name,
        about=f"{what} for discs, squares and triangles of {low:g} to {high:g} pixels",
        steps=steps,
        batch=16,
        validate_every=1000,
        checkpoint_every=1000,
        warm_up=100,
        **fields,
    )


_STUDENT: dict[str, Any] = {"member": "vidt", "body": "body-swin-small"} | SMALL_SWIN | _VIDT

RECIPES: tuple[Recipe, ...] = (
    _shipped("detr-tiny", "detr", 20000, width=88, feed=176, encoder=2, aim=0.95, **knobs(EASY)),
    _shipped("deformable-tiny", "refine", 2000),
    _shipped("yolos-tiny", "yolos", 8000, **knobs(EASY)),
    _shipped("vidt-tiny", "vidt", 9000),
    _shipped("vidt-tiny-no-neck", "vidt-no-neck", 6000, **knobs(EASY)),
    BodiedScenesRecipe(
        name="line-ssd",
        about="a small SSD: compared with equal steps",
        body="body-conv",
        steps=1000,
        batch=16,
        validate_every=250,
        warm_up=100,
        rate=4e-3,
        body_rate=2e-3,
        **(knobs(LINE) | CONV),
    ),
    *(_compared(name, what, **fields) for name, (what, fields) in _MEMBERS.items()),
    _compared("student", "a smaller ViDT", **_STUDENT),
    _compared("distilled", "a smaller ViDT, its tokens drawn to a larger one's", teacher="vidt-tiny", **_STUDENT),
)
