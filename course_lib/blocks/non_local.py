"""Non-local attention: every place of a map sees all others, or those of its cell of a grid."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length

HALF = (torch.float16, torch.bfloat16)


class NonLocal(nn.Module):
    """Region-level non-local block: (B, C, H, W) -> the same (Wang et al. 2018, equations 1-6; Dai et al. 2019, 3.2).

    x + merge(sum over j of softmax_j(theta(x_i) . phi(x_j)) g(x_j)), embedded Gaussian, 1 x 1 convolutions to `inner`
    channels and back. grid: the map is cut into grid x grid cells, which do not see each other; of a length n the cuts
    are at k n // grid. That takes grid^2 times less than one cell. pool: phi and g are the largest of pool x pool
    places (whole windows inside the cell; a cell less than `pool` long is one window), pool^2 times less again; 1 is
    the papers' equation, 2 SAN's code. merge starts at 0, so a new block returns x. Memory grows with H W, not with
    its square. Raises TypeError or ValueError for numbers that are not whole and >= 1.
    """

    def __init__(self, channels: int, inner: int, grid: int = 2, pool: int = 2) -> None:
        """Make the convolutions: PyTorch's own random weights, and zeros for the last."""
        super().__init__()
        channels, inner = check_length("channels", channels), check_length("inner", inner)
        self.grid, self.pool = check_length("grid", grid), check_length("pool", pool)
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.merge = nn.Conv2d(inner, channels, 1)
        for parameter in self.merge.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with what each place has seen added."""
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        rows = []
        for top, bottom in cuts(x.shape[-2], self.grid):
            cells = []
            for left, right in cuts(x.shape[-1], self.grid):
                query, *seen = (part[..., top:bottom, left:right] for part in (theta, phi, g))
                cells.append(attended(query, *(self._pooled(part) for part in seen)))
            rows.append(torch.cat(cells, dim=-1))
        result: Tensor = x + self.merge(torch.cat(rows, dim=-2).to(theta.dtype))
        return result

    def _pooled(self, cell: Tensor) -> Tensor:
        window = [min(self.pool, length) for length in cell.shape[-2:]]
        return F.max_pool2d(cell, window) if max(window) > 1 else cell


def cuts(length: int, count: int) -> list[tuple[int, int]]:
    """Return the ranges of `count` cells of a length, first and end; those of no pixel are left out."""
    edges = [k * length // count for k in range(count + 1)]
    return [(first, end) for first, end in itertools.pairwise(edges) if first < end]


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the values of all places weighted by softmax(query . key), for each place of the query.

    query (B, c, h, w); key, value (B, c, h', w') -> (B, c, h, w). Half precision is computed in float32, also under
    autocast: products of large numbers need their digits.
    """
    with torch.autocast(query.device.type, enabled=False):
        wide = (part.float() if part.dtype in HALF else part for part in (query, key, value))
        # only where the channels of a place lie side by side is the matrix of all pairs never made
        asked, *seen = (part.flatten(2).mT.contiguous()[:, None] for part in wide)
        found = F.scaled_dot_product_attention(asked, seen[0], seen[1], scale=1.0)
        return found[:, 0].mT.reshape(query.shape)
