"""Second-order statistics: the covariance of channels, its square root, and attention that reads them (chapter 12)."""

import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length

_IN_CACHE = 2**17  # numbers


def covariance(x: Tensor) -> Tensor:
    """Return the covariance of the channels over all places: (B, C, H, W) -> (B, C, C) (Dai et al. 2019, section 3.3).

    Biased: divided by H W. Each channel's mean is subtracted first. The paper's product with a centring matrix of H W x
    H W numbers is the same in exact arithmetic, as is E[x x'] - E[x] E[x]'; both lose digits where means are large, and
    the first needs memory that grows with the square of the picture. float16 and bfloat16 are computed in float32, also
    under autocast, and so is the result. Raises TypeError or ValueError for another shape.
    """
    check_maps(x)
    with torch.autocast(x.device.type, enabled=False):
        rows = widened(x).flatten(2)
        mean = rows.mean(dim=-1, keepdim=True)
        total: Tensor | None = None
        for block in torch.split(rows, _places(rows), dim=-1):
            centred = block - mean
            product = centred @ centred.mT
            total = product if total is None else total + product
        assert total is not None
        return total / rows.shape[-1]


def _places(rows: Tensor) -> int:
    """Return how many places to centre at a time: on a CPU, so many that they are still in its cache when multiplied.

    A whole copy of the maps would be written to memory and read again, which takes longer than the product.
    """
    batch, channels, places = rows.shape
    return max(256, _IN_CACHE // max(1, batch * channels)) if rows.device.type == "cpu" else places


def newton_schulz(matrix: Tensor, iterations: int = 5, trace: bool = True) -> Tensor:
    """Return (..., C, C) near the square root of positive semidefinite matrices (Dai et al. 2019, equations 9-11).

    Y = A, Z = 1, then `iterations` times Y <- Y (3 - Z Y) / 2 and Z <- (3 - Z Y) Z / 2 (old Y and Z on the right); each
    step costs three products and no eigenvectors. trace: A is the matrix divided by its trace, so that all eigenvalues
    are in [0, 1], where the iteration converges, and the result is multiplied by the root of the trace. Without, it
    does not find the positive root of eigenvalues of 3 and more. Few iterations make the roots of small eigenvalues too
    small: 5 find 66 % of the root of an eigenvalue of 1 % of the trace.

    Where the trace is 0 (below the least normal number), as for constant maps, the matrix is not divided, as if its
    trace were 1: the result is 0 and gradients are finite. float16 and bfloat16 are computed in float32, also under
    autocast, and so is the result. Raises TypeError or ValueError for another shape, or for iterations < 0.
    """
    check_square(matrix)
    check_length("iterations", iterations, 0)
    with torch.autocast(matrix.device.type, enabled=False):
        y = widened(matrix)
        if not trace:
            return _iterated(y, iterations)
        total = y.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        total = torch.where(total >= torch.finfo(y.dtype).tiny, total, 1)
        return _iterated(y / total, iterations) * total.sqrt()


def _iterated(y: Tensor, iterations: int) -> Tensor:
    z = one = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    for step in range(iterations):
        factor = 1.5 * one - 0.5 * (z @ y if step else y)
        y = y @ factor
        z = factor @ z if step else factor
    return y


def widened(x: Tensor) -> Tensor:
    """Return half precision as float32, and other numbers as they are: 8 or 11 bits do not do for a covariance."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_maps(x: Tensor) -> None:
    """Raise TypeError or ValueError for anything but floating-point maps (B, C, H, W) with C, H, W >= 1."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point torch.Tensor, got {_kind(x)}")
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be (B, C, H, W) with C, H, W >= 1, got {tuple(x.shape)}")


def check_square(matrix: Tensor) -> None:
    """Raise TypeError or ValueError for anything but floating-point square matrices (..., C, C)."""
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
        raise TypeError(f"matrix must be a floating-point torch.Tensor, got {_kind(matrix)}")
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 1:
        raise ValueError(f"matrix must be (..., C, C) with C >= 1, got {tuple(matrix.shape)}")


def _kind(given: object) -> str:
    return str(given.dtype) if isinstance(given, Tensor) else type(given).__name__


class FirstOrder(nn.Module):
    """Channel attention by means: each channel times a weight in (0, 1), (B, C, H, W) -> the same.

    weight = sigmoid(up(relu(down(statistic)))), 1 x 1 convolutions C -> C // reduction -> C; here the statistic of a
    channel is its mean (Hu et al. 2018, equations 2-4; Zhang et al. 2018b, section 3.3). Raises TypeError or ValueError
    for numbers that are not whole and >= 1, and for fewer channels than `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        """Make the two layers, with PyTorch's own random weights."""
        super().__init__()
        self.channels, self.reduction = check_length("channels", channels), check_length("reduction", reduction)
        if self.channels < self.reduction:
            raise ValueError(f"reduction must be at most the number of channels, {channels}; got {reduction}")
        self.down = nn.Conv2d(channels, channels // reduction, 1)
        self.up = nn.Conv2d(channels // reduction, channels, 1)

    def statistic(self, x: Tensor) -> Tensor:
        """Return what is known of each channel: (B, C, H, W) -> (B, C)."""
        return x.mean(dim=(-2, -1))

    def weights(self, x: Tensor) -> Tensor:
        """Return the weight of each channel: (B, C, H, W) -> (B, C, 1, 1) in (0, 1)."""
        seen = self.statistic(x).to(x.dtype)[..., None, None]
        return torch.sigmoid(self.up(torch.relu(self.down(seen))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels times their weights. Raises TypeError or ValueError for another shape."""
        check_maps(x)
        return x * self.weights(x)


class SOCA(FirstOrder):
    """Second-order channel attention: (B, C, H, W) -> the same (Dai et al. 2019, section 3.3).

    The statistic of a channel is the mean of its row of the covariance's square root, made by `iterations` steps of
    Newton and Schulz; it does not change when a number is added to a channel. All places count, however large the
    picture (the official code looks at 1000 x 1000 of them). Arguments and errors as of `FirstOrder`; iterations >= 1.
    """

    def __init__(self, channels: int, reduction: int = 16, iterations: int = 5) -> None:
        """Make the two layers, with PyTorch's own random weights."""
        super().__init__(channels, reduction)
        self.iterations = check_length("iterations", iterations)

    def statistic(self, x: Tensor) -> Tensor:
        """Return the mean of each row of the square root: (B, C, H, W) -> (B, C)."""
        return newton_schulz(covariance(x), self.iterations).mean(dim=-2)
