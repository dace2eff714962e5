"""`course upscale`. Heavy imports wait inside, so that --help and mistakes answer at once."""

import enum
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from course_lib.cli.errors import check_there, note, one_line_errors
from course_lib.cli.options import Method, choice, networks, one_of, parse_scale, parse_size, whole

if TYPE_CHECKING:
    from course_lib.cli.folder import Process
    from course_lib.cli.upscale import Wish


class Precision(enum.StrEnum):
    """Arithmetic of a network."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Extension(enum.StrEnum):
    """Formats of the results where --out is a folder."""

    png = "png"
    tif = "tif"
    jpg = "jpg"
    webp = "webp"


def upscale(
    image: Annotated[
        Path, typer.Argument(help="Picture to read: PNG, JPEG, TIFF, WebP, ...; or a folder of them.", metavar="IMAGE")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Picture to write; .png, .tif, .jpg or .webp says the format. For a folder: a folder, made if missing."
        ),
    ],
    scale: Annotated[
        Fraction | None,
        typer.Option(
            help="How many times larger: 2, 3.7 or 37/10. A network for one scale knows it.",
            parser=parse_scale,
            metavar="NUMBER",
        ),
    ] = None,
    size: Annotated[
        Any, typer.Option(help="Height x width in pixels, instead of --scale.", parser=parse_size, metavar="HxW")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A network of the book, such as liif-tiny, instead of interpolation; `course card` lists them.",
            parser=one_of(networks),
            metavar="NAME",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A network from a file: an official checkpoint of EDSR, RDN, Meta-SR, LIIF, ESPCN, TTSR, SAN, or ours."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A picture of the same things, closer or sharper, whose textures a network of TTSR takes.",
            metavar="PICTURE",
        ),
    ] = None,
    meant: Annotated[
        str | None,
        typer.Option(
            "--as", help="Which official checkpoint the file is, such as liif_rdn, if several fit.", metavar="NAME"
        ),
    ] = None,
    method: Annotated[
        Any, typer.Option(help="How pixels between pixels are made up; default: bicubic.", **choice(Method))
    ] = None,
    antialias: Annotated[
        bool, typer.Option(help="When shrinking without a network, average over all pixels that a new pixel covers.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace results that are already there.")] = False,
    extension: Annotated[
        Any, typer.Option("--format", help="Of the results where --out is a folder; default: png.", **choice(Extension))
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA graphics card.")] = "cpu",
    precision: Annotated[
        Precision,
        typer.Option(help="Arithmetic of a network; the short ones are for graphics cards.", **choice(Precision)),
    ] = Precision.float32,
    tile: Annotated[
        int | None, typer.Option(help="Side of a network's tiles in pixels of IMAGE; default: by memory.", **whole(1))
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(help="Pixels that tiles overlap by; default: what leaves no seams. Fewer are faster.", **whole(0)),
    ] = None,
) -> None:
    """Enlarge (or shrink) a picture by any factor.

    \b
      course upscale cat.png --scale 3.7 --out big.png
      course upscale cat.png --scale 37/10 --method nearest --out blocks.png
      course upscale photo.jpg --size 1080x1920 --out wall.jpg --force
      course upscale photo.jpg --model liif-tiny --scale 3.4 --out sharp.png
      course upscale photo.jpg --checkpoint edsr-baseline-liif.pth --scale 3.4 --out sharp.png
      course upscale photo.jpg --model ttsr-tiny --reference second.jpg --out sharp.png
      course upscale holiday --model edsr-tiny-x2 --out holiday-x2
      torchrun --nproc-per-node 4 --no-python course upscale holiday --model liif-tiny --scale 2 --out big --device cuda

    A 24-megapixel photograph needs less than 2 GB of memory for PNG and TIFF, however large the result: it is made in
    strips. A network makes it in tiles: 6 megapixels at x2 take 1.4 GB with liif-tiny. Orientation (turned upright),
    transparency, grey, 16 bits a sample and the colour profile are kept; other metadata is not. The result appears at
    once when it is complete; Ctrl-C leaves nothing behind.

    A reference may have any size and light; details of it are used where they look like what the small picture shows.
    The time grows with the pixels of the picture times those of the reference.

    Of a folder, every picture is enlarged; results that are there already are not made again, so that the same command
    goes on where it was stopped. Pictures that cannot be read are named at the end (exit code 1). Under torchrun,
    processes share the pictures, and each uses a GPU of its own.
    """
    network = model is not None or checkpoint is not None
    _check_together(scale, size, network, model, checkpoint, meant, method, precision.value, tile, overlap)
    if reference is not None and not network:
        raise typer.BadParameter("goes with --model ttsr-tiny, or a checkpoint of TTSR", param_hint="'--reference'")
    folder = os.path.isdir(image)
    with one_line_errors():
        check_there(image)  # before --out is looked at, which would be read in the wrong way
        _check_extension(out, extension, folder)
        from course_lib.cli import folder as several
        from course_lib.cli.errors import check_target
        from course_lib.cli.upscale import Wish, check_device
        from course_lib.cli.upscale import upscale as run

        process = several.Process.here()
        place = process.device(device)
        check_device(place)
        if folder:
            pairs = several.plan(image, out, f".{extension or Extension.png}")
            _check_reference(reference, [target for _, target in pairs])
        elif process.rank > 0:
            return  # one picture is one process's work
        else:
            _check_reference(reference, [out])
            check_target(out, force)
        found = None
        if network:
            from course_lib.cli.networks import check_goal, find, find_reference, for_rgb

            name, found = find(model, checkpoint, meant)
            found = find_reference(reference, for_rgb(found).to(place), name, place)
            check_goal(name, found, scale, size)
            if reference is not None and not folder and os.path.samefile(image, reference):
                note("the reference is the picture itself, which has no more detail to lend")
        way: Any = (method or Method.bicubic).value
        wish = Wish(scale, size, way, antialias, place, found, tile, overlap, precision.value)
        if folder:
            _folder(pairs, out, wish, force, process)
        else:
            height, width = run(image, out, wish, force, note)
            typer.echo(f"{out}: {width} x {height} pixels")


def _folder(pairs: list[tuple[Path, Path]], out: Path, wish: "Wish", force: bool, process: "Process") -> None:
    """Enlarge a folder and tell what became of it. Raises ValueError at the end where pictures were passed over."""
    from course_lib.cli.folder import enlarge

    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        done = enlarge(pairs, wish, force, process, note)
    except (KeyboardInterrupt, SystemExit):
        if new and not any(out.iterdir()):
            out.rmdir()
        raise
    who = f"process {process.rank + 1} of {process.world}, " if process.world > 1 else ""
    typer.echo(f"{who}{out}: {done.made} made, {done.skipped} already there, {len(done.failed)} not made")
    process.leave(bool(done.failed))
    if done.failed:
        raise ValueError(f"not enlarged: {', '.join(done.failed)}")


def _check_together(
    scale: Fraction | None,
    size: Any,
    network: bool,
    model: str | None,
    checkpoint: Path | None,
    meant: str | None,
    method: Any,
    precision: str,
    tile: int | None,
    overlap: int | None,
) -> None:
    """Raise a usage error for options that do not go together."""
    if model is not None and checkpoint is not None:
        raise typer.BadParameter("give one of --model and --checkpoint", param_hint="'--model' / '--checkpoint'")
    if network and method is not None:
        raise typer.BadParameter("is interpolation; leave it out with a network", param_hint="'--method'")
    if meant is not None and checkpoint is None:
        raise typer.BadParameter("goes with --checkpoint", param_hint="'--as'")
    if not network and (tile is not None or overlap is not None or precision != "float32"):
        raise typer.BadParameter(
            "are of networks; give --model or --checkpoint", param_hint="'--tile' / '--overlap' / '--precision'"
        )
    if (scale is not None and size is not None) or (scale is None and size is None and not network):
        raise typer.BadParameter("give exactly one of --scale and --size", param_hint="'--scale' / '--size'")


def _check_reference(reference: Path | None, targets: list[Path]) -> None:
    """Raise Refused where a result would replace the reference, with --force too."""
    from course_lib.cli.errors import Refused

    if reference is not None and reference.resolve() in [target.resolve() for target in targets]:
        raise Refused(f"the result would replace the reference {reference}; name another file or folder with --out")


def _check_extension(out: Path, extension: Any, folder: bool) -> None:
    from course_lib.cli.writers import FORMATS

    if folder:
        if out.suffix.lower() in FORMATS and not os.path.isdir(out):
            raise typer.BadParameter(
                f"IMAGE is a folder, so it must be one for the results; got {out}; --format says their format",
                param_hint="'--out'",
            )
        return
    if out.suffix.lower() not in FORMATS:
        came = repr(out.suffix) if out.suffix else "none"
        raise typer.BadParameter(
            f"the extension says the format: {', '.join(FORMATS)}; got {came} in {out}", param_hint="'--out'"
        )
    if extension is not None:
        raise typer.BadParameter("is for folders; --out says the format of one picture", param_hint="'--format'")
