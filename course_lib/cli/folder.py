"""`course upscale` for a folder: every picture in it, shared out over the processes that torchrun started."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.errors import Refused
from course_lib.cli.upscale import Wish, upscale
from course_lib.datasets import UnreadablePicture

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pnm")
"""Extensions of the files in a folder that are taken for pictures, in lower case."""
_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Process:
    """Which of several processes this is: rank from 0, of world; local: its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> "Process":
        """Return what torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; alone without it.

        Raises Refused where that makes no sense.
        """
        told = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if told["RANK"] is None and told["WORLD_SIZE"] is None:
            return cls()
        told["LOCAL_RANK"] = told["LOCAL_RANK"] or told["RANK"]
        try:
            rank, world, local = (int(str(value)) for value in told.values())
        except ValueError:
            rank, world, local = -1, 0, -1
        if not 0 <= rank < world or local < 0:
            listed = ", ".join(f"{name}={value}" for name, value in told.items())
            raise Refused(f"RANK and LOCAL_RANK must be whole numbers from 0, RANK below WORLD_SIZE; got {listed}")
        return cls(rank, world, local)

    def device(self, wanted: str) -> str:
        """Return this process's own GPU where "cuda" is wanted, else what is wanted."""
        return f"cuda:{self.local}" if wanted == "cuda" and self.world > 1 else wanted

    def leave(self, failed: bool) -> None:
        """Tell torchrun's other processes that this one is through, and where it failed wait until all are.

        torchrun stops all processes as soon as one ends with an error, in the middle of their pictures.
        """
        if self.world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
            return
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        through = f"course upscale {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        try:
            # torchrun's own process answers there, as long as any of its processes works
            store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
            count = store.add(through, 1)
            while failed and count < self.world:
                time.sleep(_POLL)
                count = store.add(through, 0)
        except RuntimeError as error:
            raise OSError(f"the other processes of torchrun cannot be reached: {error}") from error


@dataclass(frozen=True)
class Done:
    """What became of the pictures of a folder: how many were made, were there already, and why others were not made."""

    made: int
    skipped: int
    failed: dict[str, str]


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name, without hidden ones. Raises Refused where there is none."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    pictures = [path for path in pictures if not path.name.startswith(".")]
    if not pictures:
        raise Refused(f"no picture is in {folder}; looked for {', '.join(PICTURES)}")
    return pictures


def plan(folder: Path, out: Path, extension: str) -> list[tuple[Path, Path]]:
    """Return (picture, result) for every picture of a folder, by name.

    extension: of the results. Raises Refused where there is none, two would become the same file, or results would lie
    among the pictures.
    """
    if out.exists() and not out.is_dir():
        raise Refused(f"{folder} is a folder and --out {out} is not; name a folder for the results")
    if out.resolve() == folder.resolve():
        raise Refused(f"the results would lie among the pictures of {folder}; name another folder with --out")
    found: dict[Path, Path] = {}
    for picture in pictures_in(folder):
        target = out / f"{picture.stem}{extension}"
        if (other := found.setdefault(target, picture)) != picture:
            raise Refused(f"{other.name} and {picture.name} would both become {target}; rename one of them")
    return [(picture, target) for target, picture in found.items()]


def enlarge(
    pairs: list[tuple[Path, Path]], wish: Wish, force: bool, process: Process, say: Callable[[str], Any]
) -> Done:
    """Enlarge this process's share of the pictures; those that cannot be are named and passed over.

    Results that are there already are kept unless `force`. say: gets each note and each reason once. Raises CannotWrite
    where nothing more can be written.
    """
    share, said = pairs[process.rank :: process.world], set()
    made, skipped, failed = 0, 0, {}

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    named = f"process {process.rank + 1} of {process.world}" if process.world > 1 else None
    with tqdm(share, unit=" pictures", desc=named, position=process.rank) as bar:
        for picture, target in bar:
            if target.exists() and not force:
                skipped += 1
                continue
            bar.set_postfix_str(picture.name)
            try:
                upscale(picture, target, wish, force, once, bar=False)
                made += 1
            except (UnreadablePicture, ValueError, MemoryError) as error:
                failed[picture.name] = " ".join(str(error).split()) or "not enough memory"
                once(f"{picture.name}: {failed[picture.name]}")
    return Done(made, skipped, failed)
