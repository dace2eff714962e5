"""The commands and their help. Heavy imports wait inside the commands, so that --help and mistakes answer at once."""

from typing import Annotated

import typer

from course_lib import __version__
from course_lib.cli import cards
from course_lib.cli import compare as comparing
from course_lib.cli import train as training
from course_lib.cli.clocks import bench_app
from course_lib.cli.detect import detect
from course_lib.cli.enlarge import upscale
from course_lib.cli.errors import one_line_errors
from course_lib.cli.measuring import evaluate_app

_HELP = """Enlarge pictures, find objects, train and measure models, time the library, fetch data: the book's tools.

\b
  course upscale cat.png --scale 3.7 --out big.png      enlarge a picture by interpolation
  course upscale cat.png --model liif-tiny --scale 3.4 --out sharp.png      by a trained network
  course upscale cat.png --checkpoint rdn-liif.pth --scale 3.4 --out x.png  by an official checkpoint
  course upscale cat.png --model ttsr-tiny --reference second.png --out x.png  with another picture's textures
  course detect coins.png --model ssd-tiny --scale 0.5 --draw out.png       find objects, with a box around each
  course card                                           which trained networks there are
  course data get Set5                                  download a benchmark
  course evaluate sr --model liif-tiny --model bicubic  PSNR and SSIM side by side
  course bench sr                                       how fast; also resize, reference, second-order, detection
  course train espcn-x3                                 train a model; stop and go on at any time

Exit codes: 0 done, 1 it failed (one line "error: ..." says why), 2 the command was not understood, 130 stopped by
Ctrl-C.
"""

app = typer.Typer(
    help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)
data_app = typer.Typer(help="List and download sets of pictures.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.command("upscale")(upscale)
app.command("detect")(detect)
app.command("train")(training.train)
app.command("recipes")(training.recipes)
app.command("ship")(cards.ship)
app.command("card")(cards.card)
app.command("compare")(comparing.compare)


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
