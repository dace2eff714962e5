"""Features at several sizes that tell each other what they see: TTSR's cross-scale feature integration (chapter 11)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.super_resolution.edsr import ResidualBlock


class ResidualStage(nn.Module):
    """Residual blocks and a convolution, around which a skip goes: (B, channels, h, w) -> the same."""

    def __init__(self, channels: int, blocks: int, residual_scale: float) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.body = nn.ModuleList(ResidualBlock(channels, residual_scale) for _ in range(blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, through: Tensor | None = None) -> Tensor:
        """Return x + last(blocks(through)); through: None stands for x."""
        through = x if through is None else through
        for block in self.body:
            through = block(through)
        result: Tensor = self.last(through).add_(x)
        return result


class Up(nn.Module):
    """Features at `factor` times the size: a 1 x 1 convolution, bicubic interpolation as in `interpolate`, ReLU.

    The paper interpolates first. Weights of an interpolation sum to 1, so that both orders give the same; a convolution
    at the small size costs factor**2 times less.
    """

    def __init__(self, channels: int, factor: int) -> None:
        """Make the convolution, with PyTorch's own random weights."""
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, factor h, factor w) of (B, channels, h, w)."""
        return interpolate(self.conv(x), self.factor).relu_()


class Down(nn.Module):
    """Features at 1 / factor of the size: a 3 x 3 convolution with stride 2 and ReLU for each halving."""

    def __init__(self, channels: int, factor: int) -> None:
        """Make the convolutions, with PyTorch's own random weights; factor: a power of 2."""
        super().__init__()
        halvings = factor.bit_length() - 1
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(halvings))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, h / factor, w / factor) of (B, channels, h, w)."""
        for conv in self.convs:
            x = conv(x).relu_()
        return x


class Exchange(nn.Module):
    """Every size gets what all sizes have (Yang et al. 2020, section 3.2): n maps -> n maps of the same shapes.

    sizes: of the maps, as multiples of the smallest, powers of 2, ascending. All maps are brought to one size, joined
    along the channels (its own first, then the others from small to large) and merged by a 3 x 3 convolution and ReLU.
    """

    def __init__(self, channels: int, sizes: Sequence[int]) -> None:
        """Make the paths and the convolutions that merge, with PyTorch's own random weights."""
        super().__init__()
        self.sizes = tuple(sizes)
        self.paths = nn.ModuleDict(
            {
                _path(here, there): Up(channels, there // here) if here < there else Down(channels, here // there)
                for here in sizes
                for there in sizes
                if here != there
            }
        )
        self.merges = nn.ModuleList(nn.Conv2d(channels * len(sizes), channels, 3, padding=1) for _ in sizes)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Return what the maps become; both are in the order of `sizes`."""
        merged = []
        for there, own, merge in zip(self.sizes, maps, self.merges, strict=True):
            sources = zip(self.sizes, maps, strict=True)
            others = [self.paths[_path(here, there)](x) for here, x in sources if here != there]
            merged.append(merge(torch.cat([own, *others], dim=1)).relu_())
        return merged


class CrossScaleStage(nn.Module):
    """Maps of several sizes exchange what they have, then each goes through a residual stage of its own.

    Arguments as in `Exchange` and `ResidualStage`. The skip of a stage goes around the exchange too.
    """

    def __init__(self, channels: int, sizes: Sequence[int], blocks: int, residual_scale: float) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.exchange = Exchange(channels, sizes)
        self.stages = nn.ModuleList(ResidualStage(channels, blocks, residual_scale) for _ in sizes)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Return maps of the same shapes; both are in the order of `sizes`."""
        exchanged = self.exchange(*maps)
        return [stage(x, through) for stage, x, through in zip(self.stages, maps, exchanged, strict=True)]


class MergeTail(nn.Module):
    """From features (B, channels, ...) at 1, 2 and 4 times the small size to a picture (B, 3, ...) at 4 times."""

    def __init__(self, channels: int) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        half = max(1, channels // 2)
        self.from_x1, self.from_x2 = Up(channels, 4), Up(channels, 2)
        self.merge = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.tail1 = nn.Conv2d(channels, half, 3, padding=1)
        self.tail2 = nn.Conv2d(half, 3, 1)

    def forward(self, x1: Tensor, x2: Tensor, x4: Tensor) -> Tensor:
        """Return the picture, in the network's own range."""
        joined = torch.cat([x4, self.from_x1(x1), self.from_x2(x2)], dim=1)
        result: Tensor = self.tail2(self.tail1(self.merge(joined).relu_()))
        return result


def interpolate(x: Tensor, factor: int) -> Tensor:
    """Return `factor` times larger maps by bicubic interpolation with a = -3/4, as PyTorch has it and TTSR uses it."""
    return F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)


def _path(here: int, there: int) -> str:
    return f"x{here}_to_x{there}"
