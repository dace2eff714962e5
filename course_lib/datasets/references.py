"""A target and another picture of the same things: what super-resolution with a reference is trained on (TTSR).

Both come from ONE photograph: the second is it seen again, moved, turned, nearer or farther, in another light. Some
references show something else, so that a network learns when not to look.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from course_lib.colour import check_picture
from course_lib.datasets.counter import check_number, check_whole, random_bits
from course_lib.datasets.pairs import Origin, licensed, pictures_of, resolve, turned
from course_lib.datasets.resampling import resampled
from course_lib.datasets.tensors import to_uint8
from course_lib.datasets.views import Levels, extent, light, view
from course_lib.upsampling.grids import check_choice

SCALE = 4
"""How many times larger the target is than the small picture; TTSR has no other."""

_STREAM = 3
_STILL = 0.1  # of the related references: only the light is another
_MOVED = 0.7  # of the other views: turned; and of these and the rest: zoomed
_DEGREES, _ZOOM = 12.0, 1.15
_GAIN, _OFFSET, _GAMMA, _CAST = 0.15, 0.06, 0.05, 0.03  # largest changes of light, up and down
_CANDIDATES = 4
_DRAWS = 19 + 3 * _CANDIDATES


class ReferencePairs:
    """Patches of pictures, the same shrunk by 4, and a reference for each, as TTSR takes them.

    patch: side p of the small patch in pixels; target and reference are 4 p. source: as in `SRPairs`. related: share of
    the references that show what the target shows: the same picture, at most 2 p pixels away along each axis, most of
    them turned by up to 12 degrees and 0.87 to 1.15 times as large; one in ten differs in the light alone. Half of the
    others are views of the same picture that hold nothing of the target (of another one where there is no room), half
    of another picture: that one of four whose mean and deviation of the colours are nearest to the target's. The light
    of each is another: gain 0.85 to 1.15, offset up to 0.06, and a little of gamma and colour cast.

    Attributes: the arguments (source: the one used), `names` of the pictures, `description` for a card. Pictures are
    kept in memory as uint8 (185 MB for BSDS500); those smaller than a target are left out. Raises TypeError or
    ValueError for arguments out of range, or where unrelated references are asked for and there is one picture only;
    DataMissing when source="BSDS500" is not there. The idea of such pairs: Yang et al. 2020, section 4.1.
    """

    def __init__(self, patch: int = 24, source: Origin = "auto", seed: int = 0, related: float = 0.65) -> None:
        """Read all pictures, which takes some seconds."""
        check_whole("patch", patch, least=1)
        check_whole("seed", seed)
        check_choice("source", source, Origin)
        self.related = check_number("related", related, 0, 1)
        self.patch, self.seed, self.source = int(patch), int(seed), resolve(source)
        self.side = SCALE * self.patch
        self.names: list[str] = []
        self._pictures: list[Levels] = []
        longest = 0
        for name, picture in pictures_of(self.source):
            longest = max(longest, min(picture.shape[-2:]))
            if min(picture.shape[-2:]) >= self.side:
                self.names.append(name)
                self._pictures.append(to_uint8(picture.expand(3, -1, -1)))
        if not self.names:
            raise ValueError(
                f"patch must be at most {longest // SCALE}, for the largest picture of {self.source} to hold {SCALE} "
                f"times as much; got {patch}"
            )
        if len(self.names) == 1 and self.related < 1:
            raise ValueError(f"related must be 1 where there is one picture only ({self.names[0]}), got {related}")
        self._areas = list(accumulate(picture.shape[0] * picture.shape[1] for picture in self._pictures))

    @property
    def description(self) -> str:
        """What the samples are made of, in words for a card."""
        what, licence = licensed(self.source, self.names)
        return (
            f"{len(self.names)} pictures of {what}; rgb; targets of {self.side} x {self.side} shrunk by {SCALE}, "
            f"bicubic, antialiased, symmetric border, rounded to 8 bits, to {self.patch} x {self.patch}; references: "
            f"for {self.related:g} of the targets the same place moved, turned, zoomed and in another light, else "
            f"another place or another picture; 8 symmetries. Licence: {licence}."
        )

    def sample(self, index: int) -> dict[str, Tensor]:
        """Return what `inputs` returns, and "related" (1 or 0): a pure function of (seed, index), all float32.

        A picture is chosen with a probability proportional to its area. Target and reference are turned by the same one
        of the 8 symmetries of the square. Raises as `check_whole` does for an index that is not a whole number >= 0.
        """
        bits = [int(one) for one in random_bits(self.seed, index, _DRAWS, _STREAM)]
        u = [one / 2**64 for one in bits]
        chosen = bisect_right(self._areas, bits[0] * self._areas[-1] >> 64)
        top, left = _place(self._pictures[chosen], self.side, bits[1:3])
        is_related, still = u[4] < self.related, u[4] < self.related * _STILL
        degrees = _DEGREES * (2 * u[6] - 1) if u[5] < _MOVED and not still else 0.0
        zoom = _ZOOM ** (2 * u[8] - 1) if u[7] < _MOVED and not still else 1.0
        where = chosen, _middle(top, left, (self.side, self.side))
        if is_related and not still:
            where = chosen, self._near(where, (u[9], u[10]), degrees, zoom)
        elif not is_related:
            where = self._apart(chosen, (top, left), math.ceil(extent(self.side, degrees, zoom)), bits)
        gain, offset, gamma, *cast = (2 * one - 1 for one in u[13:19])
        lighting = light(1 + _GAIN * gain, _OFFSET * offset, 1 + _GAMMA * gamma, [1 + _CAST * one for one in cast])
        reference = view(self._pictures[where[0]], where[1], (self.side, self.side), degrees, zoom, lighting)
        target = _window(self._pictures[chosen], top, left, self.side).transpose(2, 0, 1)
        made = _inputs(turned(target, bits[3] >> 61), turned(reference, bits[3] >> 61))
        return made | {"related": torch.tensor(float(is_related))}

    def _near(
        self, where: tuple[int, tuple[float, float]], draws: tuple[float, float], degrees: float, zoom: float
    ) -> tuple[float, float]:
        """Return a place at most half a target away, from which the view does not look over the picture's edge."""
        (chosen, middle), reach = where, (extent(self.side, degrees, zoom) - 1) / 2
        moved = (at + self.side / 2 * (2 * draw - 1) for at, draw in zip(middle, draws, strict=True))
        down, right = (
            min(max(at, reach), n - 1 - reach) if 2 * reach < n - 1 else (n - 1) / 2
            for at, n in zip(moved, self._pictures[chosen].shape[:2], strict=True)
        )
        return down, right

    def _apart(
        self, chosen: int, target: tuple[int, int], box: int, bits: list[int]
    ) -> tuple[int, tuple[float, float]]:
        """Return a picture and a place in it from which a view of at most box x box sees nothing of the target."""
        size = (box, box)
        if bits[11] >> 63:
            rows, columns = (np.arange(max(0, n - box + 1)) for n in self._pictures[chosen].shape[:2])
            over = [(at > t - box) & (at < t + self.side) for at, t in zip((rows, columns), target, strict=True)]
            free = np.flatnonzero(~(over[0][:, None] & over[1]))
            if len(free):
                top, left = divmod(int(free[bits[12] * len(free) >> 64]), len(columns))
                return chosen, _middle(top, left, size)
        wanted = _statistics(_window(self._pictures[chosen], *target, self.side))
        found = []
        for k in range(_DRAWS - 3 * _CANDIDATES, _DRAWS, 3):
            other = self._another(chosen, bits[k])
            top, left = _place(self._pictures[other], box, bits[k + 1 : k + 3])
            distance = np.square(_statistics(_window(self._pictures[other], top, left, box)) - wanted).sum()
            found.append((float(distance), other, _middle(top, left, size)))
        return min(found)[1:]

    def _another(self, chosen: int, draw: int) -> int:
        """Return a picture that is not the chosen one, with a probability proportional to its area."""
        before = self._areas[chosen - 1] if chosen else 0
        own = self._areas[chosen] - before
        place = draw * (self._areas[-1] - own) >> 64
        return bisect_right(self._areas, place if place < before else place + own)


