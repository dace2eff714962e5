"""`course evaluate`: models on benchmarks. Heavy imports wait inside the commands, so that --help answers at once."""

import enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from course_lib.cli.errors import check_target, one_line_errors
from course_lib.cli.options import (
    Force,
    Method,
    Out,
    Save,
    choice,
    deliver,
    detectors,
    networks,
    one_of,
    parse_scale,
    whole,
)

evaluate_app = typer.Typer(help="Measure a model on a benchmark.", no_args_is_help=True, rich_markup_mode=None)


class Benchmark(enum.StrEnum):
    """Sets with a published bicubic row."""

    Set5 = "Set5"
    Set14 = "Set14"


class Protocol(enum.StrEnum):
    """How a model is measured; see `course_lib.cli.evaluate.PROTOCOLS`."""

    luminance = "luminance"
    benchmark = "benchmark"
    div2k = "div2k"


def models() -> list[str]:
    """Return the names of all that can be measured."""
    return [*Method, *networks()]


@evaluate_app.command("sr")
def evaluate_sr(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="nearest, bilinear, bicubic, or a network of the book; may be repeated; default: bicubic.",
            parser=one_of(models),
            metavar="NAME",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A network from a file: an official checkpoint, or ours.")
    ] = None,
    data: Annotated[Benchmark, typer.Option(help="Benchmark to measure on.", **choice(Benchmark))] = Benchmark.Set5,
    scale: Annotated[
        list[Fraction] | None,
        typer.Option(
            help="2, 3.5 or 10/3; may be repeated; default 2, 3, 4, or the one it has.",
            parser=parse_scale,
            metavar="NUMBER",
        ),
    ] = None,
    protocol: Annotated[
        Any,
        typer.Option(
            help="How it is measured; default: luminance, or benchmark for RGB and for several models.",
            **choice(Protocol),
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Print PSNR and SSIM of a super-resolution model beside the published row, or of several side by side.

    \b
      course evaluate sr --model bicubic --data Set5 --scale 2
      course evaluate sr --model nearest --data Set14 --scale 2 --scale 4 --out nearest.json
      course evaluate sr --model espcn-x3-added --data Set5
      course evaluate sr --model liif-tiny --model bicubic --scale 2 --scale 3.5 --scale 6
      course evaluate sr --checkpoint rdn-liif.pth --data Set14 --scale 2 --scale 6

    Small changes of protocol move these numbers by up to 2 dB; --save and --out write down the protocol used.
    luminance: only brightness is shrunk and enlarged, the small picture is not rounded. benchmark: RGB, small pictures
    of 8 bits, compared in luminance. div2k: the same, compared in RGB, without ceil(scale) + 6 pixels of border.
    """
    scales = sorted(set(scale or ()))
    if any(s < 1 for s in scales):
        raise typer.BadParameter(f"must be at least 1, got {', '.join(map(str, scales))}", param_hint="'--scale'")
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.cli.evaluate import find_all, measure, record, text
        from course_lib.cli.upscale import check_device

        check_device(device)
        found = find_all(model or (), scales, checkpoint, protocol and protocol.value, device)
        values = [measure(one.model, data.value, one.scales, one.name, one.protocol) for one in found]
        typer.echo(text(found, data.value, values))
        for one, rows in zip(found, values, strict=True):
            suffix = "" if one.usual else f"_{one.protocol}"
            deliver(f"evaluate_sr_{one.name}_{data.value}{suffix}", record([one], data.value, [rows]), save, None)
        deliver("", record(found, data.value, values), False, out)


@evaluate_app.command("reference")
def evaluate_reference(
    model: Annotated[
        str | None,
        typer.Option(
            help="A network of the book that takes a reference; default: ttsr-tiny.",
            parser=one_of(networks),
            metavar="NAME",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A network from a file instead: an official checkpoint of TTSR, or ours.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Print what references are worth: PSNR with none, with related and with unrelated ones, and how they are trusted.

    \b
      course evaluate reference
      course evaluate reference --checkpoint TTSR-rec.pt --out official.json

    Takes some minutes. A stereo pair and pairs made of free photographs are always measured; two more stereo pairs and
    a scene of CUFED5 where COURSE_DATA names a folder that holds them. --save wants all of them.
    """
    if model is not None and checkpoint is not None:
        raise typer.BadParameter("give one of --model and --checkpoint", param_hint="'--model' / '--checkpoint'")
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.cli.evaluate_reference import find, measure, record, scenes, table, yardstick
        from course_lib.cli.upscale import check_device
        from course_lib.datasets import DataMissing

        check_device(device)
        name, network = find(model or "ttsr-tiny", checkpoint, device)
        found, missing = scenes()
        if save and missing:
            raise DataMissing(f"--save wants all scenes: {'; '.join(missing)}")
        for one in missing:
            typer.echo(f"note: {one}", err=True)
        values = measure(network, found, yardstick())
        typer.echo(table(name, values))
        option = f"--model {name}" if checkpoint is None else f"--checkpoint {checkpoint.name}"
        deliver(f"evaluate_reference_{name}", record(option, values, found), save, out)


@evaluate_app.command("detection")
def evaluate_detection(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector of the book; may be repeated; default: ssd-tiny.", parser=one_of(detectors), metavar="NAME"
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A detector from a file: an official checkpoint of SSD, FSSD, DSSD, DSOD, DETR, "
            "Deformable DETR, YOLOS or ViDT, or one of ours."
        ),
    ] = None,
    meant: Annotated[
        str | None,
        typer.Option(
            "--as", help="Which official checkpoint the file is, such as ssd300, if several fit.", metavar="NAME"
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="scenes-easy, scenes-hard, scenes-family, scenes-line, BCCD-val, BCCD-test, coins, a folder with "
            "VOC's XML files and pictures, or a JSON of COCO; may be repeated; default: scenes-easy.",
            metavar="SET",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with the pictures of a JSON; default: the JSON's own.")
    ] = None,
    from_zero: Annotated[
        bool, typer.Option("--from-zero", help="XML files count edges from 0; VOC counts pixels from 1.")
    ] = False,
    scale: Annotated[
        Fraction,
        typer.Option(help="At which the photograph of coins is shown.", parser=parse_scale, metavar="NUMBER"),
    ] = "1/2",  # type: ignore[assignment]  # typer parses it
    pictures: Annotated[
        Any, typer.Option(help="How many; default: 500 scenes, all of the other sets.", **whole(1))
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Print how much detectors find: AP by COCO's rules, by size and by class, and duplicates before NMS.

    \b
      course evaluate detection --model ssd-tiny --data scenes-easy
      course evaluate detection --model ssd-tiny --data scenes-hard --data coins --out found.json
      course evaluate detection --checkpoint ssd300_mAP_77.43_v2.pth --data VOCdevkit/VOC2007 --pictures 100
      course evaluate detection --model ssd-tiny-bccd --data cells.json --images cells

    A set must have the detector's classes: `course card` names those of the book's; those with 20 classes have VOC's,
    with 80 or 91 COCO's. Of coins it is counted how many are found, whatever they are called. Photographs are seen at
    the size that the detector was made for (DETR and its descendants: the shorter side at 800 pixels but the longer at
    most 1333), scenes as they are. Where nothing is suppressed, in DETR's line, duplicates are those of the answer.
    VOC's difficult objects and COCO's crowds do not count.
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.cli.evaluate_detection import contestants, measure_all, record, table
        from course_lib.cli.upscale import check_device

        check_device(device)
        found = contestants(model or (), checkpoint, meant, device)
        asked = list(dict.fromkeys(data or ["scenes-easy"]))
        sets, told = measure_all(found, asked, pictures, images, from_zero, scale)
        typer.echo("\n\n".join(table(name, values) for name, values in sets.items()))
        options = {
            "--pictures": pictures,
            "--images": images and images.name,
            "--from-zero": from_zero,
            "--scale": scale,
        }
        for one in found:
            for name, values in sets.items():
                own = record([one], {name: {one.name: values[one.name]}}, {name: told[name]}, options)
                deliver(f"evaluate_detection_{one.name}_{name}", own, save, None)
        deliver("", record(found, sets, told, options), False, out)


@evaluate_app.command("labels")
def evaluate_labels(save: Save = False, out: Out = None, force: Force = False) -> None:
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
        deliver("evaluate_labels", record, save, out)
