"""Where a token is, as a vector: sines of a map's coordinates, or a learned table (chapters 19 and 20)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length

TURN = 2 * math.pi
EPS = 1e-6
"""What DETR's code adds to the last coordinate before it divides by it."""


def sine_of(x: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Return sin and cos of values at wavelengths from 2 pi to 2 pi * temperature: (...) -> (..., width).

    Channel 2 i is sin(x / temperature^(2 i / width)), channel 2 i + 1 the cos of the same (Vaswani et al. 2017, 3.5).
    x: floating point; a coordinate in [0, 1] is multiplied by `TURN` before. width: even. Raises TypeError or
    ValueError for others, and for a temperature that is not positive.
    """
    given: Any = x
    if not isinstance(given, Tensor) or not given.is_floating_point():
        came = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"x must be a floating point torch.Tensor, got {came}")
    if check_length("width", width, 2) % 2:
        raise ValueError(f"width must be even, got {width}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    pair = torch.arange(width // 2, dtype=x.dtype, device=x.device)
    angle = x[..., None] / temperature ** (2 * pair / width)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)


def sine(
    mask: Tensor,
    width: int,
    temperature: float = 10000.0,
    normalise: bool = True,
    centred: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the position of every cell of maps, (N, width, h, w): half of the channels tell y, the other half x.

    mask: bool (N, h, w), True for padding: coordinates count a picture's own cells, from 1. normalise: they are divided
    by the last one's and multiplied by 2 pi. centred: 1/2 is taken away first, as Deformable DETR does and DETR does
    not; it needs `normalise`. width: a multiple of 4. dtype: torch's default where None; at least float32 while
    computed. Raises TypeError or ValueError for arguments that are none. Carion et al. 2020 (DETR), appendix A.4.
    """
    check_padding("mask", mask)
    if check_length("width", width, 4) % 4:
        raise ValueError(f"width must be a multiple of 4, a sine and a cosine of each coordinate, got {width}")
    if centred and not normalise:
        raise ValueError("centred must be False where normalise is False, got True")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    own = (~mask).to(torch.promote_types(dtype, torch.float32))
    places = []
    for axis in (1, 2):
        place = own.cumsum(axis)
        if normalise:
            last = place.narrow(axis, -1, 1) + EPS
            place = (place - 0.5 if centred else place) / last * TURN
        places.append(sine_of(place, width // 2, temperature))
    return torch.cat(places, -1).permute(0, 3, 1, 2).to(dtype)


class LearnedPositions(nn.Module):
    """A learned vector of each row and of each column: half of the channels tell x, the other half y (DETR's code).

    width: even. rows, columns: the largest map. New vectors are uniform in [0, 1). Raises TypeError or ValueError for
    numbers that are not whole and >= 1, or an odd width.
    """

    def __init__(self, width: int, rows: int = 50, columns: int = 50) -> None:
        """Draw the two tables."""
        super().__init__()
        if check_length("width", width, 2) % 2:
            raise ValueError(f"width must be even, got {width}")
        self.rows = nn.Parameter(torch.rand(check_length("rows", rows), width // 2))
        self.columns = nn.Parameter(torch.rand(check_length("columns", columns), width // 2))

    def forward(self, mask: Tensor) -> Tensor:
        """Return the positions (N, width, h, w) of maps with padding `mask` (N, h, w), of which only the size counts.

        Raises ValueError for a map larger than the tables.
        """
        check_padding("mask", mask)
        batch, height, width = mask.shape
        if height > len(self.rows) or width > len(self.columns):
            largest = f"{len(self.rows)} x {len(self.columns)}"
            raise ValueError(f"mask must be at most {largest}, the learned table, got {height} x {width}")
        across = self.columns[:width].T[:, None].expand(-1, height, -1)
        down = self.rows[:height].T[:, :, None].expand(-1, -1, width)
        return torch.cat((across, down)).expand(batch, -1, -1, -1)


def check_padding(name: str, mask: Any) -> None:
    """Raise TypeError or ValueError, which name the argument, unless it is a bool tensor (N, h, w), h and w >= 1."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} must be a bool torch.Tensor, True for padding, got {came}")
    if mask.dim() != 3 or min(mask.shape[1:]) < 1:
        raise ValueError(f"{name} must be (N, h, w) with h, w >= 1, got {tuple(mask.shape)}")
