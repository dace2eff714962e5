"""How the command line fails: one line that names the problem on stderr, and an exit code."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

FAILURE, INTERRUPTED = 1, 130


class Refused(ValueError):
    """A request that cannot be fulfilled, found before anything was touched."""


def check_target(out: Path, force: bool) -> None:
    """Raise CannotWrite when `out` cannot become a file, Refused when it is one already and `force` is not given."""
    from course_lib.files import check_writable

    check_writable(out)
    if out.exists() and not force:
        raise Refused(f"{out} is already there; --force replaces it, or name another file with --out")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn foreseeable problems (files, values, memory) into `error: ...` and exit code 1; Ctrl-C into 130.

    Anything else is a defect of this program and keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, MemoryError) as error:
        _fail(str(error) or "not enough memory")
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        _fail("not enough memory on the device; --device cpu needs less")


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(FAILURE)
