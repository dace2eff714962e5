"""The reconfigured attention module: Swin's attention, with tokens beside its windows that detect (chapter 23).

One set of weights, those of Swin's block, serves three attentions (Song et al. 2022, section 3.1): PATCH x PATCH in
shifted windows, DET x DET among all [DET] tokens, and DET x PATCH, where [DET] tokens read patches too. PATCH never
reads DET. All of it as one masked matrix is `course_lib.plain.ram.ram_attention_masked`.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention
from course_lib.blocks.swin import SwinBlock
from course_lib.blocks.windows import Size, as_map, padded
from course_lib.upsampling.grids import check_length


def read_tokens(
    attention: MultiHeadAttention,
    dets: Tensor,
    patches: Tensor | None = None,
    padding: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what each [DET] token read, (N, D, C), and with `weights` how much of what, (N, heads, D, D or P + D).

    dets: (N, D, C), with their positions. patches: (N, P, C), with theirs; both kinds stand in ONE softmax over
    [PATCH; DET]; None: DET x DET alone. padding: bool (N, P), True for patches that may not be read.
    """
    keys, hidden = dets, None
    if patches is not None:
        keys = torch.cat([patches, dets], dim=1)
        hidden = None if padding is None else torch.cat([padding, padding.new_zeros(dets.shape[:2])], dim=1)
    if weights:
        read, shares = attention(dets, keys, padding=hidden, weights=True)
        return read, shares
    return attention(dets, keys, padding=hidden), None


class RAMBlock(SwinBlock):
    """A Swin block whose attention is reconfigured: patches and [DET] tokens through the same norms and layers.

    width, heads, window, shift, drop: as of `SwinBlock`; the shift is never dropped. positions: channels of the [DET]
    tokens' positions, which one linear layer of this block turns into `width` and which are added before the queries,
    keys AND values are made. Tensors beside Swin's: det_position. Raises TypeError or ValueError as `SwinBlock` does.
    """

    def __init__(
        self, width: int, heads: int, window: int, shift: int = 0, drop: float = 0.0, positions: int = 256
    ) -> None:
        """Make Swin's layers and the one for positions."""
        super().__init__(width, heads, window, shift, drop, always=True)
        self.det_position = nn.Linear(check_length("positions", positions), width)

    def forward(
        self,
        x: Tensor,
        size: Size,
        det_positions: Tensor | None = None,
        positions: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens (N, P + D, C), patches of a map of `size` row by row before the [DET] tokens, changed.

        det_positions: (1 or N, D, positions); None: there are no [DET] tokens, and it is Swin's block. positions: those
        of patches for DET x PATCH, (1 or N, P, C); None: the [DET] tokens read no patches. padding: bool (N, P), those
        that they do not read; windows do, as in the official code.
        """
        if det_positions is None:
            return super().forward(x, size)
        count = size[0] * size[1]
        if x.dim() != 3 or x.shape[1] != count + det_positions.shape[1]:
            expected = f"{size[0]} * {size[1]} patches and {det_positions.shape[1]} [DET] tokens"
            raise ValueError(f"x must be (N, tokens, C) with {expected}, got {tuple(x.shape)}")
        normed = self.norm1(x)
        patches, dets = normed[:, :count], normed[:, count:] + self.det_position(det_positions)
        windows = self.windows.over_map(as_map("x", patches, size), self.shift_of(size)).flatten(1, 2)
        seen = None if positions is None else patches + positions  # neither shifted nor grown to whole windows
        answers, _ = read_tokens(self.windows.attention, dets, seen, padding)
        x = x + self.drop(torch.cat([windows, answers], dim=1))
        changed: Tensor = x + self.drop(self.feed(self.norm2(x)))
        return changed


@dataclass(frozen=True)
class Pairs:
    """How many pairs of tokens one block compares, each query (named first) with its keys."""

    patch_patch: int
    patch_det: int
    det_patch: int
    det_det: int

    @property
    def total(self) -> int:
        """All four together."""
        return self.patch_patch + self.patch_det + self.det_patch + self.det_det


def block_pairs(size: Size, dets: int, window: int | None = None, shift: int = 0, cross: bool = False) -> Pairs:
    """Return the pairs of one block on a map of size (h, w) with `dets` [DET] tokens.

    window: side M of RAM's windows; None: without RAM, where every token reads every token. The map grows to whole
    windows, whose tokens count, so that without shift PATCH x PATCH is M^2 of the grown map; a shift takes away those
    that its mask forbids. cross: whether [DET] tokens read patches.
    """
    patches = size[0] * size[1]
    if window is None:
        return Pairs(patches**2, patches * dets, dets * patches, dets**2)
    within = 1
    for length in padded(size, window):
        pieces = [shift, *[window] * (length // window - 1), window - shift]
        within *= sum(piece**2 for piece in pieces)
    return Pairs(within, 0, dets * patches if cross else 0, dets**2)


def map_sizes(picture: Size, patch: int = 4, stages: int = 4) -> list[Size]:
    """Return (h, w) of the map of each stage for a picture (H, W): a cell for each begun patch, then each time half."""
    height, width = (-(-length // patch) for length in picture)
    return [(-(-height // 2**k), -(-width // 2**k)) for k in range(stages)]


def pairs_by_stage(
    picture: Size,
    dets: int = 100,
    window: int | None = 7,
    cross_stages: Collection[int] = (3,),
    patch: int = 4,
    stages: int = 4,
) -> list[Pairs]:
    """Return the pairs of one unshifted block of each stage for a picture (H, W).

    window: None counts the body without RAM, in which all tokens read all. cross_stages: numbers, from 0, of those
    where [DET] tokens read patches: at 800 x 1333 that costs 6.68 million pairs in the first and 105,000 in the last.
    """
    sizes = map_sizes(picture, patch, stages)
    return [block_pairs(size, dets, window, cross=k in cross_stages) for k, size in enumerate(sizes)]
