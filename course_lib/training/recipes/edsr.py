"""EDSR for one scale each, on RGB, its output added to the bicubic enlargement."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib.datasets.pairs import SRPairs
from course_lib.super_resolution import metrics
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.san import SAN
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.espcn import shown
from course_lib.training.schedules import warm_up_cosine


@dataclass(frozen=True, kw_only=True)
class EdsrRecipe(Recipe):
    """Mean absolute error on random patches, Adam, warm-up and cosine.

    scale: 2, 3 or 4. blocks, channels: of the encoder. data_range: what pictures in [0, 1] are multiplied by. added:
    the output is added to bicubic. patch: side of the small patch. rate: largest learning rate of Adam. small: what an
    added output's last layer starts from, times PyTorch's own. aim: PSNR on Set5 in dB that the card tells as reached
    or not.
    """

    clip: float | None = 1.0
    scale: int = 2
    blocks: int = 8
    channels: int = 32
    data_range: float = 2.0
    added: bool = True
    patch: int = 24
    rate: float = 2e-3
    warm_up: int = 200
    small: float = 0.1
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(2, "scale")
        self.check_whole(1, "blocks", "channels", "patch")
        self.check_whole(0, "warm_up")
        self.check_positive("data_range", "rate", "small")
        self.check_flags("added")
        if self.aim is not None:
            self.check_positive("aim")

    def network(self) -> EDSR | SAN:
        """Return the network with PyTorch's own random weights."""
        return EDSR(self.scale, self.blocks, self.channels, data_range=self.data_range, added=self.added)

    def model(self) -> nn.Module:
        """Return the network with the weights it starts from."""
        model = self.network()
        if self.added:
            shrink(model.tail.last, self.small)
        # somewhat faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return patches of BSDS500 where it is on this machine, else of the free photographs."""
        return SRPairs(self.scale, self.patch, channels="rgb", source="auto", seed=self.seed, rounded=True)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean absolute error over all pixels and colours, in float32 whatever the precision."""
        lr, hr = batch
        return F.l1_loss(model(lr).float(), hr)

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return Adam with its usual momenta."""
        return Adam(model.parameters(), lr=self.rate)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps // 2))

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the PSNR on Set5, or on three photographs where Set5 is not at hand.

        Nothing is chosen by it: it is there to be looked at.
        """
        return scores(model, (self.scale,))


def shrink(layer: nn.Module, factor: float) -> None:
    """Multiply all parameters of a layer: an output that is added to something begins near it."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(factor)


def scores(model: nn.Module, scales: Sequence[float]) -> dict[str, float]:
    """Return {"psnr_Set5_x2": mean PSNR in dB, ...} of an RGB network, on three photographs where Set5 is not at hand.

    The protocol is "benchmark" of `super_resolution.metrics.score`: luminance, a border of ceil(scale) pixels cut.
    """
    name = shown()[0]
    enlarge = metrics.enlarger(model)
    found = {}
    for scale in scales:
        pairs = _shrunk(scale)
        results = (metrics.compared(enlarge(lr, (hr.shape[-2], hr.shape[-1])), hr, scale) for lr, hr in pairs)
        found[f"psnr_{name}_x{scale:g}"] = sum(float(metrics.psnr(*result)) for result in results) / len(pairs)
    return found


@functools.lru_cache(maxsize=16)
def _shrunk(scale: float) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple(metrics.pair(picture, scale) for picture in shown()[1])


RECIPES: tuple[Recipe, ...] = tuple(
    EdsrRecipe(
        name=f"edsr-tiny-x{scale}",
        about=f"EDSR x{scale} with 8 blocks of 32 channels, RGB, its output added to bicubic",
        steps=6000,
        batch=16,
        scale=scale,
        validate_every=1000,
    )
    for scale in (2, 3, 4)
)
