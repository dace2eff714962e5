"""ViDT's body: Swin that carries [DET] tokens through all its stages (chapter 23; Song et al. 2022, section 3.1)."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from course_lib.blocks.attention import check_share
from course_lib.blocks.patches import PatchEmbedding
from course_lib.blocks.positions import sine
from course_lib.blocks.vit import draw
from course_lib.blocks.windows import PatchMerging, Size, as_map
from course_lib.detection.families.detr.detr import shrunk
from course_lib.detection.families.vidt.ram import Pairs, RAMBlock, pairs_by_stage
from course_lib.upsampling.grids import check_length


class BodyOutput(NamedTuple):
    """What a `RAMBody` returns.

    maps: (N, C, h, w) of each stage but the first and, where it is asked for, one more. dets: (N, D, C) of the last
    stage. positions: (1, D, P), those that the [DET] tokens had in every block, before a block's linear layer.
    """

    maps: list[Tensor]
    dets: Tensor
    positions: Tensor


class RAMStage(nn.Module):
    """Blocks on one map, whose windows are shifted in every second one, and the merging to the next map.

    width, heads, window, positions: as of `RAMBlock`. drops: of each block; as many blocks as there are of them. out:
    channels behind the merging; None: there is none. Tensors: blocks.<i>, merge, as in Swin's stage.
    """

    def __init__(
        self, width: int, heads: int, window: int, drops: Sequence[float], out: int | None, positions: int
    ) -> None:
        """Make the blocks and the merging."""
        super().__init__()
        shifts = [window // 2 if place % 2 else 0 for place in range(len(drops))]
        self.blocks = nn.ModuleList(
            RAMBlock(width, heads, window, shift, drop, positions) for shift, drop in zip(shifts, drops, strict=True)
        )
        self.merge = None if out is None else PatchMerging(width, out)

    def forward(
        self,
        patches: Tensor,
        dets: Tensor,
        size: Size,
        det_positions: Tensor,
        positions: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return patches (N, P, C) and [DET] tokens (N, D, C) behind the blocks; other arguments as of `RAMBlock`."""
        count = patches.shape[1]
        tokens = torch.cat([patches, dets], dim=1)
        for block in self.blocks:
            tokens = block(tokens, size, det_positions, positions, padding)
        return tokens[:, :count], tokens[:, count:]


class RAMBody(nn.Module):
    """Swin with [DET] tokens: pictures (N, 3, H, W) -> maps at strides 8, 16, ... and [DET] tokens (`BodyOutput`).

    width: channels of the first stage, twice as many in each next one. depths, heads: blocks, and heads of attention,
    of each stage. window: side of a window. patch: pixels. dets: [DET] tokens. positions: channels of their learned
    positions. cross_stages: numbers, from 0, of stages where [DET] tokens read patches (3 is the paper's choice of 0
    to 3). extra: channels of a map more, at twice the last stride, made by one merging; None: no such map.
    drop: probability of the last block in `SwinBlock`, the others' grow to it from 0 in equal steps. temperature: of
    the sines that tell [DET] tokens where a patch is; small maps need a lower one. Tensors that Swin has too carry its
    names. Raises TypeError or ValueError for numbers that are none of these.
    """

    def __init__(
        self,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        patch: int = 4,
        dets: int = 100,
        positions: int = 256,
        cross_stages: Collection[int] = (3,),
        extra: int | None = 256,
        drop: float = 0.0,
        temperature: float = 10000.0,
    ) -> None:
        """Make all layers, drawn as the official code draws them."""
        super().__init__()
        stages = len(depths)
        _check(width, depths, heads, cross_stages, temperature)
        self.temperature = temperature
        self.window, self.patch, self.cross_stages, self.extra = window, patch, frozenset(cross_stages), extra
        widths = [width * 2**k for k in range(stages)]
        self.stride = patch * 2 ** (stages - (extra is None))
        self.channels = (*widths[1:], *(() if extra is None else (extra,)))
        self.width = widths[-1]
        self.embedding = PatchEmbedding(patch, width, norm=True, pad=True)
        self.det_tokens = nn.Parameter(torch.empty(1, check_length("dets", dets), width))
        self.det_positions = nn.Parameter(torch.empty(1, dets, check_length("positions", positions)))
        steps = max(1, sum(depths) - 1)
        drops = [check_share("drop", drop) * place / steps for place in range(sum(depths))]
        self.stages = nn.ModuleList()
        for after, own, depth, count in zip((*widths[1:], extra), widths, depths, heads, strict=True):
            self.stages.append(RAMStage(own, count, window, drops[:depth], after, positions))
            drops = drops[depth:]
        draw(self)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> BodyOutput:
        """Return maps and [DET] tokens. mask: bool (N, H, W), True for padding, which no [DET] token reads.

        Windows do read it, as in the official code: patches of a padded picture differ from those of the picture alone.
        """
        patches, size = self.embedding(images)
        dets, places = self.det_tokens.expand(len(images), -1, -1), self.det_positions
        maps: list[Tensor] = []
        for k, stage in enumerate(cast(Iterable[RAMStage], self.stages)):
            patches, dets = stage(patches, dets, size, places, *self._seen(k, mask, size, patches))
            if k:
                maps.append(_channels_first(patches, size))
            if stage.merge is None:
                continue
            patches, size = stage.merge(patches, size)
            if k < len(self.stages) - 1:
                dets = stage.merge.reduce(dets.repeat(1, 1, 4))  # no neighbours to be merged with: four times itself
            else:
                maps.append(_channels_first(patches, size))
        return BodyOutput(maps, dets, places)

    def pairs(self, picture: Size) -> list[Pairs]:
        """Return how many pairs of tokens one unshifted block of each stage compares, for a picture (H, W)."""
        dets = self.det_tokens.shape[1]
        return pairs_by_stage(picture, dets, self.window, self.cross_stages, self.patch, len(self.stages))

    def _seen(self, stage: int, mask: Tensor | None, size: Size, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the positions of patches (1 or N, P, C) for DET x PATCH of a stage, and which are padding (N, P)."""
        if stage not in self.cross_stages:
            return None, None
        own = torch.zeros(1, *size, dtype=torch.bool, device=like.device) if mask is None else shrunk(mask, size)
        positions = sine(own, like.shape[-1], self.temperature, dtype=like.dtype).flatten(2).mT
        return positions, None if mask is None else own.flatten(1)


def _check(
    width: int, depths: Sequence[int], heads: Sequence[int], cross_stages: Collection[int], temperature: float
) -> None:
    """Raise TypeError or ValueError, which name the argument, unless these make a body."""
    stages = len(depths)
    if stages < 2 or len(heads) != stages:
        raise ValueError(f"depths and heads must have one number for each stage, at least two, got {depths}, {heads}")
    for depth in depths:
        check_length("depths", depth)
    if not set(cross_stages) <= set(range(stages)):
        raise ValueError(f"cross_stages must be of 0 to {stages - 1}, got {sorted(cross_stages)}")
    for stage in sorted(cross_stages):
        if (own := check_length("width", width) * 2**stage) % 4:
            raise ValueError(f"width must be a multiple of 4 in cross_stages, got {own} in stage {stage}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _channels_first(patches: Tensor, size: Size) -> Tensor:
    return as_map("patches", patches, size).permute(0, 3, 1, 2)
