"""Attention in windows: cutting a map, shifting it, masks, biases by relative position, and merging (chapter 21).

Liu et al. 2021, sections 3.2 and 3.3. Maps are (N, h, w, C), tokens (N, h * w, C) row by row, windows squares of
M x M tokens. The form that sees all tokens and masks those of other windows is `course_lib.plain.windows`.
"""

from functools import lru_cache
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention, attend
from course_lib.upsampling.grids import check_length

Size = tuple[int, int]
UNREAD = -100.0
"""What the official code adds to the score of a pair of tokens that must not read each other: exp(-100) is 4e-44."""


def partition(x: Tensor, window: int) -> Tensor:
    """Return the windows of maps: (N, h, w, C) -> (N * windows, window^2, C), row by row, map after map.

    h and w are multiples of `window` (`padded` says which). Raises TypeError or ValueError by argument.
    """
    check_tokens("x", x, 4)
    n, h, w, channels = x.shape
    rows, columns = _count((h, w), window)
    cut = x.reshape(n, rows, window, columns, window, channels)
    return cut.transpose(2, 3).reshape(n * rows * columns, window * window, channels)


def reverse(windows: Tensor, window: int, size: Size) -> Tensor:
    """Return the maps (N, h, w, C) of which `partition` made these windows (N * windows, window^2, C).

    size: (h, w), multiples of `window`. Raises TypeError or ValueError by argument.
    """
    check_tokens("windows", windows, 3)
    rows, columns = _count(size, window)
    if windows.shape[0] % (rows * columns) or windows.shape[1] != window * window:
        raise ValueError(
            f"windows must be (N * {rows * columns}, {window * window}, C) for a map of {size[0]} x {size[1]}, "
            f"got {tuple(windows.shape)}"
        )
    n, channels = windows.shape[0] // (rows * columns), windows.shape[2]
    cut = windows.reshape(n, rows, columns, window, window, channels)
    return cut.transpose(2, 3).reshape(n, rows * window, columns * window, channels)


