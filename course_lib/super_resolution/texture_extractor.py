"""TTSR's texture extractor: the first five convolutions of VGG19, trained with the rest of the network (chapter 11)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.blocks import vgg
from course_lib.super_resolution.layers import as_batch, channels_together
from course_lib.upsampling.grids import check_length

LAYERS = ("relu1_1", "relu2_1", "relu3_1")
"""VGG19's layers whose maps are the textures, at full, half and quarter size."""


class TextureExtractor(nn.Module):
    """Textures of a picture at three sizes: Q, K and V of TTSR come from it (Yang et al. 2020, equation 1).

    widths: channels at full, half and quarter size; 64, 128, 256 are VGG19's, whose published weights are
    `extractor.vgg.load_published(...)`. mean_shift: pictures are brought to mean 0 and deviation 1 of ImageNet first,
    as VGG expects them. Raises TypeError or ValueError for widths that are not three whole numbers >= 1.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, widths: Sequence[int] = (64, 128, 256), mean_shift: bool = True) -> None:
        """Make the layers, with random weights."""
        super().__init__()
        self.widths, self.mean_shift = check_widths(widths), mean_shift
        fine, middle, coarse = self.widths
        self.vgg = vgg.VGG(((fine, 2), (middle, 2), (coarse, 1)), last=LAYERS[-1], normalise=False)
        # the shift as official files hold it: a 1 x 1 convolution that is not trained
        mean, std = torch.tensor(vgg.MEAN), torch.tensor(vgg.STD)
        self.register_buffer("weight", torch.diag(1 / std).view(3, 3, 1, 1))
        self.register_buffer("bias", -mean / std)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return maps (B, widths[k], H / 2**k, W / 2**k), k = 0, 1, 2, of pictures (..., 3, H, W) in [0, 1].

        They are not negative. Where a size is odd, its last row or column is left out when it halves. Raises TypeError
        or ValueError for another shape, or less than 4 pixels along a side.
        """
        x = channels_together(as_batch("pictures", pictures))
        if min(x.shape[-2:]) < 4:
            raise ValueError(f"pictures must have at least 4 x 4 pixels, got {tuple(pictures.shape)}")
        if self.mean_shift:
            with torch.autocast(x.device.type, enabled=False):
                x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return self.vgg.maps(x, LAYERS)


def check_widths(widths: Sequence[int]) -> tuple[int, int, int]:
    """Return three widths. Raises TypeError or ValueError for anything else."""
    if len(widths) != 3:
        raise ValueError(f"widths must be the channels at full, half and quarter size, got {tuple(widths)}")
    fine, middle, coarse = (check_length("widths", width) for width in widths)
    return fine, middle, coarse
