"""Renew what README.md shows of the book: the chapter table, and the picture of a chapter.

python -m publish.readme                    the table, from data/chapters.toml
python -m publish.readme --picture SHOT.png  the picture, from a screenshot (make picture takes one)
"""

import argparse
import io
import re
import sys
from pathlib import Path

from PIL import Image

from course_lib.chapters import PARTS, all_chapters
from course_lib.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "publish" / "chapter.png"
TABLE = re.compile(r"(<!-- chapters: made by `make readme` -->\n).*?(<!-- end of chapters -->)", re.DOTALL)


def table() -> str:
    """Return the chapter table as Markdown: number, title (linked once written), question, hours."""
    text = ""
    for part, name in PARTS.items():
        members = [c for c in all_chapters() if c.part == part]
        text += f"\n**{name}** ({sum(c.hours for c in members):g} h)\n\n"
        text += "| | chapter | its question | hours |\n|---|---|---|---|\n"
        for c in members:
            title = f"[{c.title}](notebooks/{c.path.as_posix()})" if c.written else f"{c.title} (to come)"
            text += f"| {c.number} | {title} | {c.question} | {c.hours:g} |\n"
    return text + "\n"


def renew(text: str) -> str:
    """Return the text of README.md with the table made anew. Raises ValueError when its markers are missing."""
    if not TABLE.search(text):
        raise ValueError("README.md must hold <!-- chapters: made by `make readme` --> and <!-- end of chapters -->")
    return TABLE.sub(lambda m: m[1] + table() + m[2], text)


def compress(shot: Path) -> bytes:
    """Return a screenshot as a PNG of at most 128 colours and 1280 pixels across."""
    image = Image.open(shot).convert("RGB")
    image.thumbnail((1280, 1280), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.quantize(128, method=Image.Quantize.MEDIANCUT).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="a screenshot to be shown in README.md")
    shot = parser.parse_args().picture
    if shot:
        data = compress(shot)
        if len(data) > 200_000:
            sys.exit(f"the picture would take {len(data) / 1000:.0f} kB, the limit is 200 kB")
        with atomic_write(PICTURE) as stream:
            stream.write(data)
    path = ROOT / "README.md"
    text = renew(path.read_text(encoding="utf-8"))
    with atomic_write(path, "w") as stream:
        stream.write(text)


if __name__ == "__main__":
    main()
