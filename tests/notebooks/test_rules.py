"""Each rule can fail. Oracle: a small chapter that keeps all rules, broken in one place at a time."""

import copy
import dataclasses

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib.chapters import chapter
from publish.execute import KERNEL
from tests.notebooks.rules import BEATS, RULES

THREE = chapter("03")


def _cell(make, source: str, kind: str = "-", *tags: str):
    return make(source, metadata={"slideshow": {"slide_type": kind}, "tags": list(tags)})


def _code(source: str, *tags: str, outputs=(), kind: str = "-"):
    cell = _cell(new_code_cell, source, kind, *tags)
    cell.outputs = list(outputs)
    return cell


@pytest.fixture
def good():
    """A chapter about nothing that keeps every rule."""
    picture = new_output("display_data", {"image/png": "AAAA", "text/plain": "[picture]"})
    picture.metadata = {"image/png": {"alt": "a grey square"}}
    cells = [
        _cell(new_markdown_cell, "# Nothing", "slide"),
        _code('show.chapter("03")'),
        _cell(new_markdown_cell, "Ask the room.", "notes"),
    ]
    for beat in BEATS:
        cells.append(_cell(new_markdown_cell, f"## {beat}\n\n$$ 1 + 1 = 2 $$", "slide", beat))
        if beat == "beat-question":
            cells.append(_code('show.guess("one?", ["yes", "no"], 0, "so")'))
        cells.append(
            _code("print(1 + 1)\nassert 1 + 1 == 2", outputs=[new_output("stream", name="stdout", text="2\n")])
        )
    cells += [
        _code("show.live(f)", "nbval-ignore-output"),
        _code("training.train(recipe)", "nbval-ignore-output"),
        _code("show.frames(f)"),
        _code("show.pictures(p)", outputs=[picture]),
        _code('show.sampler_table("03")'),
        _cell(new_markdown_cell, "## Exercises", "slide", "exercises"),
        *(_code(f'answer = ...\ncheck("03.{i}", answer)', "exercise") for i in (1, 2, 3)),
        _cell(new_markdown_cell, "- a\n- b\n- c\n- d\n- e", "slide", "takeaway"),
        _cell(new_markdown_cell, "## Appendix", "skip", "appendix"),
        _code('show.appendix("03")'),
        *(_cell(new_markdown_cell, "more", "subslide") for _ in range(8)),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    for n, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = n
    return notebook


@pytest.mark.parametrize("name", RULES)
def test_a_good_chapter_keeps(name, good):
    """No complaint about the small chapter."""
    assert RULES[name](good, THREE) == []


def _drop(good, fragment: str) -> None:
    good.cells = [c for c in good.cells if fragment not in c.source]


def _replace(good, old: str, new: str) -> None:
    for cell in good.cells:
        cell.source = cell.source.replace(old, new)


def _first_output(good):
    return next(o for c in good.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")


BREAKS = {
    "two titles": ("has_one_title", lambda nb: _replace(nb, "## Appendix", "# Appendix")),
    "no title": ("has_one_title", lambda nb: _replace(nb, "# Nothing", "Nothing")),
    "beats out of order": ("has_six_beats", lambda nb: nb.cells.reverse()),
    "a beat left out": ("has_six_beats", lambda nb: _drop(nb, "beat-see")),
    "no guess": ("starts_with_header_and_guess", lambda nb: _drop(nb, "show.guess")),
    "another chapter's header": (
        "starts_with_header_and_guess",
        lambda nb: _replace(nb, 'chapter("03")', 'chapter("02")'),
    ),
    "no appendix": ("starts_with_header_and_guess", lambda nb: _drop(nb, "show.appendix")),
    "no sampler table": ("has_its_sampler_row", lambda nb: _drop(nb, "show.sampler_table")),
    "two exercises": ("has_exercises", lambda nb: _drop(nb, '"03.3"')),
    "the same exercise twice": ("has_exercises", lambda nb: _replace(nb, '"03.3"', '"03.2"')),
    "another chapter's exercise": ("has_exercises", lambda nb: _replace(nb, '"03.3"', '"02.3"')),
    "an answered exercise": ("has_exercises", lambda nb: _replace(nb, "answer = ...", "answer = 2")),
    "a solution": ("has_exercises", lambda nb: _replace(nb, "print(1 + 1)", 'solution("03.1")')),
    "four lines": ("has_five_lines_to_remember", lambda nb: _replace(nb, "- e", "")),
    "nothing live": ("has_interactions", lambda nb: _drop(nb, "show.live")),
    "no frames": ("has_interactions", lambda nb: _drop(nb, "show.frames")),
    "a live cell compared": ("has_interactions", lambda nb: _replace(nb, "show.frames(f)", "show.pointer(f)")),
    "a cell not compared": ("has_interactions", lambda nb: _replace(nb, "show.live(f)", "print(3)")),
    "a long cell": ("has_short_cells", lambda nb: _replace(nb, "print(1 + 1)", "print(1)\n" * 25)),
    "few cells": ("has_short_cells", lambda nb: nb.cells.__delitem__(slice(20, None))),
    "many cells": ("has_short_cells", lambda nb: nb.cells.extend(nb.cells)),
    "a formula nobody checks": ("asserts_its_formulas", lambda nb: _replace(nb, "assert 1", "# 1")),
    "few slides": ("has_a_lecture_of_slides", lambda nb: _drop(nb, "more")),
    "no notes": ("has_a_lecture_of_slides", lambda nb: _drop(nb, "Ask the room")),
    "an unknown slide type": (
        "has_a_lecture_of_slides",
        lambda nb: nb.cells[-1].metadata["slideshow"].update(slide_type="slid"),
    ),
    "run out of order": ("was_run_in_order", lambda nb: nb.cells[1].update(execution_count=7)),
    "stderr": ("was_run_in_order", lambda nb: _first_output(nb).update(name="stderr")),
    "an error": (
        "was_run_in_order",
        lambda nb: nb.cells[1].outputs.append(new_output("error", ename="E", evalue="v", traceback=[])),
    ),
    "a path": ("stores_clean_outputs", lambda nb: _first_output(nb).update(text="in /home/me/x.py")),
    "an address": ("stores_clean_outputs", lambda nb: _first_output(nb).update(text="<f at 0x7f00aa11bb22>")),
    "a warning": ("stores_clean_outputs", lambda nb: _first_output(nb).update(text="UserWarning: old")),
    "a progress bar": ("stores_clean_outputs", lambda nb: _first_output(nb).update(text=" 30%|###   | 3/10")),
    "more metadata": ("stores_clean_outputs", lambda nb: nb.metadata.update(widgets={})),
    "a stored widget": (
        "stores_clean_outputs",
        lambda nb: nb.cells[1].outputs.append(
            new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
        ),
    ),
    "a picture without words": (
        "describes_its_pictures",
        lambda nb: nb.cells[1].outputs.append(new_output("display_data", {"image/png": "AAAA"})),
    ),
    "an <img> without words": (
        "describes_its_pictures",
        lambda nb: nb.cells[1].outputs.append(new_output("display_data", {"text/html": '<img src="x">'})),
    ),
    "past show": ("describes_its_pictures", lambda nb: _replace(nb, "show.frames(f)", "plt.show()")),
    "a heavy cell": ("is_light", lambda nb: _first_output(nb).update(text="x" * 600_000)),
    "cuda": ("runs_everywhere", lambda nb: _replace(nb, "print(1 + 1)", "x.cuda()")),
    "a semicolon": ("runs_everywhere", lambda nb: _replace(nb, "print(1 + 1)", "plt.plot(x);")),
    "a path in code": ("runs_everywhere", lambda nb: _replace(nb, "print(1 + 1)", 'open("/home/me/x")')),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_chapter_is_seen(name, good):
    """The rule complains about the broken copy."""
    rule, break_it = BREAKS[name]
    broken = copy.deepcopy(good)
    break_it(broken)
    assert RULES[rule](broken, dataclasses.replace(THREE)) != []


def test_every_rule_is_broken_once():
    """No rule without a failing example."""
    assert {rule for rule, _ in BREAKS.values()} == set(RULES)
