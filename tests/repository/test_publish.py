"""The programs that build book, decks and notebooks: what they refuse, and that they lose nothing."""

import subprocess
import sys

import pytest

from publish.book import build as book
from publish.book.build import BookFailed
from publish.lock import ROOT


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def contents(folder):
    return sorted((p.relative_to(folder).as_posix(), p.read_bytes()) for p in folder.rglob("*") if p.is_file())


def older_book(folder):
    for name in book.MADE_BY_US:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("older", encoding="utf-8")


def stand_in(folder):
    """Lay out a book of one line."""
    (folder / "conf.py").write_text("html_static_path = ['_static']\n", encoding="utf-8")
    (folder / "_static").mkdir()
    (folder / "_static" / "book.css").write_text("", encoding="utf-8")
    (folder / "index.rst").write_text("Book\n====\n\nNew.\n", encoding="utf-8")


def broken(folder):
    stand_in(folder)
    (folder / "index.rst").write_text("Book\n====\n\n:doc:`nowhere`\n", encoding="utf-8")


def test_a_folder_of_others_is_not_emptied(tmp_path, monkeypatch):
    """Oracle: the folder before; refused before any work."""
    monkeypatch.setattr(book, "lay_out", lambda folder: pytest.fail("began to work"))
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("mine", encoding="utf-8")
    (out / "thesis.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(BookFailed, match="it holds files that are no book; name an empty or a new folder"):
        book.build(out)
    with pytest.raises(BookFailed, match="it is not a folder"):
        book.build(out / "thesis.txt")
    assert contents(tmp_path) == before


def test_an_older_book_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    """Oracle: the folder before, when Sphinx complains; no file of the older book and no leftover, when it does not."""
    older_book(tmp_path / "book")
    (tmp_path / "book" / "gone.html").write_text("older", encoding="utf-8")
    before = contents(tmp_path)
    monkeypatch.setattr(book, "lay_out", broken)
    with pytest.raises(BookFailed, match="nowhere"):
        book.build(tmp_path / "book")
    assert contents(tmp_path) == before
    monkeypatch.setattr(book, "lay_out", stand_in)
    assert "New." in book.build(tmp_path / "book").read_text(encoding="utf-8")
    assert not (tmp_path / "book" / "gone.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["book"]
    assert book.build(tmp_path / "book").is_file(), "a book of its own is not recognised"


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_no_jobs_is_a_usage_error(jobs):
    """Oracle: argparse's exit code, and a last line that names what came."""
    done = run("publish.execute", f"--jobs={jobs}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"must be a whole number of at least 1, got {jobs!r}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("# no JSON", "not a notebook"), ("[1]", "not a")]
)
def test_what_is_no_notebook_is_named(tmp_path, content, reason):
    """Oracle: one line on stderr, exit code 1, and no folder made."""
    if content is not None:
        (tmp_path / "a.ipynb").write_text(content, encoding="utf-8")
    done = run("publish.slides.build", str(tmp_path / "a.ipynb"), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot read {tmp_path / 'a.ipynb'}: ")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
