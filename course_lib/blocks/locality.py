"""What windows of attention save, and how far a token can look through them (chapter 21).

Liu et al. 2021, section 3.2: equations 1 and 2, and why windows are shifted.
"""

import torch
from torch import Tensor

from course_lib.blocks.windows import Size, padded
from course_lib.upsampling.grids import check_length


def attention_cost(size: Size, width: int) -> int:
    """Return the multiplications of one attention among all tokens of a map: 4 h w C^2 + 2 (h w)^2 C (equation 1).

    size: (h, w); width: C, channels of a token. The four matrices, then scores and sums; softmax and biases are not
    counted. Raises TypeError or ValueError by argument.
    """
    h, w = padded(size, 1)
    width = check_length("width", width)
    return 4 * h * w * width**2 + 2 * (h * w) ** 2 * width


def window_attention_cost(size: Size, width: int, window: int = 7) -> int:
    """Return the multiplications of the same in windows of M x M: 4 h w C^2 + 2 M^2 h w C (equation 2).

    A map that windows do not fill costs as much as one that they do. Arguments and errors as in `attention_cost`.
    """
    h, w = padded(size, window)
    width = check_length("width", width)
    return 4 * h * w * width**2 + 2 * window**2 * h * w * width


def reach(size: Size, window: int, blocks: int, start: tuple[int, int], shifted: bool = True) -> Tensor:
    """Return which tokens of a map have something of one token after 0, 1, ..., `blocks` blocks: bool (k + 1, h, w).

    Flood fill: in a block all tokens of a window read each other, and every second block displaces its windows by
    window // 2, unless `shifted` is False. size: (h, w), any; start: (y, x) of the token. Raises TypeError or
    ValueError by argument.
    """
    h, w = padded(size, 1)
    window, blocks = check_length("window", window), check_length("blocks", blocks, 0)
    y, x = (check_length("start", place, 0) for place in start)
    if y >= h or x >= w:
        raise ValueError(f"start must be (y, x) in a map of {h} x {w}, got {start}")
    seen = torch.zeros(h, w, dtype=torch.bool)
    seen[y, x] = True
    steps = [seen]
    for number in range(blocks):
        groups = _windows_of((h, w), window, window // 2 if shifted and number % 2 else 0)
        found = torch.zeros(int(groups.max()) + 1, dtype=torch.bool)
        found[groups[steps[-1]]] = True
        steps.append(found[groups])
    return torch.stack(steps)


def _windows_of(size: Size, window: int, shift: int) -> Tensor:
    """Return the number of the window of each token, (h, w); with a shift the first and last ones are cut."""
    first = window - shift if shift else 0  # so that the numbers begin at 0
    y, x = ((torch.arange(n) + first) // window for n in size)
    return y[:, None] * (int(x.max()) + 1) + x
