"""Header, map, sampler table and appendix: what the book's tables say, in Markdown that parses."""

import pytest
from markdown_it import MarkdownIt

from course_lib import chapters, show

ALL = [c.number for c in chapters.all_chapters()]


def tables(markdown):
    """Rows of all tables, as lists of cell texts."""
    rows, row = [], None
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    for token in tokens:
        if token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            rows.append(row)
            row = None
        elif token.type == "inline" and row is not None:
            row.append(token.content)
    return rows


@pytest.mark.parametrize("number", ALL)
def test_the_header_says_what_the_table_says(number):
    """Oracle: data/chapters.toml."""
    about, text = chapters.chapter(number), show.chapter(number).content
    assert f"**The question.** {about.question}" in text
    assert all(f"- {ability}" in text for ability in about.able_to)
    assert all(chapters.chapter(n).title in text for n in about.needs)
    assert f"{about.read_minutes} minutes" in text
    assert ("seconds to run" in text) == (about.run_seconds > 0)
    assert ("MB of memory" in text) == (about.peak_memory_mb > 0)


def test_the_sampler_table_answers_five_questions_in_each_row():
    """Oracle: one row per sampler, each of six cells (the name and five answers)."""
    rows = tables(show.sampler_table().content)
    assert all(len(row) == 6 for row in rows)
    assert [row[0] for row in rows[1:]] == [f"**{s.name}** ({s.chapter})" for s in chapters.samplers()]
    assert len(tables(show.sampler_table("03").content)) - 1 == len(chapters.samplers("03")) < len(rows) - 1


def test_the_map_holds_every_chapter_and_marks_those_to_come():
    """Oracle: data/chapters.toml; written chapters are linked, those to come are not."""
    rows = {row[0]: row for row in tables(show.book_map().content) if row[0]}
    assert sorted(rows) == ALL
    for about in chapters.all_chapters():
        assert rows[about.number][2] == about.question
        assert ("*(to come)*" in rows[about.number][1]) != about.written
        assert (about.path.name in rows[about.number][1]) == about.written
    hours = sum(float(row[3]) for row in rows.values())
    assert hours == pytest.approx(sum(c.hours for c in chapters.all_chapters()))


@pytest.mark.parametrize("number", ALL)
def test_the_appendix_holds_sources_modules_tests_and_terms(number):
    """Oracle: data/chapters.toml and data/glossary.toml."""
    about, text = chapters.chapter(number), show.appendix(number).content
    cells = {cell for row in tables(text) for cell in row}
    assert all(r.text in cells for r in about.references)
    assert all(f"`{name}`" in text for name in (*about.modules, *about.tests))
    assert all(chapters.term(name).chinese in cells for name in about.terms)


def test_plain_text_is_the_markdown():
    """Oracle: no front end shows an address."""
    bundle = show.book_map()._repr_mimebundle_()
    assert bundle["text/plain"] == bundle["text/markdown"]


@pytest.mark.parametrize("make", [show.chapter, show.appendix, show.sampler_table])
def test_a_chapter_that_is_none_is_refused(make):
    """Oracle: the message lists the range."""
    with pytest.raises(chapters.UnknownChapter, match='"00" to'):
        make("3")
