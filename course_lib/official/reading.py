"""Read a released file without running what is in it, and take the weights out of their wrappers."""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_PREFIX = "module."


class UnreadableCheckpoint(ValueError):
    """A file that is no checkpoint, is damaged, or holds more than numbers; the message says which."""


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict in a file, {official name: tensor on the CPU}, out of its wrappers as `unwrap` does.

    Raises what `contents` and `unwrap` raise.
    """
    return unwrap(contents(path))


def contents(path: str | os.PathLike[str]) -> Any:
    """Return all that is in a file, tensors on the CPU.

    The first bytes say what a file is, not its name: safetensors, or what torch.save writes, of which only tensors,
    plain containers and `argparse.Namespace` are accepted, so that no file can run code. Raises FileNotFoundError, and
    UnreadableCheckpoint for any other kind of file, a damaged one, or one that holds anything else.
    """
    file = Path(path)
    if file.is_dir():
        raise UnreadableCheckpoint(f"{file} is a folder; name the checkpoint in it")
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {file}") from None
    # safetensors first: the length that it begins with may have the first byte of a pickle
    if head[4:] == bytes(4) + b"{":
        try:
            return safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise UnreadableCheckpoint(f"{file} is a damaged safetensors file: {error}; fetch it again") from error
    if head.startswith((_ZIP, _PICKLE)):
        return _read_torch(file)
    raise UnreadableCheckpoint(
        f"{file} is no checkpoint: it begins with {head!r}, expected a safetensors file or one that torch.save wrote"
        + ("; is it a download page or a Git LFS pointer?" if head[:8].isascii() and head.strip() else "")
    )


def _read_torch(file: Path) -> Any:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:  # torch.load compares no check sums
                    raise zipfile.BadZipFile("a check sum is wrong")
        # an open file, because torch.load goes by the name of one that it opens itself
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(action="ignore"),  # of pickles that torch.save did not write
            file.open("rb") as stream,
        ):
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise UnreadableCheckpoint(f"{file} is damaged, or holds more than tensors; fetch it again") from error
        raise UnreadableCheckpoint(
            f"{file} is refused: besides tensors it wants to run or make {asked[1]}, which a file from elsewhere must "
            "not; ask for its weights as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle makes torch.load fail in any way there is
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise UnreadableCheckpoint(f"{file} is damaged or no checkpoint of torch.save ({reason})") from error


def unwrap(state: Any) -> dict[str, Tensor]:
    """Return the tensors by name out of {"model": {"name", "args", "sd"}}, {"model": ...}, {"state_dict": ...} and the
    prefix "module." that data-parallel training leaves.

    Raises UnreadableCheckpoint naming what stands where a tensor was expected.
    """
    inside = state
    while isinstance(inside, Mapping):
        wrapper = next((key for key in ("model", "state_dict", "sd") if isinstance(inside.get(key), Mapping)), None)
        if wrapper is None:
            break
        inside = inside[wrapper]
    if not isinstance(inside, Mapping) or not inside:
        raise UnreadableCheckpoint(f"state_dict must be {{name: tensor}}, got {_describe(inside)}")
    for name, value in inside.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UnreadableCheckpoint(f"state_dict must be {{name: tensor}}, got {name!r}: {_describe(value)}")
    if all(name.startswith(_PREFIX) for name in inside):
        return {name.removeprefix(_PREFIX): value for name, value in inside.items()}
    return dict(inside)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary of {len(value)} entries ({', '.join(map(repr, list(value)[:3]))})" if value else "{}"
    return f"{type(value).__name__} {str(value)[:40]}"
