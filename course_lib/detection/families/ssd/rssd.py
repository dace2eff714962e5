"""R-SSD: every level sees all levels, pooled down and deconvolved up, and so has the same channels (chapter 17).

Jeong, Park and Kwak, "Enhancement of SSD by concatenating feature maps for object detection", 2017, figure 3. The
definition of its layers was never published. Of the paper are: max pooling towards coarse maps, deconvolution towards
fine ones, batch normalisation of every piece before it is concatenated, 2816 channels at each of SSD300's six sizes,
and that one classifier may then serve all of them. The rest is reconstruction, marked as such below.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.detection.anchors import RSSD300, RSSD300_SHARED
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.families.ssd.vgg_body import VGGBody
from course_lib.detection.prediction import CAFFE
from course_lib.upsampling.grids import check_choice, check_length

Directions = Literal["both", "pool", "deconvolution"]

_WINDOWS = {1: 3, 2: 2}  # of pooling and deconvolution, by the stride of the step: 5 -> 3 -> 1 sees 3 x 3 places


class RainbowNeck(nn.Module):
    """Maps of L levels -> as many maps of the same sizes: level l is concat over k of BN(S_kl(map k)), finest first.

    S_kl pools where k is finer than l, deconvolves where it is coarser, and leaves a map's own level as it is.
    channels: of the maps given; after it, `channels` are the result's. directions: "both" joins all levels, so that
    each has sum(channels); "pool" only finer ones and its own, "deconvolution" only coarser ones and its own. strides:
    2 where the next map has half the size, whichever way an odd one is rounded; 1 where it is smaller by 2 (SSD300's
    5 -> 3 -> 1); one for every step, or one for all. Any sizes that these strides lead to. In training a level must
    have more than one place in the batch, or there is nothing to normalise by.

    Reconstruction: maps go from level to level in a chain, and not in one leap. A step of stride 2 is 2 x 2 max pooling
    that rounds up, back 2 x 2 deconvolution with stride 2, cut to the finer map's size; a step of stride 1 has 3 x 3
    windows. Maps are raw in the chain, and normalised at the level. Every map has deconvolutions of its own for each
    step, without bias because a norm follows; they start as the enlargement that repeats each place. mixing: whether
    they combine the map's channels, as Caffe's layer does unless it is told otherwise, or treat each by itself.

    Raises TypeError or ValueError for arguments that are none, and for maps that do not follow each other so.
    """

    def __init__(
        self,
        channels: Sequence[int],
        directions: Directions = "both",
        strides: int | Sequence[int] = 2,
        mixing: bool = True,
    ) -> None:
        """Make deconvolutions and normalisations."""
        super().__init__()
        self.inputs = tuple(check_length("channels", n) for n in channels)
        check_choice("directions", directions, Directions)
        levels = range(len(self.inputs))
        self.strides = (strides,) * (len(levels) - 1) if isinstance(strides, int) else tuple(strides)
        if not levels or len(self.strides) != len(levels) - 1 or not set(self.strides) <= set(_WINDOWS):
            raise ValueError(
                f"strides must be 1 or 2 for each step between {len(levels)} maps of channels, got {strides!r}"
            )
        self.directions = directions
        finer, coarser = directions != "deconvolution", directions != "pool"
        self.sources = [[k for k in levels if k == own or (finer if k < own else coarser)] for own in levels]
        self.channels = tuple(sum(self.inputs[k] for k in row) for row in self.sources)
        # a batch norm treats every channel by itself: one over the concatenation normalises each piece
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in self.channels)
        self.grow = nn.ModuleList(
            nn.ModuleList(_deconvolution(self.inputs[k], stride, mixing) for stride in self.strides[: k * coarser])
            for k in levels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the level's own map and those of the other levels, normalised and side by side, for every level."""
        self._check(maps)
        moved = [self._moved(k, maps) for k in range(len(maps))]
        return [
            norm(torch.cat([moved[k][level] for k in row], 1))
            for level, (row, norm) in enumerate(zip(self.sources, self.norms, strict=True))
        ]

    def _moved(self, k: int, maps: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return {level: map k at the size of that level}."""
        at = {k: maps[k]}
        if self.directions != "pool":
            for level in reversed(range(k)):
                at[level] = _grown(at[level + 1], self.grow[k][level], maps[level])  # type: ignore[index]  # a ModuleList
        if self.directions != "deconvolution":
            for level in range(k + 1, len(maps)):
                at[level] = _shrunk(at[level - 1], self.strides[level - 1], maps[level])
        return at

    def _check(self, maps: Sequence[Tensor]) -> None:
        came = tuple(x.shape[1] if x.dim() == 4 else None for x in maps)
        if came != self.inputs:
            raise ValueError(f"maps must be (N, C, h, w) with {self.inputs} channels, got {came}")
        for stride, (fine, coarse) in zip(self.strides, pairwise(maps), strict=True):
            for n, less in zip(fine.shape[2:], coarse.shape[2:], strict=True):
                if less not in ((n // 2, (n + 1) // 2) if stride == 2 else (n - 2,)):
                    sizes = [tuple(x.shape[2:]) for x in maps]
                    raise ValueError(f"maps must follow each other by the strides {self.strides}, got sizes {sizes}")


def _shrunk(x: Tensor, stride: int, like: Tensor) -> Tensor:
    """Return the largest of each window, at the size of the coarser map `like`."""
    height, width = like.shape[2:]
    return F.max_pool2d(x, _WINDOWS[stride], stride, ceil_mode=True)[..., :height, :width]


def _grown(x: Tensor, layer: nn.Module, like: Tensor) -> Tensor:
    """Return the deconvolution at the size of the finer map `like`: cut, or with zeros in a last odd row."""
    height, width = like.shape[2:]
    least = [(n - 1) * layer.stride[0] + layer.kernel_size[0] for n in x.shape[2:]]  # type: ignore[index]
    larger: Tensor = layer(x, output_size=[max(a, b) for a, b in zip(least, (height, width), strict=True)])
    return larger[..., :height, :width]


def _deconvolution(channels: int, stride: int, mixing: bool) -> nn.ConvTranspose2d:
    """Return a deconvolution that begins as the enlargement which repeats each place; overlapping windows average."""
    window = _WINDOWS[stride]
    made = nn.ConvTranspose2d(channels, channels, window, stride, groups=1 if mixing else channels, bias=False)
    one = torch.eye(channels)[..., None, None] if mixing else torch.ones(channels, 1, 1, 1)
    with torch.no_grad():
        made.weight.copy_(one.expand(-1, -1, window, window) * (stride / window) ** 2)
    return made


def rssd300(classes: int = 21, shared: bool = False, directions: Directions = "both") -> SSD:
    """Return R-SSD300: SSD300's body, the rainbow, and heads for every level, or one that all share.

    shared: one head needs equal channels, so directions "both", and as many boxes everywhere: 6, as the authors' page
    says of their network with one classifier. That makes 11,640 boxes and a head of 3,801,750 parameters at 21 classes;
    separate heads have SSD300's 8732 boxes. Reconstruction: no L2Norm is left, as every piece is normalised here.
    """
    body = VGGBody()
    neck = RainbowNeck(body.channels, directions, strides=(2, 2, 2, 1, 1))
    levels = RSSD300_SHARED if shared else RSSD300
    heads = Heads(neck.channels, [level.boxes for level in levels], classes, shared=shared)
    return SSD(body, neck, heads, levels, (300, 300), CAFFE)
