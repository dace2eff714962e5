"""TTSR: textures of a reference picture, found by attention, enlarge a picture four times (chapter 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.super_resolution.cross_scale import CrossScaleStage, MergeTail, ResidualStage, interpolate
from course_lib.super_resolution.layers import as_batch, bicubic, channels_together, eight_bit
from course_lib.super_resolution.relevance import search, transfer
from course_lib.super_resolution.texture_extractor import TextureExtractor, check_widths
from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length

SCALE = 4
"""How many times TTSR enlarges; its textures have 1, 2 and 4 times the small picture's size."""


@dataclass(frozen=True)
class Textures:
    """What a reference offers to each small pixel of B pictures (Yang et al. 2020, equations 2-4).

    index: the place in the reference that is most alike (hard attention, H), int64 (B, h, w); places are counted row by
    row in the reference at a quarter of its size. soft: how alike it is (soft attention, S), (B, 1, h, w) in [-1, 1].
    fine, middle, coarse: the textures from there (T), (B, widths[k], ...) of size 4h x 4w, 2h x 2w and h x w.
    """

    index: Tensor
    soft: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor

    def at(self, size: int) -> tuple[Tensor, Tensor]:
        """Return T and S at 1, 2 or 4 times the small size; S is interpolated, and may leave [-1, 1] a little."""
        texture = {1: self.coarse, 2: self.middle, 4: self.fine}[size]
        return texture, self.soft if size == 1 else interpolate(self.soft, size)


@dataclass(frozen=True)
class Offer:
    """What a reference has, at a quarter of its size (h', w') and finer (Yang et al. 2020, equation 1).

    key: of the reference shrunk and enlarged (K), (B, widths[2], h', w'), among which is searched. fine, middle,
    coarse: its textures (V), (B, widths[k], ...) of size 4h' x 4w', 2h' x 2w' and h' x w'.
    """

    key: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor


class SoftAttention(nn.Module):
    """F + conv(cat(F, T)) * S: features take of a texture as much as it is alike (Yang et al. 2020, equation 5)."""

    def __init__(self, channels: int, width: int, size: int) -> None:
        """Make the convolution, with PyTorch's own random weights; width: channels of the texture at `size`."""
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(channels + width, channels, 3, padding=1)

    def forward(self, features: Tensor, textures: Textures | None) -> Tensor:
        """Return features (B, channels, size h, size w) with the textures; without, as they are."""
        if textures is None:
            return features
        texture, soft = textures.at(self.size)
        change = self.conv(torch.cat([features, texture], dim=1))
        result: Tensor = features + change * soft.to(change.dtype)  # S has float32's digits in half precision too
        return result


