"""The sets of pictures that are downloaded on request, each file from a pinned commit and checked by its sha256."""

import functools
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch  # type: ignore[import-untyped]
from PIL import Image
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from course_lib.files import atomic_write, cache_dir, data_dir

SERVER = "https://raw.githubusercontent.com"
_AT_ONCE = 8
_TRIES = 2


class DataMissing(FileNotFoundError):
    """A set is not on this machine; the message says how to get it."""


class DownloadFailed(OSError):
    """A file could not be fetched, or what came is not what was pinned."""


@dataclass(frozen=True)
class Source:
    """One file of a set: where it comes from, what it must be, and where it goes.

    address: folder of the file, name: the file in it. to: path inside the set. pixels: hash of the decoded picture
    when the file is stored as PNG instead of as it came, else None.
    """

    address: str
    name: str
    sha256: str
    size: int
    to: str
    pixels: str | None


@functools.cache
def registry() -> dict[str, Any]:
    """Return data/registry.json: for each set what it is, its licence, and its files."""
    entries: dict[str, Any] = json.loads((data_dir() / "registry.json").read_text(encoding="utf-8"))
    return entries


def names() -> list[str]:
    """Return the names of the sets that can be downloaded."""
    return list(registry())


def _entry(name: str) -> dict[str, Any]:
    if name not in registry():
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}")
    entry: dict[str, Any] = registry()[name]
    return entry


def sources(name: str) -> list[Source]:
    """Return the files of a set. Raises ValueError for an unknown name."""
    found = []
    for group in _entry(name)["sources"]:
        address = f"{SERVER}/{group['repository']}/{group['commit']}/{group['folder']}"
        for tail, sha256, size, *converted in group["files"]:
            to, pixels = converted or (tail, None)
            found.append(Source(address, tail, sha256, size, group["to"] + to, pixels))
    return found


def find(name: str) -> Path:
    """Return the folder of a set: COURSE_DATA/<name> where that environment variable names a mirror, else the
    download cache.

    Raises DataMissing, saying how to get it, unless every file is there; ValueError for an unknown name.
    """
    wanted = [source.to for source in sources(name)]
    mirror = os.environ.get("COURSE_DATA")
    places = ([Path(mirror).expanduser() / name] if mirror else []) + [cache_dir() / name]
    for folder in places:
        if all((folder / to).is_file() for to in wanted):
            return folder
    looked = " and ".join(str(folder) for folder in places)
    raise DataMissing(
        f"the set {name} is not complete on this machine (looked in {looked}); get it with `course data get {name}`, "
        "or let the environment variable COURSE_DATA name a folder that holds it"
    )


def mirror(name: str, files: Sequence[str]) -> Path:
    """Return the folder COURSE_DATA/<name> of a set that this program does not download, because no address of it is
    known that stays.

    Raises DataMissing, naming the files that must lie in it, where the variable is not set or one is not there.
    """
    place = os.environ.get("COURSE_DATA")
    folder = Path(place).expanduser() / name if place else None
    if folder is None or not all((folder / file).is_file() for file in files):
        looked = f"looked in {folder}" if folder else "COURSE_DATA is not set"
        raise DataMissing(
            f"the set {name} is not on this machine ({looked}) and cannot be downloaded; let the environment variable "
            f"COURSE_DATA name a folder in which the folder {name} holds {', '.join(files)}"
        )
    return folder


def pictures(name: str) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield (name, uint8 array) of the pictures of a set in alphabetical order: (H, W, 3), or (H, W) for grey ones.

    Pictures that must stay out of training and testing (see the registry) are passed over. Raises DataMissing as
    `find` does.
    """
    folder, left_out = find(name), set(_entry(name)["leave_out"])
    wanted = sorted(source.to for source in sources(name) if source.to.endswith((".png", ".jpg")))
    for to in wanted:
        if to not in left_out:
            with Image.open(folder / to) as image:
                yield Path(to).stem, np.asarray(image)


def get(name: str, progress: bool = True) -> Path:
    """Download what is missing of a set into the cache and return its folder; files already right are kept.

    Every file is checked against its pinned sha256, converted to PNG where the registry says so, and appears at once
    and whole. A mirror named by COURSE_DATA is used as it is. Raises DownloadFailed without network or when a file is
    not the pinned one.
    """
    try:
        if os.environ.get("COURSE_DATA") and (folder := find(name)) != cache_dir() / name:
            return folder
    except DataMissing:
        pass
    folder = cache_dir() / name
    missing = [source for source in sources(name) if not _is_right(folder / source.to, source)]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.ERROR)  # its messages would break the progress bar
    total = sum(source.size for source in missing)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
        tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ThreadPoolExecutor(_AT_ONCE) as workers,
    ):
        tasks = [workers.submit(_fetch, source, folder / source.to, Path(scratch)) for source in missing]
        try:
            for source, task in zip(missing, tasks, strict=True):
                task.result()
                bar.update(source.size)
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise
    return folder


def _fetch(source: Source, target: Path, scratch: Path) -> None:
    known = f"sha256:{source.sha256}"
    # one folder a file: two sets of files may share names
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        shelf = pooch.create(own, source.address, registry={source.name: known}, retry_if_failed=_TRIES)
        try:
            content = Path(shelf.fetch(source.name)).read_bytes()
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is a ValueError
            reason = " ".join(str(error).split())
            raise DownloadFailed(
                f"cannot download {source.address}{source.name}: {reason}. Is there a network? What has come so far "
                "is kept; without network, let COURSE_DATA name a folder that holds the set"
            ) from error
    if source.pixels is not None:
        content = _as_png(content, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as stream:
        stream.write(content)


def _as_png(content: bytes, source: Source) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        came = pixel_hash(image)
        if came != source.pixels:
            raise DownloadFailed(
                f"{source.name} decodes to other pixels than where it was registered: "
                f"expected {source.pixels}, got {came}"
            )
        stream = io.BytesIO()
        image.save(stream, "PNG")
    return stream.getvalue()


def pixel_hash(image: Image.Image) -> str:
    """Return the sha256 of a decoded picture: its mode, its size and its pixels, whatever the file format."""
    return hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode() + image.tobytes()).hexdigest()


def _is_right(path: Path, source: Source) -> bool:
    if not path.is_file():
        return False
    if source.pixels is None:
        return hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
    try:
        with Image.open(path) as image:
            return pixel_hash(image) == source.pixels
    except (OSError, SyntaxError):
        return False
