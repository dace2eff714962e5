"""Where the project keeps its data, and how it writes files without ever leaving half of one behind."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, overload

import pooch  # type: ignore[import-untyped]

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class CannotWrite(OSError):
    """A file could not be written; whatever stood there before is untouched."""

    def __str__(self) -> str:
        """Return the sentence without Python's error number."""
        return str(self.strerror)


def data_dir() -> Path:
    """Return the folder of the data that the project ships (registry, measurements, chapter tables).

    An editable checkout has it beside the package as `data/`; an installed wheel carries a copy as `course_lib/_data`.
    Raises FileNotFoundError when neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "data", package / "_data"):
        if (folder / "registry.json").is_file():
            return folder
    raise FileNotFoundError(
        f"the data folder of course_lib is missing: looked for data/registry.json beside {package} "
        "and _data/ inside it; install the package again (pip install -e . in a checkout)"
    )


def cache_dir() -> Path:
    """Return the folder for downloads: the environment variable COURSE_CACHE, else this platform's usual cache folder.

    The folder is not created here.
    """
    named = os.environ.get("COURSE_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("course_lib"))


def _explain(error: OSError, path: Path) -> CannotWrite:
    if error.errno in _FULL:
        room = "free some space or name another folder"
        return CannotWrite(error.errno, f"no space left on the disk while writing {path}: {room}; nothing was changed")
    if error.errno == errno.ENOENT and not path.parent.exists():
        return CannotWrite(error.errno, f"cannot write {path}: the folder {path.parent} does not exist")
    if error.errno == errno.ENOTDIR:
        return CannotWrite(error.errno, f"cannot write {path}: {path.parent} is not a folder")
    return CannotWrite(error.errno, f"cannot write {path}: {error.strerror or error}; nothing was changed")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise CannotWrite when `path` cannot become a file (folder missing or not writable, a folder or a device there).

    A file is really created beside `path` and removed again, because permission bits alone do not tell (root, read-
    only disks).
    """
    target = _target(path)
    probe = _beside(target)
    try:
        probe.open("x").close()
    except OSError as error:
        raise _explain(error, target) from error
    probe.unlink()


def _target(path: str | os.PathLike[str]) -> Path:
    """Return where `path` leads; raise CannotWrite where something stands that a file must not replace."""
    target = Path(path).resolve()
    try:
        # asked of `path`: what /dev/stdout leads to has no path of its own
        kind = os.stat(path).st_mode
    except OSError:
        return target  # nothing there yet; whether something can be, the first open will tell
    if stat.S_ISDIR(kind):
        raise CannotWrite(errno.EISDIR, f"cannot write {path}: it is a folder; name a file inside it")
    if not stat.S_ISREG(kind):
        raise CannotWrite(errno.EINVAL, f"cannot write {path}: it is a pipe, a device or a socket; name a regular file")
    return target


def _beside(target: Path) -> Path:
    # the same folder, because a rename is atomic only within one file system
    return target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}.partial")


@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["wb"] = "wb"
) -> contextlib.AbstractContextManager[IO[bytes]]: ...
@overload
def atomic_write(path: str | os.PathLike[str], mode: Literal["w"]) -> contextlib.AbstractContextManager[IO[str]]: ...
@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block has ended without an error, and then at once and
    whole.

    The bytes go to a hidden neighbour, reach the disk (fsync) and are renamed; on any error, Ctrl-C included, the
    neighbour is removed and an older file at `path` stays as it was. `mode` is "wb" or "w" (UTF-8, "\\n"). A symbolic
    link is written through. Raises CannotWrite when the folder cannot be written, the disk is full, or `path` is a
    folder, a pipe or a device.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'mode must be "wb" or "w", got {mode!r}')
    target = _target(path)
    partial = _beside(target)
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        # "x" and not the module tempfile, whose files are private to their owner
        stream = open(partial, "x+b" if mode == "wb" else "x", **text)  # noqa: SIM115
    except OSError as error:
        raise _explain(error, target) from error
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except OSError as error:
        # an error of the block's own work (a download, say) keeps its own words
        if error.errno in _FULL or error.filename == str(partial):
            raise _explain(error, target) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
