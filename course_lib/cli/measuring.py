"""`course evaluate`: models on benchmarks. Heavy imports wait inside the commands, so that --help answers at once."""

import enum
from typing import Annotated

import typer

from course_lib.cli.errors import check_target, one_line_errors
from course_lib.cli.options import Force, Method, Out, Save, choice, deliver, networks, one_of

evaluate_app = typer.Typer(help="Measure a model on a benchmark.", no_args_is_help=True, rich_markup_mode=None)


class Benchmark(enum.StrEnum):
    """Sets with a published bicubic row."""

    Set5 = "Set5"
    Set14 = "Set14"


def models() -> list[str]:
    """Return the names of all that can be measured."""
    return [*Method, *networks()]


@evaluate_app.command("sr")
def evaluate_sr(
    model: Annotated[
        str,
        typer.Option(
            help="nearest, bilinear, bicubic, or a network of the book.", parser=one_of(models), metavar="NAME"
        ),
    ] = "bicubic",
    data: Annotated[Benchmark, typer.Option(help="Benchmark to measure on.", **choice(Benchmark))] = Benchmark.Set5,
    scale: Annotated[list[int] | None, typer.Option(help="2, 3 or 4; may be repeated; default all it has.")] = None,
    save: Save = False,
    out: Out = None,
    force: Force = False,
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
        deliver(f"evaluate_sr_{model}_{data.value}", record, save, out)


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
