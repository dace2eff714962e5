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

    added: the output is added to bicubic. patch: side of the small patch. rate: largest learning rate of Adam, times
    `last` in the last layer (the paper: a tenth). contrast: see `start`. aim: PSNR on Set5 in dB that the card tells
    as reached or not.
    """

    scale: int = 3
    added: bool = False
    patch: int = 32
    rate: float = 2e-3
    last: float = 1.0
    warm_up: int = 200
    contrast: float = 10.0
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(1, "scale", "patch")
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "last", "contrast")
        self.check_flags("added")
        if self.aim is not None:
            self.check_positive("aim")

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
        """Return Adam with its usual momenta; the last layer has its own share of the rate."""
        last = [p for name, p in model.named_parameters() if name.startswith("conv3")]
        others = [p for name, p in model.named_parameters() if not name.startswith("conv3")]
        return Adam([{"params": others, "lr": self.rate}, {"params": last, "lr": self.rate * self.last}])

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps // 2))

    def validate(self, model: ESPCN) -> Mapping[str, float]:
        """Return the PSNR on Set5, or on three photographs where Set5 is not at hand, and bicubic's beside it.

        Nothing is chosen by it: it is there to be looked at.
        """
        name, pictures = shown()
        return {f"psnr_{name}": _psnr(network(model), pictures, self.scale), f"bicubic_{name}": _bicubic(self.scale)}


@torch.no_grad()
def start(model: ESPCN, contrast: float) -> None:
    """Start the weights so that tanh bends: with PyTorch's own weights the network begins as a linear filter.

    Details of a photograph differ from their surroundings by a few hundredths, and so do the first layer's sums, where
    tanh is a straight line. What differs within a kernel of the first layer is made `contrast` times larger (twice in
    the second layer), its mean is not, so that details reach sums of the size of 1 and brightness does not saturate
    them. Biases make mid grey the middle of every tanh; an added output starts near 0.
    """
    kernels = model.conv1.weight
    means = kernels.mean(dim=(2, 3), keepdim=True)
    kernels.copy_(means + contrast * (kernels - means))
    model.get_parameter("conv1.bias").copy_(-_MID_GREY * kernels.sum(dim=(1, 2, 3)))
    model.conv2.weight.mul_(2)
    nn.init.zeros_(model.get_parameter("conv2.bias"))
    if model.added:
        model.conv3.weight.mul_(0.1)
    nn.init.constant_(model.get_parameter("conv3.bias"), 0.0 if model.added else _MID_GREY)


@functools.cache
def shown() -> tuple[str, tuple[Tensor, ...]]:
    """Return the pictures that a curve is measured on and their name: Set5, or photographs where it is not at hand."""
    try:
        return "Set5", tuple(datasets.from_uint8(array) for _, array in datasets.pictures("Set5"))
    except datasets.DataMissing:
        return "photographs", tuple(datasets.photograph(name) for name in _SHOWN)


@functools.cache
def _bicubic(scale: int) -> float:
    return _psnr(lambda low, r: resize(low, scale=r, method="bicubic", border="symmetric"), shown()[1], scale)


def _psnr(model: Callable[[Tensor, int], Tensor], pictures: tuple[Tensor, ...], scale: int) -> float:
    return sum(benchmark(picture, model, scale)[0] for picture in pictures) / len(pictures)


RECIPES: tuple[Recipe, ...] = (
    EspcnRecipe(
        name="espcn-x3",
        about="ESPCN x3 on luminance, the layers of the paper",
        steps=40_000,
        batch=16,
        rate=2e-3,
        validate_every=250,
    ),
    EspcnRecipe(
        name="espcn-x3-added",
        about="ESPCN x3 on luminance, its output added to bicubic",
        steps=40_000,
        batch=16,
        added=True,
        rate=3e-3,
        last=0.3,
        aim=32.2,
        validate_every=250,
    ),
)
