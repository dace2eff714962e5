"""A chapter's .md and .ipynb say the same. Oracle: the cells themselves, compared by content, never by file times."""

import copy

import nbformat
import pytest

from publish.execute import notebook_from_text
from tests.notebooks.conftest import NOTEBOOKS


def flat(notebook: nbformat.NotebookNode) -> list[tuple]:
    """What must agree: kind, source, tags and slide type of each cell."""
    return [
        (c.cell_type, c.source.rstrip(), c.metadata.get("tags", []), c.metadata.get("slideshow", {}).get("slide_type"))
        for c in notebook.cells
    ]


def difference(text: nbformat.NotebookNode, run: nbformat.NotebookNode) -> str:
    """The first cell that differs, or ""."""
    for i, (a, b) in enumerate(zip(flat(text), flat(run), strict=False)):
        if a != b:
            return f"cell {i + 1} differs:\n{a}\n{b}"
    return "" if len(text.cells) == len(run.cells) else f"{len(text.cells)} cells in .md, {len(run.cells)} in .ipynb"


def test_text_and_notebook_agree(chapter, notebook):
    """Cells, tags and slides are equal, and so are the ids that `make run` derives."""
    text = notebook_from_text(NOTEBOOKS / chapter.path.with_suffix(".md"))
    assert not difference(text, notebook), f"edit {chapter.stem}.md, then: make run"
    assert [c.id for c in text.cells] == [c.id for c in notebook.cells]


@pytest.mark.parametrize("what", ["source", "tags", "slide", "missing"])
def test_drift_is_seen(what, notebook):
    """Each kind of drift is found in a copy that was changed on purpose."""
    other = copy.deepcopy(notebook)
    if what == "source":
        other.cells[3].source += " x"
    elif what == "tags":
        other.cells[3].metadata["tags"] = ["other"]
    elif what == "slide":
        other.cells[3].metadata["slideshow"] = {"slide_type": "other"}
    else:
        other.cells.pop()
    assert difference(notebook, other)


def test_ids_depend_on_content_alone(tmp_path):
    """Oracle: two readings of one text. Equal cells still get different ids; a new cell leaves the other ids alone."""
    head = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n"
    text = head + "\none\n\n+++\n\ntwo\n\n+++\n\none\n"
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    (tmp_path / "b.md").write_text(text.replace("two\n", "new\n\n+++\n\ntwo\n"), encoding="utf-8")
    first, again = (notebook_from_text(tmp_path / "a.md") for _ in range(2))
    ids = [c.id for c in first.cells]
    assert ids == [c.id for c in again.cells]
    assert len(set(ids)) == 3
    longer = [c.id for c in notebook_from_text(tmp_path / "b.md").cells]
    assert [i for i in longer if i in ids] == ids
    assert len(longer) == 4
