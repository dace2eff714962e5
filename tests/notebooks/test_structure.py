"""Every chapter keeps every rule. Oracle: the rules in rules.py, each of which test_rules.py sees fail."""

import pytest

from tests.notebooks.conftest import NOTEBOOKS, WRITTEN
from tests.notebooks.rules import RULES


@pytest.mark.parametrize("name", RULES)
def test_rule(name, notebook, chapter):
    """The chapter gives this rule nothing to complain about."""
    complaints = RULES[name](notebook, chapter)
    assert not complaints, "\n".join([RULES[name].__doc__ or "", *complaints])


def test_no_notebook_without_an_entry():
    """Oracle: the files. What lies in notebooks/ is a written chapter of chapters.toml."""
    found = {p.relative_to(NOTEBOOKS) for p in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert found == {c.path for c in WRITTEN}


def test_measured_within_the_budget(chapter):
    """Oracle: the recorded run of the chapter (make measure), against 60 s and 2 GB."""
    assert 0 < chapter.run_seconds <= 60
    assert 0 < chapter.peak_memory_mb <= 2000
