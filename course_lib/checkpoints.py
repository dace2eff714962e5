"""The trained networks that come with the book: their weights, and the card of each."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from course_lib.files import atomic_write, data_dir
from course_lib.official.fitting import fit
from course_lib.super_resolution.espcn import ESPCN

MODELS: dict[str, type[nn.Module]] = {"ESPCN": ESPCN}
"""The classes that a file may ask for, by name: a file is data, and makes nothing else."""


class CheckpointMissing(FileNotFoundError):
    """No checkpoint of that name comes with the book."""


def names() -> list[str]:
    """Return the names of all checkpoints that come with the book, sorted."""
    return sorted(path.stem for path in (data_dir() / "checkpoints").glob("*.safetensors"))


def paths(name: str) -> tuple[Path, Path]:
    """Return where the weights and the card of a checkpoint are, or would be.

    Raises ValueError for a name that is not letters, digits, "_", "-" or ".".
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f'name must be letters, digits, "_", "-" or "." (it becomes a file name), got {name!r}')
    return data_dir() / "checkpoints" / f"{name}.safetensors", data_dir() / "cards" / f"{name}.json"


def load(name: str) -> nn.Module:
    """Return a checkpoint's network in eval mode, on the CPU.

    Raises CheckpointMissing, and what `read` raises.
    """
    return read(_found(paths(name)[0], name))


def card(name: str) -> dict[str, Any]:
    """Return the card of a checkpoint: recipe, data and licence, hardware, time, metrics with their protocol, hash.

    Raises CheckpointMissing.
    """
    found: dict[str, Any] = json.loads(_found(paths(name)[1], name).read_text(encoding="utf-8"))
    return found


def _found(path: Path, name: str) -> Path:
    if not path.is_file():
        raise CheckpointMissing(f"no checkpoint has the name {name!r}; there are: {', '.join(names()) or 'none yet'}")
    return path


def write_card(name: str, facts: Mapping[str, Any]) -> Path:
    """Write data/cards/NAME.json and return its path. Raises ValueError for what JSON cannot hold, and CannotWrite."""
    content = json.dumps(facts, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path = paths(name)[1]
    with atomic_write(path, "w") as stream:
        stream.write(content + "\n")
    return path


def save(path: str | os.PathLike[str], model: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network's weights as safetensors with the header {"model": its class, "args": JSON of its arguments}.

    model: of a class in `MODELS`, which keeps every argument it was made with under the argument's name. metadata: more
    entries of the header. Raises ValueError for another class, and CannotWrite.
    """
    kind = type(model).__name__
    if MODELS.get(kind) is not type(model):
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {kind}")
    args = {argument: getattr(model, argument) for argument in inspect.signature(type(model)).parameters}
    header = {**(metadata or {}), "model": kind, "args": json.dumps(args)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(state, header)
    with atomic_write(path) as stream:
        stream.write(content)


def read(path: str | os.PathLike[str]) -> nn.Module:
    """Return the network in a file that `save` wrote, in eval mode, on the CPU.

    Raises ValueError where the file is no safetensors, names a class that is not in `MODELS` or arguments that it does
    not take, or holds other tensors than that network's; FileNotFoundError.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    kind = header.get("model")
    if kind not in MODELS:
        raise ValueError(f"{path} asks for the model {kind!r}; this program makes {', '.join(MODELS)} from such files")
    try:
        model = MODELS[kind](**json.loads(header.get("args", "null")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has arguments that {kind} does not take: {error}") from error
    fit(model, state, f"{kind} as {path} describes it")
    return model.eval()


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
