"""DSSD: what SSD gets from a way back, from its last map up to its first (chapter 17).

The deep maps know what is there, the fine ones where. A decoder carries the deep maps up again by transposed
convolutions and multiplies each with the map of that size; a residual block then stands before each pair of heads.

Training, in the paper's order: `ssd321_resnet101` first. Then DSSD with the SSD's body, which does not learn, nor do
its norms' statistics move; neck and heads are new:

    model = dssd321(body_norm=FrozenBatchNorm)
    model.body.load_state_dict(ssd.body.state_dict())
    model.body.requires_grad_(False)

30,000 steps, at rate 1e-3 and from step 20,000 on 1e-4. Learning everything after that, norms still frozen, is
`model.body.requires_grad_(True)`; the paper reports that it helped for pictures of 513 only.
Fu et al., "DSSD: Deconvolutional Single Shot Detector", 2017.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.resnet import Bottleneck, Norm
from course_lib.detection.anchors import DSSD321, DSSD321_OFFICIAL, DSSD513, Level
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.resnet_body import EPS, EXTRAS_513, Entry, ResNetBody
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.prediction import CAFFE
from course_lib.upsampling.grids import check_choice, check_length

Combine = Literal["product", "sum"]
Variant = Literal["a", "b", "c", "d"]

DECONVOLUTIONS_321: Sequence[Entry] = ((2, 2), (2, 2), (2, 2), (3, 1), (3, 1))
"""(kernel, stride) of each way up, for the finest map first: 1 -> 3 -> 5 -> 10 -> 20 -> 40 is (h - 1) s + k."""
DECONVOLUTIONS_513: Sequence[Entry] = (*[(2, 2)] * 5, (2, 1))
"""1 -> 2 -> 4 -> 8 -> 16 -> 32 -> 64."""


class DeconvolutionModule(nn.Module):
    """relu(norm(conv(up(deep))) * across(shallow)): a map with the context of the deeper one (the paper's figure 3).

    up is a transposed convolution with `kernel` and `stride`, without norm or ReLU; across is convolution, norm, ReLU,
    convolution, norm; both are 3 x 3. `combine`: "product" or "sum" in place of *. shallow_channels, deep_channels: of
    the two maps; width: of everything here. The result has shallow's size, whatever deep's: of a map that came out
    larger, rows are cut at the bottom and columns on the right; where it is smaller its last row and column repeat.
    """

    def __init__(
        self,
        shallow_channels: int,
        deep_channels: int,
        width: int = 512,
        kernel: int = 2,
        stride: int = 2,
        combine: Combine = "product",
        norm: Norm = nn.BatchNorm2d,
        eps: float = EPS,
    ) -> None:
        """Make the layers."""
        super().__init__()
        check_choice("combine", combine, Combine)
        self.combine = combine
        self.up = nn.ConvTranspose2d(deep_channels, width, kernel, stride)
        self.above = nn.Sequential(_convolution(width, width), norm(width, eps=eps))
        self.across = nn.Sequential(
            _convolution(shallow_channels, width),
            norm(width, eps=eps),
            nn.ReLU(inplace=True),
            _convolution(width, width),
            norm(width, eps=eps),
        )

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Return the combined map (N, width, h, w), h x w being shallow's size."""
        above, across = self.above(_to_size(self.up(deep), shallow)), self.across(shallow)
        return F.relu(above * across if self.combine == "product" else above + across)


class DeconvolutionNeck(nn.Module):
    """Maps, finest first -> as many of the same sizes, each but the last combined with the one behind it.

    channels: of the maps. width: of those that are combined. combine: "product" or "sum". deconvolutions: (kernel,
    stride) of the way up to each map but the last, finest first; (2, 2) for all where None. They need not fit: see
    `DeconvolutionModule`. channels (attribute): width for every map but the last, which stays as it is.
    Raises TypeError or ValueError for fewer than two maps, another number of deconvolutions, or numbers below 1.
    Fu et al., 2017, section 3.2; sizes as in the released code.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 512,
        combine: Combine = "product",
        deconvolutions: Sequence[Entry] | None = None,
        norm: Norm = nn.BatchNorm2d,
        eps: float = EPS,
    ) -> None:
        """Make a module for every map but the last."""
        super().__init__()
        came = [check_length("channels", n) for n in channels]
        if len(came) < 2:
            raise ValueError(f"channels must be those of two maps or more, got {channels!r}")
        check_length("width", width)
        steps = [(2, 2)] * (len(came) - 1) if deconvolutions is None else list(deconvolutions)
        if len(steps) != len(came) - 1:
            raise ValueError(f"deconvolutions must be {len(came) - 1}, one for each map but the last, got {len(steps)}")
        self.channels = (*[width] * len(steps), came[-1])
        self.levels = nn.ModuleList(
            DeconvolutionModule(
                shallow,
                deep,
                width,
                check_length("deconvolutions", kernel),
                check_length("deconvolutions", stride),
                combine,
                norm,
                eps,
            )
            for shallow, deep, (kernel, stride) in zip(came[:-1], self.channels[1:], steps, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps, the finest first. Raises ValueError for another number of maps."""
        if len(maps) != len(self.channels):
            raise ValueError(f"maps must be {len(self.channels)}, got {len(maps)}")
        combined = [maps[-1]]
        for level, shallow in zip(reversed(self.levels), reversed(maps[:-1]), strict=True):
            combined.insert(0, level(shallow, combined[0]))
        return combined


class PredictionModule(nn.Sequential):
    """What stands between a map and its heads, in four variants (the paper's figure 4): (N, before, h, w) -> as many.

    variant: "a" nothing, as in SSD; "b" a bottleneck whose skip is the map itself; "c" a bottleneck whose skip is a
    1 x 1 convolution, which DSSD chose; "d" two of these. middle: channels of the 3 x 3 convolutions. after: channels
    of the result in c and d; in a and b they stay. channels: of the result. Only c was released; b and d are built from
    the figure. Raises ValueError for an unknown variant, TypeError or ValueError for channels below 1.
    """

    def __init__(
        self,
        before: int,
        variant: Variant = "c",
        middle: int = 256,
        after: int = 1024,
        norm: Norm = nn.BatchNorm2d,
        eps: float = EPS,
    ) -> None:
        """Make the blocks."""
        super().__init__()
        check_choice("variant", variant, Variant)
        self.channels = check_length("before", before)
        result = check_length("after", after) if variant in "cd" else before
        for _ in range({"a": 0, "b": 1, "c": 1, "d": 2}[variant]):
            self.append(Bottleneck(self.channels, middle, result, project=variant != "b", norm=norm, eps=eps))
            self.channels = result


class PredictionNeck(nn.ModuleList):
    """A `PredictionModule` for every map: list of maps -> list of maps. channels: of the maps that come in.

    Keywords are those of `PredictionModule`. channels (attribute): of the maps that go out.
    """

    def __init__(self, channels: Sequence[int], variant: Variant = "c", **options: Any) -> None:
        """Make the modules."""
        modules = [PredictionModule(before, variant, **options) for before in channels]
        super().__init__(modules)
        self.channels = tuple(module.channels for module in modules)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps. Raises ValueError for another number of them."""
        if len(maps) != len(self):
            raise ValueError(f"maps must be {len(self)}, got {len(maps)}")
        return [module(x) for module, x in zip(self, maps, strict=True)]


class Chain(nn.Sequential):
    """Necks one behind the other. channels: of the last one's maps."""

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of the maps that go out."""
        found: tuple[int, ...] = self[-1].channels  # type: ignore[assignment]  # a neck has them
        return found


def ssd321_resnet101(classes: int = 21, official: bool = False, body_norm: Norm = nn.BatchNorm2d) -> SSD:
    """Return SSD321 on ResNet-101: SSD's plan, with a prediction module before each head (116,526,320 parameters).

    classes: columns of logits, background included. official: the anchors of the released code, whose coarse maps have
    all their centres outside the picture; otherwise the centres fill it. body_norm: of the ResNet and the extras.
    """
    body = ResNetBody(norm=body_norm)
    return _detector(body, PredictionNeck(body.channels), classes, _levels_321(official), 321)


def dssd321(classes: int = 21, official: bool = False, body_norm: Norm = nn.BatchNorm2d) -> SSD:
    """Return DSSD321 (172,380,912 parameters with 21 classes): 17,080 anchors. Arguments as in `ssd321_resnet101`."""
    body = ResNetBody(norm=body_norm)
    decoder = DeconvolutionNeck(body.channels, deconvolutions=DECONVOLUTIONS_321)
    neck = Chain(decoder, PredictionNeck(decoder.channels))
    return _detector(body, neck, classes, _levels_321(official), 321)


def dssd513(classes: int = 81, official: bool = False, body_norm: Norm = nn.BatchNorm2d) -> SSD:
    """Return DSSD513 (221,984,472 parameters with COCO's 81 classes): 43,688 anchors. Arguments as above."""
    body = ResNetBody(EXTRAS_513, norm=body_norm)
    decoder = DeconvolutionNeck(body.channels, deconvolutions=DECONVOLUTIONS_513)
    neck = Chain(decoder, PredictionNeck(decoder.channels))
    return _detector(body, neck, classes, _OFFICIAL_513 if official else DSSD513, 513)


_STEPS_513, _STARTS_513 = (8, 16, 32, 64, 128, 256, 513), (2.5, 2.5, 10.5, 26.5, 58.5, 122.5, 256.5)
_OFFICIAL_513 = [
    replace(level, step=step, offset=start) for level, step, start in zip(DSSD513, _STEPS_513, _STARTS_513, strict=True)
]


def _levels_321(official: bool) -> Sequence[Level]:
    return DSSD321_OFFICIAL if official else DSSD321


def _detector(body: nn.Module, neck: PredictionNeck | Chain, classes: int, levels: Sequence[Level], side: int) -> SSD:
    """Return the detector of these parts; its heads are 5 x 5 on the two finest maps and 3 x 3 on the others."""
    boxes = [level.boxes for level in levels]
    heads = Heads(neck.channels, boxes, classes, kernels=[5, 5] + [3] * (len(boxes) - 2))
    return SSD(body, neck, heads, levels, (side, side), CAFFE)


def _convolution(before: int, after: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer


def _to_size(x: Tensor, like: Tensor) -> Tensor:
    """Return x with the height and width of `like`: cut below and right, or its last row and column repeated."""
    height, width = like.shape[2:]
    x = x[:, :, :height, :width]
    below, right = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
