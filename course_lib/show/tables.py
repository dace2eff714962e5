"""What a chapter says about itself, made from the book's tables: header, map, sampler table, appendix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from course_lib import chapters

from .blocks import Block, markdown


def chapter(number: str) -> Block:
    """The header of a chapter ("03"): its question, what the reader will be able to do, what it needs, time, memory.

    Raises chapters.UnknownChapter for another number.
    """
    about = chapters.chapter(number)
    needs = ", ".join(_link(chapters.chapter(n)) for n in about.needs) or "nothing but Python"
    parts = [
        f"**The question.** {about.question}",
        "**You will be able to**",
        "\n".join(f"- {ability}" for ability in about.able_to),
        f"**You need** {needs}. **It takes** {_effort(about)}.",
    ]
    return markdown("\n\n".join(parts))


def sampler_table(through: str | None = None) -> Block:
    """The table that holds the book together: five questions, answered by each sampler up to chapter `through`.

    Raises chapters.UnknownChapter for a number that is none.
    """
    head = [
        "sampler", "where does an output look?", "who chose the places?", "who chose the weights?", "how many reads?",
        "cost per output value",
    ]  # fmt: skip
    rows = [
        [f"**{s.name}** ({s.chapter})", s.where, s.places, s.weights, s.reads, s.cost]
        for s in chapters.samplers(through)
    ]
    return markdown(_table(head, rows))


def book_map() -> Block:
    """Every chapter of the book with its question and hours; chapters to come are marked so."""
    parts = []
    for title, group in groupby(chapters.all_chapters(), key=lambda c: c.part_title):
        members = list(group)
        rows = [[c.number, _title(c), c.question, f"{c.hours:g}"] for c in members]
        hours = sum(c.hours for c in members)
        parts.append(
            f"**{title}**, {hours:g} {'hour' if hours == 1 else 'hours'}\n\n"
            + _table(["", "chapter", "its question", "hours"], rows)
        )
    return markdown("\n\n".join(parts))


def appendix(number: str) -> Block:
    """The appendix of a chapter: sources with equation numbers, official code, modules and tests, terms.

    Raises chapters.UnknownChapter for another number, chapters.UnknownTerm for a term that the glossary lacks.
    """
    about = chapters.chapter(number)
    parts = []
    if about.references:
        sources = [[r.text, r.equations or "-", r.code or "-"] for r in about.references]
        parts.append("**Sources**\n\n" + _table(["source", "equations used", "code"], sources))
    if about.modules:
        parts.append(f"**Modules** {_codes(about.modules)}")
    if about.tests:
        parts.append(f"**Tests** {_codes(about.tests)}")
    if about.terms:
        entries = [chapters.term(name) for name in about.terms]
        terms = [[t.english, t.chinese, t.definition + (f" ({t.note})" if t.note else "")] for t in entries]
        parts.append("**Terms**\n\n" + _table(["English", "中文", "meaning"], terms))
    return markdown("\n\n".join(parts))


def _effort(about: chapters.Chapter) -> str:
    parts = [f"about {about.read_minutes} minutes to read"]
    if about.run_seconds:
        parts.append(f"{about.run_seconds} seconds to run")
    if about.peak_memory_mb:
        parts.append(f"{about.peak_memory_mb} MB of memory at most")
    return ", ".join(parts)


def _link(about: chapters.Chapter) -> str:
    name = f"{about.number} {about.title}"
    return f"[{name}](../{about.path.as_posix()})" if about.written else name


def _title(about: chapters.Chapter) -> str:
    return f"[{about.title}](../{about.path.as_posix()})" if about.written else f"{about.title} *(to come)*"


def _codes(names: Iterable[str]) -> str:
    return " · ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), _row([":--"] * len(head)), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
