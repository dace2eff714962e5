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
