"""TTSR on pairs made of one photograph each, its output added to the bicubic enlargement."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib import datasets
from course_lib.datasets.references import ReferencePairs, inputs, related
from course_lib.super_resolution import metrics
from course_lib.super_resolution.texture_losses import frozen, reconstruction, transferal
from course_lib.super_resolution.ttsr import SCALE, TTSR, check_floor
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.edsr import shrink
from course_lib.training.schedules import warm_up_cosine

_SIDE = 160  # of the pairs that the curve shows
# each photograph, where its target lies, and how its reference looks at it; trained on only where BSDS500 is missing
_SHOWN: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "astronaut": ((120, 60), {"shift": (10.4, -14.7), "degrees": 6, "zoom": 1.08, "gain": 0.9}),
    "chelsea": ((60, 150), {"shift": (-12.3, 8.6), "degrees": -9, "zoom": 0.93, "offset": 0.03}),
    "coffee": ((90, 200), {"shift": (6.5, 11.2), "degrees": 3, "zoom": 1.12, "cast": (1.03, 1, 0.97)}),
}


@dataclass(frozen=True, kw_only=True)
class TtsrRecipe(Recipe):
    """Mean absolute error, a part of the samples without their reference; Adam, warm-up and cosine.

    channels, blocks, widths, added: of `TTSR`. patch: side of the small patch; targets and references are four times as
    large. related: share of the references that show what the target shows, see `ReferencePairs`. alone: share of the
    samples whose textures are multiplied by 0, so that the network also works without. transferal: weight of the
    transferal loss, of squares, on the samples that have a related reference. distrust: weight of the mean soft
    attention of unrelated references, which the extractor learns to make small. rate: largest learning rate of Adam,
    times `extractor` for the texture extractor (the paper: a tenth). small: what an added output's last layer starts
    from, times PyTorch's own. floor: of the finished network, see `TTSR`; no step knows of it, so that the extractor
    learns from low relevance too, and it may be chosen when all steps are taken.
    """

    clip: float | None = 0.05
    channels: int = 24
    blocks: tuple[int, ...] = (4, 3, 2, 1)
    widths: tuple[int, ...] = (16, 32, 64)
    added: bool = True
    patch: int = 16
    related: float = 0.65
    alone: float = 0.15
    transferal: float = 0.0
    distrust: float = 0.005
    rate: float = 1e-3
    extractor: float = 1.0
    warm_up: int = 100
    small: float = 0.1
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(1, "channels", "patch")
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "extractor", "small")
        self.check_flags("added")
        self.check_shares("related", "alone", "transferal", "distrust", "floor")
        check_floor(self.floor)
        for name, count in (("blocks", 4), ("widths", 3)):
            numbers = getattr(self, name)
            if len(numbers) != count or any(not isinstance(n, int) or n < 1 for n in numbers):
                raise ValueError(f"{name} of the recipe {self.name} must be {count} whole numbers >= 1, got {numbers}")

    def check_shares(self, *names: str) -> None:
        """Raise ValueError for fields that are no numbers from 0 to 1."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise ValueError(f"{name} of the recipe {self.name} must be a number from 0 to 1, got {value!r}")

    def model(self) -> TTSR:
        """Return the network with the weights it starts from."""
        model = TTSR(self.channels, self.blocks, self.widths, added=self.added)
        for layer in model.extractor.modules():
            if isinstance(layer, nn.Conv2d):  # `vgg` draws uniform numbers; the recorded training began so
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.get_parameter("bias"))
        if self.added:
            shrink(model.tail.tail2, self.small)
            nn.init.zeros_(model.tail.tail2.get_parameter("bias"))
        # somewhat faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return pairs of BSDS500 where it is on this machine, else of the free photographs."""
        return ReferencePairs(self.patch, source="auto", seed=self.seed, related=self.related)

    def loss(self, model: TTSR, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean absolute error and what is added to it, weighted."""
        lr, lr_up = batch["lr"], batch["lr_up"]
        textures = model.textures(lr_up, batch["ref"], batch["ref_down_up"])
        # drawn on the CPU, so that every device leaves out the same
        strength = (torch.rand(len(lr)) >= self.alone).to(lr)
        sr = model.enlarge(lr, lr_up, textures, strength)
        unrelated = 1 - batch["related"]
        loss = reconstruction(sr, batch["hr"]) + self.distrust * (unrelated * textures.soft.mean((1, 2, 3))).mean()
        if not self.transferal:
            return loss
        kept = (strength * batch["related"]).view(-1, 1, 1, 1)
        maps, wanted = frozen(model.extractor)(sr), (textures.fine, textures.middle, textures.coarse)
        return loss + self.transferal * transferal([kept * one for one in maps], [kept * one for one in wanted])

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return Adam with its usual momenta; the texture extractor has its own share of the rate."""
        own = [p for name, p in model.named_parameters() if name.startswith("extractor.")]
        others = [p for name, p in model.named_parameters() if not name.startswith("extractor.")]
        return Adam([{"params": others, "lr": self.rate}, {"params": own, "lr": self.rate * self.extractor}])

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps // 2))

    def fields(self) -> dict[str, Any]:
        """Return the fields that change a number of the training, so without the floor."""
        return {name: value for name, value in super().fields().items() if name != "floor"}

    def finished(self, model: TTSR) -> TTSR:
        """Return the network, which from now on leaves out textures that are hardly relevant."""
        model.floor = self.floor
        return model

    def validate(self, model: TTSR) -> Mapping[str, float]:
        """Return the PSNR on pairs of three photographs, with related, unrelated and no references, and the means of S.

        Nothing is chosen by it: it is there to be looked at.
        """
        return scores(model)


def scores(model: TTSR) -> dict[str, float]:
    """Return the means over three pairs of photographs: "psnr_related", "psnr_unrelated" and "psnr_alone" in dB, and
    the soft attention as "soft_related" and "soft_unrelated".

    The protocol is "benchmark" of `super_resolution.metrics.score`: luminance, a border of 4 pixels cut. The unrelated
    reference of each pair is that of the next one.
    """
    weight = next(model.parameters())
    pairs = [{name: picture.to(weight)[None] for name, picture in pair.items()} for pair in shown()]
    found: dict[str, list[float]] = {}
    for pair, other in zip(pairs, (*pairs[1:], pairs[0]), strict=True):
        for kind, used in (("related", pair), ("unrelated", other), ("alone", None)):
            textures = None if used is None else model.textures(pair["lr_up"], used["ref"], used["ref_down_up"])
            sr = model.enlarge(pair["lr"], pair["lr_up"], textures)
            result = metrics.compared(sr[0], pair["hr"][0], SCALE)
            found.setdefault(f"psnr_{kind}", []).append(float(metrics.psnr(*result)))
            if textures is not None:
                found.setdefault(f"soft_{kind}", []).append(float(textures.soft.mean()))
    return {name: sum(values) / len(values) for name, values in found.items()}


@functools.cache
def shown() -> tuple[dict[str, Tensor], ...]:
    """Return the pairs that the curve is measured on, as `references.inputs` makes them."""
    size = (_SIDE, _SIDE)
    return tuple(inputs(*related(datasets.photograph(name), size, at, **knobs)) for name, (at, knobs) in _SHOWN.items())


RECIPES: tuple[Recipe, ...] = (
    TtsrRecipe(
        name="ttsr-tiny",
        about="TTSR x4 with 24 channels on pairs of one photograph each, added to bicubic; relevance up to 0.4 is none",
        steps=7000,
        batch=8,
        validate_every=1750,
        # chosen after the training, by what chapter 11 prints of several floors
        floor=0.4,
    ),
)
