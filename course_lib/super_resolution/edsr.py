"""EDSR: residual blocks without normalisation on the small picture, then sub-pixel convolutions (chapter 08)."""

from torch import Tensor, nn

from course_lib.super_resolution.layers import (
    MeanShift,
    Tail,
    as_batch,
    bicubic,
    channels_together,
    check_range,
    check_scale,
)
from course_lib.upsampling.grids import check_length


class ResidualBlock(nn.Module):
    """x + residual_scale * conv2(relu(conv1(x))): (B, channels, h, w) -> the same (Lim et al. 2017, figure 2c)."""

    def __init__(self, channels: int, residual_scale: float) -> None:
        """Make the two convolutions, with PyTorch's own random weights."""
        super().__init__()
        self.residual_scale = residual_scale
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; the gradient of a convolution does not need its output, which is overwritten."""
        change = self.conv2(self.conv1(x).relu_())
        if self.residual_scale != 1:
            change = change.mul_(self.residual_scale)
        result: Tensor = change.add_(x)
        return result


class EDSREncoder(nn.Module):
    """EDSR without its tail: features of the small picture (Lim et al. 2017, section 3).

    blocks: residual blocks, 16 in the baseline, 32 in the large network. channels: 64 or 256. residual_scale: what each
    block's change is multiplied by, 1 or 0.1. radius: how many pixels away a feature still looks, 2 blocks + 2.
    Zeros outside the picture. Raises TypeError or ValueError for numbers that are not whole and >= 1, ValueError for a
    residual_scale that is not positive.
    """

    def __init__(self, blocks: int = 16, channels: int = 64, residual_scale: float = 1.0) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        blocks, channels = check_length("blocks", blocks), check_length("channels", channels)
        if not 0 < residual_scale < float("inf"):
            raise ValueError(f"residual_scale must be a positive number, 0.1 or 1 in the paper, got {residual_scale!r}")
        self.blocks, self.channels, self.residual_scale, self.radius = blocks, channels, residual_scale, 2 * blocks + 2
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(ResidualBlock(channels, residual_scale) for _ in range(blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, channels, h, w) of pictures (B, 3, h, w) with values of any range.

        On a CPU they lie in memory with the channels of a pixel side by side (torch.channels_last), where convolutions
        are fastest. Raises TypeError or ValueError for another shape.
        """
        head = self.head(channels_together(as_batch("x", x)))
        features = head
        for block in self.body:
            features = block(features)
        result: Tensor = self.last(features).add_(head)
        return result


class EDSR(nn.Module):
    """Enlarge an RGB picture by a whole number with an enhanced deep residual network (Lim et al. 2017, section 3).

    scale: 2, 3, 4, or another power of 2. blocks, channels, residual_scale: as in `EDSREncoder`; 16, 64, 1 are the
    paper's baseline, 32, 256, 0.1 its large network. data_range: the network computes with pictures times this number,
    255 in the official code, less the mean colour of DIV2K. added: the result is added to the bicubic enlargement (a =
    -1/2, symmetric border), so that only what bicubic misses is learned; the paper's network makes the whole picture,
    and then no mean colour is added. radius: how many small pixels away a result still looks. Raises TypeError or
    ValueError as the parts do.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 16,
        channels: int = 64,
        residual_scale: float = 1.0,
        data_range: float = 255.0,
        added: bool = False,
    ) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.scale, self.data_range, self.added = check_scale(scale), check_range(data_range), added
        self.blocks, self.channels, self.residual_scale = blocks, channels, residual_scale
        self.encoder = EDSREncoder(blocks, channels, residual_scale)
        self.tail = Tail(channels, scale, channels)
        self.sub_mean, self.add_mean = MeanShift(-1, data_range), MeanShift(1, data_range)
        self.radius = self.encoder.radius + self.tail.radius

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, scale h, scale w); the result may leave [0, 1] a little.

        Its dtype is that of `lr`, under autocast too. Raises TypeError or ValueError for another shape.
        """
        picture = self.sub_mean(as_batch("lr", lr) * self.data_range)
        large: Tensor = self.tail(self.encoder(picture)).to(lr.dtype)
        large = (large if self.added else self.add_mean(large)) / self.data_range
        large = large.reshape(*lr.shape[:-3], *large.shape[-3:])
        return large + bicubic(lr, self.scale) if self.added else large
