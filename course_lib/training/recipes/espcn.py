"""ESPCN on luminance: the paper's network, and the same one whose output is added to the bicubic enlargement."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib import datasets
from course_lib.datasets.pairs import SRPairs
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.metrics import benchmark, network
from course_lib.training.recipe import Data, Recipe
from course_lib.training.schedules import warm_up_cosine
from course_lib.upsampling import resize

_MID_GREY = 0.45  # mean luminance of photographs
_SHOWN = ("astronaut", "chelsea", "coffee")  # where Set5 is not at hand; then the network has seen them in training


@dataclass(frozen=True, kw_only=True)
class EspcnRecipe(Recipe):
    """Mean squared error on random patches, Adam, warm-up and cosine.

    added: the output is added to bicubic. patch: side of the small patch. rate: largest learning rate of Adam.
    contrast: how many times larger than PyTorch's the first layer's weights start (see `start`).
    """

    scale: int = 3
    added: bool = False
    patch: int = 32
    rate: float = 2e-3
    warm_up: int = 200
    contrast: float = 10.0

    def model(self) -> ESPCN:
        """Return the network with the weights it starts from."""
        model = ESPCN(self.scale, added=self.added)
        start(model, self.contrast)
        # somewhat faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return patches of BSDS500 where it is on this machine, else of the free photographs."""
        return SRPairs(self.scale, self.patch, channels="luminance", source="auto", seed=self.seed)

    def loss(self, model: ESPCN, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean squared error over all pixels (eq. 5 of the paper), in float32 whatever the precision."""
        lr, hr = batch
        return F.mse_loss(model(lr).float(), hr)

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return Adam with its usual momenta."""
        return Adam(model.parameters(), lr=self.rate)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, self.warm_up)

    def validate(self, model: ESPCN) -> Mapping[str, float]:
        """Return the PSNR on Set5, or on three photographs where Set5 is not at hand, and bicubic's beside it.

        Nothing is chosen by it: it is there to be looked at.
        """
        name, pictures = _shown()
        return {f"psnr_{name}": _psnr(network(model), pictures, self.scale), f"bicubic_{name}": _bicubic(self.scale)}


@torch.no_grad()
def start(model: ESPCN, contrast: float) -> None:
    """Start the weights so that tanh bends: with PyTorch's own weights the network begins as a linear filter.

    Details of a photograph differ from their surroundings by a few hundredths, so that the first layer's sums do too,
    and there tanh is a straight line. `contrast` times larger weights (a few times in the second layer) bring the sums
    to the size of 1. Biases make mid grey the middle of every tanh; an added output starts near 0.
    """
    model.conv1.weight.mul_(contrast)
    model.get_parameter("conv1.bias").copy_(-_MID_GREY * model.conv1.weight.sum(dim=(1, 2, 3)))
    model.conv2.weight.mul_(2)
    nn.init.zeros_(model.get_parameter("conv2.bias"))
    if model.added:
        model.conv3.weight.mul_(0.1)
    nn.init.constant_(model.get_parameter("conv3.bias"), 0.0 if model.added else _MID_GREY)


@functools.cache
def _shown() -> tuple[str, tuple[Tensor, ...]]:
    try:
        return "Set5", tuple(datasets.from_uint8(array) for _, array in datasets.pictures("Set5"))
    except datasets.DataMissing:
        return "photographs", tuple(datasets.photograph(name) for name in _SHOWN)


@functools.cache
def _bicubic(scale: int) -> float:
    return _psnr(lambda low, r: resize(low, scale=r, method="bicubic", border="symmetric"), _shown()[1], scale)


def _psnr(model: Callable[[Tensor, int], Tensor], pictures: tuple[Tensor, ...], scale: int) -> float:
    return sum(benchmark(picture, model, scale)[0] for picture in pictures) / len(pictures)


def _recipe(name: str, added: bool, about: str) -> EspcnRecipe:
    return EspcnRecipe(name=name, added=added, about=about, steps=40_000, batch=16, validate_every=500)


RECIPES: tuple[Recipe, ...] = (
    _recipe("espcn-x3", False, "ESPCN x3 on luminance, as in the paper"),
    _recipe("espcn-x3-added", True, "ESPCN x3 on luminance, its output added to bicubic"),
)
