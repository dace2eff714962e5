"""`course bench`: times on this machine. Heavy imports wait inside the commands, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli.errors import check_target, one_line_errors
from course_lib.cli.options import Force, Out, Save, Threads, deliver, one_of, scenes, whole

bench_app = typer.Typer(help="Time the library on this machine.", no_args_is_help=True, rich_markup_mode=None)


@bench_app.command("resize")
def bench_resize(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of each case; the median counts.", **whole(1, 1000))] = 7,
    save: Save = False,
    out: Out = None,
    force: Force = False,
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
        deliver("bench_resize" if device == "cpu" else "bench_resize_cuda", record, save, out)


@bench_app.command("slider")
def bench_slider(
    threads: Threads = None,
    moves: Annotated[
        int, typer.Option(help="Slider moves that are timed, each to a new value.", **whole(1, 700))
    ] = 100,
    save: Save = False,
    out: Out = None,
    force: Force = False,
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
        deliver("bench_slider", record, save, out)


@bench_app.command("scenes")
def bench_scenes(
    repeats: Annotated[int, typer.Option(help="Timed blocks of each case; the median counts.", **whole(1, 1000))] = 9,
    save: Save = False,
    out: Out = None,
    force: Force = False,
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
        deliver("bench_scenes", record, save, out)


@bench_app.command("sr")
def bench_sr(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a case; the least counts.", **whole(1, 1000))] = 3,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Time LIIF, Meta-SR and their encoders beside bare matrix products and convolutions, and their plain forms.

    \b
      course bench sr --threads 1
      course bench sr --device cuda --save

    Rivals take turns within one run; compare the ratios, not the milliseconds.
    """
    _beside("sr", threads, device, repeats, save, out, force)


@bench_app.command("reference")
def bench_reference(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a case; the least counts.", **whole(1, 1000))] = 3,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Time TTSR's search and transfer of patches beside one matrix product, and beside the matrix of all pairs.

    \b
      course bench reference --threads 1
      course bench reference --device cuda --save

    Rivals take turns within one run; compare the ratios, not the milliseconds.
    """
    _beside("reference", threads, device, repeats, save, out, force)


@bench_app.command("second-order")
def bench_second_order(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a case; the least counts.", **whole(1, 1000))] = 3,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Time SAN's covariances beside one matrix product, and beside the product with the centring matrix.

    \b
      course bench second-order --threads 1
      course bench second-order --device cuda --save

    Rivals take turns within one run; compare the ratios, not the milliseconds.
    """
    _beside("second-order", threads, device, repeats, save, out, force)


@bench_app.command("detection")
def bench_detection(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a case; the least counts.", **whole(1, 1000))] = 3,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Time anchors, matching, SSD's loss, NMS and average precision beside plain loops; SSD300 and the small family.

    \b
      course bench detection --threads 1
      course bench detection --device cuda --save

    Rivals take turns within one run; compare the ratios, not the milliseconds. Takes some minutes: the loops are slow.
    """
    _beside("detection", threads, device, repeats, save, out, force)


@bench_app.command("attention")
def bench_attention(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a case; the least counts.", **whole(1, 1000))] = 3,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Time attention, deformable attention, matching and the loss of sets beside their plain forms; an encoder's layer
    as pictures grow.

    \b
      course bench attention --threads 1
      course bench attention --device cuda --save

    Rivals take turns within one run; compare the ratios, not the milliseconds. Takes some minutes.
    """
    _beside("attention", threads, device, repeats, save, out, force)


@bench_app.command("detectors")
def bench_detectors(
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of a detector; the least counts.", **whole(1, 1000))] = 20,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Scenes to find objects in: scenes-easy, scenes-hard, ...; may be repeated; default: scenes-easy.",
            parser=one_of(scenes),
            metavar="SET",
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(help="How many scenes.", **whole(1))] = 500,
    paper: Annotated[
        bool, typer.Option("--paper", help="Time the networks of the papers, too; takes some minutes more.")
    ] = False,
    save: Save = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Measure every detector of the book in one run: AP on the same scenes, milliseconds, parameters, multiply-adds.

    \b
      course bench detectors --threads 1
      course bench detectors --data scenes-easy --data scenes-hard --paper --save

    Scenes are of a seed that no recipe trains with. Detectors that know other classes are named and passed over.
    """
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.bench.detector_cases import protocol, run, table

        asked = list(dict.fromkeys(data or ["scenes-easy"]))
        values = run(device, threads, repeats, asked, pictures, paper, progress=True)
        typer.echo(table(values))
        words = [f"--device {device}", f"--repeats {repeats}", *(f"--data {name}" for name in asked)]
        words += [f"--pictures {pictures}", *(["--paper"] if paper else [])]
        words += [f"--threads {threads}"] if threads else []
        record = {
            "values": values,
            "command": f"course bench detectors {' '.join(words)}",
            "protocol": protocol(asked, pictures),
            "data": ", ".join(asked),
            "seed": 0,
        }
        deliver("bench_detectors" if device == "cpu" else "bench_detectors_cuda", record, save, out)


def _beside(
    what: str, threads: int | None, device: str, repeats: int, save: bool, out: Path | None, force: bool
) -> None:
    """Measure the cases of one of the commands in which ours takes turns with rivals, show them and record them."""
    with one_line_errors():
        if out is not None:
            check_target(out, force)
        from course_lib.bench import attention_cases, detection_cases, reference_cases, second_order_cases, sr

        protocol, cases = {
            "sr": (sr.PROTOCOL, None),
            "reference": (reference_cases.PROTOCOL, reference_cases.CASES),
            "second-order": (second_order_cases.PROTOCOL, second_order_cases.CASES),
            "detection": (detection_cases.PROTOCOL, detection_cases.CASES),
            "attention": (attention_cases.PROTOCOL, attention_cases.CASES),
        }[what]
        values = sr.run(device, threads, repeats, progress=True, cases=cases)
        typer.echo(sr.table(values))
        if what == "attention":
            values["curve"] = attention_cases.curve(device, threads, repeats)
            typer.echo(attention_cases.curve_table(values["curve"]))
        command = f"course bench {what} --device {device} --repeats {repeats}" + (
            f" --threads {threads}" if threads else ""
        )
        record = {"values": values, "command": command, "protocol": protocol, "data": "random numbers", "seed": 0}
        name = f"bench_{what.replace('-', '_')}"
        deliver(name if device == "cpu" else f"{name}_cuda", record, save, out)
