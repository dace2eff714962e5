"""`course detect`. Heavy imports wait inside, so that --help and mistakes answer at once."""

import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from course_lib.cli.errors import check_there, note, one_line_errors
from course_lib.cli.options import detectors, one_of, parse_scale, parse_size, whole

if TYPE_CHECKING:
    from course_lib.cli.detecting import Look


def _share(text: object) -> float:
    """Return a number from 0 to 1; anything else is a usage error."""
    try:
        number = float(str(text))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise typer.BadParameter(f"must be a number from 0 to 1; got {str(text)[:60]!r}")
    return number


def detect(
    image: Annotated[
        Path,
        typer.Argument(help="Picture to look at: PNG, JPEG, TIFF, WebP, ...; or a folder of them.", metavar="IMAGE"),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A detector of the book, such as ssd-tiny; `course card` lists them.",
            parser=one_of(detectors),
            metavar="NAME",
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
    out: Annotated[Path | None, typer.Option(help="JSON file to write what was found to.", metavar="FILE.json")] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            help="Picture to write with the boxes over it; .png, .tif, .jpg or .webp says the format. For a folder: a "
            "folder, made if missing, of .png."
        ),
    ] = None,
    score: Annotated[
        Any,
        typer.Option(
            help="Least score of a box, from 0 to 1; default: 0.5, or 0.3 where classes are asked for one by one "
            "(Deformable DETR, ViDT).",
            parser=_share,
            metavar="NUMBER",
        ),
    ] = None,
    overlap: Annotated[
        Any,
        typer.Option(
            help="Of two boxes of a class with a larger IoU only the better stays (NMS), from 0 to 1; default: 0.45. "
            "Not for DETR and its descendants, which suppress nothing.",
            parser=_share,
            metavar="NUMBER",
        ),
    ] = None,
    most: Annotated[
        Any,
        typer.Option(
            help="Most boxes of a picture; the best stay; default: 200, of DETR and its descendants 100.",
            **whole(1, 10_000),
        ),
    ] = None,
    scale: Annotated[
        Fraction | None,
        typer.Option(
            help="Resize the picture by this before the detector looks: 0.5 or 1/3; default: to its training's size.",
            parser=parse_scale,
            metavar="NUMBER",
        ),
    ] = None,
    size: Annotated[
        Any,
        typer.Option(
            help="Height x width in pixels at which it looks, instead of --scale.", parser=parse_size, metavar="HxW"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results that are already there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
) -> None:
    """Find objects in a photograph: a box, a class and a score for each.

    \b
      course detect coins.png --model ssd-tiny --scale 0.5 --draw out.png
      course detect photo.jpg --model ssd-tiny --size 64x96 --out boxes.json --draw out.png
      course detect photo.jpg --checkpoint ssd300_mAP_77.43_v2.pth --draw out.png
      course detect photo.jpg --checkpoint detr-r50-e632da11.pth --as detr_r50 --score 0.7 --draw out.png
      course detect smears --model ssd-tiny-bccd --out boxes.json --draw drawn

    Without --out and --draw what was found is printed. The detectors of the book know what they were trained on: discs,
    squares and triangles, or cells under a microscope. They find objects that are as large as in their training;
    --scale and --size bring a photograph there. Those that answer with a set (DETR to ViDT) see everything at 64 x 64
    pixels, as in their training, if you do not say otherwise; the time of DETR and YOLOS grows with the square of the
    picture's area.
    Official checkpoints of DETR and its descendants know COCO's 80 classes, and see a photograph with its shorter side
    at 800 pixels but the longer at most 1333 (the smallest YOLOS: 512 and 853). A photograph of 12 megapixels at
    --scale 1 takes about 2 GB of memory with ssd-tiny; what does not fit is refused before it begins.

    The JSON has {"model", "sha256" of its file, "classes", "settings", "pictures": [{"file", "width", "height",
    "seen_at": [height, width], "boxes": [{"box": [x0, y0, x1, y1], "class", "score"}]}]}, boxes in pixels of the
    photograph (turned upright), by falling score.

    Drawings have 8 bits and no transparency; a picture below 800 pixels is drawn 2, 3, ... times larger, so that its
    labels can be read. Of a folder, one JSON tells of all pictures; what it has already, and drawings that are there,
    are not made again, so that the same command goes on where it was stopped. Pictures that cannot be read are named at
    the end (exit code 1).
    """
    _check_together(model, checkpoint, meant, scale, size)
    folder = os.path.isdir(image)
    with one_line_errors():
        check_there(image)
        _check_targets(image, out, draw, folder)
        from course_lib.cli import folder as several
        from course_lib.cli.errors import check_target
        from course_lib.cli.upscale import check_device

        check_device(device)
        pairs: list[tuple[Path, Path | None]] = [(image, draw)]
        if folder:
            pairs = (
                [*several.plan(image, draw, ".png")] if draw else [(path, None) for path in several.pictures_in(image)]
            )
        if out is not None:
            check_target(out, force or folder)  # a folder's JSON may be gone on with
        if draw is not None and not folder:
            check_target(draw, force)
        from course_lib.cli.detecting import Look, find_detector

        wish = Look(*find_detector(model, checkpoint, meant, device), score, overlap, most, scale, size)
        if folder:
            _folder(pairs, out, draw, wish, force)
        else:
            _picture(image, out, draw, wish)


def _picture(image: Path, out: Path | None, draw: Path | None, wish: "Look") -> None:
    """Look at one picture, write what is asked for, and print the rest."""
    from course_lib.cli.detected import entry, save_drawing, save_json, summary, table
    from course_lib.cli.detecting import look

    seen = look(image, wish, note, draw)
    found = entry(str(image), seen, wish)
    if out is None and draw is None:
        typer.echo(table(found))
        return
    typer.echo(summary(found))
    if draw is not None:
        height, width = save_drawing(draw, seen, wish)
        typer.echo(f"{draw}: {width} x {height} pixels")
    if out is not None:
        save_json(out, wish, [found])
        typer.echo(f"written: {out}")


def _folder(
    pairs: list[tuple[Path, Path | None]], out: Path | None, draw: Path | None, wish: "Look", force: bool
) -> None:
    """Look at a folder and tell what became of it. Raises ValueError at the end where pictures were passed over."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    from course_lib.cli.detected import Folder

    tell: Callable[[str], Any] | None = tqdm.write if out is None and draw is None else None
    run = Folder(pairs, out, wish, force, note, tell)
    new = draw is not None and not draw.exists()
    if draw is not None:
        draw.mkdir(parents=True, exist_ok=True)
    try:
        run.run()
    finally:
        if draw is not None and new and not any(draw.iterdir()):
            draw.rmdir()
    skipped = len(pairs) - run.made - len(run.failed)
    boxes = sum(len(one["boxes"]) for one in run.entries.values())
    typer.echo(f"{run.made} looked at, {skipped} already there, {len(run.failed)} not looked at; {boxes} boxes")
    if run.failed:
        raise ValueError(f"not looked at: {', '.join(run.failed)}")


def _check_together(model: str | None, checkpoint: Path | None, meant: str | None, scale: Any, size: Any) -> None:
    """Raise a usage error for options that do not go together."""
    if (model is None) == (checkpoint is None):
        raise typer.BadParameter("give one of --model and --checkpoint", param_hint="'--model' / '--checkpoint'")
    if meant is not None and checkpoint is None:
        raise typer.BadParameter("goes with --checkpoint", param_hint="'--as'")
    if scale is not None and size is not None:
        raise typer.BadParameter("give at most one of --scale and --size", param_hint="'--scale' / '--size'")


def _check_targets(image: Path, out: Path | None, draw: Path | None, folder: bool) -> None:
    """Raise a usage error for names that say another format, Refused where the photograph would be replaced."""
    from course_lib.cli.errors import Refused
    from course_lib.cli.writers import FORMATS

    if out is not None and out.suffix.lower() != ".json":
        raise typer.BadParameter(f"must be a .json file, got {out}; --draw writes a picture", param_hint="'--out'")
    if draw is None:
        return
    if folder and draw.suffix.lower() in FORMATS and not draw.is_dir():
        raise typer.BadParameter(
            f"IMAGE is a folder, so it must be one for the drawings; got {draw}", param_hint="'--draw'"
        )
    if not folder and draw.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"the extension says the format: {', '.join(FORMATS)}; got {draw}", param_hint="'--draw'"
        )
    if not folder and draw.resolve() == image.resolve():
        raise Refused(f"the drawing would replace the photograph {image}; name another file with --draw")
