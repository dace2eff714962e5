"""The book's own tables: its chapters, the samplers they add, and its terms (data/*.toml, read once)."""

import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from course_lib import measurements
from course_lib.files import data_dir

__all__ = [
    "BookDataError",
    "Chapter",
    "Reference",
    "Sampler",
    "Term",
    "UnknownChapter",
    "UnknownTerm",
    "all_chapters",
    "all_terms",
    "chapter",
    "samplers",
    "term",
]

PARTS = {
    "0_orientation": "Orientation",
    "1_upsampling": "Upsampling",
    "2_super_resolution": "Super-resolution",
    "3_detection": "Detection",
}


class BookDataError(ValueError):
    """One of the tables in data/ has a missing, unknown or impossible entry."""


class UnknownChapter(LookupError):
    """No chapter has the asked number."""


class UnknownTerm(LookupError):
    """The glossary has no such term."""


@dataclass(frozen=True)
class Reference:
    """A source of a chapter; `equations` names the equations used, `code` the official or closest code ("" if none)."""

    key: str
    text: str
    equations: str = ""
    code: str = ""


@dataclass(frozen=True)
class Chapter:
    """What the book knows about one chapter before anyone opens it.

    `hours` is study time with exercises, `read_minutes` reading alone; `run_seconds` and `peak_memory_mb` are measured
    (0 = not measured yet); `syllabus` and `errors` are the rows and the mistakes of the source notes that it treats.
    """

    number: str
    slug: str
    title: str
    part: str
    status: str
    hours: float
    question: str
    able_to: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    read_minutes: int = 0
    run_seconds: int = 0
    peak_memory_mb: int = 0
    syllabus: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    references: tuple[Reference, ...] = ()
    modules: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()

    @property
    def written(self) -> bool:
        """True once the chapter can be opened and run."""
        return self.status == "written"

    @property
    def stem(self) -> str:
        """File name without its suffix, such as "03_bilinear"."""
        return f"{self.number}_{self.slug}"

    @property
    def path(self) -> Path:
        """Notebook, relative to the folder `notebooks`, such as 1_upsampling/03_bilinear.ipynb."""
        return Path(self.part, f"{self.stem}.ipynb")

    @property
    def part_title(self) -> str:
        """Title of the part it belongs to, such as "Upsampling"."""
        return PARTS[self.part]


@dataclass(frozen=True)
class Sampler:
    """One row of the sampler table: five questions, answered by one technique of one chapter."""

    name: str
    chapter: str
    where: str
    places: str
    weights: str
    reads: str
    cost: str


@dataclass(frozen=True)
class Term:
    """A term in English and Chinese, defined in one line; `note` says where the source notes use another word."""

    english: str
    chinese: str
    definition: str
    note: str = ""


def chapter(number: str) -> Chapter:
    """Return the chapter with a two-digit number such as "03". Raises UnknownChapter."""
    for found in all_chapters():
        if found.number == number:
            return found
    known = all_chapters()
    raise UnknownChapter(f'number must be "{known[0].number}" to "{known[-1].number}" (two digits), got {number!r}')


@cache
def all_chapters() -> tuple[Chapter, ...]:
    """Return every chapter of the book in order, those to come included. Raises BookDataError."""
    measured = _measured()
    found = []
    for row in _rows("chapters.toml", "chapter"):
        where = f"chapters.toml, chapter {row.get('number', '?')}"
        references = tuple(_build(Reference, r, where) for r in row.pop("reference", ()))
        times = measured.get(row.get("number", ""), {})
        row |= {name: times[name] for name in ("run_seconds", "peak_memory_mb") if name in times}
        found.append(_build(Chapter, row | {"references": references}, where))
    _check(found)
    return tuple(found)


def samplers(through: str | None = None) -> tuple[Sampler, ...]:
    """Return the rows of the sampler table, up to and with those of chapter `through`. Raises UnknownChapter."""
    last = chapter(through).number if through is not None else "99"
    return tuple(s for s in _all_samplers() if s.chapter <= last)


def term(english: str) -> Term:
    """Return the glossary's entry for an English term, in any letter case. Raises UnknownTerm."""
    for found in all_terms():
        if found.english.lower() == english.lower():
            return found
    near = [t.english for t in all_terms() if english.lower()[:5] in t.english.lower()]
    hint = f"; near it: {', '.join(near[:4])}" if near else ""
    raise UnknownTerm(f"english must be a term of data/glossary.toml, got {english!r}{hint}")


@cache
def all_terms() -> tuple[Term, ...]:
    """Return the whole glossary, in the order of the book. Raises BookDataError."""
    rows = _rows("glossary.toml", "term")
    return tuple(_build(Term, row, f"glossary.toml, {row.get('english', '?')}") for row in rows)


@cache
def _all_samplers() -> tuple[Sampler, ...]:
    rows = _rows("samplers.toml", "sampler")
    return tuple(_build(Sampler, row, f"samplers.toml, {row.get('name', '?')}") for row in rows)


def _rows(file: str, table: str) -> list[dict[str, Any]]:
    path = data_dir() / file
    try:
        with path.open("rb") as stream:
            rows = tomllib.load(stream)[table]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise BookDataError(f"{path} must be a TOML file with [[{table}]] tables: {error}") from error
    return [dict(row) for row in rows]


def _measured() -> dict[str, dict[str, int]]:
    """Seconds and megabytes of each chapter, as `make measure` recorded them (none: not measured)."""
    try:
        return dict(measurements.read("chapters")["values"])
    except measurements.MeasurementMissing:
        return {}


def _build(kind: type, row: dict[str, Any], where: str) -> Any:
    known = {f.name for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING}
    if unknown := row.keys() - known:
        raise BookDataError(
            f"{where}: unknown entry {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    if missing := required - row.keys():
        raise BookDataError(f"{where}: missing entry {', '.join(sorted(missing))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})


def _check(chapters: list[Chapter]) -> None:
    numbers = [c.number for c in chapters]
    if numbers != [f"{i:02d}" for i in range(len(numbers))]:
        raise BookDataError(f"chapters.toml: numbers must run 00, 01, 02 ... without a gap, got {numbers}")
    for c in chapters:
        where = f"chapters.toml, chapter {c.number}"
        if c.part not in PARTS:
            raise BookDataError(f"{where}: part must be one of {', '.join(PARTS)}, got {c.part!r}")
        if c.status not in ("written", "to come"):
            raise BookDataError(f'{where}: status must be "written" or "to come", got {c.status!r}')
        if late := [n for n in c.needs if n not in numbers or n >= c.number]:
            raise BookDataError(f"{where}: needs must name earlier chapters, got {', '.join(late)}")
