"""SSD's body: VGG-16 without its classifier, dilated, and smaller and smaller maps behind it (chapter 14)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.vgg import VGG, VGG16
from course_lib.upsampling.grids import check_length


class Step(NamedTuple):
    """How a convolution walks over a map: side of its kernel, stride, and padding."""

    kernel: int
    stride: int
    padding: int


SAME = Step(3, 1, 1)
"""Keeps the size of a map."""
HALF = Step(3, 2, 1)
"""Halves it, rounding up."""
INNER = Step(3, 1, 0)
"""Takes 2 away: 5 -> 3 -> 1."""
LAST = Step(4, 1, 1)
"""Takes 1 away: SSD512's way from 2 to 1."""

Extra = tuple[int, int, Step]
"""(channels of a 1 x 1 convolution, channels of the convolution behind it, the step of the latter)."""

SSD300_EXTRAS: Sequence[Extra] = ((256, 512, HALF), (128, 256, HALF), (128, 256, INNER), (128, 256, INNER))
"""19 -> 10 -> 5 -> 3 -> 1: the paper's Conv8 to Conv11, conv6 to conv9 in the code."""
SSD512_EXTRAS: Sequence[Extra] = ((256, 512, HALF), *[(128, 256, HALF)] * 3, (128, 256, LAST))
"""32 -> 16 -> 8 -> 4 -> 2 -> 1."""


def convolution(before: int, after: int, step: Step = SAME) -> nn.Conv2d:
    """Return a convolution with Xavier's weights and biases 0, as SSD makes all that it adds to VGG."""
    made = nn.Conv2d(before, after, step.kernel, step.stride, step.padding)
    nn.init.xavier_uniform_(made.weight)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]  # it has one
    return made


class VGGBody(nn.Module):
    """Pictures (N, 3, H, W), normalised as the weights expect -> maps of conv4_3, fc7 and of every extra, ReLU and all.

    VGG-16 with surgery: pool3 rounds up (75 -> 38), pool5 keeps the size (3 x 3, stride 1), the fully connected layers
    have become convolutions: fc6 3 x 3 with dilation 6, which sees as far as a 13 x 13 kernel, and fc7 1 x 1. An extra
    is a 1 x 1 convolution that narrows and one that steps. channels: of the maps, 512 and 1024 first.
    Raises TypeError or ValueError for extras that are none.
    """

    def __init__(self, extras: Sequence[Extra] = SSD300_EXTRAS) -> None:
        """Make the layers."""
        super().__init__()
        pools = {"pool3": nn.MaxPool2d(2, ceil_mode=True), "pool5": nn.MaxPool2d(3, stride=1, padding=1)}
        self.vgg = VGG(VGG16, pools=pools, normalise=False)
        self.fc6 = convolution(512, 1024, Step(3, 1, 6))
        self.fc6.dilation = (6, 6)
        self.fc7 = convolution(1024, 1024, Step(1, 1, 0))
        self.extras = nn.ModuleList()
        self.channels: tuple[int, ...] = (512, 1024)
        for narrow, wide, step in extras:
            self.extras.append(_Shrink(self.channels[-1], narrow, wide, step))
            self.channels += (wide,)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, the finest first. Raises as `VGG.maps` does."""
        conv4_3, x = self.vgg.maps(images, ["relu4_3", "pool5"])
        x = F.relu(self.fc7(F.relu(self.fc6(x))))
        maps = [conv4_3, x]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class _Shrink(nn.Module):
    """An extra: a 1 x 1 convolution that narrows, then one that steps, each with its ReLU."""

    def __init__(self, before: int, narrow: int, wide: int, step: Step) -> None:
        super().__init__()
        self.narrow = convolution(before, check_length("extras", narrow), Step(1, 1, 0))
        self.wide = convolution(narrow, check_length("extras", wide), step)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.wide(F.relu(self.narrow(x))))