class TTSR(nn.Module):
    """Enlarge an RGB picture four times with the textures of a reference picture (Yang et al. 2020).

    channels: of the features. blocks: residual blocks of the first stage, and of each size where there are one, two and
    three sizes. widths: channels of the textures at 4, 2 and 1 times the small size. residual_scale: what each block's
    change is multiplied by. added: the result is added to `lr_up`, so that only what bicubic misses is learned; the
    paper's network makes the whole picture, clamped to [0, 1]. floor: S of it or less counts as none, and what is above
    is stretched: max(0, (S - floor) / (1 - floor)); the paper has none, 0 leaves S as it is. radius: how many small
    pixels away a result still looks where there is no reference. Raises TypeError or ValueError naming the argument.
    """

    scale = SCALE

    def __init__(
        self,
        channels: int = 64,
        blocks: Sequence[int] = (16, 16, 8, 4),
        widths: Sequence[int] = (64, 128, 256),
        residual_scale: float = 1.0,
        added: bool = False,
        floor: float = 0.0,
    ) -> None:
        """Make the layers, with PyTorch's own random weights."""
        super().__init__()
        self.channels, self.widths = check_length("channels", channels), check_widths(widths)
        self.blocks = tuple(check_length("blocks", count) for count in blocks)
        if len(self.blocks) != 4:
            raise ValueError(f"blocks must be four numbers (first stage; one, two, three sizes), got {self.blocks}")
        if not 0 < residual_scale < float("inf"):
            raise ValueError(f"residual_scale must be a positive number, 1 in the paper, got {residual_scale!r}")
        self.residual_scale, self.added, self.floor = residual_scale, added, check_floor(floor)
        fine, middle, coarse = self.widths
        first, one, two, three = self.blocks
        self.radius = 2 * sum(self.blocks) + 11  # the longest way is that of the small maps, and back by bicubic

        self.extractor = TextureExtractor(widths)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.first = ResidualStage(channels, first, residual_scale)
        self.attention1 = SoftAttention(channels, coarse, size=1)
        self.stage1 = ResidualStage(channels, one, residual_scale)
        self.to_x2 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.attention2 = SoftAttention(channels, middle, size=2)
        self.stage2 = CrossScaleStage(channels, (1, 2), two, residual_scale)
        self.to_x4 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.attention4 = SoftAttention(channels, fine, size=4)
        self.stage4 = CrossScaleStage(channels, (1, 2, 4), three, residual_scale)
        self.tail = MergeTail(channels)

    def forward(
        self,
        lr: Tensor,
        lr_up: Tensor | None = None,
        ref: Tensor | None = None,
        ref_down_up: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, 4h, 4w), in the dtype of `lr`, under autocast too.

        lr_up: (..., 3, 4h, 4w), `lr` enlarged; None: `bicubic_up` makes it. ref: a reference for each picture, (..., 3,
        H, W), of any size from 4 x 4 on; what is over a multiple of 4 is cut off below and on the right. None: no
        textures. ref_down_up: (..., 3, H, W), `ref` shrunk and enlarged again; None: `down_up` makes it. strength: what
        S is multiplied by, one number in [0, 1] or (B,), one for each picture of the batch; 0 is as no reference.
        Raises TypeError or ValueError naming the argument.
        """
        small = as_batch("lr", lr)
        check_strength(strength, len(small))
        lr_up = None if lr_up is None else _fitting("lr_up", lr_up, small, SCALE)
        if ref is None and ref_down_up is not None:
            raise ValueError("ref must be given where ref_down_up is, which is made of it; got None")
        found = None
        if ref is not None:
            lr_up = bicubic_up(small) if lr_up is None else lr_up
            found = self.textures(lr_up, ref, ref_down_up)
        large = self.enlarge(small, lr_up, found, strength)
        return large.reshape(*lr.shape[:-3], *large.shape[-3:])

    def textures(self, lr_up: Tensor, ref: Tensor, ref_down_up: Tensor | None = None) -> Textures:
        """Return what a reference offers, as `enlarge` takes it (Yang et al. 2020, equations 1-4).

        Arguments as in `forward`, one batch or one picture each. Raises TypeError or ValueError naming the argument.
        """
        large, value = _enlarged(lr_up), as_batch("ref", ref)
        if len(value) != len(large):
            raise ValueError(f"ref must be one picture for each small one, {len(large)}; got {tuple(ref.shape)}")
        return self.find(large, self.offer(value, ref_down_up))

    def offer(self, ref: Tensor, ref_down_up: Tensor | None = None) -> Offer:
        """Return what `find` looks through; for many pictures with one reference it needs to be made only once.

        Arguments as in `forward`. Raises TypeError or ValueError naming the argument.
        """
        value = as_batch("ref", ref)
        if min(value.shape[-2:]) < SCALE:
            raise ValueError(f"ref must have at least {SCALE} x {SCALE} pixels, got {tuple(ref.shape)}")
        if ref_down_up is not None:
            ref_down_up = _whole(_fitting("ref_down_up", ref_down_up, value))
        value = _whole(value)
        key = self.extractor(down_up(value) if ref_down_up is None else ref_down_up)[-1]
        return Offer(key, *self.extractor(value))

    def find(self, lr_up: Tensor, offer: Offer) -> Textures:
        """Return the most alike textures for each small pixel; lr_up as in `forward`, as many as the offer is for.

        Raises TypeError or ValueError naming the argument.
        """
        index, soft = search(self.extractor(_enlarged(lr_up))[-1], offer.key)
        levels = ((offer.fine, 4), (offer.middle, 2), (offer.coarse, 1))
        return Textures(index, soft, *(transfer(maps, index, step) for maps, step in levels))

    def enlarge(
        self,
        lr: Tensor,
        lr_up: Tensor | None = None,
        textures: Textures | None = None,
        strength: float | Tensor = 1.0,
    ) -> Tensor:
        """Return (B, 3, 4h, 4w) of lr (B, 3, h, w) with what `textures` found, or without; arguments as in `forward`.

        Raises TypeError or ValueError naming the argument.
        """
        small = as_batch("lr", lr)
        weight = check_strength(strength, len(small))
        if textures is not None:
            if textures.soft.shape != (len(small), 1, *small.shape[-2:]):
                found = tuple(textures.soft.shape)
                raise ValueError(f"textures must be those of pictures like lr, {tuple(small.shape)}; got soft {found}")
            weight = weight.to(textures.soft) if isinstance(weight, Tensor) else weight
            textures = replace(textures, soft=self.trusted(textures.soft) * weight)
        # the network's range is [-1, 1]
        large: Tensor = self.tail(*self.features(2 * small - 1, textures)).to(lr.dtype) / 2
        if not self.added:
            return (large + 0.5).clamp(0, 1)
        return large + (bicubic_up(small) if lr_up is None else _fitting("lr_up", lr_up, small, SCALE))

    def trusted(self, soft: Tensor) -> Tensor:
        """Return how much of a texture is taken at each relevance, of S in [-1, 1] and any shape; see `floor`."""
        return ((soft - self.floor) / (1 - self.floor)).clamp(min=0) if self.floor else soft

    def features(self, x: Tensor, textures: Textures | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return features at 1, 2 and 4 times the size of x (B, 3, h, w) in [-1, 1]: (B, channels, ...) each.

        The columns of figure 4 of the paper, from left to right.
        """
        x = self.head(channels_together(x)).relu_()
        x1 = self.stage1(self.attention1(self.first(x), textures))

        x2 = F.pixel_shuffle(self.to_x2(x1), 2).relu_()
        x1, x2 = self.stage2(x1, self.attention2(x2, textures))

        x4 = F.pixel_shuffle(self.to_x4(x2), 2).relu_()
        x1, x2, x4 = self.stage4(x1, x2, self.attention4(x4, textures))
        return x1, x2, x4


