"""A target and another picture of the same things: what super-resolution with a reference is trained on (TTSR).

Both come from ONE photograph: the second is it seen again, moved, turned, nearer or farther, in another light. Some
references show something else, so that a network learns when not to look.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.colour import check_picture
from course_lib.datasets.counter import check_whole, random_bits
from course_lib.datasets.pairs import Origin, licensed, pictures_of, resolve, turned
from course_lib.datasets.resampling import resampled
from course_lib.datasets.tensors import to_uint8
from course_lib.upsampling.grids import border_indices, check_choice
from course_lib.upsampling.kernels import cubic

SCALE = 4
"""How many times larger the target is than the small picture; TTSR has no other."""

_STREAM = 3
_DRAWS = 18
_STILL = 0.1  # of the related references: only the light is another
_DEGREES = 15.0
_ZOOM = 1.18
_GAIN, _OFFSET, _GAMMA, _CAST = 0.2, 0.05, 0.1, 0.04  # largest changes of light, up and down

_KERNEL = cubic(-0.5)

Levels = npt.NDArray[Any]


class ReferencePairs:
    """Patches of pictures, the same shrunk by 4, and a reference for each, as TTSR takes them.

    patch: side p of the small patch in pixels; target and reference are 4 p. source: as in `SRPairs`. related: share of
    the references that show what the target shows: the same picture, at most 2 p pixels away along each axis, turned by
    at most 15 degrees, 0.85 to 1.18 times as large; one in ten of them differs in the light alone. All others are views
    of another picture. The light of each is another: gain 0.8 to 1.2, gamma 0.9 to 1.1, and a little of offset and
    colour cast.

    Attributes: the arguments (source: the one used), `names` of the pictures, `description` for a card. Pictures are
    kept in memory as uint8 (185 MB for BSDS500); those smaller than a target are left out. Raises TypeError or
    ValueError for arguments out of range, or where unrelated references are asked for and there is one picture only;
    DataMissing when source="BSDS500" is not there. Yang et al. 2020, section 3.1.
    """

    def __init__(self, patch: int = 24, source: Origin = "auto", seed: int = 0, related: float = 0.7) -> None:
        """Read all pictures, which takes some seconds."""
        check_whole("patch", patch, least=1)
        check_whole("seed", seed)
        check_choice("source", source, Origin)
        self.related = _check_number("related", related, 0, 1)
        self.patch, self.seed, self.source = int(patch), int(seed), resolve(source)
        self.names: list[str] = []
        self._pictures: list[Levels] = []
        longest = 0
        for name, picture in pictures_of(self.source):
            longest = max(longest, min(picture.shape[-2:]))
            if min(picture.shape[-2:]) >= SCALE * self.patch:
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
        small, large = self.patch, SCALE * self.patch
        return (
            f"{len(self.names)} pictures of {what}; rgb; targets of {large} x {large} shrunk by {SCALE}, bicubic, "
            f"antialiased, symmetric border, rounded to 8 bits, to {small} x {small}; references: for {self.related:g} "
            f"of the targets the same picture moved, turned, zoomed and in another light, else another picture; 8 "
            f"symmetries. Licence: {licence}."
        )

    def sample(self, index: int) -> dict[str, Tensor]:
        """Return what `inputs` returns, and "related" (1 or 0): a pure function of (seed, index), all float32.

        A picture is chosen with a probability proportional to its area. Target and reference are turned by the same one
        of the 8 symmetries of the square. Raises as `check_whole` does for an index that is not a whole number >= 0.
        """
        bits = [int(one) for one in random_bits(self.seed, index, _DRAWS, _STREAM)]
        u = [one / 2**64 for one in bits]
        which, down, right, turn, other = bits[:5]
        chosen = bisect_right(self._areas, which * self._areas[-1] >> 64)
        picture, side = self._pictures[chosen], SCALE * self.patch
        top, left = (draw * (n - side + 1) >> 64 for draw, n in zip((down, right), picture.shape[:2], strict=True))
        target = picture[top : top + side, left : left + side].transpose(2, 0, 1)
        is_related, still = u[5] < self.related, u[6] < _STILL
        if is_related:
            degrees, zoom, centre = 0.0, 1.0, _centre(top, left, (side, side))
            if not still:
                degrees, zoom = _DEGREES * (2 * u[9] - 1), _ZOOM ** (2 * u[10] - 1)
                moved = (at + 2 * self.patch * (2 * v - 1) for at, v in zip(centre, u[7:9], strict=True))
                centre = _inside(tuple(moved), picture, side, degrees, zoom)
        else:
            picture = self._pictures[self._another(chosen, other)]
            degrees, zoom = _DEGREES * (2 * u[9] - 1), _ZOOM ** (2 * u[10] - 1)
            height, width = picture.shape[:2]
            centre = _inside((u[7] * height, u[8] * width), picture, side, degrees, zoom)
        gain, offset, gamma, *cast = (2 * v - 1 for v in u[11:17])
        light = _light(1 + _GAIN * gain, _OFFSET * offset, 1 + _GAMMA * gamma, [1 + _CAST * one for one in cast])
        reference = _seen(picture, centre, (side, side), degrees, zoom, light)
        found = _inputs(turned(target, turn >> 61), turned(reference, turn >> 61))
        return found | {"related": torch.tensor(float(is_related))}

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
    down, right = _check_two("shift", shift, _check_number)
    angle, zoom = _check_number("degrees", degrees), _check_number("zoom", zoom, 0.25, 4)
    if not isinstance(cast, Sequence) or len(cast) != 3:
        raise ValueError(f"cast must be three numbers, for red, green and blue; got {cast!r}")
    light = _light(
        _check_number("gain", gain, 0),
        _check_number("offset", offset),
        _check_number("gamma", gamma, 1e-3),
        [_check_number("cast", one, 0) for one in cast],
    )
    levels = to_uint8(picture.expand(3, -1, -1))
    middle = _centre(top, left, (height, width))
    reference = _seen(levels, (middle[0] + down, middle[1] + right), (height, width), angle, zoom, light)
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


def _centre(top: float, left: float, size: tuple[int, int]) -> tuple[float, float]:
    return top + (size[0] - 1) / 2, left + (size[1] - 1) / 2


def _inside(centre: Any, picture: Levels, side: int, degrees: float, zoom: float) -> tuple[float, float]:
    """Return the place nearest to `centre` from which a square view does not look over the picture's edge."""
    angle = math.radians(degrees)
    reach = (side - 1) / 2 * (abs(math.cos(angle)) + abs(math.sin(angle))) / zoom
    down, right = (
        min(max(at, reach), n - 1 - reach) if 2 * reach < n - 1 else (n - 1) / 2
        for at, n in zip(centre, picture.shape[:2], strict=True)
    )
    return down, right


