"""SAN: residual groups whose channels are weighted by second-order statistics (chapter 12)."""

from typing import Literal

import torch
from torch import Tensor, nn

from course_lib.blocks.non_local import NonLocal
from course_lib.super_resolution.edsr import ResidualBlock
from course_lib.super_resolution.layers import MeanShift, Tail, as_batch, bicubic, check_range, check_scale
from course_lib.super_resolution.second_order import SOCA, FirstOrder
from course_lib.upsampling.grids import check_choice, check_length

Attention = Literal["second", "first", "none"]


class ResidualGroup(nn.Module):
    """Local-source residual attention group: (B, channels, h, w) -> the same (Dai et al. 2019, equation 5).

    x + last(attention(blocks(x))): the official code has a convolution behind the attention, the paper's figure none.
    """

    def __init__(self, blocks: int, channels: int, reduction: int, attention: Attention) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.body = nn.ModuleList(ResidualBlock(channels, 1.0) for _ in range(blocks))
        kinds = {"second": SOCA, "first": FirstOrder}
        self.attention = kinds[attention](channels, reduction) if attention in kinds else nn.Identity()
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the group's output."""
        features = x
        for block in self.body:
            features = block(features)
        result: Tensor = self.last(self.attention(features)).add_(x)
        return result


class SAN(nn.Module):
    """Enlarge an RGB picture by a whole number with a second-order attention network (Dai et al. 2019).

    scale: 2, 3, 4, or another power of 2. groups: residual groups; blocks: residual blocks in each. channels: of the
    features. reduction: of the channels inside the attention. 20, 10, 64, 16 is the paper's network. data_range: the
    network computes with pictures times this number, 255 in the official code, less the mean colour of DIV2K; mean
    shifts are trained, as in the released files. attention: "second" (the paper's), "first" (means of channels), or
    "none". added: the result is added to the bicubic enlargement (a = -1/2, symmetric border), so that only what
    bicubic misses is learned; the paper's network makes the whole picture, and then no mean colour is added.

    One non-local block (channels // 8 inner channels, 2 x 2 cells) is used before and after the groups. What comes out
    of the first is added behind each group, times gamma, one number for all groups that starts at 0. radius: how many
    small pixels away a result still looks: all of them, in any picture. Raises TypeError or ValueError as the parts do.
    """

    def __init__(
        self,
        scale: int,
        groups: int = 20,
        blocks: int = 10,
        channels: int = 64,
        reduction: int = 16,
        data_range: float = 255.0,
        attention: Attention = "second",
        added: bool = False,
    ) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        check_choice("attention", attention, Attention)
        self.scale, self.data_range, self.added = check_scale(scale), check_range(data_range), added
        self.groups, self.blocks = check_length("groups", groups), check_length("blocks", blocks)
        self.channels, self.reduction = check_length("channels", channels), check_length("reduction", reduction)
        self.attention, self.radius = attention, EVERYWHERE
        self.sub_mean, self.add_mean = (MeanShift(sign, data_range, trained=True) for sign in (-1, 1))
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.non_local = NonLocal(channels, max(1, channels // 8))
        self.body = nn.ModuleList(ResidualGroup(blocks, channels, reduction, attention) for _ in range(groups))
        self.gamma = nn.Parameter(torch.zeros(1))
        self.tail = Tail(channels, scale, channels)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, scale h, scale w); the result may leave [0, 1] a little.

        Its dtype is that of `lr`, under autocast too. Raises TypeError or ValueError for another shape.
        """
        x = self.sub_mean(as_batch("lr", lr) * self.data_range)
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)  # where convolutions are fastest
        head = self.head(x)
        features = source = self.non_local(head)
        for group in self.body:
            features = group(features) + self.gamma * source
        large: Tensor = self.tail(self.non_local(features) + head).to(lr.dtype)
        large = (large if self.added else self.add_mean(large)) / self.data_range
        large = large.reshape(*lr.shape[:-3], *large.shape[-3:])
        return large + bicubic(lr, self.scale) if self.added else large


EVERYWHERE = 2**30
"""The radius of a network that sees the whole picture, however large."""
