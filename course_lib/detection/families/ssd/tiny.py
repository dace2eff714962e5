"""The family in small: one plain body, and what each member puts behind it (chapters 14, 17 and 18).

Necks and heads are the very classes of the networks at paper scale, with fewer channels. Anchors have sizes in pixels,
and their steps are the maps' strides, so that a detector takes pictures of any size: in a larger one it looks at more
places, for objects of the same sizes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from course_lib.detection.anchors import Level
from course_lib.detection.families.ssd.dsod import DenseBody
from course_lib.detection.families.ssd.dssd import Chain, DeconvolutionNeck, PredictionNeck
from course_lib.detection.families.ssd.fssd import FusionNeck
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.rssd import RainbowNeck
from course_lib.detection.families.ssd.ssd import SSD, Plain
from course_lib.detection.prediction import PLAIN
from course_lib.upsampling.grids import check_choice, check_length

Member = Literal["ssd", "dssd", "fssd", "rssd", "dsod", "dsod_plain"]
"""Who of the family; "dsod_plain" is DSOD without the connections inside its blocks."""

STRIDES = (4, 8, 16, 32)
"""Pixels between neighbouring places of the maps."""


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution, batch normalisation and ReLU: (N, inputs, h, w) -> (N, outputs, h', w').

    h' = ceil(h / stride), and w' likewise.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class PlainBody(nn.Module):
    """Two times `convolution` at each size, the first of which halves it: images -> maps at strides 4, 8, 16 and 32.

    widths: channels of the two at stride 2, then of each map. channels: of the maps. A map has ceil(H / stride) x
    ceil(W / stride) places.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Make the layers."""
        super().__init__()
        first, second, *maps = widths
        self.channels = tuple(maps)
        self.stem = nn.Sequential(convolution(3, first, 2), convolution(first, second))
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, 2), convolution(after, after))
            for before, after in zip((second, *maps), maps, strict=False)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, the finest first."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def dense_body(widths: Sequence[int], width: int, dense: bool) -> DenseBody:
    """Return DSOD's body with the maps of a `PlainBody`: four layers at each size, of which each adds width / 2.

    The first map has as many channels as the compression leaves, which is about `widths[2]`.
    """
    growth, layers = width // 2, 4
    return DenseBody(
        stem=widths[:2],
        blocks=[[layers]] * len(STRIDES),
        growth=growth,
        widths=widths[3:],
        first=0,
        bottleneck=2,
        compression=min(1.0, widths[2] / (widths[1] + layers * growth)),
        dense=dense,
    )


def _open(decoder: DeconvolutionNeck) -> None:
    """Let what comes from above begin near 1, so that each product begins as the map that it is multiplied with.

    The paper begins with a trained SSD. Where all is learned from nothing, both factors mean nothing yet, and in the
    steps of the recipe family-dssd a detector that began so learned next to nothing.
    """
    for level in decoder.levels:
        norm: Any = level.above[-1]  # type: ignore[index]  # of a DeconvolutionModule
        nn.init.constant_(norm.weight, 0.1)
        nn.init.ones_(norm.bias)


def _parts(member: Member, widths: Sequence[int], width: int) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Return a member's body and neck, and what is special about its heads."""
    if "dsod" in member:
        dense = dense_body(widths, width, member == "dsod")
        return dense, Plain(dense.channels), {"normalised": True}
    body = PlainBody(widths[:-1] if member == "fssd" else widths)
    match member:
        case "dssd":
            decoder = DeconvolutionNeck(body.channels, width)
            _open(decoder)
            return body, Chain(decoder, PredictionNeck(decoder.channels, middle=width // 2, after=2 * width)), {}
        case "fssd":  # three maps are fused, and of the pile a pyramid of four is made
            return body, FusionNeck(body.channels, (0, 1, 2), width, widths[2:]), {}
        case "rssd":
            return body, RainbowNeck(body.channels), {"shared": True}
    return body, Plain(body.channels), {}


class TinyDetector(SSD):
    """A member of SSD's family for small pictures, with a few hundred thousand parameters.

    member: see `Member`. names: of the classes, label 0 first. picture: (height, width) it is trained on; others run
    too. widths: channels of two convolutions at stride 2, then of the maps at `STRIDES`. sizes: sides in pixels of each
    map's square anchor; the fifth serves the last map's larger square, see `Level`. ratios: of width to height of its
    other anchors. width: channels of what the member adds: DSSD's decoder, FSSD's sources; DSOD's layers add half of
    it. RSSD's heads are shared by all maps, DSOD's are normalised. Each argument is kept under its name.

    Raises TypeError or ValueError for arguments out of range.
    """

    def __init__(
        self,
        member: Member = "ssd",
        names: Sequence[str] = ("disc", "square", "triangle"),
        picture: tuple[int, int] = (64, 64),
        widths: Sequence[int] = (24, 32, 48, 64, 96, 96),
        sizes: Sequence[float] = (8, 16, 28, 48, 80),
        ratios: Sequence[float] = (2,),
        width: int = 32,
    ) -> None:
        """Make the member's parts with random weights."""
        check_arguments(member, names, picture, widths, sizes, ratios, width)
        levels = levels_of(sizes, ratios)
        body, neck, special = _parts(member, tuple(widths), width)
        channels: Any = neck.channels
        heads = Heads(channels, [level.boxes for level in levels], 1 + len(names), **special)
        super().__init__(body, neck, heads, levels, (picture[0], picture[1]), PLAIN)
        self.member, self.names, self.width = member, tuple(names), width
        self.widths, self.sizes, self.ratios = tuple(widths), tuple(sizes), tuple(ratios)
        for layer in heads.modules():
            if isinstance(layer, nn.Conv2d):  # at first every class is about as likely at every place
                nn.init.normal_(layer.weight, std=0.01)


def levels_of(sizes: Sequence[float], ratios: Sequence[float]) -> list[Level]:
    """Return the anchors of the four maps, see `TinyDetector`."""
    return [
        Level(float(small), float(large), tuple(map(float, ratios)), float(step))
        for small, large, step in zip(sizes, sizes[1:], STRIDES, strict=False)
    ]


def check_arguments(
    member: Member,
    names: Sequence[str],
    picture: tuple[int, int],
    widths: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float],
    width: int,
) -> None:
    """Raise TypeError or ValueError, which name the argument, for what `TinyDetector` does not take."""
    check_choice("member", member, Member)
    counts = {"picture": (picture, 2), "widths": (widths, 2 + len(STRIDES)), "sizes": (sizes, 1 + len(STRIDES))}
    for name, (value, count) in counts.items():
        if not isinstance(value, list | tuple) or len(value) != count:
            raise ValueError(f"{name} must be {count} numbers, got {value!r}")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a tuple of names of classes, got {names!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be different names, at least one; got {names!r}")
    for name, whole in {"picture": picture, "widths": widths}.items():
        for one in whole:
            check_length(name, one)
    check_length("width", width, 2)
    if "dsod" in member and any(one % 2 for one in widths[3:]):
        raise ValueError(f"widths of DSOD's maps must be even, for two halves; got {widths!r}")
    if not isinstance(ratios, list | tuple) or not all(isinstance(x, int | float) for x in (*sizes, *ratios)):
        raise TypeError(f"sizes and ratios must be tuples of numbers, got {sizes!r} and {ratios!r}")
    if any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"sizes must rise, got {sizes!r}")
    levels_of(sizes, ratios)