def _light(gain: float, offset: float, gamma: float, cast: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return what light makes of each level and colour: (256, 3)."""
    fractions = np.linspace(0, 1, 256)[:, None]
    return np.asarray(255 * (gain * np.array(cast) * fractions**gamma + offset), np.float32)


def _seen(
    picture: Levels,
    centre: tuple[float, float],
    size: tuple[int, int],
    degrees: float,
    zoom: float,
    light: npt.NDArray[np.float32],
) -> Levels:
    """Return a view (3, *size) of a picture (H, W, 3): whole levels 0..255, the middle of it at `centre`."""
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    down, right = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size)
    y = centre[0] + cosine * down[:, None] + sine * right
    x = centre[1] - sine * down[:, None] + cosine * right
    rows, row_weights = _taps(y.flatten(), picture.shape[0])
    columns, column_weights = _taps(x.flatten(), picture.shape[1])
    top, left = int(rows.min()), int(columns.min())
    window = picture[top : int(rows.max()) + 1, left : int(columns.max()) + 1]
    lit = light[window, np.arange(3)].reshape(-1, 3)
    places = (rows - top)[:, :, None] * window.shape[1] + (columns - left)[:, None]
    weights = row_weights[:, :, None] * column_weights[:, None]
    # a sum of 16 weighted rows of a table, each a pixel: what this function does in one pass
    made = F.embedding_bag(places.flatten(1), torch.from_numpy(lit), per_sample_weights=weights.flatten(1), mode="sum")
    levels: Levels = made.clamp_(0, 255).add_(0.5).floor_().T.reshape(3, *size).numpy()
    return levels


def _taps(places: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the 4 pixels (P, 4) of a row of n that each place reads, and their float32 weights."""
    first = places.floor()
    near = torch.arange(-1, 3, dtype=torch.int32)
    weights = _KERNEL((places - first).to(torch.float32)[:, None] - near)
    return border_indices(first.to(torch.int32)[:, None] + near, n, "symmetric"), weights


def _check_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and least <= float(value) <= most):
        limits = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}"
        raise ValueError(f"{name} must be a finite number{limits if least > -math.inf else ''}, got {value!r}")
    return float(value)


def _check_two(name: str, value: Any, check: Any) -> tuple[Any, Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, (down, right) or (height, width); got {value!r}")
    for one in value:
        check(name, one)
    return value[0], value[1]
