"""What `course detect` found: as JSON, as drawings, as text; and folders of pictures."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.detecting import Look, Say, Seen, Size, look
from course_lib.cli.drawing import draw
from course_lib.cli.errors import Refused
from course_lib.cli.writers import FORMATS
from course_lib.datasets import UnreadablePicture, to_uint8
from course_lib.detection import detectors
from course_lib.files import atomic_write

_EVERY = 10.0  # seconds between two versions of a folder's JSON

Entry = dict[str, Any]


def entry(name: str, seen: Seen, wish: Look) -> Entry:
    """Return what a JSON says of a picture; boxes in hundredths of its pixels, scores with four digits."""
    names = detectors.names(wish.model)
    found = seen.found
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    boxes = [
        {"box": [round(x, 2) for x in box], "class": names[label], "score": round(score, 4)}
        for box, score, label in rows
    ]
    height, width, _ = seen.samples.values.shape
    return {"file": name, "width": width, "height": height, "seen_at": list(seen.at), "boxes": boxes}


def save_drawing(path: Path, seen: Seen, wish: Look) -> Size:
    """Write a picture with the boxes over it and return the drawing's (height, width). Raises CannotWrite."""
    names, found = detectors.names(wish.model), seen.found
    labels = found.labels.tolist()
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, found.scores.tolist(), strict=True)]
    planes: Tensor = seen.samples.picture().expand(3, -1, -1)
    drawn = draw(to_uint8(planes), found.boxes.tolist(), labels, texts)
    colours = seen.samples.values.shape[2] > 2
    with atomic_write(path) as stream:
        write = FORMATS[path.suffix.lower()].write
        shape = (drawn.shape[0], drawn.shape[1], 3)
        # a profile of grey says nothing of three colours
        write(stream, [drawn], shape, drawn.dtype, seen.samples.profile if colours else None)
    return drawn.shape[0], drawn.shape[1]


def save_json(path: Path, wish: Look, entries: list[Entry]) -> None:
    """Write what was found in pictures, one line a box. Raises CannotWrite."""
    lines = []
    for one in entries:
        boxes = ",\n".join(f"      {_json(box)}" for box in one["boxes"])
        head = _json({key: value for key, value in one.items() if key != "boxes"})[:-1]
        lines.append(f"    {head}, " + (f'"boxes": [\n{boxes}\n    ]}}' if boxes else '"boxes": []}'))
    head = "".join(f'  "{key}": {_json(value)},\n' for key, value in wish.head.items())
    pictures = '  "pictures": [\n' + ",\n".join(lines) + "\n  ]\n" if lines else '  "pictures": []\n'
    with atomic_write(path, "w") as stream:
        stream.write("{\n" + head + pictures + "}\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def summary(found: Entry) -> str:
    """Return an `entry` in one line."""
    counts = Counter(one["class"] for one in found["boxes"])
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    height, width = found["seen_at"]
    number = f"{len(found['boxes'])} boxes" if len(found["boxes"]) != 1 else "1 box"
    return f"{found['file']}: {number}{f' ({listed})' if listed else ''}, seen at {height} x {width} pixels"


def table(found: Entry) -> str:
    """Return an `entry` for people to read: its summary, and a line for each box."""
    longest = max((len(one["class"]) for one in found["boxes"]), default=0)
    lines = [
        f"  {one['class']:<{longest}}  {one['score']:.4f}  x {one['box'][0]:.1f} to {one['box'][2]:.1f}, "
        f"y {one['box'][1]:.1f} to {one['box'][3]:.1f}"
        for one in found["boxes"]
    ]
    return "\n".join([summary(found), *lines])


def earlier(path: Path, wish: Look) -> dict[str, Entry]:
    """Return what an unfinished or older JSON of the same command has, by file. Raises Refused for any other file."""
    if not path.exists():
        return {}
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        entries = {one["file"]: one for one in there["pictures"] if {"boxes", "seen_at"} <= set(one)}
        head = {key: there[key] for key in wish.head}
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is there and was not made by course detect; --force replaces it") from error
    if head != wish.head:
        other = ", ".join(key for key, value in wish.head.items() if head[key] != value)
        raise Refused(f"{path} is there, made with other {other}; --force replaces it, or name another file with --out")
    return entries


class Folder:
    """The pictures of a folder, one after the other; those that cannot be read are passed over.

    pairs: each picture, and where it is drawn, or None. out: the JSON of all, or None. What is in `out` already, and
    drawings that are there, are not made again unless `force`. say: gets each note and each reason once. tell: gets the
    `table` of each picture that is looked at, or is None. Raises Refused where `out` is not of the same command.

    entries: what is known, by file. made: how many pictures `run` looked at. failed: why others have no entry.
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path | None]],
        out: Path | None,
        wish: Look,
        force: bool,
        say: Say,
        tell: Callable[[str], Any] | None = None,
    ) -> None:
        """See the class."""
        self.pairs, self.out, self.wish, self.force, self.tell = pairs, out, wish, force, tell
        self._say, self._said = say, set[str]()
        self.entries: dict[str, Entry] = earlier(out, wish) if out is not None and not force else {}
        self.failed: dict[str, str] = {}
        self.made = 0

    def run(self, bar: bool = True) -> None:
        """Look at all pictures. The JSON is written every few seconds and at the end, also when that is an error.

        Raises CannotWrite where nothing more can be written.
        """
        saved = time.monotonic()
        try:
            with tqdm(self.pairs, unit=" pictures", disable=not bar) as progress:
                for path, drawing in progress:
                    if self._is_done(path, drawing):
                        continue
                    progress.set_postfix_str(path.name)
                    self._look(path, drawing)
                    if time.monotonic() - saved > _EVERY:
                        self._save()
                        saved = time.monotonic()
        finally:
            self._save()

    def _is_done(self, path: Path, drawing: Path | None) -> bool:
        if self.force or (self.out is None and drawing is None):
            return False
        return (self.out is None or path.name in self.entries) and (drawing is None or drawing.exists())

    def _look(self, path: Path, drawing: Path | None) -> None:
        try:
            seen = look(path, self.wish, self._once, drawing)
        except (UnreadablePicture, ValueError, MemoryError) as error:
            self.failed[path.name] = " ".join(str(error).split()) or "not enough memory"
            self._once(f"{path.name}: {self.failed[path.name]}")
            return
        if drawing is not None and (self.force or not drawing.exists()):
            save_drawing(drawing, seen, self.wish)
        self.entries[path.name] = entry(path.name, seen, self.wish)
        self.made += 1
        if self.tell is not None:
            self.tell(table(self.entries[path.name]))

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _save(self) -> None:
        if self.out is not None:
            names = [path.name for path, _ in self.pairs]
            save_json(self.out, self.wish, [self.entries[name] for name in names if name in self.entries])
