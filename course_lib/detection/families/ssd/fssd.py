"""FSSD: SSD whose maps are fused once, at one resolution, before a new pyramid is made of them (chapter 17).

What it adds to SSD is the neck below; the body stops two extras early, and no map needs an L2Norm.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.detection.anchors import FSSD300, FSSD300_PORT, SSD512_VOC, Level
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.families.ssd.vgg_body import HALF, INNER, LAST, SAME, Extra, Step, VGGBody, convolution
from course_lib.detection.prediction import CAFFE
from course_lib.upsampling.grids import check_length

EXTRAS: Sequence[Extra] = ((256, 512, SAME), (128, 256, HALF))
"""Behind fc7, 19 x 19: conv6_2 keeps that size, and conv7_2 halves it, where SSD halves it twice."""
PORT_EXTRAS: Sequence[Extra] = ((256, 512, INNER), (128, 256, HALF))
"""The PyTorch code forgets conv6_2's padding: 19 -> 17 -> 9, and 9 x 9 is enlarged to 38 x 38 all the same."""
SOURCES = (0, 1, 3)
"""The maps of that body which are fused: conv4_3, fc7 and conv7_2."""
STEPS_300: Sequence[Step] = (SAME, HALF, HALF, HALF, INNER, INNER)
STEPS_512: Sequence[Step] = (SAME, *[HALF] * 5, LAST)
"""How the convolutions of the new pyramid walk: 38 to 1 places a side, 64 to 1."""
_PERCENT = (7, 15, 30, 45, 60, 75, 90, 105)
FSSD512_PORT = tuple(
    Level(5.12 * small, 5.12 * large, (2.0, 3.0) if k < 5 else (2.0,), 8 * 2**k)
    for k, (small, large) in enumerate(itertools.pairwise(_PERCENT))
)
"""SSD512's boxes, six on the first map too; that code does not cut them to whole pixels."""


class FusionNeck(nn.Module):
    """Lay maps over each other at the size of the finest, and make a new pyramid of the pile: list -> list of maps.

    Each source goes through a 1 x 1 convolution to `reduced` channels and a ReLU, and is enlarged bilinearly; the pile
    is batch-normalised, which brings their sizes together as L2Norm does in SSD. A chain of convolutions, each with a
    ReLU, makes the maps: X_f = phi_f(concat_i T_i(X_i)), X'_p = phi_p(X_f).

    channels: of the maps that come. sources: which of them are fused, the finest first. widths: channels of the maps to
    make; they are `channels` of the neck. steps: how each of their convolutions walks; None: the first keeps the size,
    the others halve it, which runs for maps of any size. reduce_all: False leaves out the convolution of a source that
    has `reduced` channels already. affine: the normalisation learns a scale and a shift. align_corners: which grid the
    enlargement has. Raises TypeError or ValueError for arguments that are none.
    Li and Zhou, "FSSD: Feature Fusion Single Shot Multibox Detector", 2017, equations 4 to 6.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sources: Sequence[int] = SOURCES,
        reduced: int = 256,
        widths: Sequence[int] = (512, 512, 256, 256, 256, 256),
        steps: Sequence[Step] | None = None,
        reduce_all: bool = True,
        affine: bool = True,
        align_corners: bool = False,
    ) -> None:
        """Make the layers."""
        super().__init__()
        if not sources or not set(sources) <= set(range(len(channels))):
            raise ValueError(f"sources must be places among {len(channels)} maps, got {tuple(sources)}")
        self.channels = tuple(check_length("widths", width) for width in widths)
        walk = (SAME, *[HALF] * (len(widths) - 1)) if steps is None else tuple(steps)
        if not len(walk) == len(widths) > 0:
            raise ValueError(f"steps must be one for each of widths, got {len(walk)} and {len(widths)}")
        self.sources, self.align_corners = tuple(sources), align_corners
        came = [channels[place] for place in sources]
        self.reduce = nn.ModuleList(
            _relu(convolution(n, reduced, Step(1, 1, 0))) if reduce_all or n != reduced else nn.Identity() for n in came
        )
        self.norm = nn.BatchNorm2d(reduced * len(came), affine=affine)
        befores = (reduced * len(came), *self.channels)
        self.pyramid = nn.ModuleList(
            _relu(convolution(before, after, step))
            for before, after, step in zip(befores[:-1], self.channels, walk, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the new maps."""
        size = maps[self.sources[0]].shape[-2:]
        parts = [reduce(maps[place]) for reduce, place in zip(self.reduce, self.sources, strict=True)]
        parts = [part if part.shape[-2:] == size else self._enlarge(part, size) for part in parts]
        x = self.norm(torch.cat(parts, 1))
        made = []
        for layer in self.pyramid:
            x = layer(x)
            made.append(x)
        return made

    def _enlarge(self, x: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=self.align_corners)


def fssd300(classes: int = 21, levels: Sequence[Level] = FSSD300) -> SSD:
    """Return FSSD300 as the authors' Caffe code has it: 38, 19, 10, 5, 3 and 1 places a side, 8682 boxes.

    Its normalisation has no scale and shift, and its enlargement aligns corners.
    """
    return _fssd(300, STEPS_300, classes, levels, caffe=True)


def fssd300_pytorch_port(classes: int = 21, levels: Sequence[Level] = FSSD300_PORT) -> SSD:
    """Return FSSD300 as the authors' PyTorch code has it: 11,620 boxes, and conv7_2 is reduced like the others."""
    return _fssd(300, STEPS_300, classes, levels, caffe=False)


def fssd512(classes: int = 21, levels: Sequence[Level] = SSD512_VOC) -> SSD:
    """Return FSSD512 as the authors' Caffe code has it: seven maps, 64 to 1 places a side, 24,564 boxes."""
    return _fssd(512, STEPS_512, classes, levels, caffe=True)


def fssd512_pytorch_port(classes: int = 21, levels: Sequence[Level] = FSSD512_PORT) -> SSD:
    """Return FSSD512 as the authors' PyTorch code has it: six boxes on the first map too, 32,756 in all."""
    return _fssd(512, STEPS_512, classes, levels, caffe=False)


def _fssd(side: int, steps: Sequence[Step], classes: int, levels: Sequence[Level], caffe: bool) -> SSD:
    body = VGGBody(EXTRAS if caffe else PORT_EXTRAS)
    widths = (512, 512, *[256] * (len(steps) - 2))
    neck = FusionNeck(
        body.channels, widths=widths, steps=steps, reduce_all=not caffe, affine=not caffe, align_corners=caffe
    )
    heads = Heads(neck.channels, [level.boxes for level in levels], classes)
    return SSD(body, neck, heads, levels, (side, side), CAFFE, clip=False if caffe else "centre_size")


def _relu(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.ReLU(inplace=True))
