"""TTSR's critic: how real a picture looks, as one number (chapter 11)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.super_resolution.layers import as_batch
from course_lib.upsampling.grids import check_length

_STAGES = 5
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Score pictures (..., 3, size, size) in [0, 1] by real numbers (...), larger where they look more real.

    Ten 3 x 3 convolutions with strides 1, 2, 1, 2, ... and channels width, width, 2 width, 2 width, 4 width, ..., then
    two linear layers, `hidden` numbers between them; LeakyReLU of slope 0.2 behind all but the last, and no
    normalisation, which would mix the pictures of a batch and so spoil the penalty (Gulrajani et al. 2017, section 4).
    The layout is that of the authors' code. There pictures are in [-1, 1], and so they are made inside: gradients by a
    picture in [0, 1] are twice those of the code.

    size: 160 there. Any other is taken, rounded up where a stride of 2 leaves a half; the code's own rule for the
    linear layer fits multiples of 32 alone. Raises TypeError or ValueError for numbers that are not whole and >= 1.
    """

    def __init__(self, size: int = 160, width: int = 32, hidden: int = 1024) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.size, self.width, self.hidden = (
            check_length(name, value) for name, value in {"size": size, "width": width, "hidden": hidden}.items()
        )
        widths = [3, *(width * 2 ** (layer // 2) for layer in range(2 * _STAGES))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 + layer % 2, padding=1)
            for layer, (before, after) in enumerate(pairwise(widths))
        )
        cells = -(-size // 2**_STAGES)
        self.first = nn.Linear(widths[-1] * cells**2, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the score of each picture. Raises TypeError or ValueError for another shape or size."""
        x = as_batch("picture", picture)
        if x.shape[-2:] != (self.size, self.size):
            height, width = x.shape[-2:]
            raise ValueError(
                f"picture must be {self.size} x {self.size}, for which this was made; got {height} x {width}"
            )
        x = 2 * x - 1
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), _SLOPE)
        x = F.leaky_relu(self.first(x.flatten(1)), _SLOPE)
        scores: Tensor = self.last(x)
        return scores.reshape(picture.shape[:-3])