def padded(size: Size, window: int) -> Size:
    """Return the smallest multiples of `window` that a map of `size` (h, w) fits in. Raises as `check_length` does."""
    h, w = _size(size)
    window = check_length("window", window)
    return -(-h // window) * window, -(-w // window) * window


def regions(size: Size, window: int, shift: int) -> Tensor:
    """Return from which piece of the map each token came, after a map of `size` was rolled by -shift: (h, w) int64.

    0 to 8, row by row: the last window of each axis holds the end of the map and, behind it, the `shift` tokens that
    came from its beginning. size: (h, w), multiples of `window`; shift: 0 to window - 1; without a shift all tokens
    are of region 0. Raises TypeError or ValueError by argument. Liu et al. 2021, figure 4.
    """
    _count(size, window)
    if check_length("shift", shift, 0) >= window:
        raise ValueError(f"shift must be below window, {window}, got {shift}")
    if shift == 0:
        return torch.zeros(size, dtype=torch.int64)
    y, x = (torch.arange(n) for n in size)
    row, column = ((place >= n - window).long() + (place >= n - shift) for place, n in zip((y, x), size, strict=True))
    return 3 * row[:, None] + column


def shift_mask(
    size: Size,
    window: int,
    shift: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return what is added to the scores in the windows of a rolled map: (windows, M^2, M^2), 0 or -100.

    -100 stands between tokens of different `regions`, which are no neighbours in the map. size: (h, w), multiples of
    `window` = M; shift: 0 to M - 1. device: the CPU where None. Only windows of the last row and column differ, so
    that what is kept for later calls are the masks of four windows, whatever the size. Raises as `regions` does.
    """
    rows, columns = _count(size, window)
    given = torch.device("cpu" if device is None else device)
    four = _four_masks(window, check_length("shift", shift, 0), given, dtype)
    last_row, last_column = (torch.arange(n, device=given) == n - 1 for n in (rows, columns))
    return four[(2 * last_row[:, None] + last_column.long()).flatten()]


@lru_cache(maxsize=64)
def _four_masks(window: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the masks of a window inside, in the last column, in the last row, and of both: (4, M^2, M^2)."""
    ids = regions((2 * window, 2 * window), window, shift).to(device)
    found = partition(ids[None, :, :, None].to(torch.float32), window)
    return torch.where(found == found.mT, 0.0, UNREAD).to(dtype)


def relative_index(window: int) -> Tensor:
    """Return which row of a table of biases belongs to each pair of tokens of a window: (M^2, M^2) int64.

    (dy + M - 1) (2M - 1) + (dx + M - 1), where (dy, dx) is the place of the row's token less that of the column's:
    0 to (2M - 1)^2 - 1. Raises TypeError or ValueError unless window is a whole number >= 1. Liu et al. 2021, 3.2.
    """
    side = torch.arange(check_length("window", window))
    y, x = (place.flatten() for place in torch.meshgrid(side, side, indexing="ij"))
    dy, dx = (place[:, None] - place[None, :] + window - 1 for place in (y, x))
    return dy * (2 * window - 1) + dx


@lru_cache(maxsize=64)
def _index_on(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made inside could not take part in a training later
        return relative_index(window).to(device)


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a bias for each relative position (Liu et al. 2021, equation 4).

    softmax(Q K^T / sqrt(d) + B) V, B read from `table`. width: channels of a token, a multiple of heads. window: its
    side M. Tensors: table ((2M - 1)^2, heads), drawn small; attention.qkv, attention.out (`MultiHeadAttention`, with
    `project` and `join` for tokens that lie in no window). Raises TypeError or ValueError as that does.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        """Make the layers and the table."""
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.window = check_length("window", window)
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))

    def bias(self) -> Tensor:
        """Return B, (heads, M^2, M^2): how much a token (row) is drawn to another (column) by its place alone."""
        return self.table.mT[:, _index_on(self.window, self.table.device)]

    @overload
    def forward(self, x: Tensor, mask: Tensor | None = None, weights: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, mask: Tensor | None = None, *, weights: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, mask: Tensor | None = None, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return what the tokens of each window read: (N * windows, M^2, C) -> the same.

        mask: float (windows, M^2, M^2), added to the scores, as `shift_mask` makes it. weights: return also how much
        each token read of each, (N * windows, heads, M^2, M^2). Raises TypeError or ValueError by argument.
        """
        q, k, v = self.attention.project(x)
        batch, heads, tokens, _ = q.shape
        if tokens != self.window**2:
            raise ValueError(f"x must be (N * windows, {self.window**2}, C), got {tuple(x.shape)}")
        bias = self.bias()
        if mask is not None:
            if not mask.is_floating_point():  # True and False would be added as 1 and 0
                raise TypeError(f"mask must be floating point, added to the scores, got {mask.dtype}")
            if mask.dim() != 3 or mask.shape[1:] != bias.shape[1:] or batch % mask.shape[0]:
                expected = f"(windows, {tokens}, {tokens}) for {batch} windows of all maps"
                raise ValueError(f"mask must be {expected}, got {tuple(mask.shape)}")
            # windows and heads on one axis: maps share the bias, and what attends sees four axes, as it wants them
            bias = (bias + mask[:, None]).flatten(0, 1)
            q, k, v = (part.reshape(-1, len(mask) * heads, *part.shape[2:]) for part in (q, k, v))
        if weights:
            out, read = attend(q, k, v, bias=bias, weights=True)
            return self._joined(out, batch), read.reshape(batch, heads, tokens, tokens)
        return self._joined(attend(q, k, v, bias=bias), batch)

    def over_map(self, x: Tensor, shift: int = 0) -> Tensor:
        """Return what the tokens of maps read in their windows: (N, h, w, C) -> the same.

        shift: by how many tokens the windows are displaced, below and to the right, 0 to M - 1: the map is rolled back
        by as many, read under `shift_mask`, and rolled again. A map that windows do not fill is filled with zeros
        below and to the right, which are read like tokens, as detectors on Swin do. Raises as `regions` does.
        """
        check_tokens("x", x, 4)
        h, w = x.shape[1:3]
        whole = padded((h, w), self.window)
        mask = shift_mask(whole, self.window, shift, x.device, self.table.dtype) if shift else None
        x = pad_map(x, whole)
        rolled = x.roll((-shift, -shift), (1, 2)) if shift else x
        read = reverse(self(partition(rolled, self.window), mask), self.window, whole)
        back = read.roll((shift, shift), (1, 2)) if shift else read
        return back[:, :h, :w]

    def _joined(self, out: Tensor, batch: int) -> Tensor:
        return self.attention.join(out.reshape(batch, self.attention.heads, *out.shape[2:]))


class PatchMerging(nn.Module):
    """Four neighbours become one token: their channels side by side, a LayerNorm, a matrix without bias (3.1).

    width: channels C of a token. out: of the result; 2 C where None. Neighbours in the order above left, below left,
    above right, below right. Tensors: norm (4 C), reduction (out, 4 C). Raises TypeError or ValueError for numbers
    that are not whole and >= 1.
    """

    def __init__(self, width: int, out: int | None = None) -> None:
        """Make the norm and the matrix."""
        super().__init__()
        self.width = check_length("width", width)
        self.out = 2 * width if out is None else check_length("out", out)
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, self.out, bias=False)
        nn.init.trunc_normal_(self.reduction.weight, std=0.02)

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        """Return half as many rows and columns: (N, h * w, C) -> (N, h' * w', out) and (h', w') = (ceil(h / 2), ...).

        An odd map gets a last row or column of zeros. Raises TypeError or ValueError by argument.
        """
        grid = as_map("x", x, size)
        if x.shape[2] != self.width:
            raise ValueError(f"x must have {self.width} channels, got {x.shape[2]}")
        h, w = (n + n % 2 for n in size)
        grid = pad_map(grid, (h, w))
        near = [grid[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)]
        return self.reduce(torch.cat(near, dim=-1).flatten(1, 2)), (h // 2, w // 2)

    def reduce(self, x: Tensor) -> Tensor:
        """Return norm and matrix of tokens that have 4 C channels already: (..., 4 C) -> (..., out).

        ViDT gives its [DET] tokens, which have no neighbours, their own channels four times. Raises ValueError for
        another number of channels.
        """
        if x.shape[-1] != 4 * self.width:
            raise ValueError(f"x must have 4 * {self.width} channels, got {x.shape[-1]}")
        result: Tensor = self.reduction(self.norm(x))
        return result


def as_map(name: str, tokens: Tensor, size: Size) -> Tensor:
    """Return tokens (N, h * w, C) as a map (N, h, w, C). Raises TypeError or ValueError, which name the argument."""
    check_tokens(name, tokens, 3)
    h, w = _size(size)
    if tokens.shape[1] != h * w:
        raise ValueError(f"{name} must be (N, {h} * {w} = {h * w}, C), got {tuple(tokens.shape)}")
    return tokens.reshape(tokens.shape[0], h, w, tokens.shape[2])


def pad_map(x: Tensor, size: Size) -> Tensor:
    """Return maps (N, h, w, C) with zeros below and to the right, so that they have `size`; x where they have it."""
    below, right = size[0] - x.shape[1], size[1] - x.shape[2]
    return F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x


def check_tokens(name: str, x: Any, axes: int) -> None:
    """Raise TypeError or ValueError, which name the argument, unless x is floating point and has that many axes."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating point torch.Tensor, got {came}")
    if x.dim() != axes or min(x.shape) < 1:
        wanted = "(N, h, w, C)" if axes == 4 else "(N, tokens, C)"
        raise ValueError(f"{name} must be {wanted}, none of them 0, got {tuple(x.shape)}")


def _size(size: Any) -> Size:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ValueError(f"size must be (h, w), got {size!r}")
    return check_length("size", size[0]), check_length("size", size[1])


def _count(size: Any, window: int) -> Size:
    """Return how many windows lie below and beside each other; a map that they do not fill is refused."""
    h, w = _size(size)
    window = check_length("window", window)
    if h % window or w % window:
        raise ValueError(f"size must be multiples of window, {window}, got {h} x {w}; pad first (`padded`)")
    return h // window, w // window