def bicubic_up(pictures: Tensor) -> Tensor:
    """Return pictures (..., 3, h, w) enlarged four times: bicubic (a = -1/2, symmetric border), in 8 bits."""
    return eight_bit(bicubic(pictures, SCALE))


def down_up(pictures: Tensor) -> Tensor:
    """Return pictures (..., 3, H, W) shrunk four times (antialiased) and enlarged again: as blurred as `bicubic_up`.

    Both are bicubic (a = -1/2, symmetric border), in 8 bits. The sides are multiples of 4.
    """
    small = resize(pictures, scale=Fraction(1, SCALE), method="bicubic", border="symmetric")
    return bicubic_up(eight_bit(small))


def check_floor(floor: float) -> float:
    """Return the relevance that counts as none, if it is one. Raises ValueError."""
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be in [0, 1), the relevance that counts as none, got {floor!r}")
    return floor


def check_strength(strength: float | Tensor, batch: int) -> float | Tensor:
    """Return what S (B, 1, h, w) is multiplied by. Raises TypeError or ValueError for another shape or range."""
    given: Any = strength
    if isinstance(given, Tensor):
        if given.dim() and given.shape != (batch,):
            raise ValueError(
                f"strength must be one number or ({batch},), one for each picture; got {tuple(given.shape)}"
            )
        inside = bool(((given >= 0) & (given <= 1)).all())
    elif isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"strength must be a number or a torch.Tensor, got {given!r}")
    else:
        inside = 0 <= given <= 1
    if not inside:
        raise ValueError(f"strength must be in [0, 1], from no reference to all of it; got {given}")
    return given.view(-1, 1, 1, 1) if isinstance(given, Tensor) else given


def _fitting(name: str, pictures: Tensor, like: Tensor, factor: int = 1) -> Tensor:
    """Return pictures as a batch that has the shape of another, `factor` times as large."""
    batch = as_batch(name, pictures)
    expected = (*like.shape[:2], *(factor * n for n in like.shape[-2:]))
    if batch.shape != expected:
        raise ValueError(f"{name} must be {expected}, got {tuple(batch.shape)}")
    return batch


def _enlarged(lr_up: Tensor) -> Tensor:
    batch = as_batch("lr_up", lr_up)
    if any(n % SCALE for n in batch.shape[-2:]):
        raise ValueError(f"lr_up must have sides that are multiples of {SCALE}, got {tuple(lr_up.shape)}")
    return batch


def _whole(pictures: Tensor) -> Tensor:
    height, width = (n - n % SCALE for n in pictures.shape[-2:])
    return pictures[..., :height, :width]
