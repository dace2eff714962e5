"""RDN: residual dense blocks, in which every layer sees the outputs of all layers before it (chapter 08)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.super_resolution.layers import Tail, as_batch, bicubic, check_range, check_scale
from course_lib.upsampling.grids import check_length


class ResidualDenseBlock(nn.Module):
    """Residual dense block: (B, channels, h, w) -> the same (Zhang et al. 2018, equations 5-7).

    Layer c gets the block's input and the outputs of layers 1..c-1, together channels + (c - 1) growth channels, and
    makes `growth` more (3 x 3, ReLU). A 1 x 1 convolution fuses all of them; the input is added.
    """

    def __init__(self, layers: int, growth: int, channels: int) -> None:
        """Make the convolutions, with PyTorch's own random weights."""
        super().__init__()
        self.widths = [channels + c * growth for c in range(layers + 1)]
        self.body = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in self.widths[:-1])
        self.fusion = nn.Conv2d(self.widths[-1], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; without gradients the layers write into one buffer, as nothing else needs them."""
        seen = self._joined(x) if torch.is_grad_enabled() else self._written(x)
        result: Tensor = self.fusion(seen).add_(x)
        return result

    def _joined(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = torch.cat([x, layer(x).relu_()], dim=1)
        return x

    def _written(self, x: Tensor) -> Tensor:
        seen = x.new_empty(x.shape[0], self.widths[-1], *x.shape[-2:])
        seen[:, : self.widths[0]] = x
        for layer, begin, end in zip(self.body, self.widths[:-1], self.widths[1:], strict=True):
            torch.clamp_min(layer(seen[:, :begin]), 0, out=seen[:, begin:end])
        return seen


class RDNEncoder(nn.Module):
    """RDN without its tail: features of the small picture (Zhang et al. 2018, equations 1-10).

    blocks: residual dense blocks (D). layers: convolutions in each (C). growth: channels that a layer adds (G).
    channels: of the features between blocks (G0). 16, 8, 64, 64 is the published configuration "B" (20, 6, 32, 64 is
    "A"). radius: how many pixels away a feature still looks, blocks * layers + 3. Zeros outside the picture. Raises
    TypeError or ValueError for numbers that are not whole and >= 1.
    """

    def __init__(self, blocks: int = 16, layers: int = 8, growth: int = 64, channels: int = 64) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        blocks, layers = check_length("blocks", blocks), check_length("layers", layers)
        growth, channels = check_length("growth", growth), check_length("channels", channels)
        self.blocks, self.layers, self.growth, self.channels = blocks, layers, growth, channels
        self.radius = blocks * layers + 3
        self.shallow1 = nn.Conv2d(3, channels, 3, padding=1)
        self.shallow2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.body = nn.ModuleList(ResidualDenseBlock(layers, growth, channels) for _ in range(blocks))
        self.fusion1 = nn.Conv2d(blocks * channels, channels, 1)
        self.fusion2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, channels, h, w) of pictures (B, 3, h, w) with values of any range.

        Raises TypeError or ValueError for another shape.
        """
        first = self.shallow1(as_batch("x", x))
        fused = self._joined(first) if torch.is_grad_enabled() else self._summed(first)
        result: Tensor = self.fusion2(fused).add_(first)
        return result

    def _joined(self, first: Tensor) -> Tensor:
        outputs = [self.shallow2(first)]
        for block in self.body:
            outputs.append(block(outputs[-1]))
        result: Tensor = self.fusion1(torch.cat(outputs[1:], dim=1))
        return result

    def _summed(self, first: Tensor) -> Tensor:
        # a 1 x 1 convolution of joined channels is the sum of one for each part, and no part has to be kept
        output, fused = self.shallow2(first), None
        for block, part in zip(self.body, torch.split(self.fusion1.weight, self.channels, dim=1), strict=True):
            output = block(output)
            fused = F.conv2d(output, part, self.fusion1.bias) if fused is None else fused.add_(F.conv2d(output, part))
        assert fused is not None
        return fused


class RDN(nn.Module):
    """Enlarge an RGB picture by a whole number with a residual dense network (Zhang et al. 2018).

    scale: 2, 3, 4, or another power of 2. blocks, layers, growth, channels: as in `RDNEncoder`. data_range: the network
    computes with pictures times this number, 255 in the official code; no mean colour is subtracted. added: the result
    is added to the bicubic enlargement (a = -1/2, symmetric border), so that only what bicubic misses is learned; the
    paper's network makes the whole picture. radius: how many small pixels away a result still looks. Raises TypeError
    or ValueError as the parts do.
    """

    def __init__(
        self,
        scale: int,
        blocks: int = 16,
        layers: int = 8,
        growth: int = 64,
        channels: int = 64,
        data_range: float = 255.0,
        added: bool = False,
    ) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.scale, self.data_range, self.added = check_scale(scale), check_range(data_range), added
        self.blocks, self.layers, self.growth, self.channels = blocks, layers, growth, channels
        self.encoder = RDNEncoder(blocks, layers, growth, channels)
        self.tail = Tail(channels, scale, growth)
        self.radius = self.encoder.radius + self.tail.radius

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, scale h, scale w); the result may leave [0, 1] a little.

        Its dtype is that of `lr`, under autocast too. Raises TypeError or ValueError for another shape.
        """
        large: Tensor = self.tail(self.encoder(as_batch("lr", lr) * self.data_range)).to(lr.dtype) / self.data_range
        large = large.reshape(*lr.shape[:-3], *large.shape[-3:])
        return large + bicubic(lr, self.scale) if self.added else large
