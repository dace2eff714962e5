"""`course upscale`: check everything first, then write the enlarged picture strip by strip."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.errors import Refused, check_target
from course_lib.cli.networks import NetworkStrips
from course_lib.cli.referenced import Referenced, notes
from course_lib.cli.strips import Strips
from course_lib.cli.writers import FORMATS, Format
from course_lib.datasets import Samples, read_samples
from course_lib.files import atomic_write
from course_lib.super_resolution.tiles import spans
from course_lib.upsampling import output_size
from course_lib.upsampling.taps import Method

LONGEST_SIDE = 500_000
"""Pixels along one side of a result; beyond it the tables of weights would not fit in memory."""

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Wish:
    """What is to be done with a picture, and how.

    scale, size (height, width): exactly one, or none for a network that has one scale. method, antialias: of the
    interpolation, where `network` is None. network: takes RGB, on the device. tile, overlap, precision: as of `Tiles`.
    """

    scale: Fraction | None = None
    size: tuple[int, int] | None = None
    method: Method = "bicubic"
    antialias: bool = True
    device: str = "cpu"
    network: nn.Module | None = None
    tile: int | None = None
    overlap: int | None = None
    precision: str = "float32"

    def goal(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the result. Raises ValueError where the network has no such scale."""
        if self.network is not None:
            down, right = spans(self.network, (height, width), self.size, self.scale)
            return down.n_out, right.n_out
        return self.size or (output_size(height, self.scale or 1), output_size(width, self.scale or 1))

    def strips(
        self, samples: Samples, done: Callable[[int], Any] | None = None, bar: bool = False
    ) -> Strips | NetworkStrips:
        """Return the rows of the result; done is called with numbers of pixels that a network has finished.

        bar: show how far the search in a reference is, which comes first.
        """
        if self.network is None:
            height, width, _ = samples.values.shape
            return Strips(samples, self.goal(height, width), self.scale, self.method, self.antialias, self.device)
        exact = PRECISIONS[self.precision]
        return NetworkStrips(self.network, samples, self.size, self.scale, self.tile, self.overlap, exact, done, bar)


def upscale(
    image: Path, out: Path, wish: Wish, force: bool = False, say: Callable[[str], Any] | None = None, bar: bool = True
) -> tuple[int, int]:
    """Write `image` enlarged to `out` and return the result's (height, width).

    say: gets notes about the result, before it is made. Raises UnreadablePicture, CannotWrite, ValueError or Refused
    before `out` is touched.
    """
    check_device(wish.device)
    check_target(out, force)
    kind = FORMATS[out.suffix.lower()]
    samples = read_samples(image)
    height, width, channels = samples.values.shape
    goal = wish.goal(height, width)
    _check_format(samples, goal, kind, out)
    _check_disk(goal[0] * goal[1] * channels * samples.values.itemsize, kind, out)
    desc = f"{width} x {height} -> {goal[1]} x {goal[0]}"
    tell = say or (lambda text: None)
    if isinstance(wish.network, Referenced):
        for note in notes(wish.network, (height, width)):
            tell(note)
    with tqdm(total=goal[0] * goal[1], unit=" pixels", unit_scale=True, desc=desc, disable=not bar) as progress:
        strips = wish.strips(samples, progress.update, bar)
        if isinstance(strips, NetworkStrips):
            for note in strips.notes:
                tell(note)
            rows = iter(strips)
        else:
            rows = _counted(strips, progress)
        with atomic_write(out) as stream:
            kind.write(stream, rows, strips.shape, samples.values.dtype, samples.profile)
    return goal


def _counted(strips: Strips, bar: tqdm) -> Iterator[npt.NDArray[Any]]:
    for strip in _ahead(iter(strips)):
        yield strip
        bar.update(strip.shape[0] * strip.shape[1])


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the items while a second thread already makes the next one: packing and resizing then overlap."""
    with ThreadPoolExecutor(1) as hand:
        coming = hand.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = hand.submit(next, items, None)
            yield item


def check_device(device: str) -> None:
    """Raise Refused unless float64 arithmetic runs on `device` ("cpu", "cuda", "cuda:1")."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = "unknown"
    if kind not in ("cpu", "cuda"):
        raise Refused(f'--device must be "cpu" or "cuda" (or "cuda:1", ...), got {device!r}')
    if kind == "cuda":
        count, index = torch.cuda.device_count(), torch.device(device).index or 0
        if index >= count:
            raise Refused(f"--device {device} is not there: PyTorch sees {count} CUDA devices; leave --device out")


def _check_format(samples: Samples, goal: tuple[int, int], kind: Format, out: Path) -> None:
    height, width = goal
    longest = min(kind.longest_side, LONGEST_SIDE)
    what = f"the result would be {width:,} x {height:,} pixels (width x height)"
    if max(goal) > longest:
        limit = f"{kind.name} holds" if longest == kind.longest_side else "this program writes"
        raise Refused(f"{what}, but {limit} at most {longest:,} along a side; choose a smaller --scale or --size")
    if kind.most_pixels and height * width > kind.most_pixels:
        raise Refused(
            f"{what}, but {kind.name} needs the whole picture in memory, and at most {kind.most_pixels:,} pixels are "
            f"allowed; .png and .tif are written in strips: --out {out.with_suffix('.png').name}"
        )
    if samples.top > 255 and not kind.deep:
        raise Refused(f"the picture has 16 bits a sample and {kind.name} holds 8; choose .png or .tif")
    if samples.alpha and not (kind.alpha if samples.values.shape[2] == 4 else kind.grey_alpha):
        raise Refused(f"the picture has transparency, which {kind.name} would lose here; choose .png or .tif")


def _check_disk(raw: int, kind: Format, out: Path) -> None:
    free = shutil.disk_usage(out.resolve().parent).free
    # packed pictures vary; only what could not fit even ten times smaller is refused beforehand
    needed = raw // 10 if kind.compressed else raw
    if needed > free:
        least = "at least about " if kind.compressed else ""
        raise Refused(
            f"the result needs {least}{needed / 1e9:,.1f} GB and {out.resolve().parent} has {free / 1e9:,.1f} GB free; "
            "choose a smaller --scale or --size, or another folder for --out"
        )
