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
import torch
from torch import nn

from course_lib.classification import TinyClassifier
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.files import atomic_write, data_dir
from course_lib.official.fitting import check, fit
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.rdn import RDN
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.ttsr import TTSR

_SMALL: tuple[type[nn.Module], ...] = (TinyDetector, TinySetDetector, TinyClassifier)
_KINDS: tuple[type[nn.Module], ...] = (EDSR, ESPCN, LIIF, MetaSR, RDN, SAN, TTSR, *_SMALL)
MODELS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _KINDS}
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

    Raises CheckpointMissing, and ValueError where the file is no card.
    """
    path = _found(paths(name)[1], name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); course ship {name} makes it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no card: it holds a {type(found).__name__}; course ship {name} makes it")
    return found


def _found(path: Path, name: str) -> Path:
    if not path.is_file():
        raise CheckpointMissing(f"no checkpoint has the name {name!r}; there are: {', '.join(names()) or 'none yet'}")
    return path


def publish(name: str, model: nn.Module, metadata: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write data/checkpoints/NAME.safetensors and data/cards/NAME.json, and return the card.

    metadata: as in `save`. facts: the card but for "bytes" and "sha256" of the weights, which are added. Raises
    ValueError for another class of model and for what JSON cannot hold, and CannotWrite: then both files are as before.
    """
    content = pack(model, metadata)
    found = {**facts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(found, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    weights, card_path = paths(name)
    # both are written before the first of them gets its name
    with atomic_write(card_path, "w") as card_stream, atomic_write(weights) as stream:
        card_stream.write(text + "\n")
        card_stream.flush()
        stream.write(content)
    return found


def save(path: str | os.PathLike[str], model: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write what `pack` returns to a file. Raises as it does, and CannotWrite."""
    content = pack(model, metadata)
    with atomic_write(path) as stream:
        stream.write(content)


def check_class(model: nn.Module) -> str:
    """Return the name of a model's class. Raises ValueError for a class that is not in `MODELS`."""
    kind = type(model).__name__
    if MODELS.get(kind) is not type(model):
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {kind}")
    return kind


def pack(model: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a network's weights as safetensors with the header {"model": its class, "args": JSON of its arguments}.

    model: of a class in `MODELS`, which keeps every argument it was made with under the argument's name. metadata: more
    entries of the header. Raises ValueError for another class.
    """
    kind = check_class(model)
    args = {argument: getattr(model, argument) for argument in inspect.signature(type(model)).parameters}
    header = {**(metadata or {}), "model": kind, "args": json.dumps(args)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(state, header)


def read(path: str | os.PathLike[str]) -> nn.Module:
    """Return the network in a file that `save` wrote, in eval mode, on the CPU.

    Raises ValueError where the file is no safetensors, names a class that is not in `MODELS` or arguments that it does
    not take, or holds other tensors than that network's, which is known before memory is asked for: a file cannot take
    more than its size; FileNotFoundError. The caller's random numbers stay as they were.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; name the checkpoint in it")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    kind = header.get("model")
    if kind not in MODELS:
        raise ValueError(f"{path} asks for the model {kind!r}; this program makes {', '.join(MODELS)} from such files")
    what = f"{kind} as {path} describes it"
    try:
        args = json.loads(header.get("args", "null"))
        with torch.device("meta"):
            shapes = MODELS[kind](**args)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # a RecursionError is a RuntimeError
        raise ValueError(f"{path} has arguments that {kind} does not take: {error}") from error
    check(shapes, state, what)
    with torch.random.fork_rng(devices=[]):
        model = MODELS[kind](**args)
    fit(model, state, what)
    return model.eval()


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
