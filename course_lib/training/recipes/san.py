"""SAN for scale 2: with second-order attention, and the same network with first-order attention or none."""

from dataclasses import dataclass
from typing import get_args

from course_lib.super_resolution.san import SAN, Attention
from course_lib.training.recipe import Recipe
from course_lib.training.recipes.edsr import EdsrRecipe


@dataclass(frozen=True, kw_only=True)
class SanRecipe(EdsrRecipe):
    """SAN, trained as EDSR is.

    groups: of residual blocks, `blocks` in each. reduction: of the channels inside the attention. attention: "second",
    "first" or "none". clip is near the length that the gradients have here: some are ten times as long. data_range is
    the paper's: what attention reads of the maps grows with it, and at 2 it is so near 0 that every picture gets the
    same weights.
    """

    clip: float | None = 0.02
    data_range: float = 255.0
    groups: int = 3
    blocks: int = 2
    channels: int = 24
    reduction: int = 8
    attention: Attention = "second"
    rate: float = 1e-3

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self.check_whole(1, "groups", "reduction")
        known = get_args(Attention)
        if self.attention not in known:
            raise ValueError(f"attention of the recipe {self.name} must be {', '.join(known)}; got {self.attention!r}")

    def network(self) -> SAN:
        """Return the network with PyTorch's own random weights."""
        sizes = (self.groups, self.blocks, self.channels, self.reduction)
        return SAN(self.scale, *sizes, data_range=self.data_range, attention=self.attention, added=self.added)


_ORDERS: dict[Attention, str] = {
    "second": "second-order attention (the root of the channels' covariance)",
    "first": "first-order attention (means of channels)",
    "none": "no attention",
}

RECIPES: tuple[Recipe, ...] = (
    SanRecipe(
        name="san-tiny",
        about="SAN x2 with 3 groups of 3 blocks of 32 channels, RGB, its output added to bicubic",
        steps=5000,
        batch=16,
        blocks=3,
        channels=32,
        validate_every=2500,
    ),
    *(
        SanRecipe(
            name=f"order-{attention}",
            about=f"a small SAN x2 with {what}: compared",
            steps=2500,
            batch=16,
            attention=attention,
            validate_every=1250,
        )
        for attention, what in _ORDERS.items()
    ),
)
