"""`course upscale`: check everything first, then write the enlarged picture strip by strip."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.errors import Refused, check_target
from course_lib.cli.strips import Strips
from course_lib.cli.writers import FORMATS, Format
from course_lib.datasets import Samples, read_samples
from course_lib.files import atomic_write
from course_lib.upsampling import output_size
from course_lib.upsampling.taps import Method

LONGEST_SIDE = 500_000
"""Pixels along one side of a result; beyond it the tables of weights would not fit in memory."""

_Item = TypeVar("_Item")


def upscale(
    image: Path,
    out: Path,
    scale: Fraction | None,
    size: tuple[int, int] | None,
    method: Method,
    antialias: bool,
    force: bool,
    device: str,
) -> tuple[int, int]:
    """Write `image` enlarged to `out` and return the result's (height, width).

    Exactly one of scale and size (height, width). Raises UnreadablePicture, CannotWrite or Refused before `out` is
    touched.
    """
    check_device(device)
    check_target(out, force)
    kind = FORMATS[out.suffix.lower()]
    samples = read_samples(image)
    height, width, channels = samples.values.shape
    goal = size or (output_size(height, scale or 1), output_size(width, scale or 1))
    _check_format(samples, goal, kind, out)
    _check_disk(goal[0] * goal[1] * channels * samples.values.itemsize, kind, out)
    strips = Strips(samples, goal, scale, method, antialias, device)
    with (
        atomic_write(out) as stream,
        tqdm(total=goal[0], unit=" rows", desc=f"{width} x {height} -> {goal[1]} x {goal[0]}") as bar,
    ):
        kind.write(stream, _counted(strips, bar), strips.shape, samples.values.dtype, samples.profile)
    return goal


def _counted(strips: Strips, bar: tqdm) -> Iterator[npt.NDArray[Any]]:
    for strip in _ahead(iter(strips)):
        yield strip
        bar.update(len(strip))


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
        raise Refused(f"the picture has 16 bits a sample and {kind.name} holds 8; use .png or .tif for --out")
    if samples.alpha and not (kind.alpha if samples.values.shape[2] == 4 else kind.grey_alpha):
        raise Refused(f"the picture has transparency, which {kind.name} would lose here; use .png or .tif for --out")


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
