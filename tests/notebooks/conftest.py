"""The chapters that chapters.toml calls written; a missing one fails the tests that ask for it."""

from pathlib import Path

import nbformat
import pytest

from course_lib.chapters import all_chapters

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WRITTEN = [c for c in all_chapters() if c.written]


@pytest.fixture(params=WRITTEN, ids=lambda c: c.number, scope="session")
def chapter(request):
    """Each written chapter in turn."""
    return request.param


@pytest.fixture(scope="session")
def notebook(chapter):
    """Its executed notebook."""
    path = NOTEBOOKS / chapter.path
    assert path.is_file(), f"{path.name} is missing: make run makes it from {path.with_suffix('.md').name}"
    return nbformat.read(path, 4)
