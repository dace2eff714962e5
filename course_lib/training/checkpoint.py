"""Checkpoints: a training's whole state in one file, written at once or not at all."""

import contextlib
import csv
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from course_lib.files import atomic_write
from course_lib.training.recipe import UNIMPORTANT, Recipe, Row

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE, CURVE, LOCK = "checkpoint.pt", "curve.csv", ".lock"
FIRST_COLUMNS = ("step", "seconds", "cpu_seconds", "loss", "learning_rate")
_FORMAT = "course_lib training 1"
_KEYS = {"recipe", "data", "precision", "machines", "step", "rows", "model", "optimiser", "scaler"}
_HELD: dict[Path, object] = {}
_ADVICE = "train from the start (--fresh), or name another folder"


class NotResumable(ValueError):
    """A checkpoint cannot be gone on with: it is damaged, or of another recipe."""


class FolderInUse(ValueError):
    """Two trainings at once would overwrite each other's checkpoints."""


def save(folder: Path, state: dict[str, Any], recipe: Recipe) -> Path:
    """Write `state` as the folder's only checkpoint and its curve as curve.csv; return the checkpoint's path.

    The old checkpoint is replaced when the new one is on the disk; a kill at any moment leaves one of the two. Raises
    CannotWrite, and TypeError for a state that could not be read again (the old one stays).
    """
    path = folder / FILE
    state = {"format": _FORMAT, "recipe": recipe.fields(), **state}
    # into memory first: where a disk is full, torch.save answers with an error of its own, which tells nobody why
    buffer = _bytes(state)
    if not _readable(buffer):
        names = ", ".join(name for name, part in state.items() if not _readable(_bytes(part)))
        raise TypeError(
            f"{names} of {recipe.name} holds more than tensors, numbers, text, lists and dictionaries (a NumPy number, "
            "say: float() makes it one of Python's), which a checkpoint cannot be read with"
        )
    with atomic_write(path) as stream:
        stream.write(buffer.getbuffer())
    write_curve(folder, state["rows"])
    return path


def _bytes(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer


def _readable(buffer: io.BytesIO) -> bool:
    try:
        buffer.seek(0)
        torch.load(buffer, map_location="meta", weights_only=True)  # the tensors' numbers are not needed
    except pickle.UnpicklingError:
        return False
    return True


def write_curve(folder: Path, rows: list[Row]) -> None:
    """Write the rows to curve.csv; a value that a row does not have is an empty cell."""
    columns = list(dict.fromkeys([*FIRST_COLUMNS, *(name for row in rows for name in row)]))
    with atomic_write(folder / CURVE, "w") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs, and remove what a kill in the middle of writing has left there.

    Raises FolderInUse while another process holds it, or another training of this one. The system lets go when a
    process ends, however it ends.
    """
    in_use = f"another training is writing to {folder}; wait for it, or name another folder"
    # the system's locks are of a process: it would grant a second one, whose end would release the first
    mine, place = object(), folder.resolve()
    if _HELD.setdefault(place, mine) is not mine:
        raise FolderInUse(in_use)
    with contextlib.ExitStack() as stack:
        stack.callback(_HELD.pop, place)
        stream = stack.enter_context((folder / LOCK).open("w", encoding="utf-8"))
        try:
            # record locks, not flock: a worker process that outlives a killed training must not keep its folder
            if fcntl is not None:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise FolderInUse(in_use) from error
        for name in (FILE, CURVE):
            for rest in folder.glob(f".{name}.*.partial"):
                rest.unlink(missing_ok=True)
        yield


def read(folder: Path) -> dict[str, Any]:
    """Return the state that a folder's checkpoint holds, tensors on the CPU.

    Beside what the loop keeps ("step", "rows", "seconds", "cpu_seconds", "model", "optimiser", ...) it has "recipe"
    (its fields that change a number), "data" (their description), "precision" and "machines" (see Result). Raises
    FileNotFoundError, and NotResumable when the file is damaged or no checkpoint.
    """
    path = folder / FILE
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load compares no check sums
                raise zipfile.BadZipFile
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise NotResumable(f"{path} is damaged or not a checkpoint ({type(error).__name__}); {_ADVICE}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT or _KEYS - state.keys():
        raise NotResumable(f"{path} is not a checkpoint of this program's trainings; {_ADVICE}")
    state["recipe"] = {name: value for name, value in state["recipe"].items() if name not in UNIMPORTANT}
    return state


def load(folder: Path, recipe: Recipe, precision: str) -> dict[str, Any] | None:
    """Return the state to go on from; None where the folder has no checkpoint.

    Raises NotResumable as `read` does, and when the checkpoint is of a training that differs: in which field, is said.
    """
    if not (folder / FILE).exists():
        return None
    state = read(folder)
    then = {**state["recipe"], "precision": state["precision"]}
    now = {**recipe.fields(), "precision": precision}
    for name in dict.fromkeys([*now, *then]):
        check_same(folder, name, then.get(name), now.get(name))
    return state


def check_same(folder: Path, name: str, then: Any, now: Any) -> None:
    """Raise NotResumable where `name` differs between the folder's checkpoint and the training that would go on."""
    if then != now:
        change = f"{name} was {then!r} and is {now!r} now"
        raise NotResumable(f"{folder / FILE} belongs to another training: {change}; {_ADVICE}")
