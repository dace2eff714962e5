"""Stochastic depth: in training a residual branch is left out for some of the pictures (chapter 21)."""

import torch
from torch import Tensor, nn

from course_lib.blocks.attention import check_share


class StochasticDepth(nn.Module):
    """In training a picture's branch is 0 with some probability, and otherwise made larger to keep the mean.

    share: that probability, from 0 to below 1. Tensors (N, ...) of any shape; outside training nothing happens.
    Raises ValueError for another share. Huang et al. 2016, equation 2 (there the scale is applied in the test).
    """

    def __init__(self, share: float) -> None:
        """Keep the probability."""
        super().__init__()
        self.share = check_share("share", share)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch, without it for some pictures."""
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.share
        return x * (kept.to(x.dtype) / (1 - self.share))
