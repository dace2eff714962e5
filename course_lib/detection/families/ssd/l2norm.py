"""L2 normalisation over channels with a learned scale: it tames the large numbers of an early map (chapter 14)."""

import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length

_EPSILON = 1e-10  # below the square root, as in Caffe: a place where all channels are 0 has a finite gradient


class L2Norm(nn.Module):
    """Divide the channels of every place by their Euclidean length, then multiply each by its own learned scale.

    x_c <- w_c x_c / sqrt(sum_k x_k^2 + 1e-10), every w_c starting at `scale`: (N, C, H, W) -> (N, C, H, W). Lengths of
    half precision maps are taken in float32. Raises TypeError or ValueError for arguments that are none.
    Liu, Rabinovich and Berg, "ParseNet: Looking wider to see better", 2015, equations 1 to 3.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        """Make the scales."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((check_length("channels", channels),), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with channels of the learned length. Raises ValueError for a map of other channels."""
        if x.dim() != 4 or x.shape[1] != len(self.weight):
            raise ValueError(f"x must be (N, {len(self.weight)}, H, W), got {tuple(x.shape)}")
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        length = (wide.square().sum(1, keepdim=True) + _EPSILON).sqrt()
        return (wide / length * self.weight.view(1, -1, 1, 1)).to(x.dtype)
