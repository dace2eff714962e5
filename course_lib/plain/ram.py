"""ViDT's three attentions as quadrants of one masked matrix over [PATCH; DET] tokens (chapter 23).

The windows never appear as tensors of their own: who may read whom is a matrix of True and False, and one softmax along
its rows does it all. Memory grows with the square of the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.plain.windows import window_bias_loop


def window_numbers(length: int, window: int, shift: int = 0) -> Tensor:
    """Which window each of `length` places of a line is in: (length,), where the windows' grid begins at `shift`.

    A shift cuts one window in two, whose parts lie at the ends of the line and do not see each other.
    """
    return torch.div(torch.arange(length) - shift, window, rounding_mode="floor")


def ram_mask(
    size: tuple[int, int], window: int, dets: int, shift: int = 0, cross: bool = False, padding: Tensor | None = None
) -> Tensor:
    """Who may NOT read whom (True) of P patches and then `dets` [DET] tokens: (P + dets, P + dets), by quadrants.

    size: the (height, width) of the patches' map, P = height * width after it grew to whole windows at its lower and
    right edge. A row reads columns: PATCH reads PATCH of its window; PATCH never reads DET; DET reads PATCH, but for
    what the map grew by and for padding (h, w), where `cross`; DET reads DET.
    """
    rows, columns = (-(-length // window) * window for length in size)
    y, x = torch.meshgrid(window_numbers(rows, window, shift), window_numbers(columns, window, shift), indexing="ij")
    number = torch.stack([y.flatten(), x.flatten()], dim=-1)
    real = torch.zeros(rows, columns, dtype=torch.bool)
    real[: size[0], : size[1]] = True if padding is None else ~padding.cpu()
    patch_patch = (number[:, None] != number[None, :]).any(-1)
    patch_det = torch.ones(len(number), dets, dtype=torch.bool)
    det_patch = (~real.flatten()).repeat(dets, 1) if cross else torch.ones(dets, len(number), dtype=torch.bool)
    det_det = torch.zeros(dets, dets, dtype=torch.bool)
    top, bottom = torch.cat([patch_patch, patch_det], 1), torch.cat([det_patch, det_det], 1)
    return torch.cat([top, bottom])


def ram_attention_masked(
    patches: Tensor,
    dets: Tensor,
    qkv: nn.Linear,
    out: nn.Linear,
    table: Tensor,
    window: int,
    shift: int = 0,
    positions: Tensor | None = None,
    padding: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both kinds of tokens after reading, patches (N, h, w, C) and dets (N, D, C), and who read whom of them.

    That is (N, heads, P + D, P + D), rows of which sum to 1, for the P patches of the map grown to whole windows. dets:
    with their positions. qkv, out, table: the one set of weights for all three attentions. positions: what is added to
    the patches that the [DET] tokens see, (N or 1, h, w, C); where None they see none. padding: bool (N, h, w), patches
    they do not see.
    """
    n, height, width, channels = patches.shape
    grow = (0, 0, 0, -width % window, 0, -height % window)  # zeros, which qkv's bias turns into keys like others
    padded = F.pad(patches, grow)
    size = (padded.shape[1], padded.shape[2])
    seen = padded if positions is None else padded + F.pad(positions, grow)  # another copy: only [DET] tokens read it
    patch, other, det = (_split(qkv(x), table.shape[1]) for x in (padded.flatten(1, 2), seen.flatten(1, 2), dets))
    bias = window_bias_loop(size, table, window, shift)
    top = torch.cat([_scores(patch, patch) + bias, _scores(patch, det)], dim=-1)
    bottom = torch.cat([_scores(det, other), _scores(det, det)], dim=-1)
    masks = [
        ram_mask((height, width), window, dets.shape[1], shift, positions is not None, one)
        for one in ([None] * n if padding is None else padding)
    ]
    hidden = torch.stack(masks)[:, None].to(patches.device)
    weights = torch.cat([top, bottom], dim=-2).masked_fill(hidden, float("-inf")).softmax(-1)
    p = size[0] * size[1]
    patch_read = weights[..., :p, :p] @ patch[2]
    det_read = weights[..., p:, :p] @ other[2] + weights[..., p:, p:] @ det[2]
    new_patches, new_dets = (out(x.transpose(1, 2).flatten(2)) for x in (patch_read, det_read))
    return new_patches.reshape(n, *size, channels)[:, :height, :width], new_dets, weights


def _split(made: Tensor, heads: int) -> Tensor:
    """(N, n, 3 C) as queries, keys and values: (3, N, heads, n, C / heads)."""
    n, tokens, channels = made.shape
    return made.reshape(n, tokens, 3, heads, channels // (3 * heads)).permute(2, 0, 3, 1, 4)


def _scores(readers: Tensor, read: Tensor) -> Tensor:
    """How well each reader's query fits each key of those read."""
    scores: Tensor = readers[0] @ read[1].mT / readers.shape[-1] ** 0.5
    return scores
