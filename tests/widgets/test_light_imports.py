"""An engineer who wants `resize` does not load matplotlib or widgets."""

import subprocess
import sys

import pytest

HEAVY = ("matplotlib", "ipywidgets", "anywidget", "IPython", "skimage", "playwright")


@pytest.mark.parametrize(
    "module", ["course_lib.upsampling", "course_lib.plain", "course_lib.super_resolution", "course_lib.exercises"]
)
def test_what_is_not_shown_loads_nothing_to_show_with(module):
    """Oracle: sys.modules of a fresh interpreter."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("missing", ["matplotlib", "ipywidgets", "anywidget", "IPython"])
def test_without_the_extra_the_import_says_what_to_install(missing):
    """Oracle: the last line that a fresh interpreter without the package prints."""
    code = f"import sys; sys.modules[{missing!r}] = None; import course_lib.show"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    wanted = f"ModuleNotFoundError: course_lib.show needs {missing}: pip install course_lib[book]"
    assert done.stderr.splitlines()[-1] == wanted


def test_another_missing_package_is_not_blamed_on_the_extra():
    """Oracle: torch is no part of the extra; its own error stays."""
    code = "import sys; sys.modules['torch'] = None; import course_lib.show"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "torch" in done.stderr.splitlines()[-1]
    assert "book" not in done.stderr.splitlines()[-1]
