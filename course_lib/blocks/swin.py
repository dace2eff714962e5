"""Swin: a pyramid of windows of attention, from pictures to classes or to maps for detectors (chapters 21 and 24).

Liu et al. 2021, sections 3.1 to 3.3. Tokens are (N, h * w, C), row by row, beside their map's size (h, w).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from course_lib.blocks.attention import check_share
from course_lib.blocks.checks import check_picture
from course_lib.blocks.patches import PatchEmbedding
from course_lib.blocks.stochastic_depth import StochasticDepth
from course_lib.blocks.transformer import FeedForward
from course_lib.blocks.vit import draw
from course_lib.blocks.windows import PatchMerging, Size, WindowAttention, as_map
from course_lib.upsampling.grids import check_length

HIDDEN = 4
"""A token has this many times its channels between the two layers of a feed-forward part."""


class SwinBlock(nn.Module):
    """x + attention in windows of norm1(x), then x + feed-forward of norm2(x) (Liu et al. 2021, equation 3).

    width, heads, window: of WindowAttention. shift: by how many tokens the windows are displaced: 0, or window // 2 in
    every second block. drop: probability with which training leaves out one of the two parts for a picture. always:
    shift also a map that is not larger than one window, as ViDT does; the official classifier then does not. Tensors:
    norm1, windows, norm2, feed. Raises TypeError or ValueError for arguments that are none.
    """

    def __init__(
        self, width: int, heads: int, window: int, shift: int = 0, drop: float = 0.0, always: bool = False
    ) -> None:
        """Make norms, attention and feed-forward part."""
        super().__init__()
        self.windows = WindowAttention(width, heads, window)
        self.shift = check_length("shift", shift, 0)
        if self.shift >= window:
            raise ValueError(f"shift must be below window, {window}, got {shift}")
        self.always = always
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = FeedForward(width, HIDDEN * width, "gelu")
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Return the new tokens (N, h * w, C) of a map of `size` (h, w). Raises TypeError or ValueError by argument."""
        seen = self.windows.over_map(as_map("x", self.norm1(x), size), self.shift_of(size))
        x = x + self.drop(seen.flatten(1, 2))
        result: Tensor = x + self.drop(self.feed(self.norm2(x)))
        return result

    def shift_of(self, size: Size) -> int:
        """Return the shift in a map of `size`: 0 where one of its sides is not longer than a window, unless always."""
        return self.shift if self.always or min(size) > self.windows.window else 0


class Stage(nn.Module):
    """Blocks on maps of one size, every second with shifted windows, and the merging behind them.

    width, heads, window, always: of the blocks. drops: of each block; as many blocks as there are of them. merge:
    whether a PatchMerging follows. Tensors: blocks.<i>, merge. Raises as `SwinBlock` does.
    """

    def __init__(
        self, width: int, heads: int, window: int, drops: Sequence[float], merge: bool, always: bool = False
    ) -> None:
        """Make the blocks."""
        super().__init__()
        shifts = [window // 2 if place % 2 else 0 for place in range(len(drops))]
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, shift, drop, always) for shift, drop in zip(shifts, drops, strict=True)
        )
        self.merge = PatchMerging(width) if merge else None

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Return the blocks' tokens (N, h * w, C), before the merging. Raises TypeError or ValueError by argument."""
        for block in self.blocks:
            x = block(x, size)
        return x


class Swin(nn.Module):
    """Swin: patches, stages of blocks with merging between them, and a classifier: (N, 3, H, W) -> (N, classes).

    width: channels C of the first stage; each stage has twice as many as the one before. depths, heads: blocks of each
    stage, and heads of its attention. window: its side M. classes: of the logits; without a classifier where None,
    then the result is its input (N, C_last), the mean of the last stage's tokens behind `norm`. patch: side of a patch
    in pixels. drop: probability of the last block in `SwinBlock`, the others' grow to it from 0 in equal steps. always:
    as in `SwinBlock`.

    Pictures may have any size from 1 x 1: what is missing in patches, windows and pairs of rows is filled with zeros,
    as detection code on Swin does it. At sizes that need none, such as 224 x 224, that is the official classifier,
    which takes pictures normalised by ImageNet's mean and standard deviation. It has another window for a map that is
    smaller than one.

    channels, strides: of each stage's map, as `maps` gives it. Tensors: embedding, stages.<i>, norm, head. Drawn as
    the official code draws: normal with 0.02, zeros for biases. Raises TypeError or ValueError for arguments that are
    none.
    """

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int = 7,
        classes: int | None = 1000,
        patch: int = 4,
        drop: float = 0.0,
        always: bool = False,
    ) -> None:
        """Make the stages and the classifier."""
        super().__init__()
        depths, heads = _numbers("depths", depths), _numbers("heads", heads)
        if len(heads) != len(depths):
            raise ValueError(f"heads must be one number for each of {len(depths)} stages, got {len(heads)}")
        check_share("drop", drop)
        steps = max(1, sum(depths) - 1)
        drops = [drop * place / steps for place in range(sum(depths))]
        self.embedding = PatchEmbedding(patch, width, norm=True, pad=True)
        self.channels = tuple(width << place for place in range(len(depths)))
        self.strides = tuple(patch << place for place in range(len(depths)))
        self.stages = nn.ModuleList()
        for place, depth in enumerate(depths):
            own, drops = drops[:depth], drops[depth:]
            last = place == len(depths) - 1
            self.stages.append(Stage(self.channels[place], heads[place], window, own, not last, always))
        self.norm = nn.LayerNorm(self.channels[-1])
        self.head: nn.Module | None = None
        if classes is not None:
            self.head = nn.Linear(self.channels[-1], check_length("classes", classes))
        draw(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes). Raises TypeError or ValueError for other images."""
        features = self.features(images)
        logits: Tensor = features if self.head is None else self.head(features)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Return what the classifier reads: (N, C_last), the mean of the last tokens. Raises as `forward` does."""
        result: Tensor = self.norm(self._stages(images)[-1][0]).mean(1)
        return result

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the map of each stage (N, C, h, w), before merging, without `norm`. Raises as `forward` does.

        A detector puts a norm behind each map that it reads: their numbers grow from block to block.
        """
        return [x.mT.reshape(*x.shape[::2], *size) for x, size in self._stages(images)]

    def _stages(self, images: Tensor) -> list[tuple[Tensor, Size]]:
        check_picture(images, "images", least=1)
        x, size = self.embedding(images)
        stages: Any = self.stages
        made = []
        for stage in stages:
            x = stage(x, size)
            made.append((x, size))
            if stage.merge is not None:
                x, size = stage.merge(x, size)
        return made


def swin_nano(**options: Any) -> Swin:
    """Return the body of ViDT-nano, 7,299,634 parameters, 6,914,634 without classifier; options: those of `Swin`."""
    return Swin(48, (2, 2, 6, 2), (3, 6, 12, 24), **options)


def swin_tiny(**options: Any) -> Swin:
    """Return Swin-T, 28,288,354 parameters; options: those of `Swin`."""
    return Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), **options)


def swin_small(**options: Any) -> Swin:
    """Return Swin-S, 49,606,258 parameters; options: those of `Swin`."""
    return Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), **options)


def swin_base(**options: Any) -> Swin:
    """Return Swin-B, 87,768,224 parameters; options: those of `Swin`."""
    return Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), **options)


def _numbers(name: str, given: Any) -> tuple[int, ...]:
    if not isinstance(given, tuple | list) or not given:
        raise TypeError(f"{name} must be a list of numbers such as (2, 2, 6, 2), got {given!r}")
    return tuple(check_length(name, number) for number in given)
