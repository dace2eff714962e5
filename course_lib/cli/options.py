"""Options that several commands share, and how what stands behind them is read. Nothing heavy is imported."""

import enum
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

DETECTORS = ("TinyDetector", "TinySetDetector")
"""Classes of the book's own detectors, as files name them."""
CLASSIFIERS = ("TinyClassifier",)
"""Classes of its classifiers."""
SMALLEST_SCALE, LARGEST_SCALE = Fraction(1, 10**6), Fraction(10**9)


class Method(enum.StrEnum):
    """Interpolation methods."""

    nearest = "nearest"
    bilinear = "bilinear"
    bicubic = "bicubic"


def choice(among: type[enum.StrEnum]) -> dict[str, Any]:
    """Return the settings of an option that takes one of a few words; typer's own has "Value error, " before it."""

    def parse(text: str) -> enum.StrEnum:
        if text not in list(among):
            raise typer.BadParameter(f"must be one of {', '.join(among)}; got {text[:60]!r}")
        return among(text)

    return {"parser": parse, "metavar": f"[{'|'.join(among)}]"}


def whole(least: int, most: int | None = None) -> dict[str, Any]:
    """Return the settings of an option that takes a whole number in a range; typer's own does not say what came."""
    expected = f"at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: object) -> int:
        try:
            number = int(str(text))
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise typer.BadParameter(f"must be a whole number {expected}; got {str(text)[:60]!r}")
        return number

    return {"parser": parse, "metavar": "INTEGER"}


def parse_scale(text: str) -> Fraction:
    """Return a positive number written as 2, 3.7 or 37/10, exactly; anything else is a usage error."""
    try:
        # Fraction would write out 1e999999999 in full, so only what a float holds goes on
        number = float(text) if "/" not in text else 1.0
        scale = Fraction(text) if math.isfinite(number) and len(text) <= 40 else Fraction(0)
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if scale <= 0:
        raise typer.BadParameter(f"must be a positive number such as 2, 3.7 or 37/10, got {text[:60]!r}")
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise typer.BadParameter(f"must be from {float(SMALLEST_SCALE):g} to {float(LARGEST_SCALE):g}, got {text}")
    return scale


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) written as 1080x1920; anything else is a usage error."""
    found = re.fullmatch(r"0*([1-9][0-9]{0,8})[xX]0*([1-9][0-9]{0,8})", text.strip())
    if not found:
        raise typer.BadParameter(
            f"must be height x width in pixels, both at least 1, such as 1080x1920, got {text[:60]!r}"
        )
    return int(found[1]), int(found[2])


def networks() -> list[str]:
    """Return the names of the networks of the book that enlarge pictures."""
    return [name for name, kind in _shipped().items() if kind not in (*DETECTORS, *CLASSIFIERS)]


def detectors() -> list[str]:
    """Return the names of the detectors of the book."""
    return [name for name, kind in _shipped().items() if kind in DETECTORS]


def scenes() -> list[str]:
    """Return the names of the generated scenes that detectors are measured on."""
    from course_lib.training.detectors import SCENES

    return [f"scenes-{name}" for name in SCENES]


def _shipped() -> dict[str, str | None]:
    """Return the class of every network of the book by name, sorted."""
    from course_lib.files import data_dir

    # read from the files' headers, because to ask `checkpoints` would import torch
    paths = sorted((data_dir() / "checkpoints").glob("*.safetensors"), key=lambda path: path.stem)
    return {path.stem: _class(path) for path in paths}


def _class(path: Path) -> str | None:
    """Return the class that a safetensors file names; None for a damaged one, which whoever reads it will name."""
    try:
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return str(header["__metadata__"]["model"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return None


def one_of(names: Callable[[], list[str]]) -> Callable[[str], str]:
    """Return a parser of an option that takes one of the names that there are when it is asked."""

    def parse(text: str) -> str:
        if text not in (known := names()):
            raise typer.BadParameter(f"must be one of {', '.join(known)}; got {text[:60]!r}")
        return text

    return parse


def deliver(name: str, record: dict[str, Any], save: bool, out: Path | None) -> None:
    """Write a measurement where it was asked for and say where it is."""
    from course_lib import measurements

    if save:
        typer.echo(f"recorded: {measurements.write(name, **record)}")
    if out is not None:
        measurements.save(out, **record)
        typer.echo(f"written: {out}")


Save = Annotated[bool, typer.Option("--save", help="Record the result in data/measurements, where chapters read it.")]
Out = Annotated[Path | None, typer.Option(help="Write the result to this JSON file as well.")]
Force = Annotated[bool, typer.Option("--force", help="Replace --out if it is already there.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads to use; default: what PyTorch chooses.", **whole(1))]
