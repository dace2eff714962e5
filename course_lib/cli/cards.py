"""`course ship` and `course card`. Heavy imports wait inside, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli.errors import one_line_errors


def ship(
    name: Annotated[str, typer.Argument(help="Recipe of a finished training.", metavar="NAME")],
    folder: Annotated[Path | None, typer.Option("--from", help="Where it was trained; default runs/NAME.")] = None,
) -> None:
    """Measure a finished training and put its weights and its card among those that come with the book.

    \b
      course ship espcn-x3 --from runs/espcn-x3

    Writes data/checkpoints/NAME.safetensors and data/cards/NAME.json. Needs the record that `course train NAME --save`
    made, and what is measured on: Set5 and Set14, or BCCD for a detector of cells.
    """
    with one_line_errors():
        from course_lib.cli import ship as shipping

        typer.echo(shipping.text(shipping.ship(name, folder or Path("runs") / name)))


def card(
    name: Annotated[
        str | None, typer.Argument(help="A network that comes with the book; default: list them.", metavar="NAME")
    ] = None,
) -> None:
    """Print the card of a trained network: what it was trained on, how well it does, what it may be used for.

    \b
      course card                     which networks there are
      course card espcn-x3-added
    """
    with one_line_errors():
        from course_lib import checkpoints
        from course_lib.cli.ship import text

        if name is None:
            for known in checkpoints.names():
                typer.echo(f"{known}: {checkpoints.card(known).get('about', '')}")
            return
        facts = checkpoints.card(name)
        try:
            lines = text(facts)
        except (KeyError, TypeError, AttributeError) as error:
            path = checkpoints.paths(name)[1]
            raise ValueError(f"{path} is no whole card ({error!r}); course ship {name} makes it") from error
        typer.echo(lines)
