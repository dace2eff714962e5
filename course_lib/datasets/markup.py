"""Where things stand in a file of XML or JSON, so that whatever is not as expected is refused by its place.

A file is data: nothing in it is followed, opened or expanded.
"""

import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

MOST_XML, MOST_JSON = 16_000_000, 1_000_000_000
"""The longest files that are read, in bytes: COCO's largest list of boxes has half as many."""

_ANY = 2**63 - 1
_MOST = 1e9  # larger numbers are mistakes: no picture has as many pixels along a side
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class UnreadableAnnotation(ValueError):
    """A file of boxes is broken or says what cannot be; the message names file and place, and what was expected."""


def _contents(file: Path, most: int) -> bytes:
    try:
        seen = file.stat()
        if not stat.S_ISREG(seen.st_mode):
            raise UnreadableAnnotation(f"{file} is no regular file, expected a file of boxes")
        if seen.st_size > most:
            raise UnreadableAnnotation(f"{file} has {seen.st_size:,} bytes, expected at most {most:,}")
        return file.read_bytes()
    except OSError as error:
        raise UnreadableAnnotation(f"cannot read {file}: {error.strerror or error}") from error


@dataclass
class Element:
    """An element of an XML file, and the line it begins in."""

    file: Path
    line: int
    tag: str
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def refuse(self, expected: str) -> NoReturn:
        """Raise UnreadableAnnotation with the place and a sentence."""
        raise UnreadableAnnotation(f"{self.file}, line {self.line}, <{self.tag}>: {expected}")

    def one(self, tag: str) -> "Element":
        """Return the only child with a tag."""
        found = self.all(tag)
        if len(found) != 1:
            self.refuse(f"expected one <{tag}>, got {len(found)}")
        return found[0]

    def all(self, tag: str) -> list["Element"]:
        """Return the children with a tag."""
        return [child for child in self.children if child.tag == tag]

    def number(self) -> float:
        """Return the number that is the text."""
        value = float(self.text) if len(self.text) <= 40 and _NUMBER.fullmatch(self.text) else _MOST
        if not abs(value) < _MOST:
            self.refuse(f"expected a number, got {self.text[:40]!r}")
        return value

    def flag(self, tag: str) -> bool:
        """Return what a child says that holds 0 or 1 and may be left out."""
        if not self.all(tag):
            return False
        child = self.one(tag)
        if child.text not in ("0", "1"):
            child.refuse(f"expected 0 or 1, got {child.text[:40]!r}")
        return child.text == "1"


def read_xml(file: Path) -> Element:
    """Return the outermost element of a file; raise UnreadableAnnotation where it is none."""
    content, outside = _contents(file, MOST_XML), Element(file, 0, "")
    parser, open_ones = expat.ParserCreate(), [outside]
    parser.buffer_text, parser.buffer_size = True, 1 << 20

    def begin(tag: str, attributes: dict[str, str]) -> None:
        element = Element(file, parser.CurrentLineNumber, tag)
        open_ones[-1].children.append(element)
        open_ones.append(element)

    def end(tag: str) -> None:
        element = open_ones.pop()
        element.text = element.text.strip()

    def text(data: str) -> None:
        if not open_ones[-1].children:  # between children there is only space
            open_ones[-1].text += data

    def doctype(*declared: object) -> None:
        line = parser.CurrentLineNumber
        raise UnreadableAnnotation(f"{file}, line {line}: expected no document type; files with entities are not read")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        parser.Parse(content, True)
    except UnreadableAnnotation:
        raise
    except expat.ExpatError as error:
        raise UnreadableAnnotation(
            f"{file}, line {error.lineno}: expected XML, got an error: {expat.ErrorString(error.code)}"
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise UnreadableAnnotation(f"{file}, line 1: expected UTF-8 or another known encoding: {error}") from error
    return outside.children[0]


@dataclass
class Place:
    """A value of a JSON file, and where it stands."""

    file: Path
    where: str
    value: Any

    def refuse(self, expected: str) -> NoReturn:
        """Raise UnreadableAnnotation with the place and a sentence."""
        raise UnreadableAnnotation(f"{self.file}: {self.where}: {expected}")

    def get(self, key: str) -> "Place":
        """Return the value of a key."""
        inner = Place(self.file, f"{self.where}.{key}" if self.where else key, None)
        if not isinstance(self.value, dict):
            self.refuse(f"expected an object with {key!r}, got {type(self.value).__name__}")
        if key not in self.value:
            inner.refuse("expected a value, but there is none")
        inner.value = self.value[key]
        return inner

    def items(self, key: str) -> list["Place"]:
        """Return what the list of a key holds."""
        inner = self.get(key)
        if not isinstance(inner.value, list):
            inner.refuse(f"expected a list, got {type(inner.value).__name__}")
        return [Place(self.file, f"{inner.where}[{k}]", value) for k, value in enumerate(inner.value)]

    def whole(self, key: str, least: int = 0, most: int = _ANY, default: int | None = None) -> int:
        """Return the whole number of a key, or the default where there is none."""
        if default is not None and isinstance(self.value, dict) and key not in self.value:
            return default
        inner = self.get(key)
        value = inner.value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            limits = f"from {least} to {most}" if most < _ANY else f">= {least}"
            inner.refuse(f"expected a whole number {limits}, got {value!r:.40}")
        return int(value)

    def text(self, key: str) -> str:
        """Return the text of a key, which is not empty."""
        inner = self.get(key)
        if not isinstance(inner.value, str) or not inner.value:
            inner.refuse(f"expected a name, got {inner.value!r:.40}")
        return str(inner.value)

    def numbers(self, key: str, count: int) -> list[float]:
        """Return the numbers that the list of a key holds."""
        inner = self.get(key)
        values = inner.value if isinstance(inner.value, list) else []
        fine = all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < _MOST for one in values)
        if len(values) != count or not fine:
            inner.refuse(f"expected {count} numbers, got {inner.value!r:.60}")
        return [float(one) for one in values]


def read_json(file: Path) -> Any:
    """Return what a file holds; raise UnreadableAnnotation where it is no JSON."""
    content = _contents(file, MOST_JSON)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise UnreadableAnnotation(f"{file}, line {error.lineno}: expected JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise UnreadableAnnotation(f"{file}, line {line}: expected UTF-8: {error.reason}") from error
    except (RecursionError, ValueError) as error:  # brackets without end, a number of thousands of digits
        raise UnreadableAnnotation(f"{file}: expected the JSON of COCO: {error}") from error
