"""ESPCN: three convolutions on the small picture, then a shuffle into the large one (chapter 06)."""

from typing import Literal, get_args

from torch import Tensor, nn

from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length
from course_lib.upsampling.pixel_shuffle import pixel_shuffle

Output = Literal["linear", "sigmoid"]


class ESPCN(nn.Module):
    """Enlarge luminance by a whole number with an efficient sub-pixel convolution (Shi et al. 2016, equations 1-4).

    scale: r >= 1. channels: of the picture, 1 in the paper. output: "linear" as in the paper, or "sigmoid" after the
    shuffle, as in a widespread port. added: the result is added to the bicubic enlargement (a = -1/2, symmetric
    border), so that only what bicubic misses is learned; the paper's network has to make the whole picture.

    f1, n1 = 5, 64; f2, n2 = 3, 32; f3 = 3; tanh after the first two layers; zeros outside the picture. radius: how many
    small pixels away a result still depends on. Raises TypeError or ValueError for a scale or a number of channels that
    is no whole number >= 1, ValueError for an unknown output, or a sigmoid that would be added.
    """

    def __init__(self, scale: int, channels: int = 1, output: Output = "linear", added: bool = False) -> None:
        """Make the three layers, with PyTorch's own random weights."""
        super().__init__()
        scale, channels = check_length("scale", scale), check_length("channels", channels)
        if output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}; got {output!r}")
        if added and output == "sigmoid":
            raise ValueError('output must be "linear" where the result is added to bicubic, got "sigmoid"')
        self.scale, self.channels, self.output, self.added = scale, channels, output, added
        self.conv1 = nn.Conv2d(channels, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, channels * scale**2, 3, padding=1)
        self.radius = 2 + 1 + 1

    def subpixels(self, lr: Tensor) -> Tensor:
        """Return the paper's last layer, before the shuffle: (..., C, h, w) -> (..., C r^2, h, w); eq. 3.

        Raises TypeError or ValueError for another shape.
        """
        if not isinstance(lr, Tensor):
            raise TypeError(f"lr must be a torch.Tensor, got {type(lr).__name__}")
        if lr.dim() < 3 or lr.shape[-3] != self.channels or min(lr.shape[-2:]) < 1:
            raise ValueError(f"lr must be (..., {self.channels}, h, w) with h, w >= 1, got {tuple(lr.shape)}")
        pictures = lr.flatten(0, -4) if lr.dim() > 4 else lr  # torch's convolutions know one leading axis at most
        features = self.conv1(pictures).tanh()  # (..., 64, h, w)
        features = self.conv2(features).tanh()  # (..., 32, h, w)
        subpixels: Tensor = self.conv3(features)  # (..., C r^2, h, w)
        return subpixels.reshape(*lr.shape[:-3], *subpixels.shape[-3:]) if lr.dim() > 4 else subpixels

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (..., C, h, w) in [0, 1] to (..., C, r h, r w); the result may leave [0, 1] a little.

        Raises TypeError or ValueError for another shape.
        """
        sr = pixel_shuffle(self.subpixels(lr), self.scale)
        if self.output == "sigmoid":
            return sr.sigmoid()
        if self.added:
            return sr + resize(lr, scale=self.scale, method="bicubic", border="symmetric")
        return sr
