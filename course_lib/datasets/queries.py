"""Small pictures and single pixels of the large ones they came from: what networks for every scale are trained on."""

import math
from bisect import bisect_right
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from course_lib.datasets.counter import check_whole, random_bits
from course_lib.datasets.pairs import Origin, licensed, pictures_of, resolve
from course_lib.datasets.resampling import resampled
from course_lib.datasets.tensors import to_uint8
from course_lib.upsampling.grids import check_choice

_STREAM = 2
_DRAWS = 5  # random numbers of a sample before those of its queries


class AnyScalePairs:
    """Small patches shrunk by any factor, with places in them and the colours that belong there (LIIF, section 4).

    patch: side p of the small patch in pixels. queries: how many places Q of a patch are asked for, at most the pixels
    of the smallest large patch. scales: (least, most) factor, both >= 1, at most 16. source: as in `SRPairs`.

    A sample draws a factor s, evenly between the two, a crop of round(p s) x round(p s) pixels, and one of the 8
    symmetries of the square. The crop is shrunk to p x p as `super_resolution.metrics.pair` shrinks a picture: bicubic
    with a = -1/2, antialiased, symmetric border, rounded to 8 bits. The crop's pixels, row by row, are cut into Q
    stretches, and one pixel of each is a query: none comes twice, and each has the same chance. Pictures are kept in
    memory as uint8 (185 MB for BSDS500); those smaller than the largest crop are left out.

    Attributes: the arguments (source: the one used), `names` of the pictures, `description` for a card. Raises
    TypeError or ValueError for arguments as above, DataMissing when source="BSDS500" is not there. Chen et al. 2021.
    """

    def __init__(
        self,
        patch: int,
        queries: int,
        scales: tuple[float, float] = (1, 4),
        source: Origin = "auto",
        seed: int = 0,
    ) -> None:
        """Read all pictures, which takes some seconds."""
        check_whole("patch", patch, least=1)
        check_whole("queries", queries, least=1)
        check_whole("seed", seed)
        check_choice("source", source, Origin)
        self.scales = _check_scales(scales)
        self.patch, self.queries, self.seed = int(patch), int(queries), int(seed)
        self.source = resolve(source)
        least, most = (_side(self.patch, scale) for scale in self.scales)
        if self.queries > least**2:
            raise ValueError(f"queries must be at most the {least} x {least} pixels of a patch, got {queries}")
        self.names: list[str] = []
        self._pictures: list[npt.NDArray[np.uint8]] = []
        longest = 0
        for name, picture in pictures_of(self.source):
            longest = max(longest, min(picture.shape[-2:]))
            if min(picture.shape[-2:]) >= most:
                self.names.append(name)
                eight_bit = to_uint8(picture.expand(3, -1, -1))
                self._pictures.append(np.ascontiguousarray(eight_bit.transpose(2, 0, 1)))
        if not self.names:
            raise ValueError(
                f"patch must be at most {math.floor(longest / self.scales[1])} at scales up to {self.scales[1]:g}, for "
                f"the largest picture of {self.source} to hold it; got {patch}"
            )
        self._areas = list(accumulate(picture.shape[1] * picture.shape[2] for picture in self._pictures))

    @property
    def description(self) -> str:
        """What the samples are made of, in words for a card."""
        what, licence = licensed(self.source, self.names)
        p, (least, most) = self.patch, self.scales
        return (
            f"{len(self.names)} pictures of {what}; rgb; crops shrunk by {least:g} to {most:g}, bicubic, antialiased, "
            f"symmetric border, rounded to 8 bits, to patches of {p} x {p} with {self.queries} places each, 8 "
            f"symmetries. Licence: {licence}."
        )

    def sample(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (patch, coordinates, cells, colours): a pure function of (seed, index), all float32.

        patch (3, p, p) and colours (Q, 3) are in [0, 1] and in whole 255ths. coordinates and cells (Q, 2), as (y, x):
        the patch is [-1, 1] x [-1, 1], so that pixel i of n has its centre at -1 + (2 i + 1) / n and the size 2 / n. A
        picture is chosen with a probability proportional to its area. Raises as `check_whole` does for an index that is
        not a whole number >= 0.
        """
        bits = random_bits(self.seed, index, _DRAWS + 1 + self.queries, _STREAM)
        which, size, down, right, turn = (int(one) for one in bits[:_DRAWS])
        picture = self._pictures[bisect_right(self._areas, which * self._areas[-1] >> 64)]
        least, most = self.scales
        n = _side(self.patch, least + (most - least) * (size / 2**64))
        top, left = (draw * (have - n + 1) >> 64 for draw, have in zip((down, right), picture.shape[1:], strict=True))
        crop = picture[:, top : top + n, left : left + n]
        flip_rows, flip_columns, swap = turn >> 63 & 1, turn >> 62 & 1, turn >> 61 & 1

        places = np.divmod(_spread(bits[_DRAWS:], n * n), n)
        colours = crop[:, places[0], places[1]].T.astype(np.float32) / np.float32(255)
        y, x = ((2 * place + 1) / n - 1 for place in places)
        y, x = -y if flip_rows else y, -x if flip_columns else x
        coordinates = np.stack((x, y) if swap else (y, x), axis=1).astype(np.float32)

        small = resampled(crop, (self.patch, self.patch)) / np.float32(255)
        small = small[:, :: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        lr = np.ascontiguousarray(small.swapaxes(1, 2) if swap else small)
        cells = torch.full((self.queries, 2), 2 / n)
        return torch.from_numpy(lr), torch.from_numpy(coordinates), cells, torch.from_numpy(colours)


def _check_scales(scales: Any) -> tuple[float, float]:
    if not isinstance(scales, tuple | list) or len(scales) != 2:
        raise ValueError(f"scales must be (least, most), got {scales!r}")
    for scale in scales:
        if isinstance(scale, bool) or not isinstance(scale, Real):
            raise TypeError(f"scales must be two numbers, got {scales!r}")
    if not 1 <= scales[0] <= scales[1] <= 16:
        raise ValueError(f"scales must be (least, most) with 1 <= least <= most <= 16, got {scales!r}")
    return float(scales[0]), float(scales[1])


def _side(patch: int, scale: float) -> int:
    return math.floor(patch * scale + 0.5)


def _spread(bits: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """Return len(bits) - 1 different numbers below `count`, one of each of as many stretches of a row of `count`.

    The row is a ring and the first random number says where it begins: without that, pixels of shorter stretches would
    be drawn more often.
    """
    stretches = len(bits) - 1
    ends = np.arange(stretches + 1) * count // stretches
    # 32 random bits are enough for stretches of less than a thousand pixels
    within = (bits[1:] >> np.uint64(32)) * np.diff(ends).astype(np.uint64) >> np.uint64(32)
    begin = int(bits[0]) * count >> 64
    return (ends[:-1] + within.astype(np.int64) + begin) % count
