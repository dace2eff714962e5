"""ViDT's three attentions as quadrants of one masked matrix over [PATCH; DET] tokens (chapter 23).

The windows never appear as tensors of their own: who may read whom is a matrix of True and False, and one softmax along
its rows does it all. Memory grows with the square of the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def position_bias(table: Tensor, size: tuple[int, int], window: int) -> Tensor:
    """The number for every two places of a map from the table ((2 window - 1)^2, heads): (heads, P, P).

    It is that of the way from one to the other; places too far from each other for any window get 0.
    """
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()], dim=-1)
    way = (place[:, None] - place[None, :]).to(table.device)
    near = (way.abs() < window).all(-1)
    row = (way[..., 0] + window - 1) * (2 * window - 1) + way[..., 1] + window - 1
    return torch.where(near[..., None], table[torch.where(near, row, 0)], 0.0).permute(2, 0, 1)


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
) -> tuple[Tensor, Tensor]:
    """Both kinds of tokens after reading: patches (N, h, w, C) and dets (N, D, C), with their positions, likewise.

    qkv, out, table: the one set of weights for all three attentions. positions: what is added to the patches that the
    [DET] tokens see, (N or 1, h, w, C); where None they see none. padding: bool (N, h, w), patches they do not see.
    """
    n, height, width, channels = patches.shape
    heads = table.shape[1]
    grow = (0, 0, 0, -width % window, 0, -height % window)  # zeros, which qkv's bias turns into keys like others
    padded = F.pad(patches, grow)
    size = (padded.shape[1], padded.shape[2])
    seen = padded if positions is None else padded + F.pad(positions, grow)  # another copy: only [DET] tokens read it

    def split(tokens: Tensor) -> Tensor:
        """(N, n, C) to queries, keys, values: (3, N, heads, n, C / heads)."""
        made: Tensor = qkv(tokens)
        return made.reshape(*tokens.shape[:2], 3, heads, channels // heads).permute(2, 0, 3, 1, 4)

    patch_q, patch_k, patch_v = split(padded.flatten(1, 2))
    _, seen_k, seen_v = split(seen.flatten(1, 2))
    det_q, det_k, det_v = split(dets)
    bias = position_bias(table, size, window)
    scale = (channels // heads) ** -0.5
    top = torch.cat([scale * patch_q @ patch_k.mT + bias, patch_q @ det_k.mT], dim=-1)
    bottom = torch.cat([scale * det_q @ seen_k.mT, scale * det_q @ det_k.mT], dim=-1)
    masks = [
        ram_mask((height, width), window, dets.shape[1], shift, positions is not None, None if padding is None else one)
        for one in (patches.new_zeros(n) if padding is None else padding)
    ]
    hidden = torch.stack(masks)[:, None].to(patches.device)
    read = torch.cat([top, bottom], dim=-2).masked_fill(hidden, float("-inf")).softmax(-1)
    p = size[0] * size[1]
    patch_read = read[..., :p, :p] @ patch_v
    det_read = read[..., p:, :p] @ seen_v + read[..., p:, p:] @ det_v

    def join(x: Tensor) -> Tensor:
        """The heads side by side, through the last layer."""
        joined: Tensor = out(x.transpose(1, 2).flatten(2))
        return joined

    whole = join(patch_read).reshape(n, *size, channels)
    return whole[:, :height, :width], join(det_read)
