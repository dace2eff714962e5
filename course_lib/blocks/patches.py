"""Pictures as sequences of patches, and positions that follow a picture's size (chapters 21 to 23)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling.grids import check_choice, check_length

Grid = tuple[int, int]
Mode = Literal["bicubic", "bilinear"]


class PatchEmbedding(nn.Module):
    """Cut pictures into patches and turn each into a token by one matrix: a convolution whose stride is its kernel.

    patch: side in pixels. width: channels of a token. channels: of the pictures. norm: a LayerNorm behind the matrix,
    as Swin has it. pad: what is missing in the last patches is filled with zeros, as detectors on Swin do it;
    otherwise the last rows and columns that make no whole patch are not seen, as in YOLOS. Tensors: projection, norm.

    `forward` takes pictures (N, channels, H, W) and returns tokens (N, h * w, width), row by row, and the grid (h, w).
    Raises TypeError or ValueError for numbers that are not whole and >= 1. Dosovitskiy et al. 2021, equation 1: E.
    """

    def __init__(self, patch: int, width: int, channels: int = 3, norm: bool = False, pad: bool = False) -> None:
        """Make the matrix and the norm."""
        super().__init__()
        self.patch, self.width = check_length("patch", patch), check_length("width", width)
        self.pad = pad
        self.projection = nn.Conv2d(check_length("channels", channels), width, patch, patch)
        self.norm: nn.Module = nn.LayerNorm(width) if norm else nn.Identity()

    def grid(self, height: int, width: int) -> Grid:
        """Return how many patches lie below and beside each other in a picture of that size.

        Raises ValueError for a picture without a whole patch, unless it may be filled.
        """
        if not self.pad and min(height, width) < self.patch:
            raise ValueError(f"images must hold a patch of {self.patch} x {self.patch}, got {height} x {width}")
        more = self.patch - 1 if self.pad else 0
        return (height + more) // self.patch, (width + more) // self.patch

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return the tokens and the grid. Raises TypeError or ValueError, which name the argument, for other images."""
        given: Any = images
        channels = self.projection.in_channels
        if not isinstance(given, Tensor) or not given.is_floating_point():
            came = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"images must be a floating point torch.Tensor, got {came}")
        if images.dim() != 4 or images.shape[1] != channels or min(images.shape[2:]) < 1:
            raise ValueError(f"images must be (N, {channels}, H, W) with H, W >= 1, got {tuple(images.shape)}")
        height, width = images.shape[2:]
        h, w = self.grid(height, width)
        missing = (max(0, h * self.patch - height), max(0, w * self.patch - width))
        if any(missing):
            images = F.pad(images, (0, missing[1], 0, missing[0]))
        tokens: Tensor = self.norm(self.projection(images).flatten(2).mT)
        return tokens, (h, w)


def interpolate_positions(table: Tensor, old: Grid, new: Grid, mode: Mode = "bicubic") -> Tensor:
    """Return a table of positions, one row for each place of the grid `old`, for the places of the grid `new`.

    table: (..., h * w, D) of old = (h, w), row by row -> (..., h' * w', D); the same tensor where the grids agree.
    The places' centres meet as pixels' do (half-pixel grid, border replicated, no antialiasing). "bicubic" is that of
    torch, with slope a = -0.75, because the official code of DeiT and YOLOS calls it; the bicubic of this book's
    chapters on resizing has a = -0.5. Computed in float32 at least. Raises TypeError or ValueError by argument.
    """
    given: Any = table
    if not isinstance(given, Tensor) or not given.is_floating_point():
        came = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"table must be a floating point torch.Tensor, got {came}")
    check_choice("mode", mode, Mode)
    (h, w), (height, width) = _grid("old", old), _grid("new", new)
    if table.dim() < 2 or table.shape[-2] != h * w:
        raise ValueError(f"table must be (..., {h * w}, D) for old = {h} x {w}, got {tuple(table.shape)}")
    if (h, w) == (height, width):
        return table
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    maps = wide.mT.reshape(-1, table.shape[-1], h, w)
    made = F.interpolate(maps, (height, width), mode=mode, align_corners=False)
    return made.flatten(2).mT.reshape(*table.shape[:-2], height * width, table.shape[-1]).to(table.dtype)


def interpolate_between(table: Tensor, old: Grid, new: Grid, before: int = 1, after: int = 0) -> Tensor:
    """Return `interpolate_positions` of the rows of patches, the rows of other tokens staying as they are.

    table: (..., before + h * w + after, D) of old = (h, w): `before` rows of tokens ahead of the patches (class,
    distillation) and `after` rows behind them (YOLOS's [DET]). Raises TypeError or ValueError by argument.

    Only the grids are compared. The official code of YOLOS compares the numbers of patches, and so leaves positions
    of 50 x 83 patches as they are for a picture of 83 x 50.
    """
    before, after = check_length("before", before, 0), check_length("after", after, 0)
    (h, w), new = _grid("old", old), _grid("new", new)
    rows = before + h * w + after
    if table.dim() < 2 or table.shape[-2] != rows:
        expected = f"(..., {rows}, D): {before} + {h} * {w} + {after} rows"
        raise ValueError(f"table must be {expected}, got {tuple(table.shape)}")
    if (h, w) == new:
        return table
    first, patches, last = (table[..., a:b, :] for a, b in ((0, before), (before, rows - after), (rows - after, rows)))
    return torch.cat((first, interpolate_positions(patches, (h, w), new), last), dim=-2)


def _grid(name: str, grid: Any) -> Grid:
    """Return (h, w) with h, w >= 1."""
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise ValueError(f"{name} must be a grid (h, w), got {grid!r}")
    return check_length(name, grid[0]), check_length(name, grid[1])
