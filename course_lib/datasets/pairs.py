"""Pairs of a small picture and the large one it came from: what super-resolution is trained on."""

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from course_lib.colour import luminance
from course_lib.datasets import sets
from course_lib.datasets.counter import check_whole, random_bits
from course_lib.datasets.photographs import PHOTOGRAPHS, photograph
from course_lib.datasets.tensors import from_uint8, to_uint8
from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_choice

Channels = Literal["luminance", "rgb"]
Origin = Literal["auto", "BSDS500", "photographs"]

_NOT_EVERYDAY = ("cell", "hubble_deep_field", "retina")  # large and smooth: they would be most of every batch
_STREAM = 1


class SRPairs:
    """Aligned patches of pictures and of the same pictures shrunk, by the protocol that published numbers use.

    scale: whole number >= 2. patch: side of the small patch in pixels; the large one is scale * patch.
    channels: "luminance" (BT.601, rounded to whole 255ths before shrinking) or "rgb" (grey pictures become three equal
    channels). source: "BSDS500" (the 399 training pictures of its train and test parts; its val part is the benchmark
    B100, and train/302003 shows a picture of Set5, so neither is among them), "photographs" (free ones that come with
    scikit-image) or "auto" (BSDS500 where it is on this machine, else photographs).

    Each whole picture is cut to a multiple of the scale and shrunk once as `super_resolution.metrics.benchmark` does:
    bicubic with a = -1/2, antialiased, symmetric border, not rounded; with `rounded` to 8 bits, as a file would hold it
    and `super_resolution.metrics.pair` makes it. Pictures are kept in memory, the large ones as uint8, the small ones
    as float32: for BSDS500 at scale 2, 3, 4: 123, 89, 77 MB of luminance, three times that of RGB. Pictures smaller
    than a patch are left out.

    Attributes: the arguments (source: the one used), `names` of the pictures, `description` for a card (what, how many,
    licence). Raises TypeError or ValueError for arguments as above, DataMissing when source="BSDS500" is not there.
    """

    def __init__(
        self,
        scale: int,
        patch: int,
        channels: Channels = "luminance",
        source: Origin = "auto",
        seed: int = 0,
        rounded: bool = False,
    ) -> None:
        """Read and shrink all pictures, which takes some seconds."""
        check_whole("scale", scale, least=2)
        check_whole("patch", patch, least=1)
        check_whole("seed", seed)
        check_choice("channels", channels, Channels)
        check_choice("source", source, Origin)
        self.scale, self.patch, self.seed = int(scale), int(patch), int(seed)
        self.channels, self.source, self.rounded = channels, resolve(source), rounded
        self.names: list[str] = []
        self._large: list[npt.NDArray[np.uint8]] = []
        self._small: list[npt.NDArray[np.float32]] = []
        longest = 0
        for name, picture in pictures_of(self.source):
            longest = max(longest, min(picture.shape[-2:]) // self.scale)
            if min(picture.shape[-2:]) >= self.scale * self.patch:
                large, small = shrink(picture, self.scale, channels, rounded)
                self.names.append(name)
                self._large.append(large)
                self._small.append(small)
        if not self.names:
            raise ValueError(
                f"patch must be at most {longest} at scale {self.scale}, for the largest picture of {self.source} to "
                f"hold {self.scale} times as much; got {patch}"
            )
        self._areas = list(accumulate(small.shape[-2] * small.shape[-1] for small in self._small))

    @property
    def description(self) -> str:
        """What the pairs are made of, in words for a card: the pictures, their number, their treatment, their
        licence.
        """
        what, licence = licensed(self.source, self.names)
        small, large = self.patch, self.scale * self.patch
        return (
            f"{len(self.names)} pictures of {what}; {self.channels}; shrunk by {self.scale}, bicubic, antialiased, "
            f"symmetric border, {'rounded to 8 bits' if self.rounded else 'not rounded'}; patches of {small} x {small} "
            f"and {large} x {large}, 8 symmetries. Licence: {licence}."
        )

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a pair (C, patch, patch) and (C, scale * patch, scale * patch), float32, C = 1 or 3: a pure function
        of (seed, index).

        The large patch is in [0, 1] and in whole 255ths; the small one may overshoot by a few hundredths unless it is
        rounded. A picture is chosen with a probability proportional to its area, then a place on the grid of small
        pixels, then one of the 8 symmetries of the square. Raises as `check_whole` does for an index that is not a
        whole number >= 0.
        """
        which, down, right, turn = (int(bits) for bits in random_bits(self.seed, index, 4, _STREAM))
        chosen = bisect_right(self._areas, which * self._areas[-1] >> 64)
        small, large = self._small[chosen], self._large[chosen]
        top = down * (small.shape[-2] - self.patch + 1) >> 64
        left = right * (small.shape[-1] - self.patch + 1) >> 64
        lr = turned(_window(small, top, left, self.patch), turn >> 61)
        hr = turned(_window(large, self.scale * top, self.scale * left, self.scale * self.patch), turn >> 61)
        return torch.from_numpy(lr), torch.from_numpy(hr.astype(np.float32)).div_(255)


def shrink(
    picture: Tensor, scale: int, channels: Channels = "luminance", rounded: bool = False
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return (large uint8 (C, H, W), small float32 (C, H / scale, W / scale) in [0, 1]) of a picture.

    picture: (3 or 1, H, W) in whole 255ths; it is cut to a multiple of the scale. C = 1 for "luminance", 3 for "rgb".
    rounded: the small one is made of whole 255ths. Raises ValueError for other channels.
    """
    check_choice("channels", channels, Channels)
    height, width = (n - n % scale for n in picture.shape[-2:])
    cut = picture[:, :height, :width].to(torch.float64)
    high = luminance(cut, rounded=True) if channels == "luminance" else cut.expand(3, -1, -1)
    low = resize(high, scale=Fraction(1, scale), method="bicubic", a=-0.5, antialias=True, border="symmetric")
    if rounded:
        low = (255 * low.clamp(0, 1) + 0.5).floor() / 255
    eight_bit = to_uint8(high)
    planes = eight_bit[None] if eight_bit.ndim == 2 else np.ascontiguousarray(eight_bit.transpose(2, 0, 1))
    return planes, low.to(torch.float32).numpy()


def licensed(source: Origin, names: list[str]) -> tuple[str, str]:
    """Return what a source is, in words, and the licence of its pictures; names: of those that are used."""
    if source == "BSDS500":
        what = "BSDS500, train and test without train/302003 (val is the benchmark B100)"
        return what, sets.registry()["BSDS500"]["licence"]
    return f"free photographs that come with scikit-image ({', '.join(names)})", "CC0 or public domain"


def resolve(source: Origin) -> Origin:
    """Return the source that "auto" stands for on this machine; others as they are."""
    if source != "auto":
        return source
    try:
        sets.find("BSDS500")
    except sets.DataMissing:
        return "photographs"
    return "BSDS500"


def pictures_of(source: Origin) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, (1 or 3, H, W) in whole 255ths) of a source's pictures. Raises DataMissing."""
    if source == "BSDS500":
        for name, array in sets.pictures("BSDS500"):
            yield name, from_uint8(array)
    else:
        for name in PHOTOGRAPHS:
            if name not in _NOT_EVERYDAY:
                yield name, photograph(name)


def _window(picture: npt.NDArray[Any], top: int, left: int, side: int) -> npt.NDArray[Any]:
    return picture[:, top : top + side, left : left + side]


def turned(patch: npt.NDArray[Any], which: int) -> npt.NDArray[Any]:
    """Return one of the 8 symmetries of the square: bit 0 flips rows, bit 1 columns, bit 2 swaps the axes."""
    patch = patch[:, :: -1 if which & 1 else 1, :: -1 if which & 2 else 1]
    return np.ascontiguousarray(patch.swapaxes(1, 2) if which & 4 else patch)
