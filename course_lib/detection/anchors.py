"""Anchors (SSD's default boxes): where a network looks, on maps of several sizes (chapter 13).

A map of h x w places lays h x w centres over the picture, and around each of them the boxes of its `Level`. Sizes and
steps are in pixels of the network's picture; results are cxcywh, normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from course_lib.detection.boxes import check_size, clip, to_cxcywh, to_xyxy
from course_lib.upsampling.grids import check_length

Map = tuple[int, int]


@dataclass(frozen=True)
class Level:
    """The boxes around each place of one map, and how far apart its places are.

    A square of side `small`; with `large`, a square of side sqrt(small large); for every ratio r a box of width
    small sqrt(r) and height small / sqrt(r), then the same lying the other way (1 / r). That is their order.
    small, large, step: pixels. `step`: between centres, one number or (vertical, horizontal); None: picture / map, so
    that the centres fill the picture evenly. `offset`: the first centre, in steps. Raises ValueError for sizes, ratios
    or steps that are not above 0.
    """

    small: float
    large: float | None
    ratios: tuple[float, ...]
    step: tuple[float, float] | float | None = None
    offset: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what makes no box."""
        sides = {"small": (self.small,), "large": (self.large,), "ratios": self.ratios, "step": self._steps((1, 1))}
        for name, values in sides.items():
            if not all(value is None or 0 < value < math.inf for value in values):
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)!r}")

    def _steps(self, even: tuple[float, float]) -> tuple[float, float]:
        if self.step is None:
            return even
        return self.step if isinstance(self.step, tuple) else (self.step, self.step)

    @property
    def boxes(self) -> int:
        """How many boxes are around each place."""
        return 1 + (self.large is not None) + 2 * len(self.ratios)

    def sizes(self) -> list[tuple[float, float]]:
        """Return (width, height) of each box in pixels, in their order."""
        squares = [self.small] + ([] if self.large is None else [math.sqrt(self.small * self.large)])
        both = [ratio for given in self.ratios for ratio in (given, 1 / given)]
        return [(side, side) for side in squares] + [
            (self.small * math.sqrt(ratio), self.small / math.sqrt(ratio)) for ratio in both
        ]

    def centres(self, size: Map, picture: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """Return the centres' y (h,) and x (w,) in pixels, float64, for a map of `size` over a `picture` (H, W)."""
        steps = self._steps((picture[0] / size[0], picture[1] / size[1]))
        y, x = (
            (torch.arange(n, dtype=torch.float64) + self.offset) * step for n, step in zip(size, steps, strict=True)
        )
        return y, x


def anchors(
    maps: Sequence[Map],
    levels: Sequence[Level],
    picture: tuple[int, int],
    clip: bool | Literal["centre_size"] = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the anchors of all maps, cxcywh normalised (P, 4); order: level, row, column, box (Liu et al. 2016, 2.2).

    maps: (rows, columns) of each map, one `Level` for each. picture: (H, W) in pixels; x and widths are divided by W, y
    and heights by H, so that a square of pixels stays one on a rectangular picture. `clip`: True cuts the boxes at the
    picture's border (those wholly outside get no area); "centre_size" clamps the four numbers (cx, cy, w, h) to [0, 1]
    as ssd.pytorch does, which makes no box end at the border. Computed in float64. Raises TypeError or ValueError for
    other numbers of maps and levels, for sizes below 1, and for an unknown `clip`.
    """
    check_size("picture", picture)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point one, got {dtype}")
    if len(maps) != len(levels) or not levels:
        raise ValueError(f"maps and levels must be as many, at least one; got {len(maps)} and {len(levels)}")
    if clip not in (False, True, "centre_size"):
        raise ValueError(f"clip must be False, True or 'centre_size', got {clip!r}")
    rows = torch.cat([_of_level(size, level, picture) for size, level in zip(maps, levels, strict=True)])
    if clip:
        rows = rows.clamp(0, 1) if clip == "centre_size" else _cut(rows)
    return rows.to(device=device, dtype=dtype)


def _cut(rows: Tensor) -> Tensor:
    return to_cxcywh(clip(to_xyxy(rows)))


def _of_level(size: Map, level: Level, picture: tuple[int, int]) -> Tensor:
    """Return the (h w boxes, 4) anchors of one map, float64."""
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ValueError(f"each size of maps must be (rows, columns), got {size!r}")
    h, w = (check_length("each size of maps", n) for n in size)
    y, x = level.centres((h, w), picture)
    grid = torch.empty(h, w, level.boxes, 4, dtype=torch.float64)
    grid[..., 0] = x[None, :, None] / picture[1]
    grid[..., 1] = y[:, None, None] / picture[0]
    grid[..., 2:] = torch.tensor(level.sizes(), dtype=torch.float64) / torch.tensor(picture[::-1])
    return grid.flatten(0, 2)


def ssd_levels(
    picture: int,
    low: int,
    high: int,
    first: int,
    ratios: Sequence[tuple[float, ...]],
    steps: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
) -> tuple[Level, ...]:
    """Return the levels of a square picture by SSD's rule of scales, as its code computes them.

    Percent of the picture's side: the first map has `first`; the other m - 1, one for each further entry of `ratios`,
    have low, low + s, low + 2 s, ... with the WHOLE number s = floor((high - low) / (m - 2)), where the paper divides
    exactly (Liu et al. 2016, equation 4, of which its m is our m - 1). So SSD300 has 20, 37, 54, 71, 88 %, not 20 to
    90. `large` of a map is `small` of the next, and one step more for the last. Sizes are cut to whole pixels, as
    Caffe's layer keeps them in whole numbers: 32.1 becomes 32. `steps` and `offsets`: of each level. Raises ValueError
    for fewer than 3 levels, other numbers of steps, or low > high.
    """
    many = len(ratios)
    if many < 3 or any(len(given) != many for given in (steps, offsets) if given is not None):
        raise ValueError(f"ratios must have 3 entries or more, and steps and offsets as many; got {many}")
    if not 0 < first <= low < high:
        raise ValueError(f"first, low and high must be rising and above 0, got {first}, {low} and {high}")
    gap = (high - low) // (many - 2)
    percent = [first, *(low + k * gap for k in range(many))]
    side = [picture * p // 100 for p in percent]
    levels = [Level(side[k], side[k + 1], tuple(ratios[k])) for k in range(many)]
    if steps is not None:
        levels = [replace(level, step=step) for level, step in zip(levels, steps, strict=True)]
    if offsets is not None:
        levels = [replace(level, offset=offset) for level, offset in zip(levels, offsets, strict=True)]
    return tuple(levels)


_FEW, _MORE, _OF_DSSD = (2.0,), (2.0, 3.0), (1.6, 2.0, 3.0)
_RATIOS_300 = (_FEW, _MORE, _MORE, _MORE, _FEW, _FEW)
_RATIOS_512 = (_FEW, _MORE, _MORE, _MORE, _MORE, _FEW, _FEW)
_STEPS_300, _STEPS_512 = (8, 16, 32, 64, 100, 300), (8, 16, 32, 64, 128, 256, 512)

SSD300_VOC = ssd_levels(300, low=20, high=90, first=10, ratios=_RATIOS_300, steps=_STEPS_300)
SSD300_COCO = ssd_levels(300, low=15, high=90, first=7, ratios=_RATIOS_300, steps=_STEPS_300)
SSD512_VOC = ssd_levels(512, low=15, high=90, first=7, ratios=_RATIOS_512, steps=_STEPS_512)
SSD512_COCO = ssd_levels(512, low=10, high=90, first=4, ratios=_RATIOS_512, steps=_STEPS_512)
# the same boxes, but the last map is 2 x 2: two steps of 300 pixels put three of its four centres outside
DSOD300 = SSD300_VOC
# the official script: as few boxes on the fourth map as on the first, and evenly spaced centres
FSSD300 = ssd_levels(300, low=20, high=90, first=10, ratios=(_FEW, _MORE, _MORE, _FEW, _FEW, _FEW))
# the authors' PyTorch code: six boxes on the first map too
FSSD300_PORT = ssd_levels(300, 20, 90, 10, (_MORE, _MORE, _MORE, _MORE, _FEW, _FEW), _STEPS_300)
DSSD321 = ssd_levels(321, low=20, high=95, first=10, ratios=(_OF_DSSD,) * 6)
# the released script means `starts` as pixels, but its layer counts offsets in steps: from the third map on, the first
# centre lies 336 pixels and more from the corner of a picture of 321
DSSD321_OFFICIAL = ssd_levels(
    321, 20, 95, 10, (_OF_DSSD,) * 6, (8, 16, 32, 64, 64, 321), (2.5, 2.5, 10.5, 26.5, 90.5, 160.5)
)
# sizes of the script for COCO; centres evenly spaced, as in DSSD321
DSSD513 = ssd_levels(513, low=10, high=95, first=4, ratios=(_OF_DSSD,) * 7)
RSSD300 = SSD300_VOC
# one classifier for all maps needs as many boxes on each
RSSD300_SHARED = ssd_levels(300, low=20, high=90, first=10, ratios=(_MORE,) * 6, steps=_STEPS_300)

_MAPS_300: tuple[Map, ...] = ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1))
_MAPS_512: tuple[Map, ...] = tuple((n, n) for n in (64, 32, 16, 8, 4, 2, 1))
_MAPS_321: tuple[Map, ...] = ((40, 40), (20, 20), *_MAPS_300[2:])

MAPS: dict[str, tuple[Map, ...]] = {
    **dict.fromkeys(("SSD300_VOC", "SSD300_COCO", "FSSD300", "FSSD300_PORT", "RSSD300", "RSSD300_SHARED"), _MAPS_300),
    "DSOD300": (*_MAPS_300[:-1], (2, 2)),
    **dict.fromkeys(("SSD512_VOC", "SSD512_COCO", "DSSD513"), _MAPS_512),
    **dict.fromkeys(("DSSD321", "DSSD321_OFFICIAL"), _MAPS_321),
}
"""The maps' sizes for each table above, at the size of picture that its name says."""
