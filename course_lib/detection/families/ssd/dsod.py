"""DSOD: a body with so short a way from every layer to the loss that it learns from nothing (chapter 18).

A stem, dense blocks with transitions between them, and dense prediction: every further map is half learned, half taken
from the map before. Shen et al., "DSOD: Learning Deeply Supervised Object Detectors from Scratch", 2017, table 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.detection.anchors import DSOD300
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.ssd import SSD, Plain
from course_lib.detection.prediction import CAFFE
from course_lib.upsampling.grids import check_length


def unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return batch normalisation, ReLU, and a convolution without bias, in DSOD's order: (N, inputs, h, w) -> outputs.

    kernel: odd; the size stays, or is divided by `stride` and rounded up. New weights are those that Caffe calls
    Xavier's: uniform, of variance 1 / (inputs kernel^2).
    """
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), _convolution(inputs, outputs, kernel, stride))


def halved() -> nn.MaxPool2d:
    """Return 2 x 2 max pooling that rounds up, as Caffe does: 75 -> 38, 3 -> 2."""
    return nn.MaxPool2d(2, ceil_mode=True)


class Stem(nn.Sequential):
    """The first layers: 3 x 3 convolutions, the first with stride 2, and a pool; a picture's quarter, rounded up.

    widths: channels of the convolutions, one or more; batch normalisation and ReLU follow each. channels: the last.
    DSOD has it in place of DenseNet's one convolution of 7 x 7 with stride 2 and a pool (section 3.2, stem block).
    """

    def __init__(self, widths: Sequence[int] = (64, 64, 128)) -> None:
        """Make the layers. Raises TypeError or ValueError for widths that are none."""
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            stride = 1 if layers else 2
            made = _convolution(inputs, check_length("stem", width), 3, stride)
            layers += [made, nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        if not layers:
            raise ValueError("stem must have one width or more, got none")
        super().__init__(*layers, halved())
        self.channels = inputs


class Block(nn.Module):
    """Layers of a 1 x 1 and a 3 x 3 `unit`. Dense: each sees what ALL before it made; plain: what the last one made.

    Dense: x <- concat(x, layer(x)), so that (N, inputs, h, w) becomes (N, inputs + sum(widths), h, w). Plain:
    x <- layer(x), of which the last width comes out. wide: channels between a layer's two units. channels: of the
    result. Huang et al., "Densely Connected Convolutional Networks", 2017, equation 2.
    """

    def __init__(self, inputs: int, widths: Sequence[int], wide: int, dense: bool = True) -> None:
        """Make the layers."""
        super().__init__()
        self.dense, self.channels = dense, inputs
        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(nn.Sequential(unit(self.channels, wide), unit(wide, width, 3)))
            self.channels = self.channels + width if dense else width

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of all layers, or of the last one."""
        for layer in self.layers:
            made = layer(x)
            x = torch.cat([x, made], 1) if self.dense else made
        return x


class Transition(nn.Sequential):
    """A 1 x 1 `unit` that mixes what a block has gathered; with a pool behind it, or without one (section 3.2).

    Without pooling, blocks can follow each other at one size of map: depth is not bound to the number of halvings.
    """

    def __init__(self, inputs: int, outputs: int, pooled: bool) -> None:
        """Make the layers."""
        super().__init__(unit(inputs, outputs), *([halved()] if pooled else []))


class DensePrediction(nn.Module):
    """The next map, of half the size: one half of its channels is learned, one is the map before, reused (figure 1).

    halves: two modules from a map (N, C, h, w) to maps of one size, whose results are put side by side, in this order.
    """

    def __init__(self, halves: Sequence[nn.Module]) -> None:
        """Keep the halves."""
        super().__init__()
        self.halves = nn.ModuleList(halves)

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves of the next map."""
        return torch.cat([half(x) for half in self.halves], 1)


class DenseBody(nn.Module):
    """Pictures (N, 3, H, W), normalised -> a list of maps, each half the size of the one before, rounded up.

    stem: widths of a `Stem`, or any module with `channels`. blocks: for every size of map the layers of its dense
    blocks; after each block comes a transition, and a pool where the size changes. first: which of these sizes gives
    the first map (0: that behind the stem). widths: channels of all further maps, even numbers; those at the sizes of
    `blocks` learn their half by blocks, the rest by a 1 x 1 and a 3 x 3 unit of stride 2. growth: channels that a layer
    adds. bottleneck: channels between a layer's two convolutions, in growths. compression: of the channels of a block,
    what its transition keeps. channels: of the maps. Any size of picture; in training a map must have more than one
    place in the batch, or there is nothing to normalise by.

    dense: False leaves out the connections INSIDE the blocks, and nothing else: there are as many layers, and the same
    maps to pool and to predict from. A layer then sees one width and not the sum of all; the widths are chosen so that
    a block and its transition have as many weights, and so multiply-adds, as the dense ones (`plain_widths`).

    The defaults are DSOD300's, DS/64-192-48-1 in the paper's words. Raises TypeError or ValueError for arguments that
    are none.
    """

    def __init__(
        self,
        stem: Sequence[int] | nn.Module = (64, 64, 128),
        blocks: Sequence[Sequence[int]] = ((6,), (8,), (8, 8)),
        growth: int = 48,
        widths: Sequence[int] = (512, 512, 256, 256, 256),
        first: int = 1,
        bottleneck: int = 4,
        compression: float = 1.0,
        dense: bool = True,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.growth, self.bottleneck = check_length("growth", growth), check_length("bottleneck", bottleneck)
        self.compression, self.dense = compression, dense
        _check(blocks, widths, first, compression)
        start = stem if isinstance(stem, nn.Module) else Stem(stem)
        trunk, channels = [start], check_length("channels of stem", getattr(start, "channels", None))  # type: ignore[arg-type]
        for place, depths in enumerate(blocks[: first + 1]):
            stage, channels = self._stage(channels, depths, pooled=place < first)
            trunk.append(stage)
        self.trunk = nn.Sequential(*trunk)
        self.steps = nn.ModuleList()
        self.channels: tuple[int, ...] = (channels,)
        by_blocks = dict(enumerate(blocks[first + 1 :]))
        for place, width in enumerate(widths):
            self.steps.append(self._step(self.channels[-1], width // 2, by_blocks.get(place)))
            self.channels += (width,)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, the finest first."""
        maps = [self.trunk(images)]
        for step in self.steps:
            maps.append(step(maps[-1]))
        return maps

    def _step(self, inputs: int, half: int, depths: Sequence[int] | None) -> DensePrediction:
        """Return what makes a map of 2 half channels from the one before; the order of halves is the official one."""
        reused = nn.Sequential(halved(), unit(inputs, half))
        if depths is None:
            return DensePrediction([reused, nn.Sequential(unit(inputs, half), unit(half, half, 3, 2))])
        return DensePrediction([nn.Sequential(halved(), self._stage(inputs, depths, outputs=half)[0]), reused])

    def _stage(
        self, inputs: int, depths: Sequence[int], pooled: bool = False, outputs: int | None = None
    ) -> tuple[nn.Sequential, int]:
        """Return the blocks and transitions at one size of map, and their channels: `outputs` where it is given."""
        layers: list[nn.Module] = []
        wide = self.bottleneck * self.growth
        for place, depth in enumerate(depths):
            last = place == len(depths) - 1
            kept = max(1, int(self.compression * (inputs + depth * self.growth)))
            after = outputs if last and outputs is not None else kept
            grown = [self.growth] * depth
            widths = grown if self.dense else plain_widths(inputs, depth, self.growth, wide, after)
            block = Block(inputs, widths, wide, self.dense)
            layers += [block, Transition(block.channels, after, pooled and last)]
            inputs = after
        return nn.Sequential(*layers), inputs


def plain_widths(inputs: int, depth: int, growth: int, wide: int, outputs: int) -> list[int]:
    """Return the widths of a plain block that has as many weights, transition and all, as a dense one.

    inputs, outputs: channels before the block and behind the transition; depth: layers; growth, wide: channels that a
    dense layer adds, and those between its convolutions, which the plain one has too. All convolutions of a block see
    maps of one size, so equal weights are equal multiply-adds; widths are whole numbers, so that a remainder of half
    the weights of one more channel in one layer may stay.
    """

    def weights(seen: list[int], made: list[int], last: int) -> int:
        return sum(a * wide + 9 * wide * b for a, b in zip(seen, made, strict=True)) + last * outputs

    def plain(total: int) -> int:
        widths = _shares(total, depth)
        return weights([inputs, *widths[:-1]], widths, widths[-1])

    seen = [inputs + k * growth for k in range(depth)]
    dense = weights(seen, [growth] * depth, inputs + depth * growth)
    most = depth + dense // (9 * wide)
    return _shares(min(range(depth, most + 1), key=lambda total: abs(plain(total) - dense)), depth)


def dsod300(classes: int = 21, dense: bool = True) -> SSD:
    """Return DSOD300: six maps from 38 x 38 to 2 x 2, 8744 boxes; L2Norm on every map, heads with batch normalisation.

    The paper's table 1 gives other widths (1120 and 1568) and speaks of a last map of 1 x 1; these are the released
    code's. dense=False: as in `DenseBody`.
    """
    body = DenseBody(dense=dense)
    neck = Plain(body.channels, scales=[20.0] * len(body.channels))
    heads = Heads(neck.channels, [level.boxes for level in DSOD300], classes, normalised=True)
    return SSD(body, neck, heads, DSOD300, (300, 300), CAFFE)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(made.weight, nonlinearity="linear")
    return made


def _shares(total: int, many: int) -> list[int]:
    """Return whole numbers that are as equal as can be and add up to `total`."""
    least, more = divmod(total, many)
    return [least + 1] * more + [least] * (many - more)


def _check(blocks: Sequence[Sequence[int]], widths: Sequence[int], first: int, compression: float) -> None:
    if not blocks or any(isinstance(depths, int) or not depths for depths in blocks):
        raise ValueError(f"blocks must be the layers of one block or more for every size of map, got {blocks!r}")
    for depths in blocks:
        for depth in depths:
            check_length("blocks", depth)
    if not 0 <= check_length("first", first, 0) < len(blocks):
        raise ValueError(f"first must be one of the {len(blocks)} sizes of map in blocks, got {first}")
    if odd := [width for width in widths if check_length("widths", width, 2) % 2]:
        raise ValueError(f"widths must be even, for two halves; got {odd[0]}")
    if len(widths) < len(blocks) - 1 - first:
        raise ValueError(
            f"widths must have {len(blocks) - 1 - first} entries or more, for the blocks behind the first map; "
            f"got {len(widths)}"
        )
    if not 0 < compression <= 1:
        raise ValueError(f"compression must be above 0 and at most 1, got {compression}")
