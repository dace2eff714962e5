"""How the command line fails: one line that names the problem on stderr, and an exit code."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

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


def check_there(path: Path) -> None:
    """Raise Refused where there is neither a file nor a folder."""
    if not os.path.lexists(path):
        raise Refused(f"cannot read {path}: No such file or folder")


def note(text: str) -> None:
    """Write a line to stderr that does not disturb a progress bar."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.write(f"note: {text}", file=sys.stderr)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn foreseeable problems (files, values, memory) into `error: ...` and exit code 1; Ctrl-C into 130.

    A closed pipe (`course data list | head`) ends the program without a word, which typer sees to. Anything else is a
    defect of this program and keeps its traceback.
    """
    try:
        with _tidy_ends():
            yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, MemoryError) as error:
        _fail(str(error) or "not enough memory")
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        _fail("not enough memory on the device; --device cpu needs less")


@contextlib.contextmanager
def _tidy_ends() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception (exit code 128 + number), so that it cleans up."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # what is ignored (nohup) stays so; a caller's own handler too; and only the main thread may set one
    ours = [s for name in names if signal.getsignal(s := signal.Signals[name]) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a closing terminal says it twice, and cleaning up must not be cut short
    raise SystemExit(128 + number)


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(FAILURE)