def related(
    picture: Tensor,
    size: Sequence[int],
    at: Sequence[int] | None = None,
    *,
    shift: Sequence[float] = (0, 0),
    degrees: float = 0,
    zoom: float = 1,
    gain: float = 1,
    offset: float = 0,
    gamma: float = 1,
    cast: Sequence[float] = (1, 1, 1),
) -> tuple[Tensor, Tensor]:
    """Return (target, reference), two float32 pictures (3, *size) in whole 255ths, out of ONE photograph.

    picture: (3 or 1, H, W) in [0, 1]; grey becomes three equal channels. size: (height, width) of both. at: (top, left)
    of the target; None: the middle. The reference is the photograph seen again: shift (down, right) in pixels of the
    photograph; turned counter-clockwise by `degrees` about the middle of what is seen; `zoom` times as large (0.25 to
    4); its light is gain * cast * value ** gamma + offset in [0, 1], gain and cast >= 0, gamma > 0. Between pixels the
    bicubic kernel with a = -1/2 reads; beyond the edge the photograph is mirrored. Raises TypeError or ValueError for
    arguments out of range.
    """
    check_picture("picture", picture)
    if picture.dim() != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"picture must be (3, H, W) or (1, H, W), got {tuple(picture.shape)}")
    height, width = _check_two("size", size, check_whole)
    room = [have - want for have, want in zip(picture.shape[-2:], (height, width), strict=True)]
    if min(height, width) < 1 or min(room) < 0:
        raise ValueError(
            f"size must be from 1 x 1 to {picture.shape[-2]} x {picture.shape[-1]}, got {height} x {width}"
        )
    top, left = (n // 2 for n in room) if at is None else _check_two("at", at, check_whole)
    if top > room[0] or left > room[1]:
        raise ValueError(f"at must be (top, left) of at most ({room[0]}, {room[1]}), got ({top}, {left})")
    down, right = _check_two("shift", shift, check_number)
    angle, zoom = check_number("degrees", degrees), check_number("zoom", zoom, 0.25, 4)
    if not isinstance(cast, Sequence) or len(cast) != 3:
        raise ValueError(f"cast must be three numbers, for red, green and blue; got {cast!r}")
    lighting = light(
        check_number("gain", gain, 0),
        check_number("offset", offset),
        check_number("gamma", gamma, 1e-3),
        [check_number("cast", one, 0) for one in cast],
    )
    levels = to_uint8(picture.expand(3, -1, -1))
    middle = _middle(top, left, (height, width))
    reference = view(levels, (middle[0] + down, middle[1] + right), (height, width), angle, zoom, lighting)
    target = levels[top : top + height, left : left + width].transpose(2, 0, 1)
    return _fractions(target), _fractions(reference)


def inputs(target: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return what TTSR is trained on, {"lr", "lr_up", "ref", "ref_down_up", "hr"}, all float32 (3, ., .) in whole
    255ths.

    target, reference: (3, H, W) in [0, 1], sides multiples of 4; they may have different sizes. lr is the target shrunk
    by 4 and lr_up that enlarged by 4; ref_down_up is the reference shrunk and enlarged; each bicubically (a = -1/2,
    antialiased, symmetric border) and rounded to 8 bits. Raises ValueError for other shapes. Yang et al. 2020, section
    3.1.
    """
    for name, picture in (("target", target), ("reference", reference)):
        check_picture(name, picture)
        if picture.dim() != 3 or picture.shape[0] != 3 or any(n % SCALE or n < SCALE for n in picture.shape[-2:]):
            raise ValueError(f"{name} must be (3, H, W) with multiples of {SCALE}, got {tuple(picture.shape)}")
    return _inputs(*(to_uint8(picture).transpose(2, 0, 1) for picture in (target, reference)))


def _inputs(target: Levels, reference: Levels) -> dict[str, Tensor]:
    small, other = (_resized(levels, 1, SCALE) for levels in (target, reference))
    planes = {
        "lr": small,
        "lr_up": _resized(small, SCALE, 1),
        "ref": reference,
        "ref_down_up": _resized(other, SCALE, 1),
        "hr": target,
    }
    return {name: _fractions(levels) for name, levels in planes.items()}


def _resized(levels: Levels, times: int, over: int) -> Levels:
    height, width = levels.shape[-2:]
    # float64: weights of 4 to 1 are whole 1024ths, and halves are to be rounded as exact arithmetic does
    return resampled(levels, (height * times // over, width * times // over), np.float64)


def _fractions(levels: Levels) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32)).div_(255)


def _middle(top: float, left: float, size: tuple[int, int]) -> tuple[float, float]:
    return top + (size[0] - 1) / 2, left + (size[1] - 1) / 2


def _place(picture: Levels, side: int, draws: Sequence[int]) -> tuple[int, int]:
    """Return the top left pixel of a window, each with the same chance; 0 where the picture is smaller."""
    top, left = (draw * max(1, n - side + 1) >> 64 for draw, n in zip(draws, picture.shape[:2], strict=True))
    return top, left


def _window(picture: Levels, top: int, left: int, side: int) -> Levels:
    return picture[top : top + side, left : left + side]


def _statistics(window: Levels) -> npt.NDArray[np.float64]:
    """Return mean and standard deviation of each colour: (6,), in levels."""
    pixels = window.reshape(-1, 3).astype(np.float64)
    return np.concatenate([pixels.mean(0), pixels.std(0)])


def _check_two(name: str, value: Any, check: Any) -> tuple[Any, Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, (down, right) or (height, width); got {value!r}")
    for one in value:
        check(name, one)
    return value[0], value[1]
