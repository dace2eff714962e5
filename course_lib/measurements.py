"""Recorded results: numbers that take a downloaded set, a clock or a long training, kept with how they were made."""

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_lib.files import atomic_write, data_dir


class MeasurementMissing(FileNotFoundError):
    """No measurement of that name is recorded."""


def _path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f'name must be letters, digits, "_", "-" or "." (it becomes a file name), got {name!r}; '
            'example: "evaluate_sr_bicubic_Set5"'
        )
    return data_dir() / "measurements" / f"{name}.json"


def _command_for(name: str) -> str:
    match name.split("_"):
        case ["evaluate", "sr", *model, data] if model:
            return f"course evaluate sr --model {'_'.join(model)} --data {data} --save"
        case ["evaluate", "detection", *model, data] if model:
            return f"course evaluate detection --model {'_'.join(model)} --data {data} --save"
        case ["bench", what]:
            return f"course bench {what} --save"
        case ["compare", family]:
            return f"course compare {family} --save"
        case ["evaluate", "labels"]:
            return "course evaluate labels --save"
        case ["train", recipe]:
            return f"course train {recipe} --save"
        case _:
            return "the `course` command with --save (see course --help)"


def names() -> list[str]:
    """Return the names of all recorded measurements, sorted."""
    return sorted(path.stem for path in (data_dir() / "measurements").glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """Return the recorded measurement `name`: values, command, protocol, data, seed, hardware, versions, revision and
    date.

    Raises MeasurementMissing, whose message names the command that makes it, and ValueError when the file is not
    JSON.
    """
    path = _path(name)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(names()) or "none yet"
        raise MeasurementMissing(
            f"no measurement {name!r} is recorded; make it with: {_command_for(name)} (recorded: {known})"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); make it again with: {_command_for(name)}") from error
    return record


def write(
    name: str,
    values: Mapping[str, Any],
    *,
    command: str,
    protocol: str,
    data: str,
    seed: int | None = None,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Record `values` as the measurement `name` and return its path; what was recorded under that name is replaced at
    once.

    `command` is what a reader types to get the values again, `protocol` says how they were measured, `data` on what.
    Hardware, versions, git revision and date are added as they are here and now, or as `made` tells. Raises
    ValueError for values that JSON cannot hold (NaN, infinity).
    """
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, values, command=command, protocol=protocol, data=data, seed=seed, made=made)
    return path


def save(
    path: str | os.PathLike[str],
    values: Mapping[str, Any],
    *,
    command: str,
    protocol: str,
    data: str,
    seed: int | None = None,
    made: Mapping[str, Any] | None = None,
) -> None:
    """Write the record that :func:`write` makes to any `path`; raises as it does, and CannotWrite."""
    record = {
        "values": values,
        "command": command,
        "protocol": protocol,
        "data": data,
        "seed": seed,
        **(circumstances() if made is None else made),
    }
    try:
        text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"values must be finite numbers, text, lists and dictionaries with text keys: {error}"
        ) from error
    with atomic_write(path, "w") as stream:
        stream.write(text + "\n")


def circumstances() -> dict[str, Any]:
    """Return hardware, versions, git revision and date as they are here and now."""
    return {
        "hardware": hardware(),
        "versions": _versions(),
        "revision": _revision(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def hardware() -> dict[str, Any]:
    """Return what the numbers were measured on: processor, its cores, and the GPU's name or None."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu}


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", table.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine() or "unknown"


def _versions() -> dict[str, str]:
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()}


def _revision() -> str | None:
    """Return the git revision of the checkout ("+changes" when files differ from it), or None outside one."""
    here = Path(__file__).resolve()
    try:
        _git(
            here.parent, "ls-files", "--error-unmatch", here.name
        )  # an installed copy may lie inside some other project
        head = _git(here.parent, "rev-parse", "HEAD")
        edited = _git(here.parent, "status", "--porcelain", "--untracked-files=no", "--", str(here.parent))
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if edited else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
