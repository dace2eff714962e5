"""LIIF and Meta-SR: one network for every scale, trained on single pixels of patches shrunk by random factors."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib.datasets.queries import AnyScalePairs
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.encoders import ENCODERS
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.training.recipe import Data, Recipe
from course_lib.training.recipes.edsr import scores, shrink
from course_lib.training.schedules import warm_up_cosine

Network = Literal["liif", "metasr"]
_SWITCHES = ("local_ensemble", "feature_unfolding", "cell_decoding")
_TIGHT = 0.05  # gradients are about 0.01 long; at clip 1 and rate 2e-3 LIIF's last hidden layer died within 8,000 steps


@dataclass(frozen=True, kw_only=True)
class AnyScaleRecipe(Recipe):
    """Mean absolute error at random places of random patches, Adam, warm-up and cosine.

    network, encoder, added: what is trained, and whether its output is added to bicubic. hidden: widths of LIIF's
    decoder, or a tuple of the one of Meta-SR's weight network. local_ensemble, feature_unfolding, cell_decoding: LIIF's
    switches. patch, queries, scales: see `AnyScalePairs`. rate: largest learning rate of Adam. small: what an added
    output's last layer starts from, times PyTorch's own. shown: scales that the curve shows. aim: PSNR on Set5 at x2 in
    dB that the card tells as reached or not.
    """

    network: Network = "liif"
    encoder: str = "edsr-tiny"
    hidden: tuple[int, ...] = (96, 96, 96)
    local_ensemble: bool = True
    feature_unfolding: bool = True
    cell_decoding: bool = True
    added: bool = True
    clip: float | None = 1.0
    patch: int = 24
    queries: int = 288
    scales: tuple[float, float] = (1.0, 4.0)
    rate: float = 2e-3
    warm_up: int = 200
    small: float = 0.1
    shown: tuple[float, ...] = (2, 3, 4)
    aim: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.network not in get_args(Network):
            raise ValueError(f"network of the recipe {self.name} must be liif or metasr, got {self.network!r}")
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder of the recipe {self.name} must be in {', '.join(ENCODERS)}; got {self.encoder}")
        self.check_whole(1, "patch", "queries")
        self.check_whole(0, "warm_up")
        self.check_positive("rate", "small")
        self.check_flags("added", *_SWITCHES)
        if self.network == "metasr" and len(self.hidden) != 1:
            raise ValueError(f"hidden of the recipe {self.name} must be one width for metasr, got {self.hidden!r}")
        if self.aim is not None:
            self.check_positive("aim")

    def model(self) -> AnyScale:
        """Return the network with the weights it starts from."""
        model: AnyScale
        last: nn.Module
        if self.network == "metasr":
            (hidden,) = self.hidden
            model = MetaSR(self.encoder, hidden, mean_shift=False, added=self.added)
            last = model.filters.last
        else:
            switches = {switch: getattr(self, switch) for switch in _SWITCHES}
            model = LIIF(self.encoder, self.hidden, added=self.added, **switches)
            last = model.mlp[-1]
        if self.added:
            shrink(last, self.small)
        # somewhat faster on a CPU; the stubs of torch do not know the argument
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def data(self) -> Data:
        """Return patches of BSDS500 where it is on this machine, else of the free photographs."""
        return _pairs(self.patch, self.queries, self.scales, self.seed)

    def loss(self, model: AnyScale, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return the mean absolute error over all queries and colours, in float32 whatever the precision."""
        lr, coordinates, cells, colours = batch
        return F.l1_loss(model.predict(lr, coordinates, cells).float(), colours)

    def optimiser(self, model: nn.Module) -> Optimizer:
        """Return Adam with its usual momenta."""
        return Adam(model.parameters(), lr=self.rate)

    def factor(self, step: int) -> float:
        """Return the share of `rate` at a step."""
        return warm_up_cosine(step, self.steps, min(self.warm_up, self.steps // 2))

    def validate(self, model: Any) -> Mapping[str, float]:
        """Return the PSNR at some scales on Set5, or on three photographs where Set5 is not at hand.

        Nothing is chosen by it: it is there to be looked at.
        """
        return scores(model, self.shown)


@functools.lru_cache(maxsize=1)
def _pairs(patch: int, queries: int, scales: tuple[float, float], seed: int) -> AnyScalePairs:
    """Return the pairs, which are stateless: recipes that differ in the network share them."""
    return AnyScalePairs(patch, queries, scales, source="auto", seed=seed)


def _anyscale(variant: str, about: str, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {"steps": 700, "batch": 16, "validate_every": 350, "shown": (2, 3, 4, 6, 8, 12)}
    return AnyScaleRecipe(name=f"anyscale-{variant}", about=about, **fields | changes)


RECIPES: tuple[Recipe, ...] = (
    AnyScaleRecipe(
        name="liif-tiny",
        about="LIIF x1 to x4 on EDSR's encoder of 8 blocks of 32 channels, its output added to bicubic",
        steps=28_000,
        rate=1e-3,
        clip=_TIGHT,
        batch=16,
        aim=37.6,
        validate_every=2000,
    ),
    AnyScaleRecipe(
        name="metasr-tiny",
        about="Meta-SR x1 to x4 on the same encoder and the same data, its output added to bicubic",
        steps=28_000,
        rate=1e-3,
        clip=_TIGHT,
        batch=16,
        validate_every=2000,
        network="metasr",
        hidden=(56,),
    ),
    _anyscale("full", "a short training of LIIF with all of its parts, to compare with"),
    _anyscale("no-ensemble", "the same, the nearest code alone is asked", local_ensemble=False),
    _anyscale("no-cell", "the same, the decoder is not told how large a pixel is", cell_decoding=False),
    _anyscale("no-unfolding", "the same, a code is one pixel's features, not those of 3x3", feature_unfolding=False),
    _anyscale("not-added", "the same, the network makes the whole picture, not what bicubic misses", added=False),
    _anyscale("rdn", "the same with RDN as encoder, with about as many parameters", encoder="rdn-tiny"),
    _anyscale("meta", "the same with Meta-SR's decoder", network="metasr", hidden=(56,)),
)
