"""An engineer who wants `resize` does not load matplotlib or widgets."""

import subprocess
import sys

import pytest

HEAVY = ("matplotlib", "ipywidgets", "anywidget", "IPython", "skimage", "playwright")


@pytest.mark.parametrize("module", ["course_lib.upsampling", "course_lib.plain", "course_lib.exercises"])
def test_what_is_not_shown_loads_nothing_to_show_with(module):
    """Oracle: sys.modules of a fresh interpreter."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
