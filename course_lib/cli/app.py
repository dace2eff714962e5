"""The commands and their help. Heavy imports wait inside the commands, so that --help and mistakes answer at once."""

import enum
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from course_lib import __version__
from course_lib.cli import cards
from course_lib.cli import compare as comparing
from course_lib.cli import train as training
from course_lib.cli.errors import check_target, one_line_errors

_HELP = """Enlarge pictures, train and measure models, time the library, fetch data: the book's tools as commands.

\b
  course upscale cat.png --scale 3.7 --out big.png      enlarge a picture
  course data get Set5                                  download a benchmark
  course evaluate sr --model bicubic --data Set5        PSNR and SSIM beside the published row
  course bench resize                                   how fast, beside torch, Pillow, scikit-image
  course train espcn-x3                                 train a model; stop and go on at any time

Exit codes: 0 done, 1 it failed (one line "error: ..." says why), 2 the command was not understood, 130 stopped by
Ctrl-C.
"""

app = typer.Typer(
    help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)
evaluate_app = typer.Typer(help="Measure a model on a benchmark.", no_args_is_help=True, rich_markup_mode=None)
bench_app = typer.Typer(help="Time the library on this machine.", no_args_is_help=True, rich_markup_mode=None)
data_app = typer.Typer(help="List and download sets of pictures.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.command("train")(training.train)
app.command("recipes")(training.recipes)
app.command("ship")(cards.ship)
app.command("card")(cards.card)
app.command("compare")(comparing.compare)

SMALLEST_SCALE, LARGEST_SCALE = Fraction(1, 10**6), Fraction(10**9)


class Method(enum.StrEnum):
    """Interpolation methods."""

    nearest = "nearest"
    bilinear = "bilinear"
    bicubic = "bicubic"


class Benchmark(enum.StrEnum):
    """Sets with a published bicubic row."""

    Set5 = "Set5"
    Set14 = "Set14"


def _choice(among: type[enum.StrEnum]) -> dict[str, Any]:
    """Return the settings of an option that takes one of a few words; typer's own has "Value error, " before it."""

    def parse(text: str) -> enum.StrEnum:
        if text not in list(among):
            raise typer.BadParameter(f"must be one of {', '.join(among)}; got {text[:60]!r}")
        return among(text)

    return {"parser": parse, "metavar": f"[{'|'.join(among)}]"}


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


def _known_extension(path: Path) -> Path:
    from course_lib.cli.writers import FORMATS

    if path.suffix.lower() not in FORMATS:
        came = repr(path.suffix) if path.suffix else "none"
        raise typer.BadParameter(f"the extension says the format: {', '.join(FORMATS)}; got {came} in {path}")
    return path


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def upscale(
    image: Annotated[Path, typer.Argument(help="Picture to read: PNG, JPEG, TIFF, WebP, ...", metavar="IMAGE")],
    out: Annotated[
        Path,
        typer.Option(help="Picture to write; .png, .tif, .jpg or .webp says the format.", callback=_known_extension),
    ],
    scale: Annotated[
        Fraction | None,
        typer.Option(help="How many times larger: 2, 3.7 or 37/10.", parser=parse_scale, metavar="NUMBER"),
    ] = None,
    size: Annotated[
        Any, typer.Option(help="Height x width in pixels, instead of --scale.", parser=parse_size, metavar="HxW")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="How pixels between pixels are made up.", **_choice(Method))
    ] = Method.bicubic,
    antialias: Annotated[
        bool, typer.Option(help="When shrinking, average over all pixels that a new pixel covers.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it is already there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
) -> None:
    """Enlarge (or shrink) a picture by any factor.

    \b
      course upscale cat.png --scale 3.7 --out big.png
      course upscale cat.png --scale 37/10 --method nearest --out blocks.png
      course upscale photo.jpg --size 1080x1920 --out wall.jpg --force

    A 24-megapixel photograph needs less than 2 GB of memory for PNG and TIFF, however large the result: it is made in
    strips. Orientation (turned upright), transparency, grey, 16 bits a sample and the colour profile are kept; other
    metadata is not. The result appears at once when it is complete; Ctrl-C leaves nothing behind.
    """
    if (scale is None) == (size is None):
        raise typer.BadParameter("give exactly one of --scale and --size", param_hint="'--scale' / '--size'")
    with one_line_errors():
        from course_lib.cli.upscale import upscale as run

        height, width = run(image, out, scale, size, method.value, antialias, force, device)
        typer.echo(f"{out}: {width} x {height} pixels")


def _deliver(name: str, record: dict[str, Any], save: bool, out: Path | None) -> None:
    """Write a measurement where it was asked for and say where it is."""
    from course_lib import measurements

    if save:
        typer.echo(f"recorded: {measurements.write(name, **record)}")
    if out is not None:
        measurements.save(out, **record)
        typer.echo(f"written: {out}")


_Save = Annotated[bool, typer.Option("--save", help="Record the result in data/measurements, where chapters read it.")]
_Out = Annotated[Path | None, typer.Option(help="Write the result to this JSON file as well.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace --out if it is already there.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads to use; default: what PyTorch chooses.", min=1)]


def _known_model(text: str) -> str:
    from course_lib.files import data_dir

    # names of files, because to ask `checkpoints` would import torch
    known = [*Method, *sorted(path.stem for path in (data_dir() / "checkpoints").glob("*.safetensors"))]
    if text not in known:
        raise typer.BadParameter(f"must be one of {', '.join(known)}; got {text[:60]!r}")
    return text


@evaluate_app.command("sr")
def evaluate_sr(
    model: Annotated[
        str,
        typer.Option(help="nearest, bilinear, bicubic, or a network of the book.", parser=_known_model, metavar="NAME"),
    ] = "bicubic",
    data: Annotated[Benchmark, typer.Option(help="Benchmark to measure on.", **_choice(Benchmark))] = Benchmark.Set5,
    scale: Annotated[list[int] | None, typer.Option(help="2, 3 or 4; may be repeated; default all it has.")] = None,
    save: _Save = False,
    out: _Out = None,
    force: _Force = False,
) -> None:
    """Print PSNR and SSIM of a super-resolution model beside the published row.

    \b
      course evaluate sr --model bicubic --data Set5 --scale 2
      course evaluate sr --model nearest --data Set14 --scale 2 --scale 4 --out nearest.json
      course evaluate sr --model espcn-x3-added --data Set5

    Small changes of protocol move these numbers by up to 2 dB; --save and --out write down the protocol used.
    """
    if any(s not in (2, 3, 4) for s in scale or ()):
        raise typer.BadParameter(f"must be 2, 3 or 4, got {', '.join(map(str, scale or ()))}", param_hint="'--scale'")
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.cli.evaluate import PROTOCOL, find, measure, table

        found, scales = find(model, sorted(set(scale or ())))
        values = measure(found, data.value, scales, label=model)
        typer.echo(f"{model} on {data.value}")
        typer.echo(table(model, data.value, values))
        chosen = "".join(f" --scale {s}" for s in scales)
        command = f"course evaluate sr --model {model} --data {data.value}{chosen}"
        record = {"values": values, "command": command, "protocol": PROTOCOL, "data": data.value}
        _deliver(f"evaluate_sr_{model}_{data.value}", record, save, out)


@evaluate_app.command("labels")
def evaluate_labels(save: _Save = False, out: _Out = None, force: _Force = False) -> None:
    """Print how well label maps survive a grid 16 and 32 times coarser: bilinear against windows of W.

    \b
      course evaluate labels --save

    Takes a few minutes.
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.cli.labels import PROTOCOL, measure, scenes, table

        values = measure(scenes())
        typer.echo(table(values))
        record = {"values": values, "command": "course evaluate labels", "protocol": PROTOCOL, "data": "generated"}
        _deliver("evaluate_labels", record, save, out)


@bench_app.command("resize")
def bench_resize(
    threads: _Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of each case; the median counts.", min=1, max=1000)] = 7,
    save: _Save = False,
    out: _Out = None,
    force: _Force = False,
) -> None:
    """Time `resize` beside PyTorch, Pillow and scikit-image: 3 x 512 x 512 to 2048 and back.

    \b
    course bench resize --threads 1
    course bench resize --device cuda --save

    Rivals and cases take turns within one run, so that a busy moment of the machine hits all of them; compare the
    ratios, not the milliseconds.
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.bench.resize import PROTOCOL, run, table

        values = run(device, threads, repeats, progress=True, own_process=True)
        typer.echo(table(values))
        command = f"course bench resize --device {device} --repeats {repeats}" + (
            f" --threads {threads}" if threads else ""
        )
        record = {
            "values": values,
            "command": command,
            "protocol": PROTOCOL,
            "data": "random numbers, seed 0",
            "seed": 0,
        }
        _deliver("bench_resize" if device == "cpu" else "bench_resize_cuda", record, save, out)


@bench_app.command("slider")
def bench_slider(
    threads: _Threads = None,
    moves: Annotated[int, typer.Option(help="Slider moves that are timed, each to a new value.", min=1, max=700)] = 100,
    save: _Save = False,
    out: _Out = None,
    force: _Force = False,
) -> None:
    """Time a live slider: from its message to the encoded picture, at 512 x 512.

    \b
      course bench slider
      course bench slider --moves 300 --save

    A picture that follows the hand needs a 95th percentile under 70 ms.
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.bench.slider import PROTOCOL, run, table

        values = run(threads, moves)
        typer.echo(table(values))
        command = f"course bench slider --moves {moves}" + (f" --threads {threads}" if threads else "")
        record = {"values": values, "command": command, "protocol": PROTOCOL, "data": "photograph astronaut, 512x512"}
        _deliver("bench_slider", record, save, out)


@bench_app.command("scenes")
def bench_scenes(
    repeats: Annotated[int, typer.Option(help="Timed blocks of each case; the median counts.", min=1, max=1000)] = 9,
    save: _Save = False,
    out: _Out = None,
    force: _Force = False,
) -> None:
    """Time what feeds a training: generated scenes, and pairs of patches for super-resolution, on one core.

    \b
      course bench scenes
      course bench scenes --repeats 21 --save
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.bench.scenes import PROTOCOL, run, table
        from course_lib.bench.timing import cpu_threads

        with cpu_threads(1):
            values = run(repeats, progress=True)
        typer.echo(table(values))
        command = f"course bench scenes --repeats {repeats}"
        data = f"generated scenes; pairs of {values['pictures']} pictures of {values['source']}"
        record = {"values": values, "command": command, "protocol": PROTOCOL, "data": data, "seed": 0}
        _deliver("bench_scenes", record, save, out)


@data_app.command("list")
def data_list() -> None:
    """List the sets: what they are, their licences, how large, and whether they are on this machine."""
    with one_line_errors():
        from course_lib.datasets import sets

        for name in sets.names():
            entry, files = sets.registry()[name], sets.sources(name)
            try:
                place = f"in {sets.find(name)}"
            except sets.DataMissing:
                place = f"not here: course data get {name}"
            typer.echo(f"{name}  {len(files)} files, {sum(file.size for file in files) / 1e6:.1f} MB, {place}")
            typer.echo(f"    {entry['about']}")
            typer.echo(f"    licence: {entry['licence']}")


@data_app.command("get")
def data_get(
    names: Annotated[
        list[str], typer.Argument(help="Set5, Set14, BSDS500, BCCD; see course data list", metavar="SET...")
    ],
) -> None:
    """Download sets into the cache; files that are already right are kept, every file is checked.

    \b
      course data get Set5 Set14
      COURSE_CACHE=/big/disk course data get BSDS500
      COURSE_DATA=/my/mirror course evaluate sr --data Set5     use a mirror instead of downloading
    """
    with one_line_errors():
        from course_lib.datasets import sets

        unknown = [name for name in names if name not in sets.names()]
        if unknown:
            raise typer.BadParameter(
                f"{', '.join(unknown)} is not one of {', '.join(sets.names())}", param_hint="'SET'"
            )
        for name in names:
            typer.echo(f"{name}: {sets.get(name)}")
