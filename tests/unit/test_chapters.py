"""The book's tables. Oracle: the rules that each table states about itself, and tables written wrongly on purpose."""

import dataclasses

import pytest

from course_lib import chapters
from course_lib.chapters import BookDataError, UnknownChapter, UnknownTerm


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """An empty data folder in place of the real one; every cached table is read afresh before and after."""
    caches = (chapters.all_chapters, chapters.all_terms, chapters._all_samplers)
    monkeypatch.setattr(chapters, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(chapters, "_measured", dict)
    for cached in caches:
        cached.cache_clear()
    yield tmp_path
    for cached in caches:
        cached.cache_clear()


CHAPTER = """
[[chapter]]
number = "00"
slug = "one"
title = "One"
part = "0_orientation"
status = "to come"
hours = 1.0
question = "Why?"
"""


def test_the_book_has_26_chapters_in_order():
    """Oracle: the numbers 00 to 25 written out."""
    assert [c.number for c in chapters.all_chapters()] == [f"{i:02d}" for i in range(26)]
    assert [c.number for c in chapters.all_chapters() if c.written] == [f"{i:02d}" for i in range(13)]


def test_a_chapter_knows_its_file():
    """Oracle: the name in the folder list of the README."""
    three = chapters.chapter("03")
    assert three.path.as_posix() == "1_upsampling/03_bilinear.ipynb"
    assert (three.stem, three.part_title, three.written) == ("03_bilinear", "Upsampling", True)


@pytest.mark.parametrize("number", [c.number for c in chapters.all_chapters() if c.written])
def test_a_written_chapter_is_fully_described(number):
    """Oracle: what a header and an appendix must be able to say."""
    c = chapters.chapter(number)
    assert 3 <= len(c.able_to) <= 5
    assert c.question.endswith("?")
    assert c.read_minutes > 0
    assert c.hours * 60 >= c.read_minutes
    assert c.modules
    assert c.tests
    assert c.syllabus
    for english in c.terms:
        assert chapters.term(english).chinese


def test_rows_of_the_source_notes_are_covered():
    """Oracle: rows C1-C4 of the notes and their error 15 belong to the first five chapters."""
    first = [c for c in chapters.all_chapters() if c.written]
    assert {row for c in first for row in c.syllabus} >= {"C1", "C2", "C3", "C4"}
    assert 15 in {e for c in first for e in c.errors}


def test_sampler_rows_stop_where_asked():
    """Oracle: the order of the chapters."""
    assert [s.name for s in chapters.samplers(through="02")] == ["nearest"]
    assert [s.name for s in chapters.samplers(through="04")] == ["nearest", "bilinear", "bicubic"]
    assert chapters.samplers(through="01") == ()
    assert chapters.samplers()[:3] == chapters.samplers(through="04")


def test_a_term_is_found_in_any_case():
    """Oracle: the glossary line itself."""
    assert chapters.term("BILINEAR").chinese == "双线性插值"
    assert len({t.english for t in chapters.all_terms()}) == len(chapters.all_terms())


def test_entries_are_frozen():
    """Oracle: dataclasses refuse to assign."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        chapters.chapter("00").title = "other"


@pytest.mark.parametrize("number", ["3", "26", "", 3, None])
def test_an_unknown_chapter_says_what_is_known(number):
    """Oracle: the message names what came and the range."""
    with pytest.raises(UnknownChapter, match='"00" to "25"') as caught:
        chapters.chapter(number)
    assert repr(number) in str(caught.value)


def test_an_unknown_term_offers_what_is_near():
    """Oracle: the glossary holds "bilinear"."""
    with pytest.raises(UnknownTerm, match="near it: bilinear"):
        chapters.term("bilinearity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('number = "00"', 'number = "01"'), "without a gap"),
        (('part = "0_orientation"', 'part = "9_other"'), "part must be one of"),
        (('status = "to come"', 'status = "soon"'), "status must be"),
        (('slug = "one"', 'slugg = "one"'), "unknown entry slugg"),
        (('slug = "one"', ""), "missing entry slug"),
        (("hours = 1.0", 'hours = 1.0\nneeds = ["00"]'), "needs must name earlier chapters"),
        (("hours = 1.0", "hours = "), "must be a TOML file"),
        (("[[chapter]]", "[[other]]"), "must be a TOML file"),
    ],
)
def test_a_wrong_table_is_named(tables, change, message):
    """Oracle: one mistake in an otherwise right table."""
    (tables / "chapters.toml").write_text(CHAPTER, encoding="utf-8")
    assert chapters.all_chapters()[0].title == "One"
    chapters.all_chapters.cache_clear()
    (tables / "chapters.toml").write_text(CHAPTER.replace(*change), encoding="utf-8")
    with pytest.raises(BookDataError, match=message):
        chapters.all_chapters()


def test_a_missing_table_is_named(tables):
    """Oracle: an empty folder."""
    with pytest.raises(BookDataError, match=r"glossary\.toml"):
        chapters.all_terms()


def test_measured_times_reach_the_chapter(tables, monkeypatch):
    """Oracle: the two numbers written into the record."""
    (tables / "chapters.toml").write_text(CHAPTER, encoding="utf-8")
    monkeypatch.setattr(chapters, "_measured", lambda: {"00": {"run_seconds": 7, "peak_memory_mb": 300}})
    assert (chapters.chapter("00").run_seconds, chapters.chapter("00").peak_memory_mb) == (7, 300)
