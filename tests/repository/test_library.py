"""Every public name of course_lib is documented and typed. Oracle: Python's own inspection of the imported modules."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

from course_lib.chapters import all_chapters

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(p for p in (ROOT / "course_lib").rglob("*.py") if "_data" not in p.parts)


def public(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and public methods of public classes that a module defines."""
    found: list[tuple[str, ast.FunctionDef | ast.ClassDef]] = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        found.append((node.name, node))
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
            found += [(f"{node.name}.{m.name}", m) for m in methods]
    return found


def overloaded(node: ast.AST) -> bool:
    """An @overload carries types alone."""
    return isinstance(node, ast.FunctionDef) and any("overload" in ast.unparse(d) for d in node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_documented_and_typed(path):
    """A docstring for the module and each public name; a type for each argument and result."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    complaints = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for name, node in public(tree):
        if not ast.get_docstring(node) and not overloaded(node):
            complaints.append(f"{name} has no docstring")
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            complaints += [f"{name}: no type for {a}" for a in bare]
            complaints += [f"{name}: no type for its result"] if node.returns is None else []
    assert complaints == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_module_is_short(path):
    """Modules stay under about 300 lines, functions under about 40 (a third of slack).

    A command's options and its help are its signature and docstring, which have to be long; its body has not.
    """
    text = path.read_text(encoding="utf-8")
    command = "import typer" in text
    lengths = {
        node.name: (node.end_lineno or 0) - (node.body[0].end_lineno if command else node.lineno) + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(text.splitlines()) <= 400
    assert {n: k for n, k in lengths.items() if k > 60} == {}


def test_data_flows_one_way():
    """upsampling imports nothing else of the package; only notebooks and the command import show."""
    for path in MODULES:
        part = path.relative_to(ROOT / "course_lib").parts[0]
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            if name.startswith("course_lib")
        }
        if part == "upsampling":
            assert all(n.startswith("course_lib.upsampling") for n in names), path
        if part not in ("show", "cli", "bench"):
            assert not any(n.startswith("course_lib.show") for n in names), path


@pytest.mark.parametrize("chapter", [c for c in all_chapters() if c.written], ids=lambda c: c.number)
def test_chapter_names_real_files(chapter):
    """The modules and tests that a chapter's metadata names exist."""
    for module in chapter.modules:
        path = ROOT.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    assert [t for t in chapter.tests if not (ROOT / t).exists()] == []


def test_import_is_light():
    """Importing the resampler loads no plotting, widgets or Jupyter: an engineer pays for what is used."""
    import subprocess

    program = "import sys, course_lib.upsampling; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "ipywidgets", "IPython", "jupyterlab", "skimage"} & set(loaded)


def test_inspection_sees_a_missing_docstring():
    """The check above can fail."""
    tree = ast.parse("def f(x):\n    return x\n")
    ((name, node),) = public(tree)
    assert name == "f"
    assert ast.get_docstring(node) is None
    assert node.returns is None
    assert inspect.isclass(ast.FunctionDef)
