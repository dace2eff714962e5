"""What stands before and behind a deformable transformer: projections of maps, and heads that begin at rest.

Shared by Deformable DETR (chapter 20) and ViDT's neck (chapter 23).
"""

import math
from typing import cast

from torch import Tensor, nn

from course_lib.blocks.deformable_attention import DeformableAttention
from course_lib.blocks.mlp import MLP
from course_lib.upsampling.grids import check_length

RARE = 0.01
"""Probability with which a new network finds anything anywhere: the focal loss needs it low (Lin et al. 2017)."""
SMALL = -2.0
"""What the sides of a new network's boxes are sigmoids of: 0.12 of the picture."""
GROUPS = 32
"""Groups of the normalisations behind the projections."""


class Projection(nn.Sequential):
    """A convolution and GroupNorm, drawn after Glorot: maps (N, inputs, h, w) -> (N, width, h, w).

    halve: the convolution is 3 x 3 at stride 2 instead of 1 x 1, and the map half as large. Raises ValueError where
    `groups` does not divide `width`.
    """

    def __init__(self, inputs: int, width: int, groups: int = GROUPS, halve: bool = False) -> None:
        """Make both."""
        if check_length("width", width) % check_length("groups", groups):
            raise ValueError(f"width must be a multiple of groups, {groups}, got {width}")
        side, stride = (3, 2) if halve else (1, 1)
        convolution = nn.Conv2d(inputs, width, side, stride, padding=side // 2)
        nn.init.xavier_uniform_(convolution.weight)
        nn.init.zeros_(cast(Tensor, convolution.bias))
        super().__init__(convolution, nn.GroupNorm(groups, width))

    def tokens(self, x: Tensor) -> Tensor:
        """Return tokens (N, n, inputs) as (N, n, width): a map of one column, whose norm is over ALL the tokens.

        So each token's result depends on the others, as in ViDT's official code.
        """
        projected: Tensor = self(x.mT[..., None])[..., 0].mT
        return projected


def draw(part: nn.Module) -> None:
    """Draw matrices after Glorot; deformable attentions begin as rings all the same."""
    for parameter in part.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in part.modules():
        if isinstance(module, DeformableAttention):
            module.reset()


def class_head(width: int, classes: int) -> nn.Linear:
    """Return a new head for which nothing is likely."""
    head = nn.Linear(width, classes)
    nn.init.constant_(head.bias, -math.log((1 - RARE) / RARE))
    return head


def box_head(width: int) -> MLP:
    """Return a new head that leaves boxes where their references are."""
    head = MLP(width, width, 4, 3)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return head


def begin_small(head: MLP) -> None:
    """Let a new head make boxes with sides of `SMALL` around references that are points."""
    nn.init.constant_(cast(nn.Linear, head.layers[-1]).bias[2:], SMALL)
